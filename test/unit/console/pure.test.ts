// What the console computes without a browser: the sentence about an application, the places of a graph's nodes, and lines with gaps.
import { afterEach, expect, test, vi } from "vitest"

const root = new URL("../../../src/console/lib/", import.meta.url)
// the console is plain JavaScript without types
// oxlint-disable-next-line typescript/no-explicit-any -- see above
const load = (name: string): Promise<any> => import(new URL(name, root).href)
const { sentenceOf } = await load("sentence.js")
const { placed, related } = await load("graph.js")
const { linesOf, stateOf } = await load("spans.js")
const { bodyOf, commandOf, decide, doneText, filterOf, find } = await load("dead-letters.js")
const { isNested, isNumeric, parseJson } = await load("json.js")
const { fileOf } = await load("rows.js")
const { freshIdOf, nodeOf, valueOf } = await load("forms.js")

const nothing = { topics: [], aggregates: [], projections: [], views: [] }
test("the sentence names what is declared, shortens long lists, and says what is seen", () => {
  expect(sentenceOf({ name: "empty", ...nothing }, { records: 0 })).toBe(
    "empty declares nothing yet: nothing has come in yet."
  )
  const orders = {
    ...nothing,
    name: "orders",
    aggregates: [{ name: "order" }],
    projections: [{ tables: ["orders"], windows: [] }]
  }
  expect(sentenceOf(orders, { records: 3 })).toBe(
    "orders decides the commands of order, and keeps orders: its topics have 3 records."
  )
  const rides = {
    ...nothing,
    name: "rides",
    topics: [
      { name: "rides.v1", kind: "events", types: ["a", "b", "c", "d", "e"], dead_letters: false },
      { name: "bills.v1", kind: "derived", types: [], dead_letters: false },
      { name: "rides.v1.bills.dlq", kind: "derived", types: [], dead_letters: true }
    ],
    projections: [{ tables: ["users"], windows: ["per_hour"] }]
  }
  expect(sentenceOf(rides, { records: 9, rate: 12.4, delay: 8 })).toBe(
    "rides turns a, b, c and 2 more events into users and per_hour, and publishes bills.v1: 12 events come in a second, and a row is there 8 ms after its event was stored."
  )
})

test("a graph of 30 projections has a column for each step, also where parts of it are circles", () => {
  const projections = Array.from({ length: 30 }, (_, i) => `p${i}`)
  const edges = projections.flatMap((one, i) => [
    { from: "source", to: one },
    { from: one, to: `t${i}` }
  ])
  // what the first publishes is read by a policy, whose commands lead back to the source
  edges.push({ from: "t0", to: "policy" }, { from: "policy", to: "source" }, { from: "nobody", to: "t0" })
  const ids = ["source", ...projections, ...projections.map((_, i) => `t${i}`), "policy", "view"]
  const graph = placed(
    ids.map((id) => ({ id, ...(id === "view" && { beside: "t3" }) })),
    edges
  )
  const column = new Map(graph.nodes.map((one: { id: string; column: number }) => [one.id, one.column]))
  expect([column.get("source"), column.get("p7"), column.get("t7"), column.get("policy"), column.get("view")]).toEqual([
    0, 1, 2, 3, 2
  ])
  expect(graph.columns).toBe(4)
  expect(graph.edges.filter(({ isBack }: { isBack: boolean }) => isBack)).toMatchObject([{ from: "policy" }])
  // each place has one node
  const places = graph.nodes.map((one: { column: number; row: number }) => `${one.column} ${one.row}`)
  expect(new Set(places).size).toBe(ids.length)
  expect([...related(edges, "t5")].toSorted()).toEqual(
    ["p0", "p5", "policy", "source", "t0", "t5", "nobody"].toSorted()
  )
})

test("lines have a gap where a key has no window, and exact numbers of rows are numbers of a chart", () => {
  const hour = 3_600_000
  const row = (at: number, n: unknown) => ({ window_start: new Date(at * hour).toISOString(), n })
  const lines = linesOf([[row(3, 1), row(0, { text: "12345678901234567890" })], [row(1, 7)]], {
    column: "n",
    start: "window_start",
    everyMs: hour
  })
  expect(lines.times).toEqual([0, hour, 2 * hour, 3 * hour])
  expect(lines.values).toEqual([
    [12345678901234567000, null, null, 1],
    [null, 7, null, null]
  ])
})

