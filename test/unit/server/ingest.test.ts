// The gateway without HTTP: splitting a posted text, checks, versions, trace, group commit.
import { Schema } from "effect"
import { describe, expect, test } from "vitest"
import { LogError, UnknownTopic, type NewRecord } from "../../../src/log/log.ts"
import { isDeeper, parseJson, UnacceptableJson } from "../../../src/log/json.ts"
import { Application, Event, Projection, Topic } from "../../../src/index.ts"
import { Appender, type Appended } from "../../../src/server/gateway/appender.ts"
import { catalogOf } from "../../../src/server/http/catalog.ts"
import { Checker, type RequestContext } from "../../../src/server/gateway/validate.ts"
import { parseStreamId } from "../../../src/server/streams/position.ts"
import type { ServeOptions } from "../../../src/server/server.ts"
import { defaultLimits } from "../../../src/server/http/limits.ts"
import { elementsOf, linesOf, onOneLine } from "../../../src/server/gateway/split.ts"
import { traceOf } from "../../../src/server/http/trace.ts"
import application from "../../../millrace.config.ts"

const reference = application as unknown as ServeOptions["application"]

/** The elements of an array; undefined if it is not complete. */
const elementsIn = (text: string): ReadonlyArray<string | undefined> | undefined => {
  const elements: Array<string | undefined> = []
  const found = elementsOf(text)
  for (;;) {
    const { done, value } = found.next()
    if (done === true) return value ? elements : undefined
    elements.push(value)
  }
}

describe("texts", () => {
  test("NDJSON is split at LF and CRLF, without blank lines, and with or without a line end at the end", () => {
    const lines = [...linesOf('{"a":1}\r\n\n  \t\n{"b":2}\n {"c":3}')]
    expect(lines).toEqual([
      { text: '{"a":1}', line: 1 },
      { text: '{"b":2}', line: 4 },
      { text: '{"c":3}', line: 5 }
    ])
    expect([...linesOf("\n\r\n ")]).toEqual([])
  })

  test.each([
    ["[]", []],
    [" [ ] ", []],
    ["[1,2]", ["1", "2"]],
    ['[{"a":[1,2]}, {"b":"],[{\\"}"} ]', ['{"a":[1,2]}', '{"b":"],[{\\"}"}']],
    ['["\\\\",[[],[]]]', ['"\\\\"', "[[],[]]"]],
    ["[1,]", ["1", ""]],
    ["[,]", ["", ""]]
  ])("elements of %s", (text, elements) => {
    expect(elementsIn(text)).toEqual(elements)
  })

  test.each(["[", "[1", "[1]]", "[1] 2", '["a]', "[{]}", "[1}"])("is not a complete array: %s", (text) => {
    const elements = elementsIn(text)
    const parses = (element = "") => {
      try {
        return JSON.parse(element) !== undefined
      } catch {
        return false
      }
    }
    expect(elements === undefined || !elements.every(parses)).toBe(true)
  })

  test.each([
    ["an array in an array", () => elementsIn(`[[${"0,".repeat(2_000_000)}0]]`)],
    ["blank lines", () => [...linesOf("\n".repeat(4_000_000))]],
    ["a line after blank ones", () => [...linesOf(`${"\n".repeat(4_000_000)}{}`)].slice(0, -1)]
  ])("a large body lets the event loop go on at least once in a million characters: %s", (_, split) => {
    expect(split()!.filter((text) => text === undefined)).toHaveLength(3)
  })

  test("brackets within strings do not count for the depth", () => {
    const nested = (depth: number) => "[".repeat(depth) + "]".repeat(depth)
    expect(isDeeper(nested(64), 64)).toBe(false)
    expect(isDeeper(nested(65), 64)).toBe(true)
    expect(isDeeper(`{"a":"${"[{".repeat(100)}"}`, 64)).toBe(false)
    expect(isDeeper(`[${"[],".repeat(100)}[]]`, 64)).toBe(false)
    expect(isDeeper(`{"a":"\\"${"[".repeat(65)}"}`, 64)).toBe(false)
  })

  test("escaped NUL and escaped unpaired surrogates are found; an escaped backslash is neither", () => {
    const found = (text: string): Pick<UnacceptableJson, "message" | "path"> | undefined => {
      try {
        parseJson(text)
        return undefined
      } catch (error) {
        return error as UnacceptableJson
      }
    }
    expect(found(String.raw`{"a":{"b":["x\u0000"]}}`)).toMatchObject({
      path: "a.b.0",
      message: "a.b.0 contains a NUL character"
    })
    expect(found(String.raw`{"a":"\ud800"}`)?.message).toBe("a contains an unpaired surrogate")
    expect(found(String.raw`{"a":"\uDC00x"}`)?.message).toBe("a contains an unpaired surrogate")
    expect(found(String.raw`{"k\u0000":1}`)?.message).toBe("the value contains a NUL character in the name of a field")
    expect(found(String.raw`{"a":"\ud83d\ude00"}`)).toBeUndefined()
    expect(found(String.raw`{"a":"\\u0000"}`)).toBeUndefined()
  })

  test("a value on several lines becomes one line", () => {
    expect(onOneLine('{\n  "a": 1,\r\n  "b": "x\\ny"\n}')).toBe('{ "a": 1, "b": "x\\ny" }')
  })
})

