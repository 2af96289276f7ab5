// Rebuilds in one process, whose system runs beside them or not: what they create, how fast they go, how they end, and what they refuse.
import { randomUUID } from "node:crypto"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { flip, freeze } from "../../../src/postgres/store/promotion.ts"
import { drained } from "../../support/drained.ts"
import { setRebuildState, startRebuild } from "../../../src/postgres/store/rebuild.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, cancelRebuild, pauseRebuild, rebuild, resumeRebuild } from "../../../src/system/rebuild.ts"
import { planRebuild } from "../../../src/system/rebuild-plan.ts"
import { makePacing } from "../../../src/system/rebuild-pacing.ts"
import { openSystem, runBuild, runProjections, type System } from "../../../src/system/system.ts"
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
/** Another process on the same database. */
const openAgain = ({ database }: System) => openSystem(application, database)
const ids = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `id ${from + i}`)
const append = ({ log }: System, from: number, to: number) => log.append(source, ids(from, to).map(eventOf))
const positions = (sql: Sql) =>
  query("positions", async () => {
    const rows = await sql<Array<{ at: number }>>`
      select sum(next_position)::int8 as at from millrace.progress group by version order by version`
    return rows.map(({ at }) => at)
  })
const rowsOf = (sql: Sql, build: number) =>
  query("rows", () => sql.unsafe<Array<{ id: string }>>(`select id from orders_v${build}.orders_ids order by id`)).pipe(
    Effect.map((rows) => rows.map(({ id }) => id))
  )
const published = (sql: Sql) =>
  query("outbox", async () => {
    const rows = await sql<Array<{ vals: string }>>`select vals from millrace.outbox`
    return rows
      .flatMap(({ vals }) => vals.split("\n").map((line) => (JSON.parse(line) as { id: string }).id))
      .toSorted()
  })
/** Waits until an effect's result passes, 20 seconds at most. */
const until = <A, E, R>(effect: Effect.Effect<A, E, R>, passes: (result: A) => boolean) =>
  Effect.gen(function* () {
    for (let i = 0; i < 1_000; i++) {
      if (passes(yield* effect)) return
      yield* Effect.sleep("20 millis")
    }
    assert.fail(`it stayed ${JSON.stringify(yield* effect)}`)
  })
/** Processes everything in build 1, and stops. */
const processLive = (system: System, count: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.forkScoped(runBuild(system, system.builds[0]!))
      yield* until(positions(system.database.sql), ([at]) => at === count)
    })
  )
const test = (name: string, run: (system: System) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(open, run)), 60_000)

test("a rebuild of unchanged code replays into the next build, and publishes nothing", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 300)
    yield* processLive(system, 300)
    const before = yield* published(sql)
    const plan = yield* planRebuild({ ...system, sql }, "orders", undefined)
    assert.deepInclude(plan, { build: 2, version: 1, continues: false, events: 300, rate_from: "assumed" })
    assert.deepInclude(plan, { events_per_second: 2_500, seconds: 1, seconds_at_best: 1 })
    const build = yield* beginRebuild(system, "orders", noLimits)
    const rebuilt = yield* rebuild(system, build, noReport)
    assert.deepInclude(rebuilt, { build: 2, live: 1, events: 300 })
    assert.deepStrictEqual(yield* rowsOf(sql, 2), yield* rowsOf(sql, 1))
    assert.deepStrictEqual(yield* published(sql), before)
    // once more: the same build, which is there
    const again = yield* beginRebuild(system, "orders", noLimits)
    assert.strictEqual(again.version, 2)
    assert.strictEqual((yield* rebuild(system, again, noReport)).events, 0)
  }))

