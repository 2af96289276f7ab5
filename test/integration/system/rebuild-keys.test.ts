// Rebuilds of the rows of some keys in one process: what is replayed and what is kept, beside live processing, and where it is refused.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Agg, Application, Column, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { selectionOf } from "../../../src/system/key-selection.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { candidateOf, readBuilds } from "../../../src/postgres/store/builds.ts"
import { diff } from "../../../src/system/diff.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, cancelRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { planKeys, rebuildKeys } from "../../../src/system/rebuild-keys.ts"
import { beginAt } from "../../../src/system/rebuild-until.ts"
import { openSystem, runBuild, runProjections, type System } from "../../../src/system/system.ts"
import { record } from "../../contract/log-support.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const visits = Topic.records("visits", {
  value: { id: Schema.String, who: Schema.String, at: Schema.Int, cost: Schema.Int },
  id: "id",
  key: "who",
  eventTime: "at",
  partitions: 2
})
const people = ReadModel.table("people", {
  columns: { who: Schema.String, visits: Schema.Int, last: Schema.String },
  primaryKey: ["who"]
})
const days = ReadModel.table("days", {
  columns: { at: Column.timestamptz, who: Schema.String, cost: Schema.Int },
  primaryKey: ["at", "who"]
})
const costs = Window.tumbling("costs", {
  size: "1 hour",
  key: { who: Schema.String },
  aggregate: { visits: Agg.count, cost: Agg.sum }
})
const totals = Window.global("totals", { key: { day: Schema.String }, aggregate: { visits: Agg.count } })
/** Whether the handler has its fault: it counts twice, writes a row too many, and fails for some events. */
const state = { isFaulty: true, mixes: false }
const spending = Projection.make({
  name: "spending",
  version: 1,
  source: visits,
  writes: [people, days, costs, totals],
  dedupe: { within: "1 day" },
  handle: ({ at, cost, id, who }, out) => {
    if (state.isFaulty && cost === 7) throw new Error("seven")
    const by = state.isFaulty ? 2 : 1
    out.modify(people, { who }, (row) => ({ who, visits: (row?.visits ?? 0) + by, last: id }))
    out.upsert(days, { at: at - (at % 86_400_000), who, cost })
    if (state.isFaulty && cost === 3) out.upsert(days, { at: 0, who, cost })
    out.add(costs, { who, cost: cost * by, visits: by })
    if (state.mixes) out.add(totals, { day: "all", visits: 1 })
  }
})
const application = Application.make({ name: "visitors", projections: [Projection.async(spending)] })
const noon = Date.UTC(2026, 0, 1, 12)
const names = ["ada", "bob", "cy", "dee", "eve", "flo"]
/** Events of all keys, some of them late, some twice. */
const eventsOf = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, n) => {
    const i = from + n
    const who = names[(i * 7) % names.length]!
    const at = noon + i * 120_000 - (i % 11 === 0 ? 5_400_000 : 0)
    const id = i % 13 === 0 ? `v${i - 1 - ((i - 1) % 13)}` : `v${i}`
    const value = JSON.stringify({ id, who, at, cost: i % 10 })
    return record({ partition: partitionOf(who, 2), key: who, value, eventTime: at, eventId: id, schemaVersion: 1 })
  })

const noLimits = { rate: undefined, maxLiveLagMs: undefined }
const noReport = { report: () => Effect.void, onRetry: () => Effect.void, onBuild: () => Effect.void }
const noScanReport = () => Effect.void
const open = Effect.gen(function* () {
  Object.assign(state, { isFaulty: true, mixes: false })
  const database = { ...(yield* databaseOn(url, 8)), embedded: false, failed: Effect.never }
  return yield* openSystem(application, database)
})
const positions = (sql: Sql) =>
  query("positions", async () => {
    const rows = await sql<Array<{ version: number; at: number }>>`
      select version, sum(next_position)::int8 as at from millrace.progress where mode <> 'frozen' group by version order by version`
    return Object.fromEntries(rows.map(({ at, version }) => [version, at]))
  })
