// The server over real HTTP, on a log in memory and on PostgreSQL: posts, metrics, documentation, failures of the log, limits.
import { connect } from "node:net"
import { setTimeout } from "node:timers/promises"
import { gzipSync } from "node:zlib"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Exit from "effect/Exit"
import * as Context from "effect/Context"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { Log, LogError } from "../../../src/log/log.ts"
import { positionToken } from "../../../src/log/position-token.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { make } from "../../../src/memory/log.ts"
import * as Postgres from "../../../src/postgres/log/log.ts"
import {
  alert,
  declare,
  faulty,
  get,
  idsOf,
  json,
  lines,
  many,
  ndjson,
  post,
  publish,
  recordsOf,
  start,
  stream,
  transfer,
  type Server
} from "../../support/http.ts"
import { database } from "../../support/postgres.ts"

const asNdjson = { "content-type": ndjson }

describe("posting", () => {
  let server: Server
  beforeAll(async () => {
    server = await start()
  })
  afterAll(() => server.stop())

  test("one event gets 202 and its position, and the log has its whole envelope", async () => {
    const event = transfer({ entity_id: "N14228" })
    const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    const { body, headers, status } = await post(server, JSON.stringify(event), { "content-type": json, traceparent })
    const partition = partitionOf("N14228", 12)
    expect(status).toBe(202)
    expect(body).toEqual({
      trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
      token: positionToken([{ topic: "events.raw.v1", partition, position: 1 }]),
      accepted: 1,
      rejected: 0,
      results: [{ status: "accepted", topic: "events.raw.v1", partition, position: 0, event_id: event.event_id }]
    })
    const child = headers.get("traceparent")
    expect(child).toMatch(/^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01$/)
    expect(child).not.toBe(traceparent)
    expect((await recordsOf(server.log, "events.raw.v1"))[0]).toMatchObject({
      partition,
      position: 0,
      key: "N14228",
      value: JSON.stringify(event),
      eventTime: event.occurred_at,
      eventId: event.event_id,
      tenant: "acme",
      schemaVersion: 1,
      traceparent: child
    })
  })

  test("a trace is started if there is no traceparent, or an invalid one", async () => {
    const { body, headers } = await post(server, lines(many(1)), { "content-type": json, traceparent: "00-1-2-3" })
    expect(headers.get("traceparent")).toMatch(new RegExp(`^00-${body.trace_id}-[0-9a-f]{16}-01$`))
  })

  test("a large gzip body: results are in order, and so are the records of each key", async () => {
    const events = many(7_500).map((event) => JSON.stringify(event))
    const headers = { ...asNdjson, "content-encoding": "gzip" }
    const { body, status } = await post(server, Uint8Array.from(gzipSync(events.join("\n"))), headers)
    expect(status).toBe(202)
    expect(body.accepted).toBe(events.length)
    const parsed = events.map((text) => JSON.parse(text) as { readonly event_id: string; readonly entity_id: string })
    expect(body.results.map(({ event_id }) => event_id)).toEqual(parsed.map(({ event_id }) => event_id))
    const stored = Map.groupBy(await recordsOf(server.log, "events.raw.v1"), ({ key }) => key)
    const sent = Map.groupBy(events.keys(), (i) => parsed[i]!.entity_id)
    for (const [key, indexes] of sent) {
      const values = stored
        .get(key)!
        .slice(-indexes.length)
        .map(({ value }) => value)
      expect(values).toEqual(indexes.map((i) => events[i]))
    }
  })

  test("results=errors and return=minimal list rejected events only", async () => {
    const body = `${lines(many(3))}\n{"type":"x"}\n${lines(many(2))}`
    for (const [query, headers] of [
      ["?results=errors", asNdjson],
      ["", { ...asNdjson, prefer: "respond-async, return=minimal" }]
    ] as const) {
      const answer = await post(server, body, headers, query)
      expect(answer.status).toBe(207)
      expect(answer.body).toMatchObject({ accepted: 5, rejected: 1, results: [{ error: { index: 3, line: 4 } }] })
      expect(answer.headers.get("preference-applied")).toBe(query === "" ? "return=minimal" : null)
    }
  })

  test("the version of the request applies to its events", async () => {
    const event = { ...transfer(), type: "payment", currency: "EUR", fee: 1 }
    await post(server, JSON.stringify(event), { "content-type": json, "schema-version": "2" })
    const found = (await recordsOf(server.log, "events.raw.v1")).find(({ eventId }) => eventId === event.event_id)
    expect(found?.schemaVersion).toBe(2)
  })

  test("/metrics has the counters of the server", async () => {
    await post(server, lines([transfer(), { type: "x" }]), asNdjson)
    const response = await fetch(`${server.url}/metrics`)
    const text = await response.text()
    expect(response.headers.get("content-type")).toContain("text/plain; version=0.0.4")
    expect(text).toMatch(/millrace_gateway_events_accepted_total\{topic="events.raw.v1"\} [1-9]/)
    expect(text).toMatch(/millrace_gateway_events_rejected_total\{code="unknown_event_type"\} [1-9]/)
    expect(text).toMatch(/millrace_gateway_append_seconds_count\{topic="events.raw.v1"\} [1-9]/)
  })

  test("the documentation has the schema of each event type, and its page loads", async () => {
    interface Schema {
      readonly title: string
      readonly required: ReadonlyArray<string>
      readonly anyOf: ReadonlyArray<Schema>
    }
    interface Route {
      readonly post: { readonly requestBody: { readonly content: Record<string, { readonly schema: Schema }> } }
    }
    const { paths } = (await get<{ readonly paths: Record<string, Route> }>(`${server.url}/openapi.json`)).body
    const events = paths["/v1/events"]!.post.requestBody.content[json]!.schema.anyOf[0]!.anyOf
    const types = ["flight.departed", "flight.cancelled", "payment", "transfer", "withdrawal", "refund"]
    const values = ["features.entity.v1", "deletes a key of features.entity.v1"]
    expect(events.map(({ title }) => title)).toEqual([...types, ...values])
    expect(events[2]!.required).toContain("fee")
    expect(Object.keys(paths)).toEqual(expect.arrayContaining(["/v1/alerts", "/v1/topics/{topic}/stream", "/readyz"]))
    const docs = await fetch(`${server.url}/docs/`)
    expect([docs.status, docs.headers.get("content-type")]).toEqual([200, "text/html; charset=utf-8"])
    expect(docs.headers.get("content-security-policy")).toMatch(/^(?!.*upgrade-insecure).*default-src 'self'/)
    expect(docs.headers.get("access-control-allow-origin")).toBeNull()
  })

  test("a page of the log, and the errors for unknown topics, partitions and positions", async () => {
    interface Page {
      readonly records: ReadonlyArray<{ readonly position: number; readonly event_id: string; readonly value: object }>
    }
    const { body } = await get<Page>(`${server.url}/v1/topics/events.raw.v1/records?partition=3&from=1&limit=2`)
    expect(body).toMatchObject({ topic: "events.raw.v1", partition: 3, start: 0, next: 3 })
    expect(body.records.map(({ position }) => position)).toEqual([1, 2])
    expect(body.records[0]!.value).toMatchObject({ event_id: body.records[0]!.event_id })
    for (const path of ["/v1/topics/x/records", "/v1/topics/x/stream", "/nothing", "/v1/event"]) {
      const { body, status } = await get(server.url + path)
      expect([path, status]).toEqual([path, 404])
      expect(body.error.try.length).toBeGreaterThan(3)
    }
    for (const query of ["partition=12", "from=-1", "from=99999999", "limit=1001"]) {
      expect((await fetch(`${server.url}/v1/topics/events.raw.v1/records?${query}`)).status).toBe(400)
    }
  })
})

