// The routes of aggregates over real HTTP, on an event store in memory: commands, states, events, documentation.
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { parseToken, positionToken } from "../../../src/log/position-token.ts"
import { AlertCase } from "../../../aggregates/alert-case.ts"
import { call, newCase, opened, startServer } from "../../support/aggregate-http.ts"
import { stream } from "../../support/http.ts"

let server: Awaited<ReturnType<typeof startServer>>
beforeAll(async () => {
  server = await startServer()
})
afterAll(() => server.stop())

describe("commands", () => {
  test("the first command gets 201, its events, the version and the stream's place; the next gets 200", async () => {
    const path = newCase()
    const first = await call(server, `${path}/commands/open`, opened)
    expect(first.status).toBe(201)
    const id = path.split("/")[1]!
    expect(first.body).toEqual({
      version: 1,
      events: [{ type: "case.opened", case_id: id, ...opened }],
      repeated: false,
      token: expect.stringMatching(/^p1\.[\w-]+$/)
    })
    expect(first.headers.get("etag")).toBe('"1"')
    expect(first.headers.get("location")).toBe(`/v1/aggregates/${path}`)
    const second = await call(server, `${path}/commands/acknowledge`, { case_id: id, at: 1, by: "ann" })
    expect([second.status, second.body.version, second.headers.get("etag")]).toEqual([200, 2, '"2"'])
  })

  test("a command that decides nothing gets 200 without events", async () => {
    const path = newCase()
    await call(server, `${path}/commands/open`, opened)
    await call(server, `${path}/commands/acknowledge`, { at: 1, by: "ann" })
    const key = { "idempotency-key": "nothing" }
    // nothing follows from it, so there is no token
    for (const repeated of [false, true]) {
      const again = await call(server, `${path}/commands/acknowledge`, { at: 2, by: "ann" }, key)
      expect([again.status, again.body]).toEqual([200, { version: 2, events: [], repeated }])
      expect(again.headers.get("millrace-token")).toBe(null)
    }
  })

  test("a command without fields needs no body, and its name may have a dot", async () => {
    const { body, status } = await call(server, "counter/a/commands/take.over", "", {})
    expect([status, body]).toEqual([200, { version: 0, events: [], repeated: false }])
    const response = await fetch(`${server.url}/v1/aggregates/counter/a/commands/take.over`, { method: "POST" })
    expect(response.status).toBe(200)
  })

  test("the same Idempotency-Key gets the same answer, also when the state has changed; with another body it gets 422", async () => {
    const path = newCase()
    const key = { "idempotency-key": "k 1" }
    const first = await call(server, `${path}/commands/open`, opened, key)
    await call(server, `${path}/commands/acknowledge`, { at: 1, by: "ann" })
    const again = await call(server, `${path}/commands/open`, opened, key)
    expect(again.status).toBe(first.status)
    expect(again.body).toEqual({ ...first.body, repeated: true })
    const other = await call(server, `${path}/commands/open`, { ...opened, score: 6 }, key)
    expect([other.status, other.body.error.code]).toEqual([422, "command_reused"])
  })

  test("a rejection is a problem with status 409, whose title is its tag and whose members are its fields", async () => {
    const path = newCase()
    const case_id = path.split("/")[1]!
    await call(server, `${path}/commands/open`, opened)
    await call(server, `${path}/commands/acknowledge`, { at: 1, by: "ann" })
    const { body, headers, status } = await call(server, `${path}/commands/acknowledge`, { at: 2, by: "bob" })
    expect(status).toBe(409)
    expect(headers.get("content-type")).toBe("application/problem+json; charset=utf-8")
    expect(body).toMatchObject({
      type: "about:blank",
      title: "CaseTaken",
      tag: "CaseTaken",
      status: 409,
      case_id,
      by: "ann",
      rejection: { _tag: "CaseTaken", case_id, by: "ann" },
      error: { code: "rejected" }
    })
  })

  test("a field of a rejection that is called status leaves the problem's own as it is", async () => {
    const { body, status } = await call(server, "counter/full/commands/count", { n: 11 })
    expect([status, body.status, body.rejection]).toEqual([409, 409, { _tag: "TooMany", status: "full", most: 10 }])
    expect(body).toMatchObject({ most: 10 })
  })

  test.each([
    ["a version that the stream has not", { "if-match": '"7"' }, "2"],
    ["no events", { "if-none-match": "*" }, "2"],
    ["version 0", { "if-match": '"0"' }, "2"]
  ])("If-Match with %s gets 412 with the actual version as ETag", async (_, headers, actual) => {
    const path = newCase()
    await call(server, `${path}/commands/open`, opened)
    await call(server, `${path}/commands/escalate`, { at: 1 })
    const refused = await call(server, `${path}/commands/escalate`, { at: 2 }, headers as Record<string, string>)
    expect([refused.status, refused.headers.get("etag"), refused.body.error.code]).toEqual([
      412,
      `"${actual}"`,
      "version_conflict"
    ])
  })

  test.each([['"1"'], ["1"], ['W/"1"'], ["*"]])("If-Match: %s passes where the stream has version 1", async (match) => {
    const path = newCase()
    await call(server, `${path}/commands/open`, opened, { "if-none-match": "*" })
    const { status } = await call(server, `${path}/commands/escalate`, { at: 2 }, { "if-match": match })
    expect(status).toBe(200)
  })

  test("headers in UTF-8 and in Latin-1 are read alike, whichever they are", async () => {
    const path = newCase()
    const utf8 = (text: string) => Buffer.from(text).toString("latin1")
    await call(server, `${path}/commands/open`, opened, {
      "idempotency-key": utf8("Schlüssel 😀"),
      "millrace-actor": "Jörg",
      "millrace-correlation": utf8("Jörg"),
      "millrace-causation": utf8("Größe"),
      "millrace-tenant": utf8("Österreich")
    })
    const [event] = await Effect.runPromise(Stream.runCollect(server.store.read("alert-case", path.split("/")[1]!)))
    expect(event).toMatchObject({
      tenant: "Österreich",
      headers: {
        "millrace-actor": "Jörg",
        "millrace-correlation": "Jörg",
        "millrace-causation": "Größe",
        "millrace-command": "Schlüssel 😀"
      }
    })
  })

  test("the events have the trace, the actor, the correlation and the tenant of the request", async () => {
    const path = newCase()
    const { body, headers } = await call(server, `${path}/commands/open`, opened, {
      traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
      "millrace-actor": Buffer.from("Zoë").toString("latin1"),
      "millrace-correlation": "order-1",
      "millrace-causation": "event-1",
      "millrace-tenant": "acme",
      "idempotency-key": "key-with-context"
    })
    expect(body.version).toBe(1)
    const id = path.split("/")[1]!
    const [event] = await Effect.runPromise(Stream.runCollect(server.store.read("alert-case", id)))
    expect(event).toMatchObject({
      traceparent: headers.get("traceparent"),
      tenant: "acme",
      eventTime: opened.at,
      headers: {
        "millrace-actor": "Zoë",
        "millrace-correlation": "order-1",
        "millrace-causation": "event-1",
        "millrace-command": "key-with-context"
      }
    })
    expect(event?.traceparent).toMatch(/^00-4bf92f3577b34da6a3ce929d0e0e4736-/)
  })
})