const untilAt = ({ database: { sql } }: System, build: number, count: number) =>
  Effect.gen(function* () {
    for (let i = 0; i < 1_000; i++) {
      if ((yield* positions(sql))[build] === count) return
      yield* Effect.sleep("20 millis")
    }
    assert.fail(`build ${build} stayed at ${(yield* positions(sql))[build]}`)
  })
const processLive = (system: System, count: number) =>
  Effect.scoped(Effect.andThen(Effect.forkScoped(runBuild(system, system.builds[0]!)), untilAt(system, 1, count)))
/** All that a build has of some keys, or of all but these, as texts. */
const partOf = (sql: Sql, build: number, keys: ReadonlyArray<string>, isTheirs: boolean) =>
  query("rows", async () => {
    const theirs = (key: string) => `(${key} in (${keys.map((one) => `'${one}'`).join(", ")})) = ${isTheirs}`
    const rows = await sql.unsafe<Array<{ text: string }>>(
      `select t::text as text from spending_v${build}.people t where ${theirs("who")}
      union all select t::text from spending_v${build}.days t where ${theirs("who")}
      union all select t::text from spending_v${build}.costs t where ${theirs("who")}
      union all select 'late ' || position || ' ' || window_name || key::text || contribution::text from millrace.late_events
        where version = ${build} and ${theirs("key->>'who'")}
      union all select 'dead ' || topic || partition || '/' || position || status || coalesce(value, '') from millrace.dead_letters
        where version = ${build} and ${theirs("key")}`
    )
    return rows.map(({ text }) => text).toSorted()
  })
const contextOf = ({ database: { sql }, log }: System) => ({ application, sql, log, on: "PostgreSQL" as const })
const planOf = (system: System, keys: ReadonlyArray<string>) =>
  planKeys(contextOf(system), "spending", undefined, selectionOf(keys), noScanReport)
const rebuiltOf = Effect.fnUntraced(function* (system: System, keys: ReadonlyArray<string>, limits = noLimits) {
  const { plan, scanned } = yield* planOf(system, keys)
  return { plan, ...(yield* rebuildKeys(system, "spending", limits, { keys: selectionOf(keys), scanned }, noReport)) }
})
const test = (name: string, run: (system: System) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(open, run)), 60_000)

