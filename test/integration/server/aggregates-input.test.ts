// Bad input to the routes of aggregates, and event stores that fail: each is answered by a problem that says what to do.
import { request } from "node:http"
import { connect } from "node:net"
import * as Effect from "effect/Effect"
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest"
import { EventStoreError, InlineFailed, InlineMissing, TimerGone } from "../../../src/aggregate/errors.ts"
import { type Body, call, newCase, opened, startServer } from "../../support/aggregate-http.ts"

let server: Awaited<ReturnType<typeof startServer>>
beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

const long = "x".repeat(1_000_000)
describe("bad input", () => {
  test.each<readonly [string, string, unknown, Readonly<Record<string, string>>, number, string, RegExp]>([
    [
      "an aggregate that does not exist",
      "alert-cas/a/commands/open",
      {},
      {},
      404,
      "unknown_aggregate",
      /did you mean alert-case/
    ],
    [
      "a command that does not exist",
      "alert-case/a/commands/opne",
      {},
      {},
      404,
      "unknown_command",
      /did you mean open/
    ],
    ["a command called toString", "alert-case/a/commands/toString", {}, {}, 404, "unknown_command", /acknowledge/],
    ["a missing field", "alert-case/a/commands/escalate", {}, {}, 422, "schema_mismatch", /add at/],
    [
      "a field of another type",
      "alert-case/a/commands/escalate",
      { at: "x" },
      {},
      422,
      "schema_mismatch",
      /correct at/
    ],
    [
      "another id",
      "alert-case/a/commands/escalate",
      { at: 1, case_id: "b" },
      {},
      400,
      "id_mismatch",
      /leave case_id out/
    ],
    [
      "another type",
      "alert-case/a/commands/escalate",
      { at: 1, type: "open" },
      {},
      400,
      "id_mismatch",
      /leave type out/
    ],
    ["no JSON", "alert-case/a/commands/escalate", "{", {}, 400, "malformed_json", /JSON/],
    ["a list", "alert-case/a/commands/escalate", [], {}, 422, "not_an_object", /object/],
    ["a field twice", "alert-case/a/commands/escalate", '{"at":1,"at":2}', {}, 422, "duplicate_key", /once/],
    [
      "NUL in a field",
      "alert-case/a/commands/open",
      '{"entity_id":"\\u0000"}',
      {},
      422,
      "forbidden_character",
      /remove/
    ],
    [
      "a number that would be rounded",
      "alert-case/a/commands/escalate",
      '{"at":9007199254740993}',
      {},
      422,
      "schema_mismatch",
      /at/
    ],
    [
      "a large field",
      "alert-case/a/commands/acknowledge",
      { at: 1, by: long + long },
      {},
      413,
      "body_too_large",
      /reference/
    ],
    [
      "a large body",
      "alert-case/a/commands/acknowledge",
      `"${"x".repeat(17 * 1024 * 1024)}"`,
      {},
      413,
      "body_too_large",
      /several/
    ],
    [
      "another content type",
      "alert-case/a/commands/escalate",
      "{}",
      { "content-type": "text/plain" },
      415,
      "unsupported_media_type",
      /json/
    ],
    ["an id with NUL", "alert-case/a%00b/commands/escalate", { at: 1 }, {}, 400, "invalid_id", /NUL/],
    [
      "an id that is badly encoded",
      "alert-case/%zz/commands/escalate",
      { at: 1 },
      {},
      400,
      "invalid_url",
      /percent-encode/
    ],
    ["an empty id", "alert-case//commands/escalate", { at: 1 }, {}, 400, "invalid_id", /1 to 1,000/],
    [
      "an id of 1,001 characters",
      `alert-case/${"x".repeat(1_001)}/commands/escalate`,
      { at: 1 },
      {},
      400,
      "invalid_id",
      /1 to 1,000/
    ],
    [
      "an id in the body of 1 MB",
      "alert-case/a/commands/escalate",
      { at: 1, case_id: long },
      {},
      400,
      "id_mismatch",
      /leave/
    ],
    [
      "an If-Match without a version",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "if-match": "abc" },
      400,
      "invalid_parameter",
      /If-Match/
    ],
    [
      "a negative If-Match",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "if-match": '"-1"' },
      400,
      "invalid_parameter",
      /If-Match/
    ],
    [
      "two versions in If-Match",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "if-match": '"1", "2"' },
      400,
      "invalid_parameter",
      /one version/
    ],
    [
      "an If-None-Match with a version",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "if-none-match": '"1"' },
      400,
      "invalid_parameter",
      /no events/
    ],
    [
      "both",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "if-none-match": "*", "if-match": "*" },
      400,
      "invalid_parameter",
      /one of them/
    ],
    [
      "an empty Idempotency-Key",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "idempotency-key": "" },
      400,
      "invalid_parameter",
      /another/
    ],
    [
      "a long Idempotency-Key",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "idempotency-key": "k".repeat(201) },
      400,
      "invalid_parameter",
      /another/
    ],
    [
      "an empty actor",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "millrace-actor": "" },
      400,
      "invalid_parameter",
      /another/
    ],
    [
      "a long actor",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "millrace-actor": "a".repeat(1_001) },
      400,
      "invalid_parameter",
      /1000|another/
    ],
    [
      "an empty content type",
      "alert-case/a/commands/escalate",
      { at: 1 },
      { "content-type": "" },
      415,
      "unsupported_media_type",
      /^send application\/json$/
    ],
    ["a state of version x", "alert-case/a?version=x", undefined, {}, 400, "invalid_parameter", /whole number from 1/],
    ["a state of version 0", "alert-case/a?version=0", undefined, {}, 400, "invalid_parameter", /whole number from 1/],
    [
      "a state of two versions",
      "alert-case/a?version=1&version=2",
      undefined,
      {},
      400,
      "invalid_parameter",
      /whole number/
    ],
    ["a state at no time", "alert-case/a?at=x", undefined, {}, 400, "invalid_parameter", /epoch/],
    [
      "a state at a version and a time",
      "alert-case/a?at=1&version=1",
      undefined,
      {},
      400,
      "invalid_parameter",
      /one of/
    ],
    ["a page of 0 events", "alert-case/a/events?limit=0", undefined, {}, 400, "invalid_parameter", /from 1 to 1000/],
    ["a state of no aggregate", "alert-cases/a", undefined, {}, 404, "unknown_aggregate", /did you mean alert-case/],
    ["a state of an id with NUL", "alert-case/%00", undefined, {}, 400, "invalid_id", /NUL/],
    ["a state of an id that is no UTF-8", "alert-case/%ff", undefined, {}, 400, "invalid_url", /percent-encode/]
  ])("%s", async (_, path, body, headers, status, code, advice) => {
    const answer = await call(server, path, body, headers)
    expect([answer.status, answer.body.error.code]).toEqual([status, code])
    expect(answer.body.error.try).toMatch(advice)
    expect(answer.headers.get("content-type")).toBe("application/problem+json; charset=utf-8")
    expect(answer.body).toMatchObject({ status, title: code, detail: answer.body.error.message })
    expect(answer.body.trace_id).toMatch(/^[\da-f]{32}$/)
    expect(JSON.stringify(answer.body).length).toBeLessThan(1_500)
  })

  test("an id of 1 MB in the path gets 431 in the form of a problem", async () => {
    const port = Number(new URL(server.url).port)
    const text = await new Promise<string>((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () =>
        socket.write(`GET /v1/aggregates/alert-case/${long} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`)
      )
      let received = ""
      socket.on("data", (chunk: Buffer) => (received += chunk.toString()))
      socket.on("close", () => resolve(received))
      socket.on("error", (error) => (received === "" ? reject(error) : resolve(received)))
    })
    expect(text).toMatch(/^HTTP\/1\.1 431 /)
    expect(JSON.parse(text.split("\r\n\r\n")[1]!)).toMatchObject({ error: { code: "headers_too_large" } })
  })

  test.each(["alert-case", "alert-case/"])("no id, as in %s, asks for the streams of the aggregate", async (path) => {
    const { body, status } = await call(server, path)
    expect([status, Array.isArray(body.streams)]).toEqual([200, true])
  })

  test.each([
    ["Idempotency-Key", ["A", "B"]],
    ["idempotency-key", ["A", "A"]],
    ["If-Match", ['"0"', '"0"']],
    ["millrace-actor", ["ann", "bob"]],
    ["millrace-correlation", ["a", "b"]],
    ["millrace-causation", ["a", "b"]],
    ["millrace-tenant", ["acme", "globex"]],
    ["Authorization", ["Bearer a", "Bearer b"]],
    ["Content-Type", ["application/json", "text/plain"]]
  ])("the header %s twice gets 400, and nothing is stored", async (name, values) => {
    const path = newCase()
    const headers = ["host", "127.0.0.1", "connection", "close", "transfer-encoding", "chunked"]
    if (name !== "Content-Type") headers.push("content-type", "application/json")
    const answer = await new Promise<{ status: number | undefined; body: Body }>((resolve, reject) => {
      const sent = request(`${server.url}/v1/aggregates/${path}/commands/open`, {
        method: "POST",
        headers: [...headers, ...values.flatMap((value) => [name, value])]
      })
      sent.on("error", reject).on("response", async (response) => {
        const chunks = await response.setEncoding("utf8").toArray()
        resolve({ status: response.statusCode, body: JSON.parse(chunks.join("")) as Body })
      })
      sent.end(JSON.stringify(opened))
    })
    expect([answer.status, answer.body.error]).toEqual([
      400,
      {
        code: "invalid_parameter",
        message: `the header ${name.toLowerCase()} occurs more than once`,
        try: `send ${name.toLowerCase()} once`
      }
    ])
    expect((await call(server, path)).status).toBe(404)
  })

  test("a command that leads to more events than one append takes gets 413, and nothing is stored", async () => {
    const { body, status } = await call(server, "counter/filled/commands/fill", { n: 10_001 })
    expect([status, body.error]).toEqual([
      413,
      {
        code: "append_too_large",
        message:
          'counter "filled": there are 10,001 events; one append takes 10,000 at most; nothing was appended. Divide the work among several commands',
        try: "ask for less at once, in several commands"
      }
    ])
    expect((await call(server, "counter/filled")).status).toBe(404)
    expect((await call(server, "counter/filled/commands/fill", { n: 10_000 })).status).toBe(201)
  })

  test("a decider that throws gets 500, and says nothing about its inside", async () => {
    const { body, status } = await call(server, "counter/a/commands/fail", {})
    expect([status, body.error.code]).toEqual([500, "aggregate_failed"])
    expect(JSON.stringify(body)).not.toContain("a bug in decide")
  })
})

