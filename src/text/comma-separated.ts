// Names in a text that commas separate. Pure.

/** The names, without the blanks around them; empty ones are left out. */
export const commaSeparated = (text: string): ReadonlyArray<string> =>
  text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "")
