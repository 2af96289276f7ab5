// Columns and contributions at which a random application fails, or may fail.

/** Columns that PostgreSQL refuses, or takes as something else. What JSON has no form for is written as a text, see `spelled`. */
export const oddColumns: ReadonlyArray<Readonly<Record<string, unknown>>> = [
  { real: "#NaN" },
  { real: "#Infinity" },
  { real: "#undefined" },
  { real: "one" },
  { real: "0.5" },
  { select: 1.5 },
  { select: 2 ** 60 },
  { select: "7" },
  { select: true },
  { text: "a\u0000b" },
  { text: "half \ud83d" },
  { text: 5 },
  { flag: "#undefined" },
  { flag: null },
  { flag: "maybe" },
  { flag: 1 },
  { at: 1e16 },
  { at: -3e14 },
  { json: { list: ["\u0000"], none: null } },
  { json: { list: ["\ude00"], none: null } },
  { json: { list: 5, none: null } },
  { json: { list: [[["too", "deep"]]], none: null } },
  { group: null },
  { group: "0" },
  { group: 0.5 }
]
/** Contributions to windows. The first four are refused before the store sees them. */
export const oddContributions: ReadonlyArray<Readonly<Record<string, unknown>>> = [
  { total: "#NaN" },
  { total: "#undefined" },
  { high: "#-Infinity" },
  { tag: "\u0000" },
  { total: 1.7e308 },
  { n: 1.5 },
  { n: 2 ** 60 },
  { n: 2 ** 52 },
  { n: -(2 ** 52) },
  { n: 0.5 },
  { total: -1.7e308 },
  { total: -0, low: -0, high: -0 },
  { low: true },
  { high: "5" },
  { tag: null },
  { names: 5 }
]
