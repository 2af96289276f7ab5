// Investigation builds in one process: what they have, where they end, and that they are never promoted.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { candidateOf, readBuilds } from "../../../src/postgres/store/builds.ts"
import { diff } from "../../../src/system/diff.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, cancelRebuild, pauseRebuild, rebuild, resumeRebuild } from "../../../src/system/rebuild.ts"
import { planRebuild } from "../../../src/system/rebuild-plan.ts"
import { endAt } from "../../../src/system/rebuild-until.ts"
import { readStatus } from "../../../src/system/status.ts"
import { openSystem, runProjections, type System } from "../../../src/system/system.ts"
import { untilProcessed } from "../../../src/system/until-processed.ts"
import { applicationOf, eventOf } from "../../support/named-applications.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const noLimits = { rate: undefined, maxLiveLagMs: undefined }
const noReport = { report: () => Effect.void, onRetry: () => Effect.void }
const application = applicationOf("shop", "orders", { publishes: true })
const source = "orders.events"
const open = Effect.gen(function* () {
  const database = { ...(yield* databaseOn(url, 8)), embedded: false, failed: Effect.never }
  return yield* openSystem(application, database)
})
const ids = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `id ${from + i}`)
/** Appends events, and has the running system process them. */
const append = (system: System, from: number, to: number) =>
  Effect.andThen(system.log.append(source, ids(from, to).map(eventOf)), untilLive(system, to))
const positions = (sql: Sql) =>
  query("positions", async () => {
    const rows = await sql<Array<{ at: number }>>`
      select sum(next_position)::int8 as at from millrace.progress group by version order by version`
    return rows.map(({ at }) => at)
  })
const rowsOf = (sql: Sql, build: number) =>
  query("rows", () => sql.unsafe<Array<{ id: string }>>(`select id from orders_v${build}.orders_ids`)).pipe(
    Effect.map((rows) => rows.map(({ id }) => id).toSorted())
  )
/** Waits until an effect's result passes, 20 seconds at most. */
const until = <A, E, R>(effect: Effect.Effect<A, E, R>, passes: (result: A) => boolean) =>
  Effect.gen(function* () {
    for (let i = 0; i < 1_000; i++) {
      if (passes(yield* effect)) return
      yield* Effect.sleep("20 millis")
    }
    assert.fail(`it stayed ${JSON.stringify(yield* effect)}`)
  })
const untilLive = ({ database: { sql } }: System, count: number) => until(positions(sql), ([at]) => at === count)
const clock = (sql: Sql) =>
  query("clock", async () => {
    const [row] = await sql<
      Array<{ ms: number }>
    >`select ceil(extract(epoch from clock_timestamp()) * 1000)::float8 + 1 as ms`
    return row!.ms
  })
/** A moment, before and after which nothing is appended for some milliseconds. */
const moment = ({ database: { sql } }: System) => Effect.tap(clock(sql), () => Effect.sleep("20 millis"))
const projection = application.projections[0]!.projection
const begin = (system: System, untilMs: number, limits = noLimits as Parameters<typeof beginRebuild>[2]) =>
  Effect.flatMap(endAt(system.log, projection, untilMs), (end) => {
    assert.isDefined(end)
    return beginRebuild(system, "orders", limits, { end })
  })
const contextOf = ({ database: { sql }, log }: System) => ({ application, sql, log, on: "PostgreSQL" as const })
/** With the live build running. */
const test = (name: string, run: (system: System) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(
    name,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const system = yield* open
          yield* Effect.forkScoped(runProjections(system))
          yield* run(system)
        })
      ),
    60_000
  )

test("an investigation build has the events before its time, ends there, and is run by no process afterwards", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 200)
    const untilMs = yield* moment(system)
    yield* append(system, 200, 300)
    const end = yield* endAt(system.log, projection, untilMs)
    const plan = yield* planRebuild({ ...system, sql }, "orders", undefined, { end })
    assert.deepInclude(plan, { build: 2, continues: false, events: 200, until: new Date(untilMs).toISOString() })
    const build = yield* begin(system, untilMs)
    assert.deepInclude(yield* rebuild(system, build, noReport), { build: 2, events: 200 })
    assert.deepStrictEqual(yield* rowsOf(sql, 2), ids(0, 200).toSorted())
    yield* append(system, 300, 400)
    yield* untilProcessed({ ...system, targets: [] })
    assert.deepStrictEqual(yield* positions(sql), [400, 200])
    assert.deepStrictEqual(yield* rowsOf(sql, 2), ids(0, 200).toSorted())
    // a process that starts later does not run it either, nor once it has looked which builds appeared
    const claims = query("claims", () => sql`select epoch from millrace.progress where version = 2 order by partition`)
    // a process that found the build just before its end has let go of it
    yield* Effect.sleep("1 second")
    const before = yield* claims
    const other = yield* openSystem(application, system.database)
    assert.deepStrictEqual(
      other.builds.map(({ version }) => version),
      [1]
    )
    yield* Effect.forkScoped(runProjections(other))
    yield* Effect.sleep("1500 millis")
    assert.deepStrictEqual(yield* claims, before)
    // the same time again is the same build, another time another one
    assert.strictEqual((yield* begin(system, untilMs)).version, 2)
    assert.strictEqual((yield* begin(system, untilMs - 1)).version, 3)
  }))