test("a state that does not fit its schema gets 500 `aggregate_failed`, and the log says which field", async () => {
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined)
  expect((await call(server, "counter/unfit/commands/count", { n: -99 })).status).toBe(201)
  const { body, status } = await call(server, "counter/unfit")
  const lines = log.mock.calls.map(String).join("\n")
  log.mockRestore()
  expect([status, body.error.code]).toEqual([500, "aggregate_failed"])
  expect(lines).toContain('counter "unfit": `evolve` failed: it made a state that does not fit the schema of `state`')
  expect(lines).toContain('["sum"]')
})
test("an error that nobody expected gets 500 `internal_error`, and the log has it with the trace id", async () => {
  const failing = await startServer((store) => ({ ...store, load: () => Effect.die(new Error("a bug of the store")) }))
  const log = vi.spyOn(console, "log").mockImplementation(() => undefined)
  const { body, status } = await call(failing, "counter/a")
  const lines = log.mock.calls.map(String).join("\n")
  log.mockRestore()
  await failing.stop()
  expect([status, body.error.code]).toEqual([500, "internal_error"])
  expect(lines).toContain(`the request with the trace id ${body.trace_id} failed`)
  expect(lines).toContain("a bug of the store")
})

describe("a store that fails", () => {
  const away = new EventStoreError({
    operation: "load",
    aggregate: "alert-case",
    retryable: true,
    reason: "the database is away"
  })
  test("one that is away gets 503 with Retry-After, for commands and reads", async () => {
    const failing = await startServer((store) => ({ ...store, load: () => Effect.fail(away) }))
    for (const answer of [
      await call(failing, "alert-case/a/commands/open", opened),
      await call(failing, "alert-case/a"),
      await call(failing, "alert-case/a/events")
    ]) {
      expect([answer.status, answer.body.error.code]).toEqual([503, "store_unavailable"])
      expect(answer.headers.get("retry-after")).toBe("1")
    }
    await failing.stop()
  })
  test.each([
    [
      new InlineFailed({ aggregate: "alert-case", stream: "a", projection: "cases", reason: "secret" }),
      500,
      "inline_failed"
    ],
    [new InlineMissing({ aggregate: "alert-case", projection: "cases", version: 1 }), 503, "inline_missing"],
    [new TimerGone({ timer: "t" }), 500, "store_refused"]
  ])("an append that fails with %s is no rejection", async (error, status, code) => {
    const failing = await startServer((store) => ({ ...store, append: () => Effect.fail(error) }))
    const { body, status: answered } = await call(failing, "alert-case/a/commands/open", opened)
    expect([answered, body.error.code]).toEqual([status, code])
    expect(JSON.stringify(body)).not.toContain("secret")
    await failing.stop()
  })
  test("one that does not answer gets 503 after the time limit", async () => {
    const hanging = await startServer((store) => ({ ...store, load: () => Effect.never }), { commandMs: 50 })
    const { body, status } = await call(hanging, "alert-case/a/commands/open", opened)
    expect([status, body.error.code]).toEqual([503, "store_unavailable"])
    expect(body.error.message).toBe("there was no answer within 0.05 s")
    await hanging.stop()
  })
})
