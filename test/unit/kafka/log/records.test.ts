import { expect, test } from "vitest"
import { headersOf, headingOf } from "../../../../src/kafka/log/records.ts"

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
