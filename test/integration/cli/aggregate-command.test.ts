// `millrace aggregate` beside a running `dev` and on a stopped system, and a command over HTTP that is sent again after `kill -9`.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { run, start } from "../../support/cli.ts"

const data = mkdtempSync(join(tmpdir(), "millrace-aggregate-"))
const configs = mkdtempSync(join(tmpdir(), "millrace-aggregate-configs-"))
const place = ["--config", "test/support/orders.config.ts", "--data", data]
const scope = Effect.runSync(Scope.make())

const startDev = async () => {
  const running = start({}, "dev", ...place, "--port", "0")
  const dev = await Effect.runPromise(Scope.provide(running, scope))
  const said = await Effect.runPromise(dev.said(/POST http:\S+?:\d+/))
  return { ...dev, url: said.slice("POST ".length) }
}
let dev: Awaited<ReturnType<typeof startDev>>
beforeAll(async () => {
  dev = await startDev()
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  for (const directory of [data, configs]) rmSync(directory, { recursive: true, force: true })
})
const aggregate = (...args: ReadonlyArray<string>) => Effect.runPromise(run({}, "aggregate", ...args, ...place))
const post = async (id: string, command: string, body: object, headers: Readonly<Record<string, string>> = {}) => {
  const response = await fetch(`${dev.url}/v1/aggregates/order/${id}/commands/${command}`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json", ...headers }
  })
  return { status: response.status, body: (await response.json()) as object }
}

test("beside a running dev, a command and the server see each other's events", async () => {
  const placed = { type: "order.placed", order_id: "o-1", customer: "ann", cents: 1200 }
  await post("o-1", "place", { customer: "ann", cents: 1200 })
  const paid = await aggregate(
    "send",
    "order",
    "o-1",
    "pay",
    "method=card",
    "--expected",
    "1",
    "--json",
    "--actor",
    "bob"
  )
  expect([paid.code, paid.errors]).toEqual([0, ""])
  const events = [{ type: "order.paid", order_id: "o-1", method: "card" }]
  expect(JSON.parse(paid.output)).toEqual({ version: 2, events, repeated: false })
  const cancelled = await post("o-1", "cancel", { reason: "too late" })
  expect(cancelled).toMatchObject({ status: 409, body: { title: "OrderClosed", was: "paid" } })
  const listed = await aggregate("events", "order", "o-1", "--json")
  const lines = listed.output
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as object)
  expect(lines).toMatchObject([
    { version: 1, event: placed },
    { version: 2, event: events[0], headers: { "millrace-actor": "bob" } }
  ])
  const streams = await aggregate("list", "order", "--prefix", "o-1", "--json")
  expect([streams.code, JSON.parse(streams.output)]).toMatchObject([
    0,
    { streams: [{ id: "o-1", version: 2, closed: null }], next: null }
  ])
  expect((await aggregate("list", "order", "--recent", "--limit", "1")).output).toContain("o-1")
})

test("a rejection, another version, and a command id of another command exit with 3", async () => {
  const [rejected, conflict] = await Promise.all([
    aggregate("send", "order", "o-1", "cancel", "reason=x", "--json"),
    aggregate("send", "order", "o-1", "cancel", "reason=x", "--expected", "1")
  ])
  expect([rejected.code, JSON.parse(rejected.output)]).toEqual([
    3,
    { rejection: { _tag: "OrderClosed", order_id: "o-1", was: "paid" } }
  ])
  expect(rejected.errors).toBe('millrace: order o-1 rejected cancel: OrderClosed {"order_id":"o-1","was":"paid"}\n')
  expect(conflict.code).toBe(3)
  expect(conflict.errors).toContain("--expected 2 if the command still makes sense")
})

test.each([
  ["an aggregate", ["show", "ordre", "o-1"], 2, "did you mean order?"],
  ["a command", ["send", "order", "o-1", "cancle"], 2, "did you mean cancel?"],
  ["a field", ["send", "order", "o-1", "cancel", "reasn=x"], 2, "did you mean reason?"],
  ["a missing field", ["send", "order", "o-1", "cancel"], 2, "add reason"],
  ["a version", ["send", "order", "o-1", "cancel", "reason=x", "--expected", "x"], 2, "--expected 3"]
])("an unknown %s exits with 2 before a database is opened", async (_, args, code, advice) => {
  const ended = await Effect.runPromise(
    run({}, "aggregate", ...args, "--config", "test/support/orders.config.ts", "--data", join(data, "none"))
  )
  expect(ended.code).toBe(code)
  expect(ended.errors).toContain(advice)
})

