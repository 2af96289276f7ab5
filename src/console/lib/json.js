// JSON without losing digits, and what values of it are. Pure.

/** A number that JavaScript cannot hold, as the text that it has in JSON. */
export class ExactNumber {
  constructor(text) {
    this.text = text
  }
  toString() {
    return this.text
  }
  toJSON() {
    return typeof JSON.rawJSON === "function" ? JSON.rawJSON(this.text) : this.text
  }
}
const isExact = (number, text) =>
  String(number) === text || Number(text).toString() === text || /^-?\d{1,15}(\.\d{1,15})?$/.test(text)
/** Parses JSON without losing digits: a number that would change becomes an `ExactNumber`. */
export const parseJson = (text) =>
  JSON.parse(text, (_key, value, context) =>
    typeof value === "number" && context?.source !== undefined && !isExact(value, context.source)
      ? new ExactNumber(context.source)
      : value
  )
/** Whether a parsed value is a number, also one that JavaScript cannot hold. */
export const isNumeric = (value) => typeof value === "number" || value instanceof ExactNumber
/** Whether a parsed value is an object or an array. */
export const isNested = (value) => typeof value === "object" && value !== null && !(value instanceof ExactNumber)
/** Whether two parsed values are the same. */
export const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)
