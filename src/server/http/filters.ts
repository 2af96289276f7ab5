// What filters in query parameters have in common, whether they are of views' columns or of streams' values. Pure.
import { Problem } from "./problem.ts"

/** How a value is compared, as in `amount.gte=5`. */
export const operators = ["eq", "ne", "gt", "gte", "lt", "lte", "in", "prefix", "null"] as const
export type Operator = (typeof operators)[number]
/** How many filters a request may have, and how many values `in` may have. */
export const mostFilters = 50
const mostValues = 500

/** The problem of a parameter that cannot be read. */
export const invalidParameter = (message: string, advice: string): Problem =>
  new Problem(400, "invalid_parameter", message, advice)

/** The values of `in`: separated by commas, or a JSON array of texts, which may have commas. Throws a `Problem` 400 for none, or too many. */
export const valuesOfIn = (parameter: string, text: string): ReadonlyArray<string> => {
  let list: ReadonlyArray<unknown> = text.split(",")
  if (text.startsWith("[")) {
    try {
      list = JSON.parse(text) as ReadonlyArray<unknown>
    } catch {
      list = []
    }
  }
  const texts = list.filter((one) => typeof one === "string")
  if (texts.length === list.length && list.length > 0 && list.length <= mostValues) return texts
  if (list.length > mostValues)
    throw invalidParameter(
      `the parameter ${parameter} has ${list.length} values; it may have ${mostValues}`,
      "ask for fewer at once, in several requests"
    )
  throw invalidParameter(
    `the parameter ${parameter} has no list of values`,
    `use 1 to ${mostValues} values with commas between, or a JSON array of texts`
  )
}
