// Corrections after a promotion: one message for each row that the new build computes otherwise, in its stream, whatever interrupts the command.
import { randomUUID } from "node:crypto"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Application, Event, Projection, Topic, Window } from "../../../src/index.ts"
import { query, transaction } from "../../../src/postgres/client/client.ts"
import { createBuild } from "../../../src/postgres/store/builds.ts"
import { flip, freeze } from "../../../src/postgres/store/promotion.ts"
import { drained } from "../../support/drained.ts"
import { correctsLastPromotion, publishCorrections } from "../../../src/system/corrections.ts"
import { promote } from "../../../src/system/promote.ts"
import { openSystem, runProjections, runRelay } from "../../../src/system/system.ts"
import { untilProcessed } from "../../../src/system/until-processed.ts"
import { recordOf } from "../../support/engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const partitions = 2
const Moved = Event.make("moved", { id: Schema.String, user: Schema.String, amount: Schema.Int })
const source = Topic.events("moves", { events: [Moved], id: "id", key: "user", partitions })
const sums = Topic.records("sums", { value: { user: Schema.String, amount: Schema.Finite }, key: "user", partitions })
const other = Topic.records("other", { value: { user: Schema.String }, key: "user" })
const totals = Window.global("totals", {
  key: { user: Schema.String },
  aggregate: { moves: Agg.count, amount: Agg.sum },
  publish: sums
})
const projection = Projection.make({
  name: "accounts",
  version: 1,
  source,
  writes: [totals, other],
  handle: ({ amount, user }, out) => {
    out.add(totals, { user, moves: 1, amount })
    out.publish(other, { user })
  }
})
const application = Application.make({ name: "bank", projections: [Projection.async(projection)] })
const users = Array.from({ length: 12 }, (_, i) => `u${i}`)

/** A system with a live build and a follower, both of which run, and its relay. */
const opened = Effect.gen(function* () {
  const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
  const { sql } = database
  const system = yield* openSystem(application, database)
  yield* transaction(sql, (tx) => createBuild(tx, projection, { partitionsOf: () => partitions, startOf: () => 0 }))
  yield* Effect.forkScoped(runProjections(system))
  yield* Effect.forkScoped(runRelay(system))
  const run = (text: string) => query("test", () => sql.unsafe(text))
  let moves = 0
  const feed = (ids: ReadonlyArray<string>) =>
    system.log.append(
      source.name,
      ids.map((user) => recordOf(source, { type: "moved", id: `m${moves++}`, user, amount: 1 }, partitions))
    )
  const published = Effect.gen(function* () {
    const found = yield* Effect.forEach([0, 1], (partition) =>
      Effect.map(system.log.read("sums", partition, 0), ({ records }) => records)
    )
    return found.flat().map(({ headers, value }) => {
      const { amount, user } = JSON.parse(value!) as { readonly user: string; readonly amount: number }
      const of = headers["millrace-corrects"]
      return of === undefined ? { user, amount } : { user, amount, revision: headers["millrace-revision"], of }
    })
  })
  const until = Effect.fnUntraced(function* <E>(ok: Effect.Effect<boolean, E>) {
    for (let i = 0; i < 500 && !(yield* ok); i++) yield* Effect.sleep(20)
    assert.isTrue(yield* ok)
  })
  const pair = { projection: "accounts", live: 1, follower: 2 }
  const promoted = Effect.gen(function* () {
    const token = randomUUID()
    yield* freeze(sql, { ...pair, token }, 5_000)
    yield* until(Effect.map(drained(sql, pair), ({ isDrained }) => isDrained))
    assert.strictEqual(yield* flip(sql, { ...pair, token }), "now")
  })
  const caughtUp = until(Effect.map(drained(sql, pair), ({ behind }) => behind === 0))
  return { caughtUp, feed, promoted, published, run, sql, until }
})