test("without a credential each command names the tenant of its own events, and everyone reads and changes the stream", async () => {
  const path = newCase()
  const id = path.split("/")[1]!
  expect((await call(server, `${path}/commands/open`, opened, { "millrace-tenant": "acme" })).status).toBe(201)
  for (const headers of [{ "millrace-tenant": "globex" }, {}])
    expect((await call(server, `${path}/commands/escalate`, { at: 1 }, headers)).status).toBe(200)
  const events = await Effect.runPromise(Stream.runCollect(server.store.read("alert-case", id)))
  expect(events.map(({ tenant }) => tenant)).toEqual(["acme", "globex", undefined])
  for (const of of [path, `${path}/events`])
    expect((await call(server, of, undefined, { "millrace-tenant": "globex" })).status).toBe(200)
  const long = await call(server, `${path}/commands/escalate`, { at: 1 }, { "millrace-tenant": "a".repeat(1_025) })
  expect([long.status, long.body.error.code]).toEqual([400, "invalid_parameter"])
})

describe("reads", () => {
  test("the state has its version and an ETag for If-Match, which answers no 304: a version can say something else later", async () => {
    const path = newCase()
    await call(server, `${path}/commands/open`, opened)
    await call(server, `${path}/commands/escalate`, { at: 1 })
    const { body, headers, status } = await call(server, path)
    expect([status, headers.get("etag")]).toEqual([200, '"2"'])
    expect(body).toEqual({ version: 2, state: { status: "open", level: 1, by: null } })
    for (const of of [path, `${path}/events`]) {
      const again = await call(server, of, undefined, { "if-none-match": '"2"' })
      expect([again.status, again.headers.get("etag")]).toEqual([200, '"2"'])
      expect(again.headers.get("cache-control")).toBe("private, no-cache")
    }
    const matched = await call(server, `${path}/commands/escalate`, { at: 2 }, { "if-match": headers.get("etag")! })
    expect([matched.status, matched.headers.get("etag")]).toEqual([200, '"3"'])
  })

  test("no cache keeps answers about an aggregate with personal fields, which an erasure changes", async () => {
    expect((await call(server, "person/p1/commands/join", {})).status).toBe(201)
    for (const path of ["person", "person/p1", "person/p1/events"]) {
      const { headers, status } = await call(server, path, undefined, { "if-none-match": '"1"' })
      expect([status, headers.get("cache-control")]).toEqual([200, "no-store"])
    }
  })

  test("an earlier state is found by its version, and by a time", async () => {
    const path = newCase()
    await call(server, `${path}/commands/open`, opened)
    const then = Date.now()
    await new Promise((resolve) => setTimeout(resolve, 5))
    await call(server, `${path}/commands/escalate`, { at: 1 })
    const first = { version: 1, state: { status: "open", level: 0, by: null } }
    expect((await call(server, `${path}?version=1`)).body).toEqual(first)
    expect((await call(server, `${path}?at=${then}`)).body).toEqual(first)
    expect((await call(server, `${path}?at=${new Date(then).toISOString()}`)).body).toEqual(first)
    const later = await call(server, `${path}?version=3`)
    expect([later.status, later.body.error.code]).toEqual([404, "unknown_version"])
    expect((await call(server, `${path}?at=2026-02-30T12:00:00Z`)).status).toBe(400)
    const earlier = await call(server, `${path}?at=2001-01-01T00:00:00Z`)
    expect([earlier.status, earlier.body.error.code]).toEqual([404, "unknown_stream"])
  })

  test("events come in pages", async () => {
    const path = newCase()
    await call(server, `${path}/commands/open`, opened)
    for (const at of [1, 2, 3]) await call(server, `${path}/commands/escalate`, { at })
    const page = await call(server, `${path}/events?from=2&limit=2`)
    expect([page.body.version, page.body.next, page.body.events.map(({ version }) => version)]).toEqual([4, 4, [2, 3]])
    expect(page.body.events[0]).toMatchObject({ event: { type: "case.escalated", level: 1, at: 1 }, event_time: 1 })
    const last = await call(server, `${path}/events?from=4`)
    expect([last.body.next, last.body.events.length]).toEqual([null, 1])
    expect((await call(server, `${path}/events?from=9`)).body).toEqual({ version: 4, next: null, events: [] })
  })

  test("a stream without events gets 404", async () => {
    for (const path of [newCase(), `${newCase()}/events`]) {
      const { body, headers, status } = await call(server, path)
      expect([status, body.error.code]).toEqual([404, "unknown_stream"])
      expect(headers.get("content-type")).toBe("application/problem+json; charset=utf-8")
    }
  })
})

