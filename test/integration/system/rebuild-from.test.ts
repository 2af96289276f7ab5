// Builds that begin with what the log stored at a time: what they have, that they take over as any build, and what the plan says.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { readBuilds } from "../../../src/postgres/store/builds.ts"
import { diff } from "../../../src/system/diff.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, cancelRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { planRebuild } from "../../../src/system/rebuild-plan.ts"
import { beginAt } from "../../../src/system/rebuild-until.ts"
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
const ids = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => `id ${from + i}`)
const append = ({ log }: System, from: number, to: number) => log.append(source, ids(from, to).map(eventOf))
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
/** The ids that were published, in the order of their streams. */
const published = (sql: Sql) =>
  query("published", async () => {
    const rows = await sql<
      Array<{ vals: string }>
    >`select vals from millrace.outbox order by source, partition, first_seq`
    return rows
      .flatMap(({ vals }) => vals.split("\n").map((line) => (JSON.parse(line) as { id: string }).id))
      .toSorted()
  })
const untilLive = ({ database: { sql } }: System, count: number) =>
  Effect.gen(function* () {
    for (let i = 0; i < 1_000; i++) {
      if ((yield* positions(sql))[0] === count) return
      yield* Effect.sleep("20 millis")
    }
    assert.fail(`live stayed at ${(yield* positions(sql))[0]}`)
  })
/** A moment, before and after which nothing is appended for some milliseconds. */
const moment = ({ database: { sql } }: System) =>
  query("clock", async () => {
    const [row] = await sql<
      Array<{ ms: number }>
    >`select ceil(extract(epoch from clock_timestamp()) * 1000)::float8 + 1 as ms`
    return row!.ms
  }).pipe(Effect.tap(() => Effect.sleep("20 millis")))
const projection = application.projections[0]!.projection
const requestOf = (system: System, fromMs: number) =>
  Effect.map(beginAt(system.log, projection, fromMs), (begin) => ({ begin }))
const begin = (system: System, fromMs: number) =>
  Effect.flatMap(requestOf(system, fromMs), (request) => beginRebuild(system, "orders", noLimits, request))
const contextOf = ({ database: { sql }, log }: System) => ({ application, sql, log, on: "PostgreSQL" as const })
const test = (name: string, run: (system: System) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(open, run)), 60_000)

test("a build that begins at a time has the events from then on only, follows the live build, and takes over from it", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    const running = yield* Effect.forkScoped(runProjections(system))
    yield* append(system, 0, 200)
    yield* untilLive(system, 200)
    const fromMs = yield* moment(system)
    const from = new Date(fromMs).toISOString()
    yield* append(system, 200, 300)
    yield* untilLive(system, 300)
    const request = yield* requestOf(system, fromMs)
    const plan = yield* planRebuild({ ...system, sql }, "orders", undefined, request)
    assert.deepInclude(plan, { build: 2, continues: false, copies: false, events: 100, from, until: null })
    assert.deepStrictEqual(plan.not_reproduced, [
      `200 records from before ${from} are left out. Its tables begin empty: rows that only events from before ${from} made are not in them, and counts, sums and all that earlier events add to a row begin there`
    ])
    const build = yield* beginRebuild(system, "orders", noLimits, request)
    assert.deepInclude(yield* rebuild(system, build, noReport), { build: 2, events: 100 })
    assert.deepStrictEqual(yield* rowsOf(sql, 2), ids(200, 300).toSorted())
    assert.strictEqual((yield* readBuilds(sql, "orders"))[1]!.fromMs, fromMs)
    const compare = { name: "orders", timeoutMs: 10_000, samples: 0, exact: true }
    const found = yield* Effect.scoped(diff(contextOf(system), compare))
    assert.deepInclude(found.tables[0], { name: "orders_ids", missing: 200, extra: 0, changed: 0 })
    // the same time is the same build, any other one a mistake
    assert.strictEqual((yield* begin(system, fromMs)).version, 2)
    const [other, whole] = [
      yield* Effect.flip(begin(system, fromMs - 1)),
      yield* Effect.flip(beginRebuild(system, "orders", noLimits))
    ]
    for (const refused of [other, whole])
      assert.deepInclude(refused, {
        message: `build 2 of projection orders, which is there to be promoted, has only what the log stored from ${from} on`,
        try: `continue it: millrace rebuild orders --from ${from}; or promote it, or delete it: millrace rebuild orders --cancel`
      })
    const feeding = yield* Effect.forkChild(append(system, 300, 400))
    const request2 = { name: "orders", rollback: false, dryRun: false, timeoutMs: 20_000 }
    assert.deepInclude(yield* promote(contextOf(system), request2), {
      from: 1,
      to: 2,
      notReproduced: [
        `it has only what the log stored from ${from} on: rows that only earlier events made are not in it, and counts and sums begin there`
      ]
    })
    yield* Fiber.join(feeding)
    yield* append(system, 400, 500)
    yield* untilLive(system, 500)
    while ((yield* rowsOf(sql, 2)).length < 300) yield* Effect.sleep("20 millis")
    assert.deepStrictEqual(yield* rowsOf(sql, 2), ids(200, 500).toSorted())
    assert.deepStrictEqual(yield* published(sql), ids(0, 500).toSorted())
    yield* Fiber.interrupt(running)
  }))

test("what the live build has not processed is in the build too, also from before its time, so that it is published", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 100)
    yield* Effect.scoped(Effect.andThen(Effect.forkScoped(runBuild(system, system.builds[0]!)), untilLive(system, 100)))
    yield* append(system, 100, 150)
    const build = yield* begin(system, yield* moment(system))
    yield* append(system, 150, 200)
    yield* rebuild(system, build, noReport)
    assert.deepStrictEqual(yield* positions(sql), [100, 100])
    assert.deepInclude(
      yield* promote(contextOf(system), { name: "orders", rollback: false, dryRun: false, timeoutMs: 20_000 }),
      { from: 1, to: 2 }
    )
    yield* Effect.forkScoped(runBuild(system, build))
    while ((yield* published(sql)).length < 200) yield* Effect.sleep("20 millis")
    assert.deepStrictEqual(yield* published(sql), ids(0, 200).toSorted())
    assert.deepStrictEqual(yield* rowsOf(sql, 2), ids(100, 200).toSorted())
  }))

test("a time before the log begins with its first record, also where the log has lost what the live build began with", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* append(system, 0, 100)
    yield* Effect.scoped(Effect.andThen(Effect.forkScoped(runBuild(system, system.builds[0]!)), untilLive(system, 100)))
    yield* query("delete records", () => sql`update millrace.log_head set start_position = 10`)
    const request = yield* requestOf(system, 1_000)
    const plan = yield* planRebuild({ ...system, sql }, "orders", undefined, request)
    assert.deepInclude(plan, { events: 80, from: "1970-01-01T00:00:01.000Z" })
    assert.deepStrictEqual(plan.not_reproduced, [
      "the log has no records from before 1970-01-01T00:00:01.000Z, so it begins with the first record that the log has"
    ])
    yield* rebuild(system, yield* begin(system, 1_000), noReport)
    assert.lengthOf(yield* rowsOf(sql, 2), 80)
    assert.strictEqual(yield* cancelRebuild(sql, "orders"), 2)
    assert.lengthOf(yield* query("scopes", () => sql`select from millrace.build_scope`), 0)
  }))