describe("trace", () => {
  const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"

  test("a valid traceparent is continued with a new span and its flags", () => {
    const { traceId, traceparent } = traceOf(parent)
    expect(traceId).toBe("4bf92f3577b34da6a3ce929d0e0e4736")
    expect(traceparent).toMatch(/^00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-00$/)
    expect(traceparent).not.toContain("00f067aa0ba902b7")
  })

  test("a traceparent of a later version is read like version 00", () => {
    expect(traceOf(`cc-${parent.slice(3)}-more`).traceId).toBe("4bf92f3577b34da6a3ce929d0e0e4736")
  })

  test.each([
    undefined,
    "",
    "nonsense",
    parent.toUpperCase(),
    `${parent}-more`,
    `ff-${parent.slice(3)}`,
    `00-${"0".repeat(32)}-00f067aa0ba902b7-01`,
    `00-4bf92f3577b34da6a3ce929d0e0e4736-${"0".repeat(16)}-01`
  ])("a new trace begins if the traceparent is %j", (header) => {
    const { traceId, traceparent } = traceOf(header)
    expect(traceId).toMatch(/^[0-9a-f]{32}$/)
    expect(traceId).not.toMatch(/^(4bf92f3577b34da6a3ce929d0e0e4736|0+)$/)
    expect(traceparent).toMatch(new RegExp(`^00-${traceId}-[0-9a-f]{16}-01$`))
  })
})

const request = (now = 1_000_000): RequestContext => ({
  entry: undefined,
  version: undefined,
  tenant: undefined,
  traceparent: "00-a-b-01",
  now
})
const checker = new Checker(catalogOf(reference, defaultLimits.maxAheadMs), defaultLimits)
const check = (event: object, more: Partial<RequestContext> = {}) =>
  checker.check(JSON.stringify(event), { ...request(), ...more })
const raw = { event_id: "p-1", entity_id: "e", amount: 1, occurred_at: 5, tenant: "acme" }
const payment = { type: "payment", ...raw }

describe("versions", () => {
  test.each([
    ["the newest", { ...payment, currency: "EUR", fee: 1 }, 3],
    ["the second", { ...payment, currency: "EUR" }, 2],
    ["the first", payment, 1],
    ["the first with a foreign field", { ...payment, note: "hi" }, 1]
  ])("found: %s", (_name, event, version) => {
    expect(check(event)).toMatchObject({
      ok: true,
      record: { schemaVersion: version, key: "e", eventTime: 5, eventId: "p-1" }
    })
  })

  test.each([
    ["fee of a wrong type", { ...payment, currency: "EUR", fee: "1" }, "fee"],
    ["fee without currency", { ...payment, fee: 1 }, "currency"],
    ["currency of a wrong type", { ...payment, currency: 5 }, "currency"],
    ["amount of a wrong type in the oldest", { ...payment, amount: "1" }, "amount"]
  ])("an invalid event of a new version is not accepted as an old one: %s", (_name, event, path) => {
    expect(check(event)).toMatchObject({ ok: false, fault: { code: "schema_mismatch", path } })
  })

  test("the version in the event takes precedence over the one of the request", () => {
    expect(check({ ...payment, currency: "EUR", fee: 1, schema_version: 2 })).toMatchObject({
      record: { schemaVersion: 2 }
    })
    expect(check({ ...payment, currency: "EUR", fee: 1 }, { version: 1 })).toMatchObject({
      record: { schemaVersion: 1 }
    })
    expect(check({ ...payment, schema_version: 1 }, { version: 3 })).toMatchObject({ record: { schemaVersion: 1 } })
    expect(check(payment, { version: 3 })).toMatchObject({ fault: { code: "schema_mismatch", path: "currency" } })
  })

  test.each([0, 4, -1, 1.5, "2", null, {}])("%j is an unknown version", (version) => {
    expect(check({ ...payment, schema_version: version })).toMatchObject({ fault: { code: "unknown_schema_version" } })
  })
})

