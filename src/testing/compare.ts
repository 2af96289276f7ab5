// Compares what a specification expects with what it found.
import * as Equal from "effect/Equal"
import type { Row } from "../model/recorder.ts"

/** Whether a row has the expected columns; others are not compared. */
export const matches = (actual: any, expected: any) =>
  Object.entries(expected).every(([column, value]) => Equal.equals(actual?.[column], value))

/** Throws an error that shows both if rows differ from those expected. Columns that are left out are not compared. */
export const same = (
  name: string,
  actual: ReadonlyArray<Row>,
  expected: ReadonlyArray<Row>,
  ordered: boolean,
  options?: ErrorOptions
) => {
  const fits = ordered ? expected.every((row, i) => matches(actual[i], row)) : pairUp(actual, expected)
  if (fits && actual.length === expected.length) return
  const value = (_: string, inner: unknown) => (typeof inner === "bigint" ? `${inner}n` : inner)
  const text = (rows: ReadonlyArray<Row>) =>
    rows.map((row) => `\n    ${JSON.stringify(row, value)}`).join("") || "\n    nothing"
  const message = `${name}\n  expected${text(expected)}\n  was${text(actual)}`
  // test runners draw a diff from `actual` and `expected`
  throw Object.assign(new Error(message, options), { actual, expected })
}
/** Whether each expected row has an actual one to itself. One that took another's only choice gives way, if it has a second. */
const pairUp = (actual: ReadonlyArray<Row>, expected: ReadonlyArray<Row>): boolean => {
  const taken = new Map<number, Row>()
  const place = (row: Row, tried: Set<number>): boolean =>
    actual.some((candidate, i) => {
      if (tried.has(i) || !matches(candidate, row)) return false
      tried.add(i)
      const other = taken.get(i)
      if (other !== undefined && !place(other, tried)) return false
      taken.set(i, row)
      return true
    })
  return expected.every((row) => place(row, new Set()))
}