test("the rows, late events and dead letters of the keys are those of a replay, all others those of the live build, while it goes on", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    const keys = ["ada", "bob"]
    yield* system.log.append("visits", eventsOf(0, 600))
    yield* processLive(system, 600)
    state.isFaulty = false
    yield* Effect.forkScoped(runProjections(system))
    const feeding = yield* Effect.forkChild(
      Effect.forEach(
        Array.from({ length: 40 }, (_, i) => i),
        (i) =>
          Effect.andThen(system.log.append("visits", eventsOf(600 + i * 10, 610 + i * 10)), Effect.sleep("20 millis"))
      )
    )
    const { plan, ...rebuilt } = yield* rebuiltOf(system, [...keys, "nobody"])
    assert.deepInclude(plan, { build: 2, copies: false, continues: false, from: null, until: null })
    assert.deepInclude(plan.keys, { given: 3, found: 2, unknown: 1 })
    assert.deepStrictEqual(plan.not_reproduced.slice(0, 2), [
      "rows of all other keys stay as those of build 1",
      "totals: no event writes it, so its rows stay, too"
    ])
    assert.deepInclude(rebuilt, { build: 2, live: 1 })
    assert.deepInclude(rebuilt.tables[0], { name: "costs" })
    assert.isTrue(rebuilt.tables.every(({ removed }) => removed > 0))
    const builds = yield* readBuilds(sql, "spending")
    assert.strictEqual(candidateOf(builds)?.number, 2)
    assert.deepInclude(builds[2], { number: 3, retired: true, dropped: true })
    yield* Fiber.join(feeding)
    for (const build of [1, 2]) yield* untilAt(system, build, 1_000)
    assert.deepStrictEqual(yield* partOf(sql, 2, keys, false), yield* partOf(sql, 1, keys, false))
    assert.notDeepEqual(yield* partOf(sql, 2, keys, true), yield* partOf(sql, 1, keys, true))
    const compare = { name: "spending", timeoutMs: 20_000, samples: 100, exact: true }
    const found = yield* Effect.scoped(diff(contextOf(system), compare))
    const changed = new Set(
      found.tables.flatMap(({ samples }) =>
        samples.map(({ key }) => key.find(({ column }) => column.name === "who")?.text)
      )
    )
    assert.deepStrictEqual([...changed].toSorted(), keys)
    const request = { name: "spending", rollback: false, dryRun: false, timeoutMs: 20_000 }
    assert.deepInclude(yield* promote(contextOf(system), request), { from: 1, to: 2 })
    // a replay of the whole log has the same rows of the keys
    yield* rebuild(system, yield* beginRebuild(system, "spending", noLimits), noReport)
    for (const build of [1, 2, 4]) yield* untilAt(system, build, 1_000)
    assert.deepStrictEqual(yield* partOf(sql, 2, keys, true), yield* partOf(sql, 4, keys, true))
    assert.isTrue((yield* partOf(sql, 2, keys, true)).some((text) => text.startsWith("late ")))
    assert.isTrue((yield* partOf(sql, 2, keys, false)).some((text) => text.startsWith("dead ")))
    assert.isFalse((yield* partOf(sql, 2, keys, true)).some((text) => text.startsWith("dead ")))
  }))

test("what was begun is continued with the same keys only, is never promoted before it is finished, and is cancelled as a whole", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* system.log.append("visits", eventsOf(0, 300))
    yield* processLive(system, 300)
    state.isFaulty = false
    const command = yield* Effect.forkChild(rebuiltOf(system, ["ada"], { ...noLimits, rate: 60 }))
    while (!((yield* positions(sql))[3]! > 0)) yield* Effect.sleep("20 millis")
    yield* Fiber.interrupt(command)
    assert.isUndefined(candidateOf(yield* readBuilds(sql, "spending")))
    const refused = yield* Effect.flip(
      promote(contextOf(system), { name: "spending", build: 2, rollback: false, dryRun: false, timeoutMs: 5_000 })
    )
    assert.deepInclude(refused, {
      message: "build 2 of projection spending is a rebuild of some keys that is not finished",
      try: "finish it: millrace rebuild spending --keys FILE, with the same keys; or delete it: millrace rebuild spending --cancel"
    })
    const other = yield* Effect.flip(planOf(system, ["bob"]))
    assert.deepInclude(other, {
      message:
        "build 2 of projection spending, a rebuild of some keys that is not finished, is of other keys or another version",
      try: "finish it with the same keys, or delete it: millrace rebuild spending --cancel"
    })
    assert.deepInclude((yield* planOf(system, ["ada"])).plan, { build: 2, continues: true })
    const rest = yield* rebuiltOf(system, ["ada"], { ...noLimits, rate: null } as never)
    assert.deepInclude(rest, { build: 2, live: 1 })
    assert.lengthOf(rest.tables, 3)
    // once it is finished, the same keys continue it, and others and the whole log do not
    assert.deepInclude(yield* rebuiltOf(system, ["ada"]), { build: 2, events: 0, tables: [] })
    assert.match(
      (yield* Effect.flip(planOf(system, ["bob"]))).message,
      /build 2 of projection spending, which is there to be promoted, has the rows of some keys from a replay, and all others from build 1/
    )
    assert.match((yield* Effect.flip(beginRebuild(system, "spending", noLimits))).message, /has the rows of some keys/)
    assert.strictEqual(yield* cancelRebuild(sql, "spending"), 2)
    const second = yield* Effect.forkChild(rebuiltOf(system, ["bob"], { ...noLimits, rate: 60 }))
    while (!((yield* positions(sql))[5]! > 0)) yield* Effect.sleep("20 millis")
    yield* Fiber.interrupt(second)
    assert.strictEqual(yield* cancelRebuild(sql, "spending"), 4)
    assert.deepStrictEqual(
      (yield* readBuilds(sql, "spending")).filter(({ retired }) => !retired).map(({ number }) => number),
      [1]
    )
    assert.lengthOf(yield* query("scopes", () => sql`select from millrace.build_scope`), 0)
  }))

