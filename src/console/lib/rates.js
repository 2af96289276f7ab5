// Rates of counters that only grow: what comes in, is processed and goes out, a second.
import { useRef } from "./html.js"

/** How many points a series keeps: four minutes at one in two seconds. */
const kept = 120
/** Two readings of a counter are at least this far apart, in milliseconds. */
const leastMs = 400

/**
 * Series of rates from counters that are read again and again: `{ times, series: { name: values }, last: { name: rate } }`. `readings` are counters
 * that were read together: `{ at, counters: { name: number } }`, undefined before the first. A point of the series is added for each new reading of the
 * first of them, and `last` has the newest rates. A counter that became smaller, as that of a topic that was created again, has no rate at that point.
 */
export const useRates = (readings) => {
  const state = useRef({ before: [], last: {}, times: [], series: {} })
  const one = state.current
  readings.forEach((reading, i) => {
    const before = one.before[i]
    if (reading === undefined || (before !== undefined && reading.at - before.at < leastMs)) return
    one.before[i] = reading
    if (before === undefined) return
    const seconds = (reading.at - before.at) / 1_000
    for (const [name, value] of Object.entries(reading.counters)) {
      const was = before.counters[name]
      one.last = { ...one.last, [name]: was === undefined || value < was ? undefined : (value - was) / seconds }
    }
    if (i > 0) return
    const names = new Set([...Object.keys(one.series), ...Object.keys(one.last)])
    one.series = Object.fromEntries(
      [...names].map((name) => [
        name,
        [...(one.series[name] ?? one.times.map(() => null)), one.last[name] ?? null].slice(-kept)
      ])
    )
    one.times = [...one.times, reading.at].slice(-kept)
  })
  return one
}