test("the processes of the system continue an investigation build whose command ended", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 200)
    const untilMs = yield* moment(system)
    yield* append(system, 200, 300)
    const build = yield* begin(system, untilMs, { ...noLimits, rate: 100 })
    const command = yield* Effect.forkChild(rebuild(system, build, noReport))
    yield* until(positions(sql), ([, at = 0]) => at > 0)
    yield* Fiber.interrupt(command)
    assert.strictEqual(yield* pauseRebuild(sql, "orders", untilMs), 2)
    assert.isBelow((yield* positions(sql))[1]!, 200)
    assert.strictEqual(yield* resumeRebuild(sql, "orders", { ...noLimits, rate: null }, untilMs), 2)
    yield* until(positions(sql), ([, at]) => at === 200)
    assert.deepStrictEqual(yield* rowsOf(sql, 2), ids(0, 200).toSorted())
  }))

test("an investigation build is no candidate: it is neither promoted nor compared, and a rebuild is another build", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 100)
    const untilMs = yield* moment(system)
    const at = new Date(untilMs).toISOString()
    yield* append(system, 100, 150)
    yield* rebuild(system, yield* begin(system, untilMs), noReport)
    assert.isUndefined(candidateOf(yield* readBuilds(sql, "orders")))
    const request = { name: "orders", timeoutMs: 10_000 }
    const promoted = { ...request, rollback: false, dryRun: false }
    const refused = yield* Effect.flip(promote(contextOf(system), { ...promoted, build: 2 }))
    assert.deepInclude(refused, {
      message: `build 2 of projection orders ends at ${at}; it is for looking only`,
      try: "millrace rebuild orders creates a build that can be promoted"
    })
    const none = yield* Effect.flip(promote(contextOf(system), promoted))
    assert.match(none.message, /has no candidate: no build is newer/)
    const compareOptions = { samples: 0, exact: true }
    const compared = (more: { readonly with?: number }) =>
      Effect.scoped(diff(contextOf(system), { ...request, ...compareOptions, ...more }))
    assert.match((yield* Effect.flip(compared({}))).message, /projection orders has no candidate/)
    assert.strictEqual(
      (yield* Effect.flip(compared({ with: 2 }))).message,
      `build 2 of projection orders ends at ${at}, and is not at the positions of the live build, build 1; a comparison would show what happened in between`
    )
    const again = yield* beginRebuild(system, "orders", noLimits)
    assert.strictEqual(again.version, 3)
    yield* rebuild(system, again, noReport)
    assert.deepStrictEqual(yield* rowsOf(sql, 3), ids(0, 150).toSorted())
    // the candidate is what is cancelled, and the investigation build where there is no other, or by its time
    assert.strictEqual(yield* cancelRebuild(sql, "orders"), 3)
    assert.strictEqual(yield* cancelRebuild(sql, "orders", untilMs + 1), undefined)
    assert.strictEqual(yield* cancelRebuild(sql, "orders", untilMs), 2)
    const left = yield* query("rows", () => sql`select from millrace.rebuild_until`)
    assert.lengthOf(left, 0)
    assert.strictEqual(yield* cancelRebuild(sql, "orders"), undefined)
  }))

test("one that ends where the live build is can be compared with it", (system) =>
  Effect.gen(function* () {
    yield* append(system, 0, 100)
    yield* rebuild(system, yield* begin(system, yield* moment(system)), noReport)
    const request = { name: "orders", timeoutMs: 10_000, samples: 0, exact: true, with: 2 }
    const found = yield* Effect.scoped(diff(contextOf(system), request))
    assert.isTrue(found.equal)
  }))

test("the status shows an investigation build with its time, and neither late nor halted where the log lost its records", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 100)
    const untilMs = yield* moment(system)
    yield* append(system, 100, 150)
    const build = yield* begin(system, untilMs, { ...noLimits, rate: 1 })
    const read = readStatus({ sql, log: system.log, targets: [], maxAgeMs: 1 })
    const sums = Effect.map(read, ({ projections }) => {
      const own = projections.filter(({ version }) => version === 2)
      return { lag: own.reduce((sum, { lag }) => sum + lag, 0), old: own.filter((one) => one.oldest_ms !== null) }
    })
    const before = yield* sums
    assert.isTrue(before.lag > 0 && before.lag <= 100, String(before.lag))
    assert.deepStrictEqual(before.old, [])
    yield* beginRebuild(system, "orders", { ...noLimits, rate: null }, { end: { untilMs, stops: [] } })
    yield* rebuild(system, build, noReport)
    yield* query("delete records", () => sql`update millrace.log_head set start_position = 60`)
    const { builds, notices, problems, projections } = yield* read
    assert.deepStrictEqual(builds, [
      { name: "orders", build: 1, version: 1, role: "live" },
      { name: "orders", build: 2, version: 1, role: "investigation", until: new Date(untilMs).toISOString() }
    ])
    const own = projections.filter(({ version }) => version === 2)
    assert.deepStrictEqual(
      own.map(({ halted, lag, oldest_ms }) => ({ halted, lag, oldest_ms })),
      own.map(() => ({ halted: null, lag: 0, oldest_ms: null }))
    )
    assert.deepStrictEqual(
      [...notices, ...problems].filter(({ what }) => what.includes("v2")),
      []
    )
  }))

test("a time before all records of the log has no end, and one after them ends where the live build is", (system) =>
  Effect.gen(function* () {
    const { log } = system
    yield* append(system, 0, 10)
    assert.isUndefined(yield* endAt(log, projection, 1_000))
    const end = yield* endAt(log, projection, yield* moment(system))
    assert.strictEqual(
      end?.stops.reduce((sum, { position }) => sum + position, 0),
      10
    )
  }))
