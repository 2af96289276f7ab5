// Rows of windows as lines over time: one for each key, with a gap where a key has no window. Pure.

/** How many windows that nobody has are put between two rows at most, so that a line has a gap there. */
const mostSteps = 2_000

/** A number of a row, which is an exact one where JavaScript would change it; null if it has none. */
const numberOf = (value) => {
  if (value === null || value === undefined) return null
  const number = Number(value.text ?? value)
  return Number.isFinite(number) ? number : null
}
/** The starts of all rows in order, and those of windows between them that no row has: `everyMs` apart, if that is known. */
const startsOf = (starts, everyMs) => {
  const known = [...new Set(starts)].filter((at) => !Number.isNaN(at)).toSorted((a, b) => a - b)
  if (known.length < 2 || !everyMs || (known.at(-1) - known[0]) / everyMs > mostSteps) return known
  const all = new Set(known)
  for (let at = known[0]; at < known.at(-1); at += everyMs) all.add(at)
  return [...all].toSorted((a, b) => a - b)
}
/** `{ times, values }` of a column: the values of each of `groups` (arrays of rows) at the starts of all. */
export const linesOf = (groups, { column, everyMs, start }) => {
  const times = startsOf(
    groups.flatMap((rows) => rows.map((row) => Date.parse(row[start]))),
    everyMs
  )
  return {
    times,
    values: groups.map((rows) => {
      const at = new Map(rows.map((row) => [Date.parse(row[start]), numberOf(row[column])]))
      return times.map((time) => at.get(time) ?? null)
    })
  }
}
/**
 * Whether a window takes events no longer: `closed`, `open`, or `closing` while some partitions have passed its end. `streamTimes` are those of the
 * partitions that have one; undefined if that or the window's length is not known.
 */
export const stateOf = (startMs, { graceMs, sizeMs, streamTimes }) => {
  if (!sizeMs || streamTimes === undefined || streamTimes.length === 0) return undefined
  const end = startMs + sizeMs + graceMs
  if (streamTimes.every((time) => time >= end)) return "closed"
  return streamTimes.some((time) => time >= end) ? "closing" : "open"
}
