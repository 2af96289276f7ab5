// Projections with several sources, of which some are aggregates, and rebuilds of inline projections: live, replayed, compared, promoted and explained.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import {
  Agg,
  Aggregate,
  Application,
  Erasures,
  EventStore,
  Projection,
  ReadModel,
  Topic,
  Window
} from "../../../src/index.ts"
import { selectionOf } from "../../../src/system/key-selection.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { diff } from "../../../src/system/diff.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { planKeys, rebuildKeys } from "../../../src/system/rebuild-keys.ts"
import { beginAt } from "../../../src/system/rebuild-until.ts"
import { readStatus } from "../../../src/system/status.ts"
import { openSystem, runProjections, type System } from "../../../src/system/system.ts"
import { untilProcessed } from "../../../src/system/until-processed.ts"
import { Account } from "../../support/accounts.ts"
import { explained, linesOf } from "../../support/explain.ts"
import { record } from "../../contract/log-support.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { Wallet } from "../../support/wallet.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const at = Date.UTC(2026, 0, 1)
const hour = 3_600_000
const notes = Topic.records("notes", {
  value: { id: Schema.String, account_id: Schema.String, at: Schema.Int, text: Schema.String },
  id: "id",
  key: "account_id",
  eventTime: "at",
  partitions: 2
})
/** The newest event of each source. */
const latest = ReadModel.table("latest", {
  columns: { account_id: Schema.String, source: Schema.String, text: Schema.String },
  primaryKey: ["account_id", "source"]
})
const hours = Window.tumbling("hours", {
  size: "1 hour",
  key: { account_id: Schema.String },
  aggregate: { events: Agg.count }
})
const counts = Window.global("counts", { key: { account_id: Schema.String }, aggregate: { events: Agg.count } })
/** Of an aggregate, a topic and erasures, with duplicates removed. */
const mixed = Projection.make({
  name: "mixed",
  version: 1,
  source: [Account, notes, Erasures],
  writes: [latest, hours],
  dedupe: { within: "1 day" },
  handle: (event, out, { meta: { topic: source } }) => {
    if ("subject" in event) return out.delete(latest, { account_id: event.subject, source: "account" })
    const { account_id } = event
    const text = "amount" in event ? String(event.amount) : "text" in event ? event.text : event.owner
    out.add(hours, { account_id, events: 1 })
    out.upsert(latest, { account_id, source, text })
  }
})
/** Of two aggregates. */
const both = Projection.make({
  name: "both",
  version: 1,
  source: [Account, Wallet],
  writes: [counts],
  handle: (_, out, { meta }) => out.add(counts, { account_id: `${meta.topic} ${meta.key}`, events: 1 })
})
const owned = ReadModel.table("owned", {
  columns: { account_id: Schema.String, balance: Schema.Int },
  primaryKey: ["account_id"]
})
const inline = Projection.make({
  name: "owned",
  version: 1,
  source: Account,
  writes: [owned],
  handle: (event, out) => {
    const amount = event.type === "account.moved" ? event.amount : 0
    const { account_id } = event
    out.modify(owned, { account_id }, (row) => ({ account_id, balance: (row?.balance ?? 0) + amount }))
  }
})
const application = Application.make({
  name: "bank",
  aggregates: [Account, Wallet, Erasures],
  projections: [Projection.async(mixed), Projection.async(both), Projection.inline(inline)]
})

const opened = Effect.gen(function* () {
  const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
  const system = yield* openSystem(application, database)
  yield* Effect.forkScoped(runProjections(system))
  const execute = <A, E>(command: Effect.Effect<A, E, EventStore>) =>
    Effect.provideService(command, EventStore, system.eventStore)
  const open = (id: string) =>
    execute(Aggregate.execute(Account, id, { type: "open", account_id: id, at, owner: "ann" }))
  const move = (id: string, amount: number, time = at) =>
    execute(Aggregate.execute(Account, id, { type: "move", account_id: id, at: time, amount }))
  const noted = (id: string, account_id: string, text: string, time = at) =>
    system.log.append(notes.name, [
      record({
        partition: 1,
        key: account_id,
        value: JSON.stringify({ id, account_id, at: time, text }),
        eventId: id,
        eventTime: time
      })
    ])
  const deposit = (id: string) => execute(Aggregate.execute(Wallet, id, { type: "deposit", wallet: id, at, cents: 1 }))
  const erased = (subject: string) =>
    execute(Aggregate.execute(Erasures, subject, { type: "erase", subject, reason: "asked" }))
  return { system, sql: database.sql, open, move, noted, deposit, erased }
})
const rows = (sql: Sql, text: string) =>
  Effect.map(
    query("read", () => sql.unsafe<Array<Record<string, unknown>>>(text)),
    (found) => found.map((row) => ({ ...row }))
  )
const noLimits = { rate: undefined, maxLiveLagMs: undefined }
const noReport = { report: () => Effect.void, onRetry: () => Effect.void }
const contextOf = ({ database: { sql }, log }: System) => ({ application, sql, log, on: "PostgreSQL" as const })
/** Rebuilds a projection and promotes the build. */
const replaced = Effect.fnUntraced(function* (system: System, name: string, request = {}) {
  const build = yield* beginRebuild(system, name, noLimits, request)
  yield* rebuild(system, build, noReport)
  return yield* compared(system, name)
})
const compared = Effect.fnUntraced(function* (system: System, name: string) {
  const found = yield* Effect.scoped(diff(contextOf(system), { name, timeoutMs: 10_000, samples: 0, exact: true }))
  for (const { changed, extra, missing } of found.tables) assert.deepStrictEqual([missing, extra, changed], [0, 0, 0])
  yield* promote(contextOf(system), { name, rollback: false, dryRun: false, timeoutMs: 20_000 })
})

