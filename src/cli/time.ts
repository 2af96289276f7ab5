// Reads durations from flags, such as `--timeout 5s`.
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type CommandFailed, usageError } from "./command-failure.ts"

const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000 }
/** The milliseconds of a duration above 0, such as `500ms`, `5s`, `2m`, `1h` or `2 minutes`. `flag`: where it was given. */
export const parseDuration = (text: string, flag: string): Effect.Effect<number, CommandFailed> => {
  const short = /^(\d+(?:\.\d+)?)(ms|s|m|min|h|d)$/.exec(text.trim())
  const ms =
    short === null
      ? Option.match(Duration.fromInput(text as Duration.Input), { onNone: () => NaN, onSome: Duration.toMillis })
      : Number(short[1]) * units[short[2]!]!
  return ms > 0 && Number.isFinite(ms)
    ? Effect.succeed(ms)
    : Effect.fail(
        usageError(`${flag} is '${text}'; it must be a duration above 0`, `${flag} 5s, or ${flag} "2 minutes"`)
      )
}