describe("waitFor", () => {
  const tokenOf = async (path: string) => {
    const { headers } = await call(server, `${path}/commands/open`, opened)
    return headers.get("millrace-token")!
  }
  const ahead = (token: string, by: number) =>
    positionToken(parseToken(token)!.map((one) => Object.assign(one, { position: one.position + by })))

  test("of a command's token answers at once, and of other topics asks nothing", async () => {
    const path = newCase()
    const token = await tokenOf(path)
    expect((await call(server, `${path}?waitFor=${token}`)).body.version).toBe(1)
    expect((await call(server, `${path}/events?waitFor=${token}`)).body.version).toBe(1)
    const other = positionToken([{ topic: "orders.v1", partition: 0, position: 1e9 }])
    for (const read of [path, `${path}/events`])
      expect((await call(server, `${read}?waitFor=${other}`)).status, read).toBe(200)
  })

  test("of what is not a token, or of a partition that the topic does not have, is refused", async () => {
    const path = newCase()
    const [{ partition, position, topic }] = parseToken(await tokenOf(path)) as [
      { topic: string; partition: number; position: number }
    ]
    const elsewhere = positionToken([{ topic, partition: partition + 1_000, position }])
    for (const read of [path, `${path}/events`])
      for (const text of ["waitFor=", "waitFor=p2.W10", "waitFor=p1.W10&waitFor=p1.W10", `waitFor=${elsewhere}`]) {
        const { body, status } = await call(server, `${read}?${text}`)
        expect([status, body.error.code], `${read} ${text}`).toEqual([400, "invalid_parameter"])
      }
  })

  test("of events that the store does not have yet waits for them, and gets 504 after the limit", async () => {
    const path = newCase()
    const next = ahead(await tokenOf(path), 1)
    const waits = Promise.all([path, `${path}/events`].map((read) => call(server, `${read}?waitFor=${next}`)))
    await call(server, `${path}/commands/escalate`, { at: 1 })
    expect((await waits).map(({ body, status }) => [status, body.version])).toEqual([
      [200, 2],
      [200, 2]
    ])
    const brief = await startServer((store) => store, { waitMs: 20 })
    const first = await call(brief, `${path}/commands/open`, opened)
    const late = await call(brief, `${path}?waitFor=${ahead(first.headers.get("millrace-token")!, 7)}`)
    expect([late.status, late.body.error.code, late.headers.get("retry-after")]).toEqual([504, "not_yet", "1"])
    expect(late.body.error.message).toMatch(
      /^after 20 ms alert-case\/\d+ has events up to position 1, and the token asks for 8$/
    )
    await brief.stop()
  })

  test("is limited to a number of requests at once", async () => {
    const limited = await startServer((store) => store, { waitMs: 20, waiting: 0 })
    const path = newCase()
    await call(limited, `${path}/commands/open`, opened)
    const { body, status } = await call(limited, `${path}?waitFor=p1.W10`)
    expect([status, body.error.code]).toEqual([429, "overloaded"])
    expect((await call(limited, path)).status).toBe(200)
    await limited.stop()
  })
})

