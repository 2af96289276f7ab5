// Rates of counters that only grow: what comes in, is processed and goes out, a second.
import { useRef } from "./html.js"

/** How many points a series keeps: four minutes at one in two seconds. */
const kept = 120

/**
 * Series of rates from counters that are read again and again: `{ times, series: { name: values } }`, a point for each reading. `reading` is what the
 * counters are of: a new object for each reading, undefined before the first. A counter that became smaller, as that of a topic that was created again,
 * has no rate at that point.
 */
export const useRates = (reading, counters) => {
  const state = useRef({ reading: undefined, last: undefined, times: [], series: {} })
  const { last, reading: seen, series, times } = state.current
  if (reading === undefined || reading === seen || counters === undefined) return state.current
  const at = Date.now()
  const next = { reading, last: { at, counters }, times, series }
  if (last !== undefined) {
    const seconds = (at - last.at) / 1_000
    next.times = [...times, at].slice(-kept)
    next.series = Object.fromEntries(
      Object.entries(counters).map(([name, value]) => {
        const before = last.counters[name]
        const rate = before === undefined || value < before ? null : (value - before) / seconds
        return [name, [...(series[name] ?? times.map(() => null)), rate].slice(-kept)]
      })
    )
  }
  state.current = next
  return next
}
/** The last value of a series; undefined if it has no value. */
export const lastOf = (values) => values?.at(-1) ?? undefined
