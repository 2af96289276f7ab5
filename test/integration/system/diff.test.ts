// `diff` beside running builds and on a stopped system: everything that was planted is found, and traffic makes no false difference.
import { randomUUID } from "node:crypto"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Application, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { query, transaction } from "../../../src/postgres/client/client.ts"
import { createBuild } from "../../../src/postgres/store/builds.ts"
import { freeze, thaw } from "../../../src/postgres/store/promotion.ts"
import { diff, type Diff, type DiffRequest } from "../../../src/system/diff.ts"
import { openSystem, runProjections, type System } from "../../../src/system/system.ts"
import type { Differences } from "../../../src/postgres/store/compare.ts"
import { recordOf } from "../../support/engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const partitions = 2
const Moved = Event.make("moved", { id: Schema.String, user: Schema.String, amount: Schema.Finite, at: Schema.Int })
const source = Topic.events("moves", { events: [Moved], id: "id", key: "user", eventTime: "at", partitions })
const totals = ReadModel.table("totals", {
  columns: { user: Schema.String, amount: Schema.Finite, note: Schema.NullOr(Schema.String) },
  primaryKey: ["user"]
})
const hourly = Window.tumbling("hourly", {
  size: "1 hour",
  grace: "1 minute",
  key: { user: Schema.String },
  aggregate: { moves: Agg.count, amount: Agg.sum }
})
const receipts = Topic.records("receipts", { value: { user: Schema.String }, key: "user", partitions })
const projection = Projection.make({
  name: "accounts",
  version: 1,
  source,
  writes: [totals, hourly, receipts],
  failure: { then: "park" },
  handle: ({ amount, user }, out) => {
    if (amount < 0) throw new TypeError("a negative amount")
    out.upsert(totals, { user, amount, note: null })
    out.add(hourly, { user, moves: 1, amount })
    if (amount > 1) for (const _ of [1, 2]) out.publish(receipts, { user })
  }
})
const application = Application.make({ name: "bank", projections: [Projection.async(projection)] })

let moves = 0
const feed = Effect.fnUntraced(function* ({ log }: System, count: number, more: { at?: number; amount?: number } = {}) {
  const values = Array.from({ length: count }, () => {
    const id = `m${moves++}`
    return { type: "moved", id, user: `u${moves % 7}`, amount: 0.1 * moves, at: moves * 60_000, ...more }
  })
  yield* log.append(
    source.name,
    values.map((value) => recordOf(source, value, partitions))
  )
})
const opened = Effect.gen(function* () {
  const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
  const system = yield* openSystem(application, database, { relaysHere: false })
  yield* transaction(database.sql, (tx) =>
    createBuild(tx, projection, { partitionsOf: () => partitions, startOf: () => 0 })
  )
  const run = (text: string) => query("test", () => database.sql.unsafe(text))
  const compared = (request: Partial<DiffRequest> = {}) =>
    Effect.scoped(
      diff(
        { application, sql: database.sql, log: system.log, on: "PostgreSQL" },
        { name: "accounts", samples: 3, exact: false, timeoutMs: 20_000, ...request }
      )
    )
  return { system, run, compared, sql: database.sql }
})
/** Runs the live build until it has processed the log. */
const processed = Effect.fnUntraced(function* ({ run, system }: Effect.Success<typeof opened>) {
  const running = yield* Effect.forkScoped(runProjections(system))
  const end = (yield* system.log.bounds(source.name)).reduce((sum, one) => sum + one.end, 0)
  while (
    Number((yield* run("select sum(next_position) as at from millrace.progress where version = 1"))[0]!["at"]) < end
  )
    yield* Effect.sleep(10)
  yield* Fiber.interrupt(running)
})
const counts = ({ changed, extra, missing, rounding }: Differences) => [missing, extra, changed, rounding]
const tableOf = ({ tables }: Diff, name: string) => tables.find((table) => table.name === name)!

it.live(
  "a stopped system: the candidate is run until it is where the live build is, and what was planted is found",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const one = yield* opened
        const { compared, run, system } = one
        yield* feed(system, 200)
        yield* feed(system, 2, { at: 1 })
        yield* feed(system, 2, { amount: -1 })
        yield* processed(one)
        yield* run(
          "update millrace.progress set next_position = first_position where version = 2 and next_position < 0"
        )
        const before = yield* compared()
        assert.isTrue(before.equal)
        assert.deepStrictEqual([before.live, before.candidate, before.frozenMs], [1, 2, 0])
        assert.deepStrictEqual(
          before.tables.map(({ name, rows }) => [name, rows.live > 0 && rows.live === rows.candidate]),
          [
            ["hourly", true],
            ["totals", true]
          ]
        )
        assert.deepStrictEqual([before.late.rows.live, before.deadLetters.rows.live], [2, 2])
        // all but the first ten amounts are above 1, and two are negative
        assert.deepStrictEqual(before.messages, [
          { topic: "moves.accounts.dlq", live: 2, candidate: 2 },
          { topic: "receipts", live: 384, candidate: 384 }
        ])

        yield* run(`delete from accounts_v2.totals where "user" = 'u1'`)
        yield* run(`insert into accounts_v2.totals values ('new', 1, null)`)
        yield* run(`update accounts_v2.totals set note = '' where "user" in ('u2', 'u3')`)
        yield* run(`update accounts_v2.hourly set amount = amount * (1 + 1e-12)`)
        yield* run(`update millrace.late_events set window_start = window_start + interval '1 hour' where version = 2 and position =
        (select min(position) from millrace.late_events where version = 2)`)
        yield* run(
          "delete from millrace.dead_letters where version = 2 and partition = (select min(partition) from millrace.dead_letters)"
        )
        yield* run("update millrace.dead_letters set status = 'discarded' where version = 2")
        const found = yield* compared()
        assert.isFalse(found.equal)
        assert.deepStrictEqual(counts(tableOf(found, "totals")), [1, 1, 2, 0])
        const hours = tableOf(found, "hourly")
        assert.deepStrictEqual(counts(hours), [0, 0, 0, hours.rows.live])
        assert.deepStrictEqual(counts(found.late).slice(0, 2), [1, 1])
        assert.strictEqual(found.deadLetters.missing + found.deadLetters.changed, 2)
        const exact = yield* compared({ exact: true })
        assert.deepStrictEqual(counts(tableOf(exact, "hourly")), [0, 0, hours.rows.live, 0])
      })
    )
)

