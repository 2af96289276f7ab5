// Reads the key of a row from the arguments of a command. Pure.
import { dateOf } from "../text/moment.ts"
import type { Column, Relation } from "../model/columns.ts"
import type { Row } from "../model/recorder.ts"
import { adviceFor } from "../text/similar-names.ts"

/** The arguments name no key of the table. */
export class NoRowKey {
  readonly message: string
  readonly advice: string | undefined
  constructor(message: string, advice: string | undefined) {
    this.message = message
    this.advice = advice
  }
}
const example: Readonly<Record<string, string>> = {
  text: "TEXT",
  bigint: "5",
  "double precision": "0.5",
  boolean: "true",
  timestamptz: "2026-01-31T12:00Z"
}

/**
 * The key that the arguments name: the value, if the key has one column; one JSON object; or `column=value` for each column. Times are dates or
 * epoch milliseconds.
 */
export const rowKeyOf = ({ columns, key, name }: Relation, given: ReadonlyArray<string>): Row | NoRowKey => {
  const keyColumns = key.map((one) => columns.find((column) => column.name === one)!)
  const usage = keyColumns.map((column) => `${column.name}=${example[column.type] ?? "VALUE"}`).join(" ")
  const pairs = pairsOf(key, given)
  if (pairs instanceof NoRowKey) return pairs
  const unknown = Object.keys(pairs).find((column) => !key.includes(column))
  if (unknown !== undefined)
    return new NoRowKey(`the key of ${name} has no column '${unknown}'`, adviceFor(unknown, key) ?? usage)
  const missing = key.find((column) => pairs[column] === undefined)
  if (missing !== undefined)
    return new NoRowKey(`the key of ${name} has the columns ${key.join(", ")}; ${missing} is missing`, usage)
  const row: Row = {}
  for (const column of keyColumns) {
    const value = valueOf(column, pairs[column.name])
    if (value === undefined)
      return new NoRowKey(
        `${column.name} is ${JSON.stringify(pairs[column.name])}, and the column has the type ${column.type}`,
        `${column.name}=${example[column.type] ?? "VALUE"}`
      )
    row[column.name] = value
  }
  return row
}

const pairsOf = (key: ReadonlyArray<string>, given: ReadonlyArray<string>): Row | NoRowKey => {
  const [first = ""] = given
  if (given.length === 1 && first.startsWith("{")) {
    try {
      const parsed: unknown = JSON.parse(first)
      if (typeof parsed === "object" && parsed !== null) return parsed
    } catch (error) {
      if (key.length > 1) return new NoRowKey(`the key is no JSON: ${(error as Error).message}`, `'{"${key[0]}": …}'`)
    }
  }
  const isPair = (text: string) => key.some((column) => text.startsWith(`${column}=`))
  if (key.length === 1 && given.length === 1 && !isPair(first)) return { [key[0]!]: first }
  const pairs: Row = {}
  for (const text of given) {
    const at = text.indexOf("=")
    if (at < 1)
      return new NoRowKey(
        `'${text}' is no part of the key, which has the columns ${key.join(", ")}`,
        key.map((column) => `${column}=VALUE`).join(" ")
      )
    pairs[text.slice(0, at)] = text.slice(at + 1)
  }
  return pairs
}

const valueOf = ({ type }: Column, given: unknown): unknown => {
  const text = String(given)
  switch (type) {
    case "text":
      return typeof given === "string" ? given : undefined
    case "boolean":
      return text === "true" ? true : text === "false" ? false : undefined
    case "timestamptz":
      return /^-?\d+$/.test(text) ? Number(text) : dateOf(text)
    case "bigint":
      return /^-?\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined
    default:
      return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : undefined
  }
}