test("rebuilds that begin at once share one build and its partitions", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 300)
    yield* processLive(system, 300)
    const other = yield* openAgain(system)
    const one = (of: System) =>
      Effect.flatMap(beginRebuild(of, "orders", { ...noLimits, rate: 100 }), (build) => rebuild(of, build, noReport))
    // one that ends first leaves its partition to the other, so they are watched while both work
    const workers = query(
      "workers",
      () => sql`select distinct claimed_by from millrace.progress where version = 2 and claimed_by is not null`
    ).pipe(
      Effect.tap(() => Effect.sleep(20)),
      Effect.repeat({ until: (rows) => rows.length === 2 })
    )
    const [both] = yield* Effect.all([Effect.all([one(system), one(other)], { concurrency: "unbounded" }), workers], {
      concurrency: "unbounded"
    })
    assert.deepStrictEqual(
      both.map(({ build }) => build),
      [2, 2]
    )
    assert.deepStrictEqual(yield* rowsOf(sql, 2), yield* rowsOf(sql, 1))
  }))

test("workers of one build share its rate", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    const build = yield* beginRebuild(system, "orders", { ...noLimits, rate: 400 })
    const at = { projection: "orders", version: build.version, topic: source, partition: 0 }
    const began = performance.now()
    const admitted = yield* Effect.forEach(
      [makePacing(sql, system.log), makePacing(sql, system.log), makePacing(sql, system.log)],
      (pacing) => pacing.admit(at, 10_000),
      { concurrency: "unbounded" }
    )
    // a quarter of a second's events each, one turn after the other: the third one comes after two turns
    assert.deepStrictEqual(admitted, [100, 100, 100])
    const ms = performance.now() - began
    assert.isAbove(ms, 450)
    yield* setRebuildState(sql, at, "done")
    yield* Effect.sleep("300 millis")
    assert.strictEqual(yield* makePacing(sql, system.log).admit(at, 10_000), 10_000)
  }))

test("a paused rebuild stops between two batches in every process, and goes on when it is resumed", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 600)
    yield* processLive(system, 600)
    const build = yield* beginRebuild(system, "orders", { ...noLimits, rate: 200 })
    const running = yield* Effect.forkChild(rebuild(system, build, noReport))
    yield* until(positions(sql), ([, at = 0]) => at > 0)
    assert.strictEqual(yield* pauseRebuild(sql, "orders"), 2)
    yield* Effect.sleep("700 millis")
    const paused = yield* positions(sql)
    yield* Effect.sleep("700 millis")
    assert.deepStrictEqual(yield* positions(sql), paused)
    assert.isBelow(paused[1]!, 600)
    yield* resumeRebuild(sql, "orders", noLimits)
    yield* startRebuild(sql, { projection: "orders", version: 2 }, { rate: null, maxLiveLagMs: undefined })
    assert.strictEqual((yield* Fiber.join(running)).build, 2)
    assert.deepStrictEqual(yield* positions(sql), [600, 600])
  }))

test("a rebuild whose connections are lost says so, and goes on", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 600)
    yield* processLive(system, 600)
    const build = yield* beginRebuild(system, "orders", { ...noLimits, rate: 20 })
    const failures: Array<string> = []
    const onRetry = ({ message }: { readonly message: string }) => Effect.sync(() => void failures.push(message))
    const running = yield* Effect.forkChild(rebuild(system, build, { ...noReport, onRetry }))
    const kill = query(
      "test",
      () =>
        sql`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()`
    )
    while (failures.length === 0) yield* Effect.andThen(Effect.ignore(kill), Effect.sleep(30))
    // the connection of this statement may have been ended as well
    yield* Effect.retry(resumeRebuild(sql, "orders", { ...noLimits, rate: null }), { times: 10 })
    assert.strictEqual((yield* Fiber.join(running)).build, 2)
    assert.deepStrictEqual(yield* positions(sql), [600, 600])
    assert.deepStrictEqual(yield* rowsOf(sql, 2), yield* rowsOf(sql, 1))
  }))