describe("when the log is slow or unavailable", () => {
  test("posts get 503 with Retry-After, and the same events are accepted later", async () => {
    const { fail, log, mend } = faulty()
    await declare(log)
    const server = await start({}, log)
    fail(true)
    const event = JSON.stringify(transfer())
    const answer = await post(server, event)
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "1"])
    expect(answer.body.results[0]?.error).toMatchObject({
      code: "log_unavailable",
      try: expect.stringContaining("send it again")
    })
    mend()
    expect((await post(server, event)).status).toBe(202)
    await server.stop()
  })

  test("a failure within a large body: the results list what is in the log, and nothing after it is appended", async () => {
    const { log } = make()
    await declare(log)
    let appends = 0
    const append: Log["Service"]["append"] = (topic, records) =>
      ++appends === 2
        ? Effect.fail(new LogError({ operation: "append", topic, retryable: true, reason: "the database is away" }))
        : log.append(topic, records)
    const server = await start({}, { ...log, append } as Log["Service"])
    const { body, status } = await post(server, lines(many(7_500)), asNdjson)
    expect(status).toBe(503)
    expect(body.accepted + body.rejected).toBe(7_500)
    const codes = body.results.map(({ error, status }) => error?.code ?? status)
    expect(codes).toEqual(codes.toSorted((a, b) => rank(a) - rank(b)))
    expect(new Set(codes)).toEqual(new Set(["accepted", "log_unavailable", "not_attempted"]))
    expect(await recordsOf(log, "events.raw.v1")).toHaveLength(body.accepted)
    expect(appends).toBe(2)
    await server.stop()
  })
  const rank = (code: string) => ["accepted", "log_unavailable", "not_attempted"].indexOf(code)

  test("a topic that the log does not have yet gets 503, and is accepted once it is declared", async () => {
    const { log } = make()
    const server = await start({}, log)
    const event = JSON.stringify(transfer())
    const answer = await post(server, event)
    expect(answer.status).toBe(503)
    expect(answer.body.results[0]?.error).toMatchObject({
      code: "topic_not_ready",
      try: expect.stringContaining("millrace migrate")
    })
    expect((await fetch(`${server.url}/v1/alerts`)).status).toBe(503)
    await declare(log)
    expect((await post(server, event)).status).toBe(202)
    await server.stop()
  })

  test("requests that arrive together share an append, and their responses wait for it", async () => {
    const { calls, hold, log } = faulty()
    await declare(log)
    // the 51st is refused: by then all others are there
    const server = await start({ limits: { waitingEvents: 49 } }, log)
    const release = hold()
    const answered: Array<number> = []
    const posts = many(51).map(async (event) => {
      const { status } = await post(server, JSON.stringify(event))
      answered.push(status)
    })
    await Promise.race(posts)
    expect([answered, calls()]).toEqual([[429], 1])
    release()
    await Promise.all(posts)
    expect(answered.toSorted()).toEqual([...Array.from({ length: 50 }, () => 202), 429])
    expect(calls()).toBe(2)
    await server.stop()
  })

  test("too many waiting events, and too many bytes in memory, are refused with 429", async () => {
    const { calls, hold, log } = faulty()
    await declare(log)
    const server = await start({ limits: { waitingEvents: 3, heldBytes: 1_000 } }, log)
    const release = hold()
    const first = post(server, lines(many(1)), asNdjson)
    await expect.poll(calls, { timeout: 20_000 }).toBe(1)
    // the one that comes first waits, and answers last
    const both = [post(server, lines(many(3)), asNdjson), post(server, lines(many(3)), asNdjson)]
    const third = await Promise.race(both)
    expect([third.status, third.headers.get("retry-after"), third.body.results[0]?.error?.code]).toEqual([
      429,
      "1",
      "overloaded"
    ])
    const fourth = await post(server, lines(many(10)), asNdjson)
    expect([fourth.status, fourth.headers.get("retry-after"), fourth.body.error?.code]).toEqual([
      429,
      "1",
      "overloaded"
    ])
    release()
    expect((await first).status).toBe(202)
    expect((await Promise.all(both)).map(({ status }) => status).toSorted()).toEqual([202, 429])
    // what was held is given back
    expect((await post(server, lines(many(20)), asNdjson)).status).toBe(202)
    await server.stop()
  })

  test("a client that disconnects while it sends frees the memory of its body", async () => {
    const server = await start({ limits: { heldBytes: 100_000 } })
    for (let i = 0; i < 5; i++) {
      const socket = connect(server.port, "127.0.0.1")
      socket.write(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-ndjson\r\ncontent-length: 99999\r\n\r\n"
      )
      socket.write("x".repeat(60_000))
      await setTimeout(30)
      socket.destroy()
    }
    // once the server has noticed
    await expect
      .poll(async () => (await post(server, lines(many(300)), asNdjson)).status, { timeout: 20_000 })
      .toBe(202)
    await server.stop()
  })

  // Deno does not measure its event loop's delay
  test.skipIf("Deno" in globalThis)(
    "a busy process refuses posts with 503, and still serves its health routes",
    async () => {
      const server = await start({ limits: { eventLoopDelayMs: 30 } })
      const busy = setInterval(() => {
        for (const until = performance.now() + 100; performance.now() < until;);
      }, 105)
      const refused = async () => {
        const { body, headers, status } = await post(server, lines(many(1)))
        return [status, body.error?.code, headers.get("retry-after")]
      }
      await expect.poll(refused, { timeout: 20_000 }).toEqual([503, "overloaded", "1"])
      expect((await fetch(`${server.url}/healthz`)).status).toBe(200)
      clearInterval(busy)
      await server.stop()
    }
  )

  test("a rate limit responds with 429 in the form of all problems", async () => {
    const server = await start({ rateLimits: { ingest: { max: 2, windowMs: 60_000 } } })
    const answers = [
      await post(server, lines(many(1))),
      await post(server, lines(many(1))),
      await post(server, lines(many(1)))
    ]
    expect(answers.map(({ status }) => status)).toEqual([202, 202, 429])
    expect(answers[2]!.headers.get("retry-after")).toBeTruthy()
    expect(answers[2]!.body.error?.code).toBe("rate_limited")
    await server.stop()
  })
})

