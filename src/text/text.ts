// What text may hold on its way out, and how any value is shown in a message. Pure.

/** Whether PostgreSQL, JSON and UTF-8 can hold the text: it has no NUL and no unpaired surrogate, which bytes that are not UTF-8 become. */
export const isStorable = (text: string): boolean => !text.includes("\u0000") && text.isWellFormed()

/** The text itself if PostgreSQL can store it; otherwise its JSON, where escapes stand for what it cannot. */
export const storable = (text: string): string => (isStorable(text) ? text : JSON.stringify(text))

const mostShown = 60
/** Any value for an error message: its JSON, cut after 60 characters. Never throws. */
export const shown = (value: unknown): string => {
  const text = textFor(value)
  return text.length > mostShown ? `${text.slice(0, mostShown).toWellFormed()}…` : text
}
const textFor = (value: unknown): string => {
  try {
    if (typeof value === "number" || typeof value === "bigint") return String(value)
    return JSON.stringify(value) ?? String(value)
  } catch {
    return `a value of type ${typeof value}`
  }
}
