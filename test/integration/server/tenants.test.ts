// Two tenants on every route: requests of one that name the other's things in every parameter, header and body get nothing of the other's, and change nothing of it.
import { connect } from "node:net"
import { setTimeout } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import type { System } from "../../../src/system/system.ts"
import application from "../../fuzz/application.ts"
import { type Document, type Operation, operationsOf } from "../../fuzz/operations.ts"
import { json } from "../../support/http.ts"
import { keysOf, serveSystem } from "../../support/served-system.ts"

const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
let system: System
let url: string
let port: number
let operations: ReadonlyArray<Operation>

/** Texts of the tenant globex: of its ids, which requests of acme name, and of what no request names. */
const theirs = {
  tenant: "globex",
  order: "order-of-globex",
  customer: "customer-of-globex",
  account: "account-of-globex",
  commandId: "command-of-globex",
  hidden: "secret-of-globex",
  cents: 987_654_321
}
const own = {
  tenant: "acme",
  order: "order-of-acme",
  customer: "customer-of-acme",
  account: "account-of-acme",
  commandId: "command-of-acme",
  hidden: "note-of-acme",
  cents: 123_456_789
}
type Things = Readonly<Record<keyof typeof theirs, string | number>>
const keys = keysOf({
  mr_acme: ["acme", "ingest", "read"],
  mr_mighty: ["acme", "ingest", "read", "operate"],
  mr_globex: ["globex", "ingest", "read"],
  mr_all: [undefined, "ingest", "read", "operate"]
})

/** How many orders each tenant has: enough for each partition to have some of both. */
const orderCount = 12
const ordersOf = (of: Things): ReadonlyArray<object> =>
  Array.from({ length: orderCount }, (_, i) => ({
    type: "placed",
    id: `${of.order}-${i}`,
    customer: `${of.customer}-${i}`,
    tenant: of.tenant,
    cents: of.cents,
    at: 1_767_225_600_000 + i,
    note: of.hidden
  }))

/** The bytes of what a server sends, until it closes the connection or sends nothing for a while. */
const bytesFor = (head: string, body = "", idleMs = 250): Promise<string> =>
  new Promise((resolve, reject) => {
    const chunks: Array<Buffer> = []
    const socket = connect(port, "127.0.0.1", () => socket.write(head + body)).once("error", reject)
    const idle = globalThis.setTimeout(() => socket.destroy(), 20_000)
    socket.on("data", (chunk) => {
      chunks.push(chunk)
      clearTimeout(idle)
      // a response that is not a stream ends with its connection
      if (/^HTTP\/1.1 (?:101|200)/.test(chunks[0]!.toString())) globalThis.setTimeout(() => socket.destroy(), idleMs)
    })
    socket.once("close", () => resolve(Buffer.concat(chunks).toString()))
  })
interface Asked {
  readonly operation: Operation
  readonly key: string
  readonly path: string
  readonly headers: ReadonlyArray<readonly [string, string]>
  readonly body: string | undefined
}
const ask = async ({ body, headers, key, operation, path }: Asked, more = "Connection: close\r\n"): Promise<string> => {
  const lines = [
    ["Host", "localhost"],
    ["Authorization", `Bearer ${key}`],
    ...(body === undefined
      ? []
      : [
          ["Content-Type", json],
          ["Content-Length", String(Buffer.byteLength(body))]
        ]),
    ...headers
  ].map(([name, value]) => `${name}: ${value}\r\n`)
  return bytesFor(`${operation.method} ${path} HTTP/1.1\r\n${lines.join("")}${more}\r\n`, body)
}
const statusOf = (answer: string): number => Number(/^HTTP\/1.1 (\d+)/.exec(answer)?.[1])

