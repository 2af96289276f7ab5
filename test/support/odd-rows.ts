// Rows of random events as handlers write them: with values that JSON has no form for, and in one object that is used again and again.

/** An object that every call of every handler gives again, with other values: what was given counts as it was at the end of its handler. */
const reused: Record<string, unknown> = {}
export const reuse = (row: object) => {
  for (const column of Object.keys(reused)) delete reused[column]
  return Object.assign(reused, row)
}

const spellings = new Map<unknown, unknown>([
  ["#NaN", NaN],
  ["#Infinity", Infinity],
  ["#-Infinity", -Infinity],
  ["#undefined", undefined]
])
/** A row with the values that JSON has no form for. */
export const spelled = (row: Readonly<Record<string, unknown>>) =>
  Object.fromEntries(
    Object.entries(row).map(([column, value]) => [column, spellings.has(value) ? spellings.get(value) : value])
  )