interface Document {
  readonly paths: Readonly<Record<string, unknown>>
  readonly components: Readonly<Record<string, Readonly<Record<string, unknown>>>>
}
test("OpenAPI has a path for each command with its schema, the states and the events", async () => {
  const response = await fetch(`${server.url}/openapi.json`)
  const document = (await response.json()) as Document
  expect(Object.keys(document.paths)).toEqual(
    expect.arrayContaining([
      "/v1/events",
      "/v1/aggregates/alert-case/{id}",
      "/v1/aggregates/alert-case/{id}/events",
      ...["open", "acknowledge", "escalate", "resolve"].map(
        (name) => `/v1/aggregates/alert-case/{id}/commands/${name}`
      ),
      "/v1/aggregates/counter/{id}/commands/take.over"
    ])
  )
  expect(document.paths["/v1/aggregates/alert-case/{id}/commands/resolve"]).toMatchObject({
    post: {
      requestBody: {
        content: {
          "application/json": {
            schema: { required: ["at", "resolution"], properties: { resolution: { enum: ["fixed", "false alarm"] } } },
            example: { at: 1_357_035_420_000, resolution: "fixed" }
          }
        }
      }
    }
  })
  expect(Object.keys(document.components["schemas"]!)).toContain("alert-case.event")
  const refs = JSON.stringify(document.paths).match(/#\/components\/\w+\/[^"]+/g) ?? []
  expect(refs.length).toBeGreaterThan(10)
  for (const ref of new Set(refs)) {
    const [, , kind = "", name = ""] = ref.split("/")
    expect(document.components[kind]?.[name], ref).toBeDefined()
  }
})

describe("the topic of an aggregate", () => {
  const post = async (query: string, event: object) => {
    const response = await fetch(`${server.url}/v1/events${query}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(event)
    })
    const body = (await response.json()) as {
      readonly error?: { readonly code: string; readonly try: string }
      readonly results?: ReadonlyArray<{ readonly error?: { readonly code: string; readonly try: string } }>
    }
    return { status: response.status, ...(body.error ?? body.results![0]!.error!) }
  }

  test("takes no events by POST /v1/events: the answer names the route of its commands", async () => {
    const event = { type: "case.opened", case_id: "x", ...opened }
    const route =
      "send a command, by POST /v1/aggregates/alert-case/ID/commands/COMMAND, where COMMAND is one of open, "
    const named = await post("?topic=alert-case", event)
    expect(named).toMatchObject({ status: 403, code: "aggregate_topic" })
    expect(named.try).toContain(route)
    const found = await post("", event)
    expect(found.code).toBe("unknown_event_type")
    expect(found.try).toContain(route)
  })

  test("is listed, and its records have the versions of their events", async () => {
    const path = newCase()
    const id = path.split("/")[1]!
    await call(server, `${path}/commands/open`, opened)
    await call(server, `${path}/commands/acknowledge`, { at: 1, by: "ann" })
    const json = async (of: string) => (await (await fetch(`${server.url}${of}`)).json()) as never
    const { topics } = (await json("/v1/topics")) as { readonly topics: ReadonlyArray<object> }
    expect(topics).toContainEqual(expect.objectContaining({ name: "alert-case", written_by: ["alert-case"] }))
    const found: Array<{ readonly key: string; readonly headers: Readonly<Record<string, string>> }> = []
    for (let partition = 0; partition < AlertCase.partitions; partition++) {
      const page = await json(`/v1/topics/alert-case/records?partition=${partition}`)
      found.push(...(page as { readonly records: typeof found }).records.filter(({ key }) => key === id))
    }
    expect(found.map(({ headers }) => headers["millrace-version"])).toEqual(["1", "2"])
  })

  test("is streamed: new events as server-sent events, of one stream if it is asked for", async () => {
    const path = newCase()
    const id = path.split("/")[1]!
    const records = await stream(`${server.url}/v1/topics/alert-case/stream?entity_id=${id}`)
    expect(records.status).toBe(200)
    await call(server, `${newCase()}/commands/open`, opened)
    const { body } = await call(server, `${path}/commands/open`, opened)
    const [frame] = await records.records(1)
    expect(JSON.parse(frame!.data!)).toEqual(body.events[0])
    records.close()
  })
})