test("a window is closed once all partitions have passed its end and its grace", () => {
  const of = (...streamTimes: ReadonlyArray<number>) => stateOf(0, { sizeMs: 100, graceMs: 10, streamTimes })
  expect([of(), of(109), of(110), of(110, 50), of(200, 110)]).toEqual([
    undefined,
    "open",
    "closed",
    "closing",
    "closed"
  ])
  expect(stateOf(0, { sizeMs: null, graceMs: 0, streamTimes: [9] })).toBeUndefined()
})

test("the filter of a group of dead letters names its build, its target or its bridge, as the command and the request do", () => {
  const group = {
    kind: "projection",
    failed_in: "weather build 2 (version 1)",
    projection: "weather",
    build: 2,
    error: "TypeError"
  }
  const filter = { kind: "projection", projection: "weather", build: 2, error: "TypeError" }
  expect(filterOf(group)).toEqual(filter)
  expect(commandOf("discard", bodyOf(filter))).toBe(
    "npx millrace dlq discard --kind projection --projection weather --error TypeError --build 2"
  )
  expect(
    filterOf({ kind: "relay", failed_in: "relay to kafka", projection: null, build: null, error: "Refused" })
  ).toEqual({ kind: "relay", target: "kafka", error: "Refused" })
  expect(
    filterOf({ kind: "bridge", failed_in: "bridge b/orders", projection: null, build: null, error: "Refused" })
  ).toEqual({ kind: "bridge", bridge: "b", rule: "orders", error: "Refused" })
})
afterEach(() => vi.unstubAllGlobals())
/** Answers the console's requests, in their order; a number is a status. Returns what was sent. */
const answering = (...answers: ReadonlyArray<object | number>) => {
  const sent: Array<{ readonly path: string; readonly body: unknown }> = []
  vi.stubGlobal("sessionStorage", { getItem: () => null })
  vi.stubGlobal("fetch", (path: string, { body }: { readonly body?: string }) => {
    const answer = answers[sent.length] ?? 500
    sent.push({ path, body: body === undefined ? undefined : JSON.parse(body) })
    const init = { status: typeof answer === "number" ? answer : 200, headers: { "content-type": "application/json" } }
    return Promise.resolve(new Response(typeof answer === "number" ? "{}" : JSON.stringify(answer), init))
  })
  return sent
}
const signal = new AbortController().signal
const ids = Array.from({ length: 700 }, (_, i) => i + 1)
const outcome = "/v1/operations/dead-letters/outcome"
test("a retry in parts goes back to what was not processed in time, and corrects its total until all is", async () => {
  const failed = [{ id: 600, error: "RangeError", message: "again" }]
  const sent = answering(
    { retried: 500, processed: 498, failed_again: 0, pending: [499, 500] },
    { retried: 200, pending: [501, 502] },
    503,
    { waiting: 3, processed: 1, failed_again: 0, pending: [500, 501, 502] },
    { waiting: 0, processed: 3, failed_again: 1, failed, pending: [] }
  )
  const seen: Array<string> = []
  const onPart = (now: unknown) => seen.push(doneText("retry", now))
  const total = await decide("retry", ids, { everyMs: 1, onPart, signal })
  expect(seen.slice(1)).toEqual([
    "700 dead letters sent again: 498 processed, 0 failed again; 202 are not processed yet.",
    "700 dead letters sent again: 499 processed, 0 failed again; 201 are not processed yet.",
    "700 dead letters sent again: 501 processed, 1 failed again; 198 are not processed yet."
  ])
  expect(total).toMatchObject({ sent: 700, decided: 700, processed: 501, again: 1, failed, others: 0 })
  expect(sent).toHaveLength(5)
  for (const one of sent.slice(2)) expect(one).toEqual({ path: outcome, body: { ids: [499, 500, 501, 502] } })
})
test("nothing is asked any more once the dialog is closed, or if no process runs what is left", async () => {
  const part = { retried: 2, processed: 0, pending: [1, 2] }
  const closed = answering(part)
  await decide("retry", [1, 2], { everyMs: 1, isWatched: () => false, signal })
  expect(closed).toHaveLength(1)
  const notRun = [{ build: "orders build 1", count: 2, try: "millrace start" }]
  const waits = answering(part, { waiting: 0, processed: 0, pending: [1, 2], not_run: notRun })
  expect(await decide("retry", [1, 2], { everyMs: 1, signal })).toMatchObject({ processed: 0, notRun })
  expect(waits).toHaveLength(2)
})
test("a discard counts those that are being retried, which it leaves out", async () => {
  const sent = answering({ count: 705, ids: [] }, { groups: [{ count: 400 }, { count: 100 }] })
  expect(await find("discard", { projection: "orders" })).toMatchObject({ count: 705, retrying: 500 })
  expect(sent[1]?.path).toBe("/v1/operations/dead-letters/errors?projection=orders&status=retrying")
  const none = answering({ count: 3, ids: [] })
  expect(await find("discard", { projection: "orders", status: "parked" })).toMatchObject({ retrying: 0 })
  expect(none).toHaveLength(1)
})
test("a decision about what a list shows is about its open ones, whatever the address says", () => {
  expect(bodyOf({})).toEqual({ all: true })
  expect(bodyOf({ projection: "p", build: "2", status: "parked,discarded", after: "x" })).toEqual({
    projection: "p",
    build: 2,
    status: "parked"
  })
  expect(bodyOf({ key: "k", status: "parked,skipped,retrying,retried,discarded" })).toEqual({ key: "k" })
})

