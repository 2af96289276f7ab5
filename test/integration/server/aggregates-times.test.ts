// Commands over HTTP whose events have times that the log does not take.
import { afterAll, beforeAll, expect, test } from "vitest"
import { call, newCase, opened, startServer } from "../../support/aggregate-http.ts"

let server: Awaited<ReturnType<typeof startServer>>
beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

test.each<readonly [string, () => number, string, RegExp]>([
  // rounded to 3,700 s for most of a second until it is checked
  ["more than an hour ahead", () => Date.now() + 3_700_499, "event_time_ahead", /`at` .*3700 s ahead .*3600 s/],
  ["in 2100", () => 4_102_444_800_000, "event_time_ahead", /dated 2100-01-01T00:00:00.000Z/],
  [
    "after the last date",
    () => 8_640_000_000_000_001,
    "event_time_out_of_range",
    /`at` of event 1 of 1 \(case.opened\) is 8640000000000001/
  ]
])("an event that is dated %s gets 422, and nothing is stored", async (_, at, code, message) => {
  const path = newCase()
  const { body, status } = await call(server, `${path}/commands/open`, { ...opened, at: at() })
  expect([status, body.error.code, body.error.path]).toEqual([422, code, "at"])
  expect(body.error.message).toMatch(message)
  expect((await call(server, path)).status).toBe(404)
  expect((await call(server, `${path}/commands/open`, { ...opened, at: Date.now() + 3_500_000 })).status).toBe(201)
})