it.live(
  "each changed or extra row is published once behind what its partition published, also if the command is interrupted",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { caughtUp, feed, promoted, published, run, sql, until } = yield* opened
        const none = yield* Effect.flip(publishCorrections({ application, sql }, "accounts"))
        assert.strictEqual(none.message, "projection accounts was never promoted, so nothing is to correct")
        yield* feed(users)
        yield* until(Effect.map(published, ({ length }) => length === users.length))
        yield* caughtUp

        // the new build computes three rows otherwise, has one more, lacks one, and counts one otherwise, which is not published
        yield* run(`update accounts_v2.totals set amount = 100 where "user" in ('u1', 'u2', 'u3')`)
        yield* run(`insert into accounts_v2.totals values ('new', 1, 5)`)
        yield* run(`delete from accounts_v2.totals where "user" = 'u4'`)
        yield* run(`update accounts_v2.totals set moves = 7 where "user" = 'u5'`)
        yield* promoted

        let result: Effect.Success<ReturnType<typeof publishCorrections>> | undefined
        let interrupted = 0
        for (let ms = 20; result === undefined; ms *= 1.5) {
          const fiber = yield* Effect.forkScoped(publishCorrections({ application, sql }, "accounts", 1))
          yield* Effect.sleep(ms)
          const exit = yield* Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
          if (Exit.isSuccess(exit)) result = exit.value
          else interrupted++
        }
        assert.isAbove(interrupted, 2)
        assert.deepStrictEqual(
          { revision: result.revision, rows: result.rows, gone: result.gone },
          { revision: 2, rows: 4, gone: 1 }
        )
        assert.deepStrictEqual(result.notCorrected, [
          { name: "other", reason: "handlers publish it, and no row says what they published" }
        ])
        // a first way back promotes; one that was made, and is repeated, only corrects
        const back = correctsLastPromotion(sql, { name: "accounts", rollback: true })
        assert.isFalse(yield* back)
        yield* run(
          `insert into millrace.promotion (token, projection, old, new, at) values (gen_random_uuid(), 'accounts', 2, 1, now() + interval '1 hour')`
        )
        assert.isTrue(yield* back)
        yield* run("delete from millrace.promotion where new = 1")
        const again = yield* publishCorrections({ application, sql }, "accounts")
        assert.deepStrictEqual([again.rows, again.published], [4, 0])

        yield* feed(["u1", "u6"])
        yield* until(Effect.map(published, ({ length }) => length === users.length + 6))
        const more = (yield* published).filter((one) => one.amount !== 1)
        const correction = { revision: "2", of: "accounts_v1" }
        assert.sameDeepMembers(more, [
          { user: "u1", amount: 100, ...correction },
          { user: "u2", amount: 100, ...correction },
          { user: "u3", amount: 100, ...correction },
          { user: "new", amount: 5, ...correction },
          { user: "u1", amount: 101 },
          { user: "u6", amount: 2 }
        ])
        // in the order of the row's values
        assert.isBelow(
          more.findIndex(({ amount, user }) => user === "u1" && amount === 100),
          more.findIndex(({ amount, user }) => user === "u1" && amount === 101)
        )
        const halted = yield* run("select halted from millrace.relay_position where halted is not null")
        assert.deepStrictEqual([...halted], [])
      })
    )
)

