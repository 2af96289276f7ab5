import { expect, test } from "vitest"
import { decodeRecords, encodeRecords, headersOf, headingOf } from "../../../../src/kafka/log/records.ts"
import { stamp } from "../../../../src/kafka/protocol/batch-encode.ts"

const trace = "0af7651916cd43dd8448eb211c80319c"
const traceparent = `00-${trace}-b7ad6b7169203331-01`

test("a trace id without a traceparent continues the trace", () => {
  const { headers, traceparent } = headingOf([["trace_id", trace]])
  expect(traceparent).toBe(`00-${trace}-8448eb211c80319c-01`)
  expect(headers).toEqual({})
  const record = { partition: 0, key: "k", value: "{}", eventTime: 1, eventId: undefined, tenant: undefined }
  const written = headersOf({ ...record, traceparent, schemaVersion: undefined, headers })
  expect(written).toContainEqual(["trace_id", trace])
})

test("a traceparent takes precedence over a trace id", () => {
  const both = [
    ["trace_id", trace],
    ["traceparent", traceparent]
  ] as const
  expect(headingOf(both)).toMatchObject({ traceparent, headers: {} })
  const other = [["trace_id", "of another system"], both[1]] as const
  expect(headingOf(other)).toMatchObject({ traceparent, headers: { trace_id: "of another system" } })
})

test.each(["", "not hex", trace.toUpperCase(), trace.slice(1), "0af7651916cd43dd0000000000000000"])(
  "an invalid trace id stays an ordinary header: %s",
  (id) => {
    expect(headingOf([["trace_id", id]])).toMatchObject({ traceparent: undefined, headers: { trace_id: id } })
  }
)

test("names and times of headers are read as they were written, whatever their length, and whichever name came before", () => {
  const names = Array.from({ length: 300 }, (_, i) => `${"name".repeat(i % 40)}${i}`)
  // names that differ only in the middle, names beyond ASCII, and what is no UTF-8
  names.push("abcde", "abXde", "aé", "aè", "a\udc80", "a\udc81")
  const times = [0, 7, 1_700_000_000_000, 999_999_999_999_999, 1e15, -1, 0.5, 1e21, -0]
  const records = [...names, ...names.toReversed()].map((name, i) => ({
    partition: 0,
    key: "k",
    value: "{}",
    eventId: undefined,
    tenant: undefined,
    schemaVersion: undefined,
    traceparent: undefined,
    eventTime: times[i % times.length]!,
    headers: { [name]: `of ${name}` }
  }))
  const bytes = encodeRecords(records, "none", 1)
  stamp(bytes, 0n, 0, 0)
  const read = decodeRecords(bytes, 0, 0, []).records
  expect(read.map(({ headers }) => headers)).toEqual(records.map(({ headers }) => headers))
  expect(read.map(({ eventTime }) => eventTime)).toEqual(records.map(({ eventTime }) => eventTime + 0))
})

test.each(["", " 1", "1 ", "1_0", "0x10", "12:30", "NaN", "1.", "+1", "1e400"])(
  "what is no time stays a header: %j",
  (text) => {
    expect(headingOf([["event_time", text]])).toMatchObject({ eventTime: undefined, headers: { event_time: text } })
  }
)