test("cancelling deletes everything of the build, ends its workers, and may be repeated", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 600)
    yield* processLive(system, 600)
    yield* Effect.forkScoped(runProjections(system))
    const build = yield* beginRebuild(system, "orders", { ...noLimits, rate: 100 })
    const other = yield* openAgain(system)
    const running = yield* Effect.forkChild(Effect.exit(rebuild(other, build, noReport)))
    yield* until(positions(sql), ([, at = 0]) => at > 0)
    assert.strictEqual(yield* cancelRebuild(sql, "orders"), 2)
    const exit = yield* Fiber.join(running)
    assert.match(JSON.stringify(exit), /the rebuild of projection orders was cancelled, and its build 2 deleted/)
    assert.strictEqual(yield* cancelRebuild(sql, "orders"), undefined)
    const [left] = yield* query(
      "what is left",
      () => sql`select to_regclass('orders_v2.orders_ids') as "table", to_regclass('orders_v1.orders_ids') is not null as live,
        (select count(*) from millrace.log_group where name = 'orders_v2')::int4 as groups`
    )
    assert.deepStrictEqual({ ...left }, { table: null, live: true, groups: 0 })
    // its number is not used again
    assert.strictEqual((yield* beginRebuild(system, "orders", noLimits)).version, 3)
  }))

test("a build that is promoted while events come publishes from its first batch on, without a gap", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 200)
    const running = yield* Effect.forkScoped(runProjections(system))
    yield* until(positions(sql), ([at]) => at === 200)
    const build = yield* beginRebuild(system, "orders", noLimits)
    yield* rebuild(system, build, noReport)
    const feeding = yield* Effect.forkChild(
      Effect.forEach(ids(0, 40), (_, i) =>
        Effect.andThen(append(system, 200 + i * 10, 210 + i * 10), Effect.sleep("20 millis"))
      )
    )
    yield* Effect.sleep("200 millis")
    const promotion = { projection: "orders", live: 1, follower: 2, token: randomUUID() }
    yield* freeze(sql, promotion, 10_000)
    yield* until(drained(sql, promotion), ({ isDrained }) => isDrained)
    assert.strictEqual(yield* flip(sql, promotion), "now")
    yield* Fiber.join(feeding)
    yield* until(positions(sql), ([old, now]) => old === 600 && now === 600)
    yield* Fiber.interrupt(running)
    assert.deepStrictEqual(yield* published(sql), ids(0, 600).toSorted())
  }))

test("a rebuild waits while events wait longer for the live build than the limit", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 10)
    yield* processLive(system, 10)
    const build = yield* beginRebuild(system, "orders", { ...noLimits, maxLiveLagMs: 200 })
    const at = { projection: "orders", version: build.version, topic: source, partition: 0 }
    const pacing = makePacing(sql, system.log)
    const admits = Effect.map(Effect.timeoutOption(pacing.admit(at, 5), "1500 millis"), ({ _tag }) => _tag)
    // nothing waits
    assert.strictEqual(yield* admits, "Some")
    yield* append(system, 10, 20)
    yield* Effect.sleep("500 millis")
    // events wait, but no process runs the live build
    assert.strictEqual(yield* admits, "Some")
    yield* system.presence.during(
      "projections",
      { projections: ["orders_v1"] },
      Effect.gen(function* () {
        yield* until(
          query("processes", () => sql`select 1 from millrace.process where 'orders_v1' = any(projections)`),
          ({ length }) => length > 0
        )
        yield* Effect.sleep("300 millis")
        assert.strictEqual(yield* admits, "None")
        const waiting = yield* Effect.forkChild(pacing.admit(at, 5))
        yield* processLive(system, 20)
        assert.strictEqual(yield* Fiber.join(waiting), 5)
      })
    )
  }))