describe("routing", () => {
  const Paid = Event.make("paid", { id: Schema.String })
  const Sent = Event.make("sent", { id: Schema.String })
  const orders = Topic.events("orders", { events: [Paid, Sent], key: "id" })
  const parcels = Topic.events("parcels", { events: [Sent], key: "id" })
  const counts = Topic.records("counts", { value: { id: Schema.String }, key: "id" })
  const count = Projection.make({
    name: "count",
    version: 1,
    source: [orders, parcels],
    writes: [counts],
    maxAhead: "10 seconds",
    handle: (event, out) => out.publish(counts, { id: event.id })
  })
  const app = Application.make({ name: "shop", projections: [Projection.async(count)] })
  const catalog = catalogOf(app as unknown as ServeOptions["application"], 1)
  const own = new Checker(catalog, defaultLimits)

  test("the event type decides the topic, unless two topics have it", () => {
    expect(own.check('{"type":"paid","id":"1"}', request())).toMatchObject({ entry: { topic: { name: "orders" } } })
    const both = own.check('{"type":"sent","id":"1"}', request())
    expect(both).toMatchObject({ fault: { code: "ambiguous_event_type", try: "name the topic, as ?topic=orders" } })
    const named = own.check('{"type":"sent","id":"1"}', { ...request(), entry: catalog.topics.get("parcels") })
    expect(named).toMatchObject({ entry: { topic: { name: "parcels" } } })
  })

  test("the catalog has the writers of a topic, and how far in the future its readers allow events", () => {
    expect(catalog.topics.get("counts")).toMatchObject({ writtenBy: ["count"], maxAheadMs: 1 })
    expect(catalog.topics.get("orders")).toMatchObject({ readBy: ["count"], maxAheadMs: 10_000 })
  })

  test("the event time of an event without one is now", () => {
    expect(own.check('{"type":"paid","id":"1"}', request(77))).toMatchObject({ record: { eventTime: 77 } })
  })

  test("a text that is no time is named with its field, and what the field takes", () => {
    const topicOf = (eventTime: (value: { readonly at: string }) => number) =>
      Topic.records("visits", {
        value: { id: Schema.String, at: Schema.String },
        key: "id",
        eventTime
      })
    const faultOf = (topic: ReturnType<typeof topicOf>) => {
      const visits = Projection.make({ name: "visits", version: 1, source: topic, writes: [], handle: () => undefined })
      const made = Application.make({ name: "shop", projections: [Projection.async(visits)] })
      const topics = catalogOf(made as unknown as ServeOptions["application"], 1)
      const entry = topics.topics.get("visits")
      return new Checker(topics, defaultLimits).check('{"id":"1","at":"yesterday"}', { ...request(), entry })
    }
    const fault = { code: "event_time_out_of_range", path: "at", message: 'at is "yesterday", which is no time' }
    expect(faultOf(topicOf(({ at }) => Date.parse(at)))).toMatchObject({
      fault: { ...fault, try: "send a date such as 2026-01-31T12:00:00Z" }
    })
    expect(faultOf(topicOf(({ at }) => Number(at)))).toMatchObject({
      fault: { ...fault, try: "send epoch milliseconds, such as 1769860800000" }
    })
  })
})

describe("what is kept", () => {
  test("the text as it was sent, with all digits and undeclared fields", () => {
    const text =
      '{"type":"transfer","event_id":"a","entity_id":"b","amount":1.50,"occurred_at":5,"tenant":"t","big":12345678901234567890}'
    expect(checker.check(text, request())).toMatchObject({ record: { value: text } })
  })
})