beforeAll(async () => {
  ;({ port, system, url } = await run(serveSystem(application, { keys, limits: { waitMs: 5_000 } })))
  // globex first: whoever reads all of acme's records has read past those of globex
  for (const [key, of] of [
    ["mr_globex", theirs],
    ["mr_acme", own]
  ] as const) {
    const sent = (path: string, body: unknown, headers = {}) =>
      fetch(url + path, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { "content-type": json, authorization: `Bearer ${key}`, ...headers }
      })
    expect((await sent("/v1/events", ordersOf(of))).status).toBe(202)
    const command = { cents: of.cents, note: of.hidden }
    const deposit = `/v1/aggregates/account/${of.account}/commands/deposit`
    expect((await sent(deposit, command, { "idempotency-key": of.commandId })).status).toBe(201)
  }
  const isThere = async () => {
    const bounds = await run(system.log.bounds("receipts.v1"))
    const receipts = bounds.reduce((sum, { end, start }) => sum + end - start, 0)
    return receipts === 2 * orderCount && (await rowsOf()).length === 2 * orderCount + 2
  }
  for (const until = Date.now() + 60_000; !(await isThere()); await setTimeout(20))
    if (Date.now() > until) throw new Error("the projections have not processed what was sent")
  operations = operationsOf(
    (await (await fetch(`${url}/openapi.json`, { headers: { authorization: "Bearer mr_all" } })).json()) as Document
  )
}, 120_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** The rows of both read models. */
const rowsOf = async () => [
  ...(await system.database.sql`select to_jsonb(s) as row from seen_orders s order by s.id`),
  ...(await system.database.sql`select to_jsonb(s) as row from seen_accounts s order by s.account`)
]
/** Everything of globex: rows, records and events. */
const everythingOfTheirs = async () => {
  const rows = (await rowsOf()).filter(({ row }) => JSON.stringify(row).includes("globex"))
  const events = await run(system.eventStore.load("account", theirs.account, { from: 1, limit: 100 }))
  const records = []
  for (const topic of ["orders", "account", "receipts.v1"])
    for (const { partition, start } of await run(system.log.bounds(topic)))
      records.push(
        ...(await run(system.log.read(topic, partition, start))).records.filter(({ tenant }) => tenant === "globex")
      )
  return { rows, events: events.events, records }
}

/** The things of globex that can stand for the parameters of a path, which `/` separates. A new parameter needs a line here. */
const inPath: Readonly<Record<string, ReadonlyArray<string>>> = {
  topic: ["orders", "receipts.v1", "account", "prices.v1"],
  "/v1/aggregates": [theirs.account],
  "/v1/operations/aggregates": [`account/${theirs.account}`],
  "/v1/operations/projections": ["counting", "ledger"],
  "/v1/operations/jobs": [theirs.order],
  "/v1/operations/dead-letters": ["1", theirs.order]
}
/** What acme has there. */
const ownInPath: typeof inPath = { topic: inPath["topic"]!, "/v1/aggregates": [own.account] }
const pathsOf = ({ path }: Operation, things: typeof inPath): ReadonlyArray<string> => {
  const [, name] = /\{(\w+)\}/.exec(path) ?? []
  if (name === undefined) return [path]
  const found = things[name] ?? Object.entries(things).find(([prefix]) => path.startsWith(`${prefix}/`))?.[1]
  if (found === undefined && things === inPath) throw new Error(`say what of globex stands for {${name}} in ${path}`)
  return (found ?? []).map((values) =>
    values.split("/").reduce((filled, value) => filled.replace(/\{\w+\}/, encodeURIComponent(value)), path)
  )
}
const texts = [
  theirs.tenant,
  theirs.order,
  `${theirs.order}-0`,
  theirs.customer,
  `${theirs.customer}-0`,
  theirs.account
]
/** Values of parameters by name; of others, every text of globex. */
const valuesOf = (name: string): ReadonlyArray<string> => {
  if (name === "from") return ["earliest", "0", "1", "2026-01-01T00:00:00Z", "0.0.0.0", "0.0"]
  if (name.startsWith("cents") || name.startsWith("times")) return [String(theirs.cents), "0"]
  if (name.startsWith("at") || name.endsWith("_start")) return ["2026-01-01T00:00:00Z"]
  if (name === "partition") return ["0", "1", "2", "3"]
  if (name === "limit") return ["1000"]
  if (name === "order") return ["tenant.desc", "cents.desc", "id"]
  if (name.endsWith(".null")) return ["false", "true"]
  if (name.endsWith(".ne") || name.endsWith(".gte") || name.endsWith(".gt"))
    return [own.tenant, "a", ...texts.slice(0, 2)]
  if (name.endsWith(".prefix")) return ["customer-of-", "order-of-", "g"]
  if (name.endsWith(".in")) return [`acme,globex`, texts.join(",")]
  return texts
}
/** Headers of globex. */
const headersOfTheirs = (name: string): ReadonlyArray<string> => {
  if (name === "last-event-id") return ["0.0.0.0", "0.0"]
  if (/^if-/i.test(name)) return ["*", '"1"', '"0"']
  if (name === "traceparent") return ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]
  if (/idempotency/i.test(name)) return [theirs.commandId]
  return texts.slice(0, 3)
}
const bodiesOf = ({ method, path }: Operation): ReadonlyArray<string | undefined> => {
  if (method === "GET") return [undefined]
  if (path === "/v1/events") return [JSON.stringify(ordersOf(theirs)[0]), JSON.stringify(ordersOf(theirs))]
  if (path.includes("/commands/")) return [JSON.stringify({ cents: 1, note: "x" }), "{}"]
  return [
    "{}",
    JSON.stringify({ table: "seen_orders", key: { customer: `${theirs.customer}-0`, id: `${theirs.order}-0` } }),
    JSON.stringify({ topic: "orders", key: `${theirs.customer}-0`, all: true }),
    JSON.stringify({ keys: [`${theirs.customer}-0`] })
  ]
}