it.live("under traffic, the last message of each row is the row, and each row is corrected once", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { caughtUp, feed, promoted, published, run, sql, until } = yield* opened
      const many = Array.from({ length: 60 }, (_, i) => `v${i}`)
      yield* feed(many)
      yield* until(Effect.map(published, ({ length }) => length === many.length))
      yield* caughtUp
      yield* run("update accounts_v2.totals set amount = amount + 1000")
      yield* promoted
      const feeding = yield* Effect.forkScoped(Effect.forever(Effect.andThen(feed(many), Effect.sleep(2))))
      const { published: corrected, rows } = yield* publishCorrections({ application, sql }, "accounts", 3)
      yield* Fiber.interrupt(feeding)
      assert.deepStrictEqual([corrected, rows], [many.length, many.length])
      const stored = Effect.map(run("select * from accounts_v2.totals"), (found) =>
        Object.fromEntries(found.map((row) => [String(row["user"]), Number(row["amount"])]))
      )
      const last = Effect.map(published, (all) => Object.fromEntries(all.map(({ amount, user }) => [user, amount])))
      yield* until(
        Effect.map(Effect.all([stored, last]), ([rowsNow, messages]) =>
          many.every((user) => rowsNow[user] === messages[user])
        )
      )
      const all = yield* published
      assert.strictEqual(all.filter((one) => "of" in one).length, many.length)
      for (const user of many) {
        const amounts = all.flatMap((one) => (one.user === user ? [one.amount] : []))
        assert.deepStrictEqual(
          amounts,
          amounts.toSorted((a, b) => a - b)
        )
      }
      assert.deepStrictEqual(
        [...(yield* run("select halted from millrace.relay_position where halted is not null"))],
        []
      )
    })
  )
)

const Played = Event.make("played", {
  id: Schema.String,
  studio: Schema.String,
  player: Schema.String,
  won: Schema.Boolean
})
const plays = Topic.events("plays", { events: [Played], id: "id", key: "player", tenant: "studio", partitions })
const score = {
  key: { studio: Schema.String, player: Schema.String },
  aggregate: { plays: Agg.count },
  publish: "scores",
  tenant: "studio"
} as const
/** Versions of an application: the second one counts wins as well. */
const versions = [1, 2].map((version) => {
  const scores =
    version === 1
      ? Window.global("scores", score)
      : Window.global("scores", { ...score, aggregate: { ...score.aggregate, wins: Agg.count } })
  const playing = Projection.make({
    name: "playing",
    version,
    source: plays,
    writes: [scores],
    handle: ({ player, studio, won }, out) => out.add(scores, { studio, player, plays: 1, wins: won } as never)
  })
  return Application.make({ name: "game", projections: [Projection.async(playing)] })
})

it.live(
  "every row of a window with a new aggregate is published with it, and has the tenant of the row",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
        const { sql } = database
        const records = users.map((player, i) =>
          recordOf(
            plays,
            { type: "played", id: `p${i}`, studio: i < 4 ? "nord" : "sued", player, won: i === 0 },
            partitions
          )
        )
        for (const [i, application] of versions.entries())
          yield* Effect.scoped(
            Effect.gen(function* () {
              const system = yield* openSystem(application, database)
              if (i === 0) yield* system.log.append(plays.name, records)
              yield* Effect.forkScoped(runProjections(system))
              yield* Effect.forkScoped(runRelay(system))
              if (i === 0) return yield* untilProcessed(system)
              const context = { application, sql, log: system.log, on: "PostgreSQL" as const }
              yield* promote(context, { name: "playing", rollback: false, dryRun: false, timeoutMs: 20_000 })
              const corrected = yield* publishCorrections({ application, sql }, "playing")
              assert.deepInclude(corrected, { rows: users.length, published: users.length, gone: 0 })
              yield* untilProcessed(system)
              const read = yield* Effect.forEach([0, 1], (partition) => system.log.read("scores", partition, 0))
              const last = new Map(read.flatMap((batch) => batch.records).map((record) => [record.key, record]))
              assert.deepStrictEqual(
                [...last.values()]
                  .map(({ headers, tenant, value }) => {
                    const { player, ...rest } = JSON.parse(value!) as { readonly player: string }
                    return [player, tenant, headers["millrace-corrects"], rest] as const
                  })
                  .toSorted(([a], [b]) => users.indexOf(a) - users.indexOf(b)),
                users.map((player, n) => {
                  const studio = n < 4 ? "nord" : "sued"
                  return [player, studio, "playing_v1", { studio, plays: 1, wins: n === 0 ? 1 : 0 }] as const
                })
              )
            })
          )
      })
    ),
  60_000
)