test("it is refused where rows have events of several keys, and where no event has the keys, before anything is created", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    yield* system.log.append("visits", eventsOf(0, 100))
    yield* processLive(system, 100)
    state.isFaulty = false
    assert.strictEqual((yield* Effect.flip(planOf(system, ["nobody"]))).message, "no event of visits has the key")
    state.mixes = true
    const mixed = yield* Effect.flip(planOf(system, ["ada"]))
    assert.match(
      mixed.message,
      /^the rows of some keys of projection spending cannot be rebuilt alone: no column of the key of totals has the event's key in every row, so it is not known which rows belong to which keys: the event at visits\/\d\/\d+ with the key "\w+" writes day "all"$/
    )
    assert.lengthOf(yield* readBuilds(sql, "spending"), 1)
    // events that came after the plan count, too
    state.mixes = false
    const { scanned } = yield* planOf(system, ["ada"])
    state.mixes = true
    yield* system.log.append("visits", eventsOf(100, 110))
    yield* processLive(system, 110)
    const late = yield* Effect.flip(
      rebuildKeys(system, "spending", noLimits, { keys: selectionOf(["ada"]), scanned }, noReport)
    )
    assert.match(late.message, /no column of the key of totals/)
    assert.lengthOf(
      (yield* readBuilds(sql, "spending")).filter(({ retired }) => !retired),
      1
    )
  }))

test("it is not finished beside another live build, and replays from where the live build began", (system) =>
  Effect.gen(function* () {
    const { sql } = system.database
    state.isFaulty = false
    yield* system.log.append("visits", eventsOf(0, 200))
    yield* processLive(system, 200)
    yield* Effect.sleep("20 millis")
    const begin = yield* beginAt(system.log, spending, Date.now())
    yield* Effect.sleep("20 millis")
    yield* system.log.append("visits", eventsOf(200, 300))
    yield* processLive(system, 300)
    const command = yield* Effect.forkChild(rebuiltOf(system, ["ada"], { ...noLimits, rate: 60 }))
    while (!((yield* positions(sql))[3]! > 0)) yield* Effect.sleep("20 millis")
    yield* Fiber.interrupt(command)
    yield* rebuild(system, yield* beginRebuild(system, "spending", noLimits, { begin }), noReport)
    const request = { name: "spending", rollback: false, dryRun: false, timeoutMs: 20_000 }
    assert.deepInclude(yield* promote(contextOf(system), request), { from: 1, to: 4 })
    assert.strictEqual(
      (yield* Effect.flip(planOf(system, ["ada"]))).message,
      "build 2 of projection spending, a rebuild of some keys that is not finished, is of another live build"
    )
    assert.strictEqual(yield* cancelRebuild(sql, "spending"), 2)
    assert.deepInclude(yield* rebuiltOf(system, ["ada"]), { build: 5, live: 4 })
    assert.deepStrictEqual(yield* partOf(sql, 5, ["ada"], true), yield* partOf(sql, 4, ["ada"], true))
    assert.notDeepEqual(yield* partOf(sql, 5, ["ada"], true), yield* partOf(sql, 1, ["ada"], true))
  }))
