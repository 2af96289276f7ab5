// Records as `millrace tail` prints them: JSON keeps every digit, and nothing of a record reaches the terminal as a command.
import { expect, test } from "vitest"
import { eventTypeOf, recordJson, recordLine } from "../../../src/cli/record-text.ts"
import { isWanted } from "../../../src/cli/tail-actions.ts"
import type { LogRecord } from "../../../src/log/log.ts"

const record = (value: string | null, more: Partial<LogRecord> = {}): LogRecord => ({
  partition: 3,
  position: 42,
  key: "k",
  value,
  eventTime: 1_700_000_000_000,
  appendedAt: 1_700_000_000_500,
  eventId: "e1",
  tenant: "acme",
  traceparent: undefined,
  schemaVersion: 2,
  headers: {},
  ...more
})

test("the JSON of a record has its value's numbers with all digits", () => {
  const value = '{"type":"paid","cents":12345678901234567890,"rate":0.10,"tiny":1e-400}'
  const json = recordJson("payments", record(value))
  expect(json.endsWith(`"value":${value}}`)).toBe(true)
  expect(JSON.parse(json)).toMatchObject({
    topic: "payments",
    partition: 3,
    position: 42,
    key: "k",
    type: "paid",
    event_time: "2023-11-14T22:13:20.000Z",
    appended_at: "2023-11-14T22:13:20.500Z",
    event_id: "e1",
    tenant: "acme",
    schema_version: 2
  })
})
test.each([
  ["a value that is not JSON", "not json", "not json"],
  ["a deleted key", null, null],
  ["a value with line ends between its parts", '{\n"a":\r\n1}', { a: 1 }],
  ["a value with an escape sequence", '{"a":"\u007f\u202e"}', { a: "\u007f\u202e" }]
])("%s is one line of JSON without control characters", (_, value, expected) => {
  const json = recordJson("t", record(value))
  // oxlint-disable-next-line no-control-regex
  expect(json).not.toMatch(/[\u0000-\u001f\u007f\u202e]/)
  expect((JSON.parse(json) as { value: unknown }).value).toEqual(expected)
})
test("a line shows time, place, tenant, key and value, with what a terminal would obey as escapes", () => {
  expect(recordLine(record('{"a":"\u009b2J"}', { key: "k\n\u001b[31m" }))).toBe(
    String.raw`2023-11-14T22:13:20.000Z  3:42  acme  k\n\u001b[31m  {"a":"\u009b2J"}`
  )
  expect(recordLine(record(null, { key: null, tenant: undefined, eventTime: 9e15 }))).toBe(
    "9000000000000000  3:42  (no key)  deleted"
  )
})
test("filters compare key, tenant and type; what only Millrace reads is left out", () => {
  const paid = record('{"type":"paid"}')
  const shows = (filter: object, one = paid) =>
    isWanted({ key: undefined, partition: undefined, tenant: undefined, type: undefined, ...filter })(one)
  expect([shows({}), shows({ key: "k", tenant: "acme", type: "paid" })]).toEqual([true, true])
  expect([shows({ key: "other" }), shows({ tenant: "b" }), shows({ type: "placed" })]).toEqual([false, false, false])
  const timeMark = record(null, { headers: { "millrace-time": "1", "millrace-stream": "p/t/0" } })
  expect(shows({}, timeMark)).toBe(false)
  expect([eventTypeOf("[]"), eventTypeOf("null"), eventTypeOf('{"type":1}'), eventTypeOf("x")]).toEqual(
    Array.from({ length: 4 })
  )
})