describe("on PostgreSQL", () => {
  const scope = Effect.runSync(Scope.make())
  let server: Server
  beforeAll(async () => {
    const log = await Effect.runPromise(
      database.pipe(
        // who waits for a poll waits longer than a test
        Effect.flatMap(({ sql }) => Layer.build(Postgres.layer(sql, { pollMs: 600_000 }))),
        Effect.map((context) => Context.get(context, Log)),
        Effect.provideService(Scope.Scope, scope)
      )
    )
    await declare(log)
    server = await start({}, log)
  })
  afterAll(async () => {
    await server.stop()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  })

  test("the valid events of a large body are in the log as they were sent", async () => {
    const events = many(3_000)
    const text = `${lines(events)}\n{"type":"x"}\n${String.raw`{"type":"transfer","event_id":"\u0000"}`}`
    const { body, status } = await post(server, text, asNdjson)
    expect([status, body.accepted, body.rejected]).toEqual([207, 3_000, 2])
    const records = await recordsOf(server.log, "events.raw.v1")
    const byPlace = new Map(records.map((record) => [`${record.partition}/${record.position}`, record]))
    for (const [i, event] of events.entries()) {
      const { partition, position } = body.results[i]!
      expect(byPlace.get(`${partition}/${position}`)).toMatchObject({
        value: JSON.stringify(event),
        key: event.entity_id,
        tenant: "acme"
      })
    }
  })

  test("single events in parallel share appends, and each has its own position", async () => {
    const answers = await Promise.all(many(200).map((event) => post(server, JSON.stringify(event))))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([202]))
    expect(new Set(answers.map(({ body }) => `${body.results[0]!.partition}/${body.results[0]!.position}`)).size).toBe(
      200
    )
  })

  test("an alert is streamed once it is in the log, and a client that resumes misses none", async () => {
    const alerts = await stream(`${server.url}/v1/alerts`)
    await publish(server, [alert("pg-1", "P1")])
    const [first] = await alerts.records(1)
    alerts.close()
    await publish(server, [alert("pg-2", "P2"), alert("pg-3", "P1")])
    const resumed = await stream(`${server.url}/v1/alerts`, { "last-event-id": first!.id! })
    expect(idsOf(await resumed.records(2)).toSorted()).toEqual(["pg-2", "pg-3"])
    resumed.close()
  })
})