describe("group commit", () => {
  const record = (key: string): NewRecord => ({
    partition: 0,
    key,
    value: "{}",
    eventTime: 0,
    eventId: undefined,
    tenant: undefined,
    traceparent: undefined,
    schemaVersion: undefined,
    headers: {}
  })
  const unavailable = new LogError({ operation: "append", topic: "t", retryable: false, reason: "no" })

  const held = () => {
    const calls: Array<{ readonly keys: ReadonlyArray<string | null>; readonly done: (appended: Appended) => void }> =
      []
    const append = (_topic: string, records: ReadonlyArray<NewRecord>) =>
      new Promise<Appended>((done) => calls.push({ keys: records.map(({ key }) => key), done }))
    const positions = (index: number, from: number): void => {
      const { done, keys } = calls[index]!
      done({ _tag: "Positions", positions: keys.map((_, i) => ({ partition: 0, position: from + i })) })
    }
    return { append, calls, positions }
  }

  test("requests that arrive during an append share the next one, and each gets its own positions", async () => {
    const { append, calls, positions } = held()
    const appender = new Appender(append, { ...defaultLimits, waitingEvents: 100 })
    const first = appender.append("t", [record("a")])
    const second = appender.append("t", [record("b"), record("c")])
    const third = appender.append("t", [record("d")])
    expect(calls.map(({ keys }) => keys)).toEqual([["a"]])
    positions(0, 0)
    expect(await first).toMatchObject({ positions: [{ position: 0 }] })
    await expect.poll(() => calls.length).toBe(2)
    expect(calls.map(({ keys }) => keys)).toEqual([["a"], ["b", "c", "d"]])
    positions(1, 10)
    expect(await second).toMatchObject({ positions: [{ position: 10 }, { position: 11 }] })
    expect(await third).toMatchObject({ positions: [{ position: 12 }] })
  })

  test("a record that the log refuses fails its own request only", async () => {
    const { append, calls, positions } = held()
    const appender = new Appender(append, { ...defaultLimits, waitingEvents: 100 })
    void appender.append("t", [record("a")])
    const bad = appender.append("t", [record("bad")])
    const good = appender.append("t", [record("good")])
    positions(0, 0)
    await expect.poll(() => calls.length).toBe(2)
    calls[1]!.done({ _tag: "Failed", error: unavailable })
    await expect.poll(() => calls.length).toBe(3)
    calls[2]!.done({ _tag: "Failed", error: unavailable })
    await expect.poll(() => calls.length).toBe(4)
    positions(3, 5)
    expect(await bad).toMatchObject({ _tag: "Failed" })
    expect(await good).toMatchObject({ positions: [{ position: 5 }] })
  })

  test("a request above the limit of waiting records is refused, and nothing of it is appended", async () => {
    const { append, calls } = held()
    const appender = new Appender(append, { ...defaultLimits, waitingEvents: 2 })
    void appender.append("t", [record("a")])
    void appender.append("t", [record("b"), record("c")])
    expect(await appender.append("t", [record("d")])).toEqual({ _tag: "Overloaded" })
    expect(calls).toHaveLength(1)
  })

  test("while the log does not answer, further requests are refused at once, until it does", async () => {
    const { append, calls, positions } = held()
    const appender = new Appender(append, { ...defaultLimits, stalledMs: 50 })
    const first = appender.append("t", [record("a")])
    expect(appender.stalledMs).toBeUndefined()
    await expect.poll(() => appender.stalledMs).toBeGreaterThanOrEqual(50)
    expect(await appender.append("t", [record("b")])).toMatchObject({ _tag: "Stalled" })
    expect(await appender.append("other", [record("c")])).toMatchObject({ _tag: "Stalled" })
    expect(calls).toHaveLength(1)
    positions(0, 0)
    await first
    expect(appender.stalledMs).toBeUndefined()
    const next = appender.append("t", [record("d")])
    positions(1, 1)
    expect(await next).toMatchObject({ _tag: "Positions" })
  })

  test("a request waits for the log for a limited time; a request behind it, too", async () => {
    const { append } = held()
    const appender = new Appender(append, { ...defaultLimits, appendMs: 20 })
    const answers = await Promise.all([appender.append("t", [record("a")]), appender.append("t", [record("b")])])
    expect(answers).toEqual([
      { _tag: "NoAnswer", ms: 20 },
      { _tag: "NoAnswer", ms: 20 }
    ])
  })

  test("an unknown topic fails every request that shares the append", async () => {
    const { append, calls } = held()
    const appender = new Appender(append, { ...defaultLimits, waitingEvents: 9 })
    const error = new UnknownTopic({ topic: "t", reason: "gone" })
    const all = [appender.append("t", [record("a")]), appender.append("t", [record("b")])]
    calls[0]!.done({ _tag: "Failed", error })
    await expect.poll(() => calls.length).toBe(2)
    calls[1]!.done({ _tag: "Failed", error })
    expect(await Promise.all(all)).toEqual([
      { _tag: "Failed", error },
      { _tag: "Failed", error }
    ])
  })
})

test("the id of an HTTP stream has one position for each partition", () => {
  expect(parseStreamId("1.20.3", 3)).toEqual([1, 20, 3])
  for (const id of ["1.2", "1.2.3.4", "1..3", "a.b.c", "-1.2.3", "", "1.2.1e3"])
    expect(parseStreamId(id, 3)).toBeUndefined()
})
