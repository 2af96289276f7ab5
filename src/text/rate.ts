// Texts about how much is done, how fast, and how long it still takes. Pure.
import { countedLarge, grouped } from "./counted.ts"

/** An estimated duration in seconds, for people: `45 s`, `5 min`, `1.5 h`. */
export const estimate = (seconds: number): string =>
  seconds < 90
    ? `${Math.ceil(seconds)} s`
    : seconds < 5_400
      ? `${Math.round(seconds / 60)} min`
      : `${(seconds / 3_600).toFixed(1)} h`

/** How much is left of something that is as far as `fraction` (0 to 1) after some seconds, in seconds; undefined at the beginning. */
export const secondsLeft = (fraction: number, seconds: number): number | undefined =>
  fraction > 0 && fraction <= 1 ? (seconds * (1 - fraction)) / fraction : undefined

/** `1,200 events, 400 a second, about 9 s left`. `fraction`: what is done of the total; undefined if that is not known. */
export const rateText = (done: number, noun: string, seconds: number, fraction: number | undefined): string => {
  const left = fraction === undefined ? undefined : secondsLeft(fraction, seconds)
  const perSecond = seconds > 0 ? `, ${grouped(done / seconds)} a second` : ""
  return countedLarge(done, noun) + perSecond + (left === undefined ? "" : `, about ${estimate(left)} left`)
}
