// The routes of operations over real HTTP, on a running system: each does what its command does, and only the scope operate may use it.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { Log } from "../../../src/log/log.ts"
import { Application, Event, Projection, ReadModel, Topic } from "../../../src/index.ts"
import type { Access } from "../../../src/server/access/access.ts"
import { serve } from "../../../src/server/server.ts"
import { diff } from "../../../src/system/diff.ts"
import { diffJson } from "../../../src/system/diff-json.ts"
import { readStatus } from "../../../src/system/observed.ts"
import { openSystem, runProjections, type System } from "../../../src/system/system.ts"
import { recordOf } from "../../support/engine.ts"
import { databaseOn, server as postgres } from "../../support/postgres.ts"

const partitions = 2
const Moved = Event.make("moved", { id: Schema.String, user: Schema.String })
const source = Topic.events("moves", { events: [Moved], id: "id", key: "user", partitions })
const moves = ReadModel.table("moves_seen", {
  columns: { id: Schema.String, user: Schema.String },
  primaryKey: ["id"]
})
let isBroken = true
const accounts = Projection.make({
  name: "accounts",
  version: 1,
  source,
  writes: [moves],
  failure: { then: "park", order: "key" },
  handle: ({ id, user }, out) => {
    if (isBroken && user === "bad") throw new RangeError("no such user")
    out.upsert(moves, { id, user })
  }
})
const application = Application.make({ name: "bank", projections: [Projection.async(accounts)] })

const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
let system: System
let url: string
let rows: (text: string) => Promise<ReadonlyArray<Readonly<Record<string, unknown>>>>
const principals: Readonly<Record<string, ReadonlyArray<"ingest" | "read" | "operate">>> = {
  mr_ann: ["operate"],
  mr_bob: ["ingest", "read"],
  mr_eve: ["operate"]
}
const access: Access = {
  isRequired: true,
  keys: {
    principalOf: (key) =>
      Promise.resolve(
        principals[key] && {
          name: key.slice(3),
          tenant: key === "mr_eve" ? "acme" : undefined,
          scopes: new Set(principals[key])
        }
      )
  }
}