/** Every request of acme's credentials that names things of globex, and one without parameters. */
const requestsOf = async (operation: Operation): Promise<ReadonlyArray<Asked>> => {
  const found: Array<Asked> = []
  // where a page of globex, or of all tenants, goes on
  const cursors: Array<readonly [string, string]> = []
  if (operation.query.some(({ name }) => name === "after") && operation.path.startsWith("/v1/views/"))
    for (const key of ["mr_globex", "mr_all"]) {
      const page = await ask({ operation, key, path: `${operation.path}?limit=1`, headers: [], body: undefined })
      const [, next] = /"next":"([^"]+)"/.exec(page) ?? []
      if (next !== undefined) cursors.push(["after", next], ["after", `${next}&limit=1`])
    }
  const queries = [
    ...operation.query.flatMap(({ name }) => valuesOf(name).map((value) => [name, value] as const)),
    // of all filters of values, which the description has no list of
    ...(operation.path.endsWith("/stream")
      ? (["value.customer", "value.id.prefix", "value.cents.gte", "value.note.ne"] as const).flatMap((name) =>
          valuesOf(name).map((value) => [`from=earliest&${name}`, value] as const)
        )
      : []),
    ...cursors
  ]
  for (const key of ["mr_acme", "mr_mighty"])
    for (const path of pathsOf(operation, inPath))
      for (const body of bodiesOf(operation)) {
        const add = (query: string, headers: Asked["headers"] = []) =>
          found.push({ operation, key, path: `${path}${query}`, headers, body })
        add("")
        if (operation.path.endsWith("/stream")) add("?from=earliest")
        if (key === "mr_mighty") continue
        for (const [name, value] of queries) {
          const isCursor = name === "after" && cursors.length > 0
          add(`?${name}=${isCursor ? value : encodeURIComponent(value)}`)
        }
        for (const { name } of operation.headers) for (const value of headersOfTheirs(name)) add("", [[name, value]])
      }
  return found
}

const allTexts = [...texts, theirs.commandId, theirs.hidden, String(theirs.cents)]
/** Texts of globex in an answer that the request does not have. */
const leaks = (asked: Asked, answer: string): ReadonlyArray<string> => {
  const sent = decodeURIComponent(asked.path) + JSON.stringify(asked.headers) + (asked.body ?? "")
  return allTexts.filter((text) => answer.includes(text) && !sent.includes(text))
}
const inTurn = async <A, B>(items: ReadonlyArray<A>, each: (item: A) => Promise<B>): Promise<ReadonlyArray<B>> => {
  const results: Array<B> = []
  let next = 0
  const worker = async () => {
    while (next < items.length) {
      const i = next++
      results[i] = await each(items[i]!)
    }
  }
  await Promise.all(Array.from({ length: 40 }, worker))
  return results
}

