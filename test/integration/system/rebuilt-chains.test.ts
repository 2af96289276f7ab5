// Projections that read what others publish, what they publish themselves, or dead letters: all rebuilt, and promoted in either order, with events of two tenants.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Application, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { diff } from "../../../src/system/diff.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild } from "../../../src/system/rebuild.ts"
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
const value = { id: Schema.String, tenant: Schema.String }
const topic = (name: string) => Topic.records(name, { value, key: "id", tenant: "tenant", partitions })
const [moves, middle, loop] = [topic("moves"), topic("middle"), topic("loop")]
const tableOf = (name: string) =>
  ReadModel.table(name, { columns: { id: Schema.String, tenant: Schema.String }, primaryKey: ["id"] })
const [firsts, seconds, rounds] = [tableOf("firsts"), tableOf("seconds"), tableOf("rounds")]
const first = Projection.make({
  name: "first",
  version: 1,
  source: moves,
  writes: [firsts, middle],
  handle: (move, out) => {
    if (move.id.endsWith("7")) throw new Error("seven")
    out.upsert(firsts, move)
    out.publish(middle, move)
  }
})
const second = Projection.make({
  name: "second",
  version: 1,
  source: middle,
  writes: [seconds],
  handle: (move, out) => out.upsert(seconds, move)
})
const round = Projection.make({
  name: "round",
  version: 1,
  source: [moves, loop],
  writes: [rounds, loop],
  handle: (move, out) => {
    out.upsert(rounds, move)
    if (!move.id.endsWith("!!")) out.publish(loop, { ...move, id: `${move.id}!` })
  }
})
const parked = Topic.records("moves.first.dlq", {
  value: { position: Schema.Int, partition: Schema.Int },
  key: ({ position }) => String(position),
  partitions
})
const counted = ReadModel.table("counted", {
  columns: { partition: Schema.Int, position: Schema.Int },
  primaryKey: ["partition", "position"]
})
const letters = Projection.make({
  name: "letters",
  version: 1,
  source: parked,
  writes: [counted],
  handle: ({ partition, position }, out) => out.upsert(counted, { partition, position })
})
const application = Application.make({
  name: "chained",
  projections: [Projection.async(first), Projection.async(second), Projection.async(round), Projection.async(letters)]
})

it.live(
  "projections of a chain are rebuilt and promoted in either order, and all have what they had",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
        const { sql } = database
        const system = yield* openSystem(application, database)
        const context = { application, sql, log: system.log, on: "PostgreSQL" as const }
        yield* Effect.forkScoped(runProjections(system))
        yield* Effect.forkScoped(runRelay(system))
        let fed = 0
        const feed = Effect.suspend(() =>
          system.log.append(
            moves.name,
            Array.from({ length: 20 }, () =>
              recordOf(moves, { id: `m${fed}`, tenant: fed++ % 2 === 0 ? "a" : "b" }, partitions)
            )
          )
        )
        const counts = Effect.map(
          query(
            "count",
            () =>
              sql<Array<Record<string, number>>>`select (select count(*)::int from firsts) as firsts,
            (select count(*)::int from seconds) as seconds, (select count(*)::int from rounds) as rounds,
            (select count(*)::int from counted) as letters, (select count(distinct tenant)::int from rounds) as tenants`
          ),
          ([row]) => row
        )
        const check = Effect.gen(function* () {
          yield* feed
          yield* untilProcessed(system)
          const failed = Array.from({ length: fed }, (_, i) => i).filter((i) => i % 10 === 7).length
          assert.deepEqual(yield* counts, {
            firsts: fed - failed,
            seconds: fed - failed,
            rounds: fed * 3,
            letters: failed,
            tenants: 2
          })
        })
        yield* check
        for (const order of [
          ["first", "second", "round", "letters"],
          ["letters", "round", "second", "first"]
        ]) {
          for (const name of order) yield* beginRebuild(system, name, { rate: undefined, maxLiveLagMs: undefined })
          yield* check
          for (const name of order) {
            const found = yield* Effect.scoped(diff(context, { name, samples: 1, exact: true, timeoutMs: 20_000 }))
            assert.isTrue(found.equal, JSON.stringify(found))
            yield* promote(context, { name, rollback: false, dryRun: false, timeoutMs: 20_000 })
            yield* feed
          }
          yield* check
        }
      })
    ),
  90_000
)
