// Invalid input over real HTTP: each fault has a code, a message and advice of its own, and the events around it are in the log.
import { gzipSync } from "node:zlib"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { json, ndjson, post, recordsOf, start, transfer, type Server } from "../../support/http.ts"

const minute = 60_000
let server: Server

beforeAll(async () => {
  server = await start({ limits: { bodyBytes: 2_000_000, eventBytes: 100_000, events: 3_000 } })
})
afterAll(() => server.stop())

const line = (fields: Readonly<Record<string, unknown>> = {}) => JSON.stringify(transfer(fields))
/** The text of a valid event with one field given as text, so that it need not be what JSON.stringify writes. */
const written = (name: string, text: string) => line({ [name]: "@" }).replace('"@"', text)
const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`

/** Name, line, code, path. */
const faults: ReadonlyArray<readonly [string, () => string, string, string?]> = [
  ["a line cut off", () => line().slice(0, 40), "malformed_json"],
  ["words", () => "hello", "malformed_json"],
  ["two objects on a line", () => `${line()}${line()}`, "malformed_json"],
  ["a raw control character", () => written("event_id", '"a\u0001b"'), "malformed_json"],
  ["NaN", () => written("amount", "NaN"), "malformed_json"],
  ["Infinity", () => written("amount", "-Infinity"), "malformed_json"],
  ["an infinite number", () => written("amount", "1e999"), "schema_mismatch", "amount"],
  ["a number as text", () => line({ amount: "10" }), "schema_mismatch", "amount"],
  ["a fraction where a whole number must be", () => line({ occurred_at: 1.5 }), "schema_mismatch", "occurred_at"],
  ["null where a value must be", () => line({ tenant: null }), "schema_mismatch", "tenant"],
  ["a missing field", () => line({ entity_id: undefined }), "schema_mismatch", "entity_id"],
  [
    "a wrong type deeper down",
    () => line({ type: "flight.departed", attributes: { flight: 1, origin: "a", dest: "b", delay: 1 } }),
    "schema_mismatch",
    "attributes.flight"
  ],
  ["an unknown type", () => line({ type: "flight.teleported" }), "unknown_event_type", "type"],
  ["a type from the prototype", () => line({ type: "toString" }), "unknown_event_type", "type"],
  ["a type that is no text", () => line({ type: ["transfer"] }), "unknown_event_type", "type"],
  ["no type", () => line({ type: undefined }), "missing_event_type", "type"],
  ["an array on a line", () => `[${line()}]`, "not_an_object"],
  ["a number", () => "42", "not_an_object"],
  ["null", () => "null", "not_an_object"],
  ["__proto__", () => `{"__proto__":{"admin":true},${line().slice(1)}`, "forbidden_key"],
  ["__proto__, escaped", () => `{"\\u005f_proto__":{"admin":true},${line().slice(1)}`, "forbidden_key"],
  ["__proto__, deeper", () => written("more", '[{"__proto__":1}]'), "forbidden_key"],
  ["a constructor's prototype", () => written("more", '{"constructor":{"prototype":{"x":1}}}'), "forbidden_key"],
  ["a NUL in a key", () => written("entity_id", String.raw`"a\u0000b"`), "forbidden_character", "entity_id"],
  ["a NUL in a value", () => written("more", String.raw`{"deep":["\u0000"]}`), "forbidden_character", "more.deep.0"],
  ["half a pair in a key", () => written("entity_id", String.raw`"\ud83d"`), "forbidden_character", "entity_id"],
  ["half a pair in an id", () => written("event_id", String.raw`"\uDE00x"`), "forbidden_character", "event_id"],
  ["a NUL in a field's name", () => `{"a\\u0000":1,${line().slice(1)}`, "forbidden_character"],
  ["an empty key", () => line({ entity_id: "" }), "empty_key", "entity_id"],
  ["an empty id", () => line({ event_id: "" }), "empty_event_id", "event_id"],
  ["a long key", () => line({ entity_id: "é".repeat(513) }), "key_too_long", "entity_id"],
  ["a long id", () => line({ event_id: "x".repeat(1025) }), "event_id_too_long", "event_id"],
  ["a long tenant", () => line({ tenant: "x".repeat(1025) }), "tenant_too_long", "tenant"],
  ["deep nesting", () => written("more", nested(64)), "nesting_too_deep"],
  ["very deep nesting", () => written("more", nested(40_000)), "nesting_too_deep"],
  ["a huge event", () => line({ more: "x".repeat(100_000) }), "event_too_large"],
  [
    "before PostgreSQL's time",
    () => line({ occurred_at: -210_866_803_200_001 }),
    "event_time_out_of_range",
    "occurred_at"
  ],
  [
    "after JavaScript's time",
    () => line({ occurred_at: 9_000_000_000_000_000 }),
    "event_time_out_of_range",
    "occurred_at"
  ],
  ["the far future", () => line({ occurred_at: 4_102_444_800_000 }), "event_time_ahead", "occurred_at"],
  ["more than an hour ahead", () => line({ occurred_at: Date.now() + 61 * minute }), "event_time_ahead", "occurred_at"],
  ["a version that is not", () => line({ schema_version: 2 }), "unknown_schema_version", "schema_version"]
]

describe("one invalid event among valid ones", () => {
  test.each(faults.map((row) => ({ row })))("$row.0", async ({ row: [, bad, code, path] }) => {
    const [before, after] = [transfer(), transfer()]
    const { body, status } = await post(server, `${JSON.stringify(before)}\n${bad()}\n${JSON.stringify(after)}\n`, {
      "content-type": ndjson
    })
    expect(status).toBe(207)
    expect(body.results.map((result) => result.status)).toEqual(["accepted", "rejected", "accepted"])
    const error = body.results[1]!.error!
    expect(error).toMatchObject({ index: 1, line: 2, code })
    expect(error.path).toBe(path)
    expect(error.message.length).toBeGreaterThan(10)
    expect(error.message.length).toBeLessThan(300)
    expect(error.try.length).toBeGreaterThan(3)
    for (const [result, event] of [
      [body.results[0], before],
      [body.results[2], after]
    ] as const) {
      const records = await recordsOf(server.log, "events.raw.v1")
      const found = records.find(
        ({ partition, position }) => partition === result?.partition && position === result.position
      )
      expect(found).toMatchObject({ eventId: event.event_id, key: event.entity_id, value: JSON.stringify(event) })
    }
  })

  test("all kinds of invalid events at once: none is in the log", async () => {
    const good = transfer()
    const bad = faults.map((fault) => fault[1]())
    const { body, status } = await post(server, [...bad, JSON.stringify(good), ...bad].join("\n"), {
      "content-type": ndjson
    })
    expect(status).toBe(207)
    expect(body).toMatchObject({ accepted: 1, rejected: bad.length * 2 })
    expect(body.results.map(({ error }) => error?.code)).toEqual([
      ...faults.map((fault) => fault[2]),
      undefined,
      ...faults.map((fault) => fault[2])
    ])
    const records = await recordsOf(server.log, "events.raw.v1")
    for (const { value } of records)
      expect(JSON.parse(value!)).toMatchObject({ type: "transfer", tenant: "acme", amount: 10 })
    expect(records.some(({ eventId }) => eventId === good.event_id)).toBe(true)
    expect(({} as { admin?: boolean }).admin).toBeUndefined()
  })

  test("in an array a fault has the index of its event", async () => {
    const { body, status } = await post(
      server,
      JSON.stringify([transfer(), { type: "x" }, transfer({ amount: "1" }), transfer()])
    )
    expect(status).toBe(207)
    expect(body.results.map(({ error }) => error && [error.index, error.line, error.code])).toEqual([
      undefined,
      [1, undefined, "unknown_event_type"],
      [2, undefined, "schema_mismatch"],
      undefined
    ])
  })
})

describe("unusual input that is valid", () => {
  const accepted = async (text: string) => {
    const { body, status } = await post(server, text, { "content-type": ndjson })
    expect(body.results.map(({ error }) => error)).not.toContainEqual(expect.anything())
    expect(status).toBe(202)
    return body
  }
  test.each([
    ["a time before 1970", () => line({ occurred_at: -1_000_000_000_000 })],
    ["PostgreSQL's first time", () => line({ occurred_at: -210_866_803_200_000 })],
    ["an hour ahead, almost", () => line({ occurred_at: Date.now() + 59 * minute })],
    ["a whole pair, escaped", () => written("entity_id", String.raw`"\ud83d\ude00"`)],
    ["an escaped backslash before u0000", () => written("entity_id", String.raw`"a\\u0000"`)],
    ["a constructor that is a word", () => line({ constructor: "x" })],
    ["foreign fields, 62 deep", () => written("more", nested(62))],
    ["a negative amount, and minus zero", () => `${line({ amount: -5 })}\n${written("amount", "-0")}`],
    ["a key of 1024 bytes", () => line({ entity_id: "é".repeat(512) })],
    ["a line separator of Unicode", () => line({ entity_id: "a\u2028b" })]
  ])("%s", async (_name, text) => {
    await accepted(text())
  })

  test("CRLF, blank lines, a byte order mark, and no line end at the end are accepted", async () => {
    const body = await accepted(`\uFEFF\r\n${line()}\r\n\r\n   \n${line()}`)
    expect(body.accepted).toBe(2)
  })

  test("a JSON event on several lines is stored on one line", async () => {
    const event = transfer({ tenant: "pretty" })
    const text = JSON.stringify(event, null, 2).replace('"amount": 10', '"amount": 10.00')
    const { status } = await post(server, `\uFEFF${text}\n`)
    expect(status).toBe(202)
    const found = (await recordsOf(server.log, "events.raw.v1")).find(({ tenant }) => tenant === "pretty")
    expect(found?.value).not.toContain("\n")
    expect(found?.value).toContain('"amount": 10.00')
    expect(JSON.parse(found!.value!)).toEqual(event)
  })

  test("100 events with the same id in parallel are all accepted, each at its own position", async () => {
    const event = JSON.stringify(transfer({ event_id: "again" }))
    const answers = await Promise.all(Array.from({ length: 100 }, () => post(server, event)))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]))
    const places = answers.map(({ body }) => `${body.results[0]!.partition}/${body.results[0]!.position}`)
    expect(new Set(places).size).toBe(100)
    const records = await recordsOf(server.log, "events.raw.v1")
    expect(records.filter(({ eventId }) => eventId === "again")).toHaveLength(100)
  })
})

describe("requests that are refused as a whole", () => {
  const refused = async (body: string | Uint8Array<ArrayBuffer>, headers: Record<string, string>, query = "") => {
    const before = (await recordsOf(server.log, "events.raw.v1")).length
    const answer = await post(server, body, headers, query)
    expect((await recordsOf(server.log, "events.raw.v1")).length).toBe(before)
    expect(answer.body.error?.try.length).toBeGreaterThan(3)
    expect(answer.body.trace_id).toMatch(/^[0-9a-f]{32}$/)
    return [answer.status, answer.body.error?.code]
  }
  const broken = Uint8Array.from([...Buffer.from('{"type":"transfer","tenant":"'), 0xc3, 0x28, ...Buffer.from('"}')])
  const surrogate = Uint8Array.from([...Buffer.from('{"tenant":"'), 0xed, 0xa0, 0x80, ...Buffer.from('"}')])
  const bomb = () => Uint8Array.from(gzipSync(Buffer.alloc(40_000_000, 32)))

  test.each([
    ["an empty body", "", json, 400, "empty_body"],
    ["a byte order mark alone", "\uFEFF", ndjson, 400, "empty_body"],
    ["an empty array", " [ ] ", json, 400, "no_events"],
    ["blank lines only", "\n\r\n  \n", ndjson, 400, "no_events"],
    ["an array without an end", `[${line()},`, json, 400, "malformed_json"],
    ["an array that is broken after good events", `[${line()},${line()},{"a":}]`, json, 400, "malformed_json"],
    ["an array with a comma too many", `[${line()},]`, json, 400, "malformed_json"],
    ["an array and something", `[${line()}] x`, json, 400, "malformed_json"],
    ["bytes that are not UTF-8", broken, ndjson, 400, "invalid_utf8"],
    ["half a pair as bytes", surrogate, ndjson, 400, "invalid_utf8"],
    ["a form", "a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"],
    ["text", line(), "text/plain", 415, "unsupported_media_type"],
    ["another charset", line(), "application/json; charset=utf-16", 415, "unsupported_media_type"],
    ["too many events", "{}\n".repeat(3_001), ndjson, 413, "too_many_events"],
    ["too many elements", `[${"0,".repeat(3_000)}0]`, json, 413, "too_many_events"],
    ["a huge body", "x".repeat(2_000_001), ndjson, 413, "body_too_large"],
    ["a body far beyond the limit", "x".repeat(20_000_000), ndjson, 413, "body_too_large"]
  ])("%s", async (_name, body, type, status, code) => {
    expect(await refused(body, { "content-type": type })).toEqual([status, code])
  })

  test("a body above the limit without Content-Length", async () => {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let i = 0; i < 30; i++) controller.enqueue(new Uint8Array(100_000).fill(120))
        controller.close()
      }
    })
    const init = { method: "POST", body, headers: { "content-type": ndjson }, duplex: "half" } as RequestInit
    const response = await fetch(`${server.url}/v1/events`, init)
    expect([response.status, ((await response.json()) as { error: { code: string } }).error.code]).toEqual([
      413,
      "body_too_large"
    ])
  })

  test("invalid gzip, truncated gzip, a decompression bomb, and another encoding", async () => {
    const gzip = { "content-type": ndjson, "content-encoding": "gzip" }
    expect(await refused("hello", gzip)).toEqual([400, "invalid_gzip"])
    expect(await refused(Uint8Array.from(gzipSync(line()).subarray(0, 30)), gzip)).toEqual([400, "invalid_gzip"])
    expect(await refused(bomb(), gzip)).toEqual([413, "body_too_large"])
    expect(await refused(line(), { ...gzip, "content-encoding": "br" })).toEqual([415, "unsupported_encoding"])
  })

  test("unknown and derived topics, and invalid parameters", async () => {
    const type = { "content-type": json }
    expect(await refused(line(), type, "?topic=alerts.v1")).toEqual([403, "derived_topic"])
    expect(await refused(line(), type, "?topic=alerts.analytics.v1")).toEqual([403, "derived_topic"])
    expect(await refused(line(), type, "?topic=nope")).toEqual([404, "unknown_topic"])
    expect(await refused(line(), type, "?topic=__proto__")).toEqual([404, "unknown_topic"])
    expect(await refused(line(), type, "?topic=a&topic=b")).toEqual([400, "invalid_parameter"])
    expect(await refused(line(), type, "?results=some")).toEqual([400, "invalid_parameter"])
    expect(await refused(line(), { ...type, "schema-version": "two" })).toEqual([400, "invalid_parameter"])
  })

  test("if all events are rejected the status is 422, or 400 if none is JSON", async () => {
    expect((await post(server, `{"type":"x"}\n{`, { "content-type": ndjson })).status).toBe(422)
    expect((await post(server, "{\n[", { "content-type": ndjson })).status).toBe(400)
    expect((await post(server, "{")).status).toBe(400)
  })

  test("the server accepts events after all of that", async () => {
    expect((await post(server, line())).status).toBe(202)
  })
})

describe("compacted topics", () => {
  const features = "?topic=features.entity.v1"
  const plane = { entity_id: "N1", risk_weight: 1.5, threshold: 100, segment: "Boeing" }

  test("values, deletions and faults are distinguished", async () => {
    const lines = [
      JSON.stringify(plane),
      '{"key":"N1","value":null}',
      '{"key":"","value":null}',
      '{"key":5,"value":null}',
      JSON.stringify({ ...plane, risk_weight: "heavy" }),
      JSON.stringify({ ...plane, entity_id: "N2" })
    ]
    const { body, status } = await post(server, lines.join("\n"), { "content-type": ndjson }, features)
    expect(status).toBe(207)
    expect(body.results.map(({ error, status }) => error?.code ?? status)).toEqual([
      "accepted",
      "accepted",
      "empty_key",
      "schema_mismatch",
      "schema_mismatch",
      "accepted"
    ])
    const records = await recordsOf(server.log, "features.entity.v1")
    expect(records.filter(({ key }) => key === "N1").map(({ value }) => value)).toEqual([JSON.stringify(plane), null])
    expect(records.some(({ key }) => key === "N2")).toBe(true)
  })
})
