// A process that runs finds the builds that others create or retire: it starts and stops them by itself.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { query, transaction } from "../../../src/postgres/client/client.ts"
import { createBuild } from "../../../src/postgres/store/builds.ts"
import { readProcesses } from "../../../src/postgres/store/processes.ts"
import { openSystem, runProjections } from "../../../src/system/system.ts"
import { applicationOf, eventOf } from "../../support/named-applications.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** Waits until an effect has this result, 20 seconds at most. */
const eventually = <A, E>(effect: Effect.Effect<A, E>, expected: A): Effect.Effect<void, E> =>
  Effect.gen(function* () {
    for (let i = 0; i < 200; i++) {
      if (JSON.stringify(yield* effect) === JSON.stringify(expected)) return
      yield* Effect.sleep("100 millis")
    }
    assert.deepStrictEqual(yield* effect, expected)
  })

it.live("a running process starts a build that appears, and stops it when it is retired", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const database = { ...(yield* databaseOn(url, 6)), embedded: false, failed: Effect.never }
      const { sql } = database
      const application = applicationOf("shop", "orders", { writesTopic: false })
      const system = yield* openSystem(application, database)
      const [projection] = system.builds
      const { name: source } = projection!.sources[0]!
      yield* system.log.append(source, ["a", "b"].map(eventOf))
      yield* Effect.forkScoped(runProjections(system))
      const events = query("count", async () => {
        const rows = await sql<Array<{ events: number }>>`
          select sum(events)::int8 as events from millrace.progress group by version order by version`
        return rows.map((row) => row.events)
      })
      const runs = Effect.map(readProcesses(sql), (found) => found.map(({ projections }) => projections))
      yield* eventually(events, [2])
      const partitions = (yield* system.log.bounds(source)).length
      const sources = { partitionsOf: () => partitions, startOf: () => 0 }
      yield* transaction(sql, (tx) => createBuild(tx, projection!, sources))
      yield* eventually(events, [2, 2])
      yield* eventually(runs, [["orders_v1", "orders_v2"]])
      yield* query("retire", () => sql`update millrace.projection set retired_at = now() where version = 2`)
      yield* eventually(runs, [["orders_v1"]])
      yield* system.log.append(source, ["c"].map(eventOf))
      yield* eventually(events, [3, 2])
    })
  )
)