it.live(
  "a projection of an aggregate, a topic and erasures keeps the order of each, and a replay of it is the same",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { deposit, erased, move, noted, open, sql, system } = yield* opened
        for (const id of ["a", "b"]) yield* open(id)
        yield* Effect.all(
          [
            ...[1, 2, 3].map((amount) => move("a", amount)),
            noted("n1", "a", "x"),
            noted("n2", "a", "y", at + hour),
            noted("n1", "a", "x"),
            move("b", 9),
            deposit("a"),
            deposit("w")
          ],
          { concurrency: 1 }
        )
        yield* untilProcessed(system)
        assert.deepStrictEqual(yield* rows(sql, "select message from millrace.dead_letters"), [])
        assert.deepStrictEqual(yield* rows(sql, "select * from latest order by 1, 2"), [
          { account_id: "a", source: "account", text: "3" },
          { account_id: "a", source: "notes", text: "y" },
          { account_id: "b", source: "account", text: "9" }
        ])
        assert.deepStrictEqual(yield* rows(sql, "select account_id, sum(events)::int4 as n from hours group by 1"), [
          { account_id: "a", n: 6 },
          { account_id: "b", n: 2 }
        ])
        assert.deepStrictEqual(yield* rows(sql, "select account_id, events::int4 from counts order by 1"), [
          { account_id: "account a", events: 4 },
          { account_id: "account b", events: 2 },
          { account_id: "wallet a", events: 1 },
          { account_id: "wallet w", events: 1 }
        ])
        const engine = { application, log: system.log, sql } as never
        const moved = yield* explained(engine, "latest", { account_id: "a", source: "account" })
        assert.deepStrictEqual(
          moved.events.map(({ row }) => row?.["text"]),
          ["ann", "1", "2", "3"]
        )
        const notesOfA = yield* explained(engine, "latest", { account_id: "a", source: "notes" })
        assert.deepStrictEqual(linesOf(notesOfA), ["0: applied: upsert", "1: applied: upsert", "2: duplicate: "])
        for (const name of ["mixed", "both"]) yield* replaced(system, name)
        yield* move("a", 4)
        yield* noted("n3", "a", "z", at + hour)
        yield* noted("n2", "a", "y", at + hour)
        yield* untilProcessed(system)
        // what the second build processed itself is as in a replay, too
        yield* replaced(system, "mixed")
        yield* erased("b")
        yield* untilProcessed(system)
        assert.deepStrictEqual(yield* rows(sql, "select * from latest order by 1, 2"), [
          { account_id: "a", source: "account", text: "4" },
          { account_id: "a", source: "notes", text: "z" }
        ])
        assert.deepStrictEqual(yield* rows(sql, "select sum(events)::int4 as n from hours where account_id = 'a'"), [
          { n: 8 }
        ])
      })
    ),
  60_000
)

it.live(
  "an inline build is rebuilt as a whole, as a copy, from a time and for some keys, and each takes over inline",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { move, open, sql, system } = yield* opened
        for (const id of ["a", "b"]) yield* open(id)
        const live = Effect.fnUntraced(function* (build: number) {
          yield* move("a", 1)
          const modes = yield* rows(
            sql,
            "select distinct version, mode from millrace.progress where projection = 'owned' and inline"
          )
          assert.deepStrictEqual(modes, [{ version: build, mode: "live" }])
          assert.deepStrictEqual(yield* rows(sql, "select balance from owned where account_id = 'a'"), [
            { balance: build }
          ])
        })
        yield* live(1)
        yield* replaced(system, "owned")
        yield* live(2)
        yield* replaced(system, "owned", { isCopy: true })
        yield* live(3)
        yield* replaced(system, "owned", { begin: yield* beginAt(system.log, inline, 0) })
        yield* live(4)
        const keys = selectionOf(["a"])
        const { scanned } = yield* planKeys(contextOf(system), "owned", undefined, keys, () => Effect.void)
        const found = yield* rebuildKeys(
          system,
          "owned",
          noLimits,
          { keys, scanned },
          { ...noReport, onBuild: () => Effect.void }
        )
        assert.strictEqual(found.tables.length, 1)
        yield* compared(system, "owned")
        const [{ version } = { version: 0 }] = yield* rows(
          sql,
          "select version from millrace.live where projection = 'owned'"
        )
        assert.strictEqual(version, found.build)
        yield* move("a", 1)
        assert.deepStrictEqual(yield* rows(sql, "select balance from owned where account_id = 'a'"), [{ balance: 5 }])
        yield* promote(contextOf(system), { name: "owned", rollback: true, dryRun: false, timeoutMs: 20_000 })
        yield* move("a", 1)
        assert.deepStrictEqual(yield* rows(sql, "select balance from owned where account_id = 'a'"), [{ balance: 6 }])
        const { projections } = yield* readStatus({ sql, log: system.log, targets: [] })
        const lags = projections.filter((row) => row.name === "owned" && row.mode === "live").map(({ lag }) => lag)
        assert.deepStrictEqual(lags, [0, 0, 0, 0])
      })
    ),
  60_000
)