/** The application with other options, in a configuration of its own. */
const configOf = (name: string, options: string): string => {
  const file = join(configs, `${name}.config.ts`)
  const of = (path: string) => JSON.stringify(new URL(`../../../${path}`, import.meta.url).href)
  const lines = [
    `import { Order } from ${of("examples/orders/order.ts")}`,
    `import { Application } from ${of("src/index.ts")}`,
    `export default Application.make({ name: "orders", aggregates: [Order], projections: [], ${options} })`
  ]
  writeFileSync(file, lines.join("\n"))
  return file
}
test("a database that fails, does not exist or is another's is a failure and no rejection: exit code 1", async () => {
  const send = ["send", "order", "o-9", "place", "customer=ann", "cents=5", "--json"]
  const orders = ["--config", "test/support/orders.config.ts"]
  const foreign = configOf("renamed", 'name: "shop"')
  const away = { MILLRACE_DATABASE_URL: "postgres://a:b@127.0.0.1:1/x" }
  const ended = await Effect.runPromise(
    Effect.all(
      [
        run(away, "aggregate", ...send, ...orders),
        run({}, "aggregate", ...send, ...orders, "--data", join(data, "none")),
        run({}, "aggregate", ...send, "--config", foreign, "--data", data)
      ],
      { concurrency: "unbounded" }
    )
  )
  expect(ended.map(({ code, output }) => `${code}${output}`)).toEqual(["1", "1", "1"])
  expect(ended[0]!.errors).toContain("ECONNREFUSED")
  expect(ended[1]!.errors).toContain("there is no database")
  expect(ended[2]!.errors).toContain("the database belongs to the application orders")
})
test("an aggregate with another number of partitions than its topic takes no command", async () => {
  const three = configOf("three", "aggregates: [{ ...Order, partitions: 3 }]")
  const send = ["aggregate", "send", "order", "o-9", "place", "customer=ann", "cents=5", "--config", three]
  const refused = await Effect.runPromise(run({}, ...send, "--data", data))
  expect(refused).toMatchObject({ code: 1, output: "" })
  expect(refused.errors).toBe(
    "millrace: topic order differs from its declaration: the topic has 16 partitions but is declared with 3, which would break the order of its keys; declare 16, or give the new topic another name and copy the events\ntry: millrace topics plan\n"
  )
  expect((await aggregate("show", "order", "o-9")).errors).toBe("millrace: order o-9 has no events\n")
})

test("after kill -9 of the process, the same Idempotency-Key gets the same answer", async () => {
  const key = { "idempotency-key": "k-1" }
  const first = await post("o-2", "place", { customer: "ann", cents: 5 }, key)
  expect(first.status).toBe(201)
  const rejected = await post("o-2", "place", { customer: "ann", cents: 6 }, { "idempotency-key": "k-2" })
  expect(rejected).toMatchObject({ status: 409, body: { title: "OrderExists", repeated: false } })
  dev.process.kill("SIGKILL")
  await Effect.runPromise(dev.ended)
  dev = await startDev()
  const again = await post("o-2", "place", { customer: "ann", cents: 5 }, key)
  expect(again).toEqual({ status: 201, body: { ...first.body, repeated: true } })
  const again2 = await post("o-2", "place", { customer: "ann", cents: 6 }, { "idempotency-key": "k-2" })
  expect(again2).toMatchObject({ status: 409, body: { title: "OrderExists", repeated: true } })
  expect(await post("o-2", "place", { customer: "bob", cents: 5 }, key)).toMatchObject({ status: 422 })
})

test("archive closes a stream for the running dev, may be repeated, and refuses an id without events", async () => {
  await post("o-9", "place", { customer: "ann", cents: 5 })
  const dry = await aggregate("archive", "order", "o-9", "--dry-run")
  expect(dry).toMatchObject({
    code: 0,
    errors: "",
    output: "order o-9 would be archived, at version 1: it would take no more events, and those it has stay\n"
  })
  const first = await aggregate("archive", "order", "o-9")
  expect(first).toMatchObject({
    code: 0,
    errors: "",
    output: "order o-9 is archived, at version 1: it takes no more events, and those it has stay\n"
  })
  expect(await aggregate("archive", "order", "o-9", "--json")).toMatchObject({
    code: 0,
    output: '{"version":1,"repeated":true}\n'
  })
  expect(await aggregate("archive", "order", "o-9", "--dry-run", "--json")).toMatchObject({
    code: 0,
    output: '{"dry_run":true,"version":1,"repeated":true}\n'
  })
  expect(await post("o-9", "pay", { method: "card" })).toMatchObject({
    status: 410,
    body: { error: { code: "stream_closed" } }
  })
  expect(await aggregate("send", "order", "o-9", "pay", "method=card")).toMatchObject({
    code: 3,
    errors: 'millrace: order "o-9" is archived and takes no more events; use another id\n'
  })
  const none = { code: 1, errors: "millrace: order o-10 has no events\n" }
  expect(await aggregate("archive", "order", "o-10")).toMatchObject(none)
  expect(await aggregate("archive", "order", "o-10", "--dry-run")).toMatchObject(none)
  const archive = (id: string, query = "") =>
    fetch(`${dev.url}/v1/operations/aggregates/order/${id}/archive${query}`, { method: "POST" })
  expect((await archive("o-10", "?dryRun=true")).status).toBe(404)
  expect([(await archive("o-10")).status, (await archive("a%00")).status]).toEqual([404, 400])
  expect((await post("o-10", "place", { customer: "ann", cents: 5 })).status).toBe(201)
  const command = "millrace aggregate archive order o-10"
  const asked = await archive("o-10", "?dryRun=true")
  expect([asked.status, await asked.json()]).toEqual([
    200,
    { command: `${command} --dry-run`, dry_run: true, version: 1, repeated: false }
  ])
  expect((await archive("o-10", "?dryRun=perhaps")).status).toBe(400)
  const archived = await archive("o-10")
  expect([archived.status, await archived.json()]).toEqual([
    200,
    { command, dry_run: false, version: 1, repeated: false }
  ])
  expect((await post("o-10", "pay", { method: "card" })).status).toBe(410)
})

test("on a stopped system, the commands start the database and find everything", async () => {
  dev.process.kill("SIGTERM")
  expect(await Effect.runPromise(dev.ended)).toBe(0)
  const cancelled = await aggregate("send", "order", "o-2", "cancel", '{"reason":"changed my mind"}')
  expect(cancelled).toMatchObject({ code: 0, errors: "" })
  expect(cancelled.output).toContain("order o-2 has version 2: done")
  const shown = await aggregate("show", "order", "o-2", "--version", "1", "--json")
  expect(shown).toMatchObject({ code: 0, output: '{"version":1,"state":{"status":"placed","cents":5}}\n' })
  expect(await aggregate("show", "order", "o-3")).toMatchObject({
    code: 1,
    errors: "millrace: order o-3 has no events\n"
  })
})