test("no route has a byte of another tenant for a tenant's credential, whatever the request names, and none changes what is another's", async () => {
  const before = await everythingOfTheirs()
  expect(before.rows).toHaveLength(orderCount + 1)
  expect(before.records).toHaveLength(2 * orderCount + 1)
  expect(before.events).toHaveLength(1)
  const all = (await Promise.all(operations.map(requestsOf))).flat()
  expect(all.length).toBeGreaterThan(500)
  const answers = await inTurn(all, (asked) => ask(asked))
  const found = all.flatMap((asked, i) =>
    leaks(asked, answers[i]!).map((text) => `${asked.operation.method} ${asked.path}: ${text}`)
  )
  expect(found).toEqual([])
  expect(answers.map(statusOf).filter((status) => !(status >= 200 && status < 500))).toEqual([])
  // what is about the whole system is not a tenant's, whatever scopes its credential has
  for (const [i, { operation, path }] of all.entries())
    if (/^\/(?:v1\/operations\/|metrics|status)/.test(operation.path)) expect(statusOf(answers[i]!), path).toBe(403)
  expect(await everythingOfTheirs()).toEqual(before)
})

test("the same requests show a tenant its own: each route that a tenant may use answers it", async () => {
  const closed = /^\/(?:v1\/operations\/|metrics|status)/
  // without a column that is the tenant
  const notByTenant = ["/v1/views/revenue", "/v1/views/seen_accounts"]
  for (const operation of operations) {
    if (closed.test(operation.path)) continue
    const body =
      operation.method === "GET"
        ? undefined
        : operation.path === "/v1/events"
          ? JSON.stringify(ordersOf(own)[0])
          : JSON.stringify({ cents: 1, note: own.hidden })
    const query = operation.path.endsWith("/records")
      ? "?partition=0"
      : operation.path.endsWith("/stream")
        ? "?from=earliest"
        : ""
    for (const path of pathsOf(operation, ownInPath)) {
      const answer = await ask({ operation, key: "mr_acme", path: path + query, headers: [], body })
      const expected = notByTenant.some((view) => path === view || path.startsWith(`${view}/`))
        ? [403]
        : [200, 201, 202]
      expect(expected, `${operation.method} ${path}: ${answer.slice(0, 400)}`).toContain(statusOf(answer))
      if (
        /orders\/stream|aggregates\/account|seen_orders|dear_orders/.test(path) &&
        expected[0] === 200 &&
        body === undefined
      )
        // the list of streams has their ids, and nothing of their states
        expect(answer, path).toContain(path.endsWith("/account") ? own.account : String(own.cents))
    }
  }
})

test("a stream and a WebSocket have all records of the tenant, and none of another one", async () => {
  const upgrade =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
  const operation = operations.find(({ path }) => path === "/v1/topics/{topic}/stream")
  for (const topic of ["orders", "receipts.v1"])
    for (const more of ["", upgrade]) {
      const asked = {
        operation: operation!,
        key: "mr_acme",
        path: `/v1/topics/${topic}/stream?from=earliest`,
        headers: [],
        body: undefined
      }
      const answer = await ask(asked, more)
      expect([200, 101]).toContain(statusOf(answer))
      for (let i = 0; i < orderCount; i++) expect(answer).toContain(`"${own.order}-${i}"`)
      expect(leaks(asked, answer)).toEqual([])
    }
})

test("a token of another tenant's write starts a stream, and shows nothing of that tenant", async () => {
  const write = async (key: string, of: Things) => {
    const response = await fetch(`${url}/v1/events`, {
      method: "POST",
      body: JSON.stringify(ordersOf(of).map((order, i) => Object.assign(order, { id: `${of.order}-later-${i}` }))),
      headers: { "content-type": json, authorization: `Bearer ${key}` }
    })
    return ((await response.json()) as { readonly token: string }).token
  }
  const token = await write("mr_globex", theirs)
  await write("mr_acme", own)
  const receipts = async () =>
    (await run(system.log.bounds("receipts.v1"))).reduce((sum, { end, start }) => sum + end - start, 0)
  while ((await receipts()) < 4 * orderCount) await setTimeout(20)
  const operation = operations.find(({ path }) => path === "/v1/topics/{topic}/stream")!
  for (const topic of ["orders", "receipts.v1"]) {
    const path = `/v1/topics/${topic}/stream?from=${token}`
    const asked = { operation, key: "mr_acme", path, headers: [], body: undefined }
    const answer = await ask(asked)
    expect(statusOf(answer), path).toBe(200)
    expect(answer, path).toContain(`"${own.order}-later-`)
    expect(leaks(asked, answer), path).toEqual([])
  }
})