test("a rebuild from now copies rows, positions, seen ids and dead letters of one moment, and replaces the candidate", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 100)
    yield* processLive(system, 100)
    yield* query(
      "what a build has beside its rows",
      () => sql`with s as (insert into millrace.seen values ('orders', 1, ${source}, 0, 1, 0, 1, 'abc'))
        insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message, attempts, headers)
        values ('orders', 1, ${source}, 0, 3, 'parked', 'k', 'E', 'm', 1, '{}')`
    )
    assert.strictEqual((yield* beginRebuild(system, "orders", noLimits)).version, 2)
    // the log no longer has its first record, which a copy does not need
    yield* query("delete records", () => sql`update millrace.log_head set start_position = 1`)
    yield* Effect.forkScoped(runBuild(system, system.builds[0]!))
    const feeding = yield* Effect.forkChild(
      Effect.forEach(ids(0, 30), (_, i) =>
        Effect.andThen(append(system, 100 + i * 10, 110 + i * 10), Effect.sleep("10 millis"))
      )
    )
    yield* Effect.sleep("100 millis")
    assert.deepInclude(yield* planRebuild({ ...system, sql }, "orders", undefined, { isCopy: true }), {
      build: 3,
      copies: true,
      events: 0
    })
    const build = yield* beginRebuild(system, "orders", noLimits, { isCopy: true })
    assert.strictEqual(build.version, 3)
    const copied = yield* rowsOf(sql, 3)
    const [at] = yield* query(
      "positions",
      () => sql<Array<{ n: number }>>`select sum(next_position)::int8 as n from millrace.progress where version = 3`
    )
    assert.strictEqual(copied.length, at!.n)
    yield* rebuild(system, build, noReport)
    yield* Fiber.join(feeding)
    yield* Effect.forkScoped(runBuild(system, build))
    yield* until(positions(sql), (all) => all[0] === 400 && all[2] === 400)
    assert.deepStrictEqual(yield* rowsOf(sql, 3), yield* rowsOf(sql, 1))
    const [own] = yield* query(
      "what was copied",
      () => sql`select (select count(*) from millrace.seen where version = 3)::int4 as seen,
        (select count(*) from millrace.dead_letters where version = 3)::int4 as dead, to_regclass('orders_v2.orders_ids') as replaced`
    )
    assert.deepStrictEqual({ ...own }, { seen: 1, dead: 1, replaced: null })
  }))

test("a rebuild from now is refused where rows cannot be copied", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    const wider = applicationOf("shop", "orders", { publishes: true, columns: 2, version: 2 })
    const exit = yield* Effect.exit(
      planRebuild({ application: wider, sql, log: system.log }, "orders", undefined, { isCopy: true })
    )
    assert.match(JSON.stringify(exit), /cannot be copied: orders_ids\.twice is new and must not be null/)
  }))

test("a rebuild is refused where the log no longer has what the live build began with", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 10)
    yield* processLive(system, 10)
    yield* query("delete records", () => sql`update millrace.log_head set start_position = 1`)
    const exit = yield* Effect.exit(planRebuild({ ...system, sql }, "orders", undefined))
    assert.match(
      JSON.stringify(exit),
      /the log has deleted the records of orders\.events\/0 before 1, and the live build began at 0/
    )
  }))

test("a paused build is not promoted, also where it has caught up, and a pause holds no live build", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 10)
    yield* processLive(system, 10)
    const build = yield* beginRebuild(system, "orders", noLimits)
    yield* rebuild(system, build, noReport)
    yield* pauseRebuild(sql, "orders")
    const context = { application, sql, log: system.log, on: "PostgreSQL" as const }
    const promoting = promote(context, { name: "orders", rollback: false, dryRun: false, timeoutMs: 10_000 })
    const error = yield* Effect.flip(promoting)
    assert.deepInclude(error, {
      message: "the rebuild of build 2 of projection orders is paused",
      try: "millrace rebuild orders --resume"
    })
    const at = { projection: "orders", version: 2, topic: source, partition: 0 }
    const admitted = yield* Effect.forkChild(makePacing(sql, system.log).admit(at, 5))
    yield* resumeRebuild(sql, "orders", noLimits)
    yield* promoting
    // as a pause that was asked for at the moment of the switch
    yield* setRebuildState(sql, at, "paused")
    assert.strictEqual(yield* makePacing(sql, system.log).admit(at, 7), 7)
    assert.strictEqual(yield* Fiber.join(admitted), 5)
  }))
