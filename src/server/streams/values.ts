// The values of records, read once for all streams of a process. Pure.
import type { LogRecord } from "../../log/log.ts"

const parse = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const values = new WeakMap<LogRecord, { readonly json: unknown }>()
/** The value of a record; undefined if its text is no JSON, as other programs may write to Kafka. */
export const jsonOf = (record: LogRecord): unknown => {
  let value = values.get(record)
  if (value === undefined) values.set(record, (value = { json: parse(record.value ?? "null") }))
  return value.json
}

const texts = new WeakMap<LogRecord, string>()
/**
 * The JSON text of a record's value as the log has it, so that no digit of a number is lost; of a deletion, that of the key. A text that is no
 * JSON becomes a JSON string.
 */
export const dataOf = (record: LogRecord): string => {
  const { key, value } = record
  let text = texts.get(record)
  if (text === undefined) {
    if (value === null) text = JSON.stringify({ key, value })
    else text = parse(value) === undefined ? JSON.stringify(value) : value
    texts.set(record, text)
  }
  return text
}