test("a number that JavaScript cannot hold keeps its digits, and an object with a field text is no such number", () => {
  const { exact, plain } = parseJson('{"exact":12345678901234567890,"plain":{"text":"a"}}')
  expect([String(exact), isNumeric(exact), isNested(exact)]).toEqual(["12345678901234567890", true, false])
  expect([isNumeric(plain), isNested(plain)]).toEqual([false, true])
  const columns = [{ name: "exact" }, { name: "plain" }]
  expect(fileOf("csv", [{ exact, plain }], columns)).toBe('exact,plain\r\n12345678901234567890,"{""text"":""a""}"\r\n')
  const number = nodeOf({ type: "number" }, [])
  expect(String(valueOf(number, { "": "12345678901234567890" }).value)).toBe("12345678901234567890")
  const errorOf = (schema: object, text: string) => valueOf(nodeOf(schema, []), { "": text }).errors[0]?.message
  expect(errorOf({ type: "number" }, "1e999")).toBe("1e999 is further from zero than a number can be")
  expect(errorOf({ type: "integer", exclusiveMinimum: -1 }, "-5")).toBe("-5 is less than 0")
  expect(errorOf({ type: "integer", exclusiveMinimum: -1 }, "0")).toBe(undefined)
  expect(errorOf({ type: "integer", exclusiveMaximum: 10 }, "10")).toBe("10 is more than 9")
  expect(errorOf({ type: "number", exclusiveMinimum: -1 }, "-1")).toBe("-1 is not more than -1")
  expect(valueOf(number, { "": '{"text":1}' }).errors).toEqual([{ at: "", message: '{"text":1} is no number' }])
})

test("a new id fits the schema of its field: a UUID, or else the next number at its end", () => {
  const fresh = (schema: object, old: string) => freshIdOf(nodeOf({ type: "string", ...schema }, []), old)
  expect(fresh({}, "s-1")).toMatch(/^[\da-f-]{36}$/)
  expect(fresh({ pattern: "^p-\\d{3}$" }, "p-099")).toBe("p-100")
  expect(fresh({ maxLength: 10 }, "s-9")).toBe("s-10")
  expect(fresh({ pattern: "^[a-z]+$" }, "abc")).toBeUndefined()
  expect(freshIdOf(nodeOf({ type: "integer" }, []), "7")).toBeUndefined()
})