it.live("only rounding is equal, and a column that one build has does not count", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const one = yield* opened
      yield* feed(one.system, 50)
      yield* processed(one)
      yield* one.compared()
      yield* one.run("update accounts_v2.totals set amount = amount * (1 + 1e-12)")
      yield* one.run("alter table accounts_v2.totals add column more bigint")
      const found = yield* one.compared()
      assert.deepStrictEqual([found.equal, tableOf(found, "totals").onlyCandidate], [true, ["more"]])
      assert.isFalse((yield* one.compared({ exact: true })).equal)
      yield* one.run("alter table accounts_v2.totals alter column note type jsonb using null")
      assert.isFalse((yield* one.compared()).equal)
      yield* one.run("alter table accounts_v2.totals drop column note")
      assert.isTrue((yield* one.compared()).equal)
      yield* one.run(`update millrace.progress set published = '{"receipts": 1}' where version = 2 and partition = 0`)
      assert.isFalse((yield* one.compared()).equal)
      yield* one.run("update millrace.progress set published = null where version = 1 and partition = 0")
      const unknown = yield* one.compared()
      assert.deepStrictEqual([unknown.equal, unknown.messages], [true, undefined])
    })
  )
)

it.live("what cannot be compared is refused, and a candidate that is held up times out; nothing is changed", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { compared, run, sql, system } = yield* opened
      yield* feed(system, 10)
      const other = yield* Effect.flip(compared({ with: 7 }))
      assert.strictEqual(other.message, "projection accounts has no build 7 that follows the live one, build 1")
      yield* run("update millrace.progress set next_position = 3 where version = 1")
      yield* run("insert into millrace.rebuild (projection, version, state) values ('accounts', 2, 'paused')")
      const paused = yield* Effect.flip(compared())
      assert.strictEqual(paused.message, "the rebuild of build 2 of projection accounts is paused")
      yield* run("delete from millrace.rebuild")
      // another promotion holds the live build
      const held = { projection: "accounts", live: 1, token: randomUUID() }
      yield* freeze(sql, held, 60_000)
      yield* run("update millrace.progress set mode = 'frozen', incarnation = null where version = 2")
      const late = yield* Effect.flip(compared({ timeoutMs: 300 }))
      assert.deepStrictEqual(
        [late._tag, late.message],
        [
          "NotCaughtUp",
          "build 2 of projection accounts has 6 records to go until it is where build 1 is; nothing was changed"
        ]
      )
      assert.strictEqual(yield* thaw(sql, held), partitions)
      yield* run("update millrace.projection set retired_at = now() where version = 2")
      const none = yield* Effect.flip(compared())
      assert.strictEqual(
        none.message,
        "projection accounts has no candidate: no build is newer than the live one, build 1"
      )
    })
  )
)

it.live("dead letters of lookup topics are counted and not compared", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const one = yield* opened
      yield* feed(one.system, 4)
      yield* processed(one)
      const letter = (version: number, topic: string, status: string) =>
        one.run(`insert into millrace.dead_letters (projection, version, topic, partition, position, status, error, message, attempts, headers)
          values ('accounts', ${version}, '${topic}', 0, ${version}, '${status}', 'Error', 'no JSON', 1, '{}')`)
      yield* letter(1, "rates", "discarded")
      yield* letter(2, "rates", "parked")
      yield* letter(1, "moves", "discarded")
      const found = yield* one.compared()
      assert.deepStrictEqual(counts(found.deadLetters), [1, 0, 0, 0])
      assert.deepStrictEqual(found.lookupDeadLetters, { live: 1, candidate: 1 })
      yield* one.run("delete from millrace.dead_letters where topic = 'moves'")
      assert.isTrue((yield* one.compared()).equal)
    })
  )
)

it.live("under traffic, no row differs at equal positions", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { compared, run, system } = yield* opened
      yield* Effect.forkScoped(runProjections(system))
      const feeding = yield* Effect.forkScoped(
        Effect.forever(Effect.andThen(feed(system, 20), Effect.sleep("20 millis")))
      )
      yield* Effect.sleep("500 millis")
      let naive = 0
      for (let i = 0; i < 4; i++) {
        const [row] =
          yield* run(`select count(*)::int8 as rows from accounts_v1.totals a full join accounts_v2.totals b using ("user")
          where a is distinct from b`)
        naive += Number(row!["rows"])
        const found = yield* compared()
        // sums of tenths differ in the last bit by the borders of batches
        assert.deepStrictEqual(
          found.tables.map((table) => counts(table).slice(0, 3)),
          [
            [0, 0, 0],
            [0, 0, 0]
          ]
        )
        assert.isTrue(found.equal)
        assert.strictEqual(found.messages![0]!.live, found.messages![0]!.candidate)
        assert.isAbove(tableOf(found, "hourly").rows.live, 0)
      }
      yield* Fiber.interrupt(feeding)
      assert.isAbove(naive, 0)
      const [modes] = yield* run("select count(*)::int8 as frozen from millrace.progress where mode = 'frozen'")
      assert.strictEqual(Number(modes!["frozen"]), 0)
    })
  )
)