beforeAll(async () => {
  const started = await run(postgres)
  const database = { ...(await run(databaseOn(started, 12))), embedded: false, failed: Effect.never }
  system = await run(openSystem(application, database))
  rows = (text) => database.sql.unsafe(text) as never
  await run(Effect.forkScoped(runProjections(system)))
  const status = Effect.map(Effect.orDie(readStatus(system)), (found) => ({ ...found }))
  const { eventStore, log } = system
  const served = serve({ application, eventStore, system, status, access, port: 0, limits: { eventLoopDelayMs: 0 } })
  url = (await run(Effect.provideService(served, Log, log))).url
  await feed("a", "bad", "bad", "b", "bad")
  await eventually("select count(*) = 3 as ok from millrace.dead_letters")
  await eventually("select count(*) = 2 as ok from moves_seen")
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

let fed = 0
const feed = (...users: ReadonlyArray<string>) =>
  run(
    system.log.append(
      source.name,
      users.map((user) => recordOf(source, { type: "moved", id: `m${fed++}`, user }, partitions))
    )
  )
const eventually = async (condition: string) => {
  for (let i = 0; i < 2_000; i++) {
    if ((await rows(condition))[0]!["ok"] === true) return
    await new Promise((done) => setTimeout(done, 10))
  }
  throw new Error(`never: ${condition}`)
}
interface Answer {
  readonly status: number
  // oxlint-disable-next-line typescript/no-explicit-any -- each route answers with another shape
  readonly body: any
  readonly location: string | null
}
const call = async (path: string, body?: unknown, key = "mr_ann"): Promise<Answer> => {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" }
  const init = body === undefined ? { headers } : { method: "POST", body: JSON.stringify(body), headers }
  const response = await fetch(`${url}${path.startsWith("/v1") ? path : `/v1/operations/${path}`}`, init)
  return { status: response.status, body: await response.json(), location: response.headers.get("location") }
}
/** Starts a job, and waits for its end. */
const job = async (path: string, body: unknown = {}) => {
  let answer = await call(path, body)
  const { location } = answer
  while (answer.status < 300 && answer.body.state === "running") {
    await new Promise((done) => setTimeout(done, 50))
    answer = await call(location!)
  }
  return answer
}
const refusal = async (path: string, body?: unknown) => {
  const { body: answer, status } = await call(path, body)
  return [status, answer.error?.code]
}

test("a body of more than 2 MiB is refused before it is parsed", async () => {
  const key = "k".repeat(2 * 1024 * 1024)
  expect(await refusal("history", { key })).toEqual([413, "body_too_large"])
  expect(await refusal("history", { key: key.slice(16) })).not.toEqual([413, "body_too_large"])
})

test("dead letters are grouped by error, root causes first with how many wait behind them, and listed page by page", async () => {
  const { body } = await call("dead-letters/errors")
  expect(body.groups).toMatchObject([
    { kind: "projection", projection: "accounts", error: "RangeError", count: 1, keys: 1, waiting: 2, waits: false },
    { kind: "projection", projection: "accounts", error: "EarlierParked", count: 2, waiting: 0, waits: true }
  ])
  expect(body.groups[0].sample.message).toBe("no such user")
  const seen: Array<number> = []
  let after = ""
  do {
    const { body: page } = await call(`dead-letters?limit=1${after === "" ? "" : `&after=${after}`}`)
    expect(page.dead_letters).toHaveLength(1)
    seen.push(page.dead_letters[0].id)
    after = page.next ?? ""
  } while (after !== "")
  const stored = await rows("select id from millrace.dead_letters order by id desc")
  expect(seen.toSorted((a, b) => b - a)).toEqual(stored.map(({ id }) => id))
  expect(new Set(seen).size).toBe(3)
  const filtered = await call("dead-letters?error=RangeError&projection=accounts&key=bad")
  expect(filtered.body.dead_letters).toHaveLength(1)
  expect(filtered.body.command).toBe(
    "millrace dlq list --projection accounts --key bad --error RangeError --limit 50 --status parked,skipped,retrying"
  )
  const { body: one } = await call(`dead-letters/${body.groups[0].sample.id}`)
  expect(one.dead_letter).toMatchObject({
    kind: "projection",
    error: "RangeError",
    topic: "moves",
    trace_id: "0af7651916cd43dd8448eb211c80319c",
    status: "parked",
    thrown_at: expect.stringMatching(/operations\.test\.ts:\d+:\d+\)?$/)
  })
  expect(one.dead_letter.thrown_at).not.toContain(process.cwd())
  expect(JSON.parse(one.dead_letter.value as string)).toEqual({ type: "moved", id: "m1", user: "bad" })
})

test("dead letters are discarded and retried, in bulk only if that is said, and a dry run changes nothing", async () => {
  const before = await rows("select * from millrace.dead_letters order by id")
  expect(await refusal("dead-letters/retry", {})).toEqual([422, "invalid_operation"])
  const dry = await call("dead-letters/discard?dryRun=true", { all: true })
  expect(dry.body).toMatchObject({ dry_run: true, count: 3, command: "millrace dlq discard --all --dry-run" })
  const dryRetry = await call("dead-letters/retry?dryRun=true", { projection: "accounts" })
  expect([dryRetry.body.dry_run, dryRetry.body.command]).toEqual([
    true,
    "millrace dlq retry --projection accounts --dry-run"
  ])
  expect(await rows("select * from millrace.dead_letters order by id")).toEqual(before)
  const last = Number(before.at(-1)!["id"])
  const discarded = await call("dead-letters/discard", { ids: [last] })
  expect(discarded.body).toMatchObject({ dry_run: false, discarded: 1, command: `millrace dlq discard ${last}` })
  expect(await rows(`select status, decided_by from millrace.dead_letters where id = ${last}`)).toEqual([
    { status: "discarded", decided_by: "ann" }
  ])
  expect(await refusal("dead-letters/discard", { ids: [last] })).toEqual([409, "refused"])
  isBroken = false
  const retried = await call("dead-letters/retry", { projection: "accounts" })
  expect(retried.body).toMatchObject({ retried: 1, processed: 1, failed_again: 0 })
  await eventually("select count(*) = 4 as ok from moves_seen")
  expect((await call("dead-letters")).body.dead_letters).toEqual([])
})

test("a projection is planned, rebuilt, compared, promoted, rolled back and retired, as by the commands", async () => {
  const live = async () => (await rows("select version from millrace.live"))[0]!["version"]
  expect(await refusal("projections/accounts/promote", {})).toEqual([409, "refused"])
  expect(await refusal("projections/accounts/diff", {})).toEqual([409, "refused"])
  const plan = await job("projections/accounts/rebuild?dryRun=true")
  expect(plan.body).toMatchObject({
    kind: "plan",
    state: "done",
    by: "ann",
    command: "millrace rebuild accounts --plan",
    result: { projection: "accounts", build: 2, continues: false }
  })
  expect(await rows("select version from millrace.projection")).toHaveLength(1)
  const rebuilt = await job("projections/accounts/rebuild")
  expect(rebuilt.body).toMatchObject({ state: "done", result: { build: 2, live: 1, state: "done" } })
  const { body: found } = await call("projections/accounts")
  expect(found).toMatchObject({
    name: "accounts",
    live: 1,
    job: null,
    builds: [
      { build: 1, role: "live" },
      { build: 2, role: "candidate", left: 0, rebuild: { state: "done" } }
    ]
  })
  const { body: compared } = await job("projections/accounts/diff", { samples: 2 })
  expect([compared.state, compared.command]).toEqual(["done", "millrace diff accounts --samples 2"])
  const asCommand = diff(
    { application, sql: system.database.sql, log: system.log, on: "PostgreSQL" },
    { name: "accounts", exact: false, samples: 2, timeoutMs: 10_000 }
  )
  const printed = JSON.parse(diffJson(await run(asCommand))) as object
  expect(compared.result).toEqual({ ...printed, frozenMs: compared.result.frozenMs })
  const dry = await job("projections/accounts/promote?dryRun=true")
  expect(dry.body).toMatchObject({ command: "millrace promote accounts --dry-run", result: { state: "ready", to: 2 } })
  expect(await live()).toBe(1)
  const promoted = await job("projections/accounts/promote")
  expect(promoted.body).toMatchObject({
    command: "millrace promote accounts",
    result: { state: "promoted", from: 1, to: 2 }
  })
  expect(await live()).toBe(2)
  expect((await job("projections/accounts/promote", { rollback: true })).body.result).toMatchObject({ from: 2, to: 1 })
  expect(await live()).toBe(1)
  const asked = { build: 2, drop: true }
  const dryRetire = await call("projections/accounts/retire?dryRun=true", asked)
  expect(dryRetire.body).toMatchObject({
    dry_run: true,
    builds: [2],
    command: "millrace retire accounts 2 --drop --dry-run"
  })
  const retired = async () =>
    (await rows("select retired_at is not null as r from millrace.projection where version = 2"))[0]
  const isRefused = (await call("projections/accounts/retire", asked)).status
  expect([isRefused, await retired()]).toEqual([200, { r: true }])
  expect(await refusal("projections/accounts/promote", { build: 2, rollback: true })).toEqual([
    422,
    "invalid_operation"
  ])
})

test("a rebuild goes on when its client is gone, one at a time for a projection, and is paused, resumed and cancelled", async () => {
  const gone = new AbortController()
  const started = fetch(`${url}/v1/operations/projections/accounts/rebuild`, {
    method: "POST",
    headers: { authorization: "Bearer mr_ann", "content-type": "application/json" },
    body: JSON.stringify({ rate: 0.2 }),
    signal: gone.signal
  }).catch(() => undefined)
  await eventually("select count(*) = 1 as ok from millrace.rebuild where version = 3 and state = 'running'")
  gone.abort()
  await started
  expect(await refusal("projections/accounts/rebuild", {})).toEqual([409, "busy"])
  expect(await refusal("projections/accounts/promote", {})).toEqual([409, "busy"])
  const { body: running } = await call("projections/accounts")
  const { job: id } = running
  expect((await call(`jobs/${id}`)).body).toMatchObject({ kind: "rebuild", state: "running", subject: "accounts" })
  const paused = await call("projections/accounts/rebuild/pause", {})
  expect(paused.body).toMatchObject({ state: "paused", build: 3, command: "millrace rebuild accounts --pause" })
  expect(await rows("select state from millrace.rebuild where version = 3")).toEqual([{ state: "paused" }])
  const resumed = await call("projections/accounts/rebuild/resume", { rate: null })
  expect(resumed.body).toMatchObject({ state: "running", command: "millrace rebuild accounts --rate max --resume" })
  await call("projections/accounts/rebuild/pause", {})
  const asked = await call("projections/accounts/rebuild/cancel?dryRun=true", {})
  expect(asked.body).toMatchObject({ dry_run: true, command: "millrace rebuild accounts --cancel --plan" })
  // it may have ended before it was paused
  expect(asked.body.state).toBe("unchanged")
  const cancelled = await call("projections/accounts/rebuild/cancel", {})
  expect(cancelled.body).toMatchObject({ state: "cancelled", build: asked.body.build, dry_run: false })
  const isCancelled = cancelled.body.build === 3
  await eventually(
    `select ${isCancelled ? "count(*) = 0" : "true"} as ok from millrace.projection where version = 3 and retired_at is null`
  )
  let ended = await call(`jobs/${id}`)
  while (ended.body.state === "running") ended = await call(`jobs/${id}`)
  expect(["done", "failed"]).toContain(ended.body.state)
  expect((await call("jobs")).body.jobs[0].result).toBeNull()
})

test("the command of a key's history is a request to this server", async () => {
  const { body } = await job("history", { key: "a" })
  const sent = `'content-type: application/json' -d '{"key":"a"}'`
  expect([body.state, body.command]).toEqual(["done", `curl -X POST ${url}/v1/operations/history -H ${sent}`])
})

test("a row is explained by its events", async () => {
  const { body, status } = await job("explain", { table: "moves_seen", key: { id: "m0" } })
  expect([status, body.state, body.command]).toEqual([200, "done", `millrace explain moves_seen '{"id":"m0"}'`])
  expect(body.result).toMatchObject([
    {
      projection: "accounts",
      same: true,
      stored: { id: "m0", user: "a" },
      events: [{ topic: "moves", outcome: "applied" }]
    }
  ])
  expect((await job("explain", { table: "moves_seen", key: "m0" })).body.result[0].events).toHaveLength(1)
  expect(await refusal("explain", { table: "moves_seen", key: "nobody" })).toEqual([404, "unknown_name"])
  expect(await refusal("explain", { table: "nothing", key: "m0" })).toEqual([404, "unknown_name"])
  expect(await refusal("explain", { table: "moves_seen", key: { other: 1 } })).toEqual([422, "invalid_operation"])
})

test("status, processes, topics and consumers show what the system has", async () => {
  const { body: status } = await call("status")
  expect(Object.keys(status)).toEqual(Object.keys(await Effect.runPromise(Effect.orDie(readStatus(system)))))
  const [waited] =
    await rows(`select round(extract(epoch from g.moved_at - r.appended_at) * 1000)::float8 as ms, g.partition
    from millrace.progress g join millrace.live l using (projection, version) join millrace.log_record r
      on (r.topic, r.partition, r.position) = (g.topic, g.partition, g.next_position - 1)
    where g.projection = 'accounts' and g.moved_at is not null order by g.moved_at desc limit 1`)
  expect(status.delays).toMatchObject({
    projections: [{ projection: "accounts", topic: "moves", partition: waited!["partition"] }]
  })
  expect(Math.abs(status.delays.projections[0].projection_ms - Number(waited!["ms"]))).toBeLessThanOrEqual(1)
  expect(status.delays.projections[0].source_ms).toBeGreaterThanOrEqual(0)
  const { body: declared } = await call("application")
  expect(declared).toMatchObject({
    name: "bank",
    topics: [
      { name: "moves", kind: "events", types: ["moved"], dead_letters: false, relays: [] },
      { name: "moves.accounts.dlq", kind: "derived", dead_letters: true, relays: ["embedded"] }
    ],
    projections: [
      { name: "accounts", reads: ["moves"], tables: ["moves_seen"], fails_to: ["moves.accounts.dlq"], sends_to: [] }
    ],
    relays: ["embedded"]
  })
  const { body: processes } = await call("processes")
  expect(processes.processes[0]).toMatchObject({ id: system.presence.id, running: true, roles: ["projections"] })
  const { body: topics } = await call("topics")
  expect(topics).toMatchObject({
    log: "PostgreSQL",
    topics: [
      { name: "moves", declared: { partitions }, differs: false, action: "nothing" },
      { name: "moves.accounts.dlq" }
    ]
  })
  const ends = topics.topics[0].partitions.map(({ end }: { readonly end: number }) => end)
  expect(ends.reduce((a: number, b: number) => a + b, 0)).toBeGreaterThanOrEqual(fed)
  const { body: consumers } = await call("consumers")
  expect(consumers.projections[0]).toMatchObject({ projection: "accounts", build: 1, lag: 0 })
  expect(consumers.projections[0].partitions.map(({ end }: { readonly end: number }) => end)).toEqual(ends)
})

test("timers are listed, retried and discarded", async () => {
  const insert = (id: string, failed: string) =>
    rows(`insert into millrace.timer (timer_id, projection, topic, partition, position, number, key, name, slot, due, aggregate, stream, command,
      correlation_id, causation_id, next_try, attempts, failed) values ('${id}', 'accounts', 'moves', 0, 0, 0, 'k', 't', '${id}', now() + interval '1 day',
      'case', 's', '{"type":"close"}', 'c', 'c', now() + interval '1 hour', 2, ${failed})`)
  const [one, two] = ["5d2c1a52-0000-4000-8000-000000000001", "5d2c1a52-0000-4000-8000-000000000002"]
  await insert(one, "null")
  await insert(two, "'no'")
  expect((await call("timers")).body.timers.map(({ id }: { readonly id: string }) => id)).toEqual([one, two])
  expect((await call("timers?failing=true")).body.timers).toMatchObject([{ id: two, state: "failing", reason: "no" }])
  expect((await call("timers/discard?dryRun=true", { all: true })).body).toMatchObject({
    count: 2,
    dry_run: true,
    command: "millrace timers discard --all --dry-run"
  })
  expect(await refusal("timers/discard", {})).toEqual([422, "invalid_operation"])
  expect(await refusal("timers/retry", { ids: [one] })).toEqual([409, "refused"])
  expect((await call("timers/discard", { ids: [one] })).body).toMatchObject({
    ids: [one],
    command: `millrace timers discard ${one}`
  })
  expect(await rows("select timer_id from millrace.timer")).toEqual([{ timer_id: two }])
  await call("timers/discard", { all: true })
  expect(await rows("select timer_id from millrace.timer")).toEqual([])
})

test("what a route does not know is refused, so that a misspelled dry run never changes anything", async () => {
  expect(await refusal("projections/accounts/promote?dryrun=true", {})).toEqual([400, "invalid_parameter"])
  expect(await refusal("projections/accounts/promote?dryRun=yes", {})).toEqual([400, "invalid_parameter"])
  expect(await refusal("projections/accounts/rebuild/pause?dryRun=true", {})).toEqual([400, "invalid_parameter"])
  expect(await refusal("dead-letters/retry", { projction: "accounts" })).toEqual([422, "schema_mismatch"])
  expect(await refusal("dead-letters/retry", { projection: "acounts" })).toEqual([404, "unknown_name"])
  expect(await refusal("projections/nobody")).toEqual([404, "unknown_name"])
  expect(await refusal("projections/nobody/rebuild", {})).toEqual([404, "unknown_name"])
  expect(await refusal("dead-letters/999999")).toEqual([404, "unknown_name"])
  expect(await refusal("dead-letters?after=nonsense")).toEqual([400, "invalid_parameter"])
  expect(await refusal("jobs/none")).toEqual([404, "unknown_name"])
  // a dry run that is in the wrong place must not archive
  expect((await refusal("aggregates/account/a/archive", { dryRun: true }))[0]).toBe(422)
  expect(await refusal("projections/accounts/rebuild", { from: "now", until: "1 hour" })).toEqual([
    422,
    "invalid_operation"
  ])
})

test("only a credential with the scope operate and without a tenant may use them", async () => {
  for (const path of ["status", "application", "dead-letters", "projections", "timers", "topics", "jobs"]) {
    expect((await call(path, undefined, "mr_bob")).status, path).toBe(403)
    expect((await call(path, undefined, "mr_eve")).status, path).toBe(403)
    expect((await call(path, undefined, "mr_nobody")).status, path).toBe(401)
  }
  for (const path of ["projections/accounts/promote", "aggregates/account/a/archive"])
    for (const key of ["mr_bob", "mr_eve"]) expect((await call(path, {}, key)).status, path).toBe(403)
})
