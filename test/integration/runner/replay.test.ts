// A rebuild gives what live processing gave: random applications are processed live with restarts, and a second build replays the log with
// batches that end elsewhere. All tables, late events and dead letters are the same, byte for byte.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import { inMemory, inPostgres, playReplay } from "../../support/replay.ts"
import type { Sql } from "../../../src/postgres/client/client.ts"
import application from "../../support/signals.ts"
import { engine } from "../../support/engine.ts"
import { replayFlights } from "../../support/replay-flights.ts"
import { range } from "../../contract/log-support.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { seed } from "../../support/random.ts"
import { isLong } from "../../support/size.ts"

const scope = Scope.makeUnsafe()
/** Databases that no application uses now. The applications mostly wait for PostgreSQL, so as many as there are run at once. */
const free = Effect.runSync(Queue.unbounded<Sql>())
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
  const databases = Effect.forEach(range(0, 4), () => databaseOn(root, 5), { concurrency: 4 })
  for (const { sql } of await Effect.runPromise(Scope.provide(databases, scope))) Queue.offerUnsafe(free, sql)
}, 60_000)
/** Plays an application on a database of its own. */
const onDatabase = <A, E, R>(play: (sql: Sql) => Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(Queue.take(free), play, (sql) => Queue.offer(free, sql))
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

/** How many events an application has; fewer to find the smallest that fails. */
const count = process.env["MILLRACE_TEST_EVENTS"]
const runs = Number(process.env["MILLRACE_TEST_RUNS"] ?? (isLong ? 600 : 60))

/** Every fourth one is on the log in the database, with a projection of what the first one publishes; all are with `MILLRACE_TEST_LOG=postgres`. */
const logOf = (run: number) =>
  run % 4 === 3 || process.env["MILLRACE_TEST_LOG"] === "postgres" ? inPostgres : inMemory

const all = { late: 0, parked: 0, retried: 0, discarded: 0 }
describe.concurrent("a second build equals the first", () => {
  for (let run = 0; run < runs; run++) {
    it.live(
      `application ${run}, seed ${seed}`,
      () =>
        Effect.map(
          onDatabase((sql) =>
            playReplay(sql, logOf(run), seed + 13 * run, count === undefined ? undefined : Number(count))
          ),
          (played) => {
            for (const name of ["late", "parked", "retried", "discarded"] as const) all[name] += played[name]
          }
        ),
      120_000
    )
  }
})
describe("January's flights", () => {
  it.live(
    "give the same tables in a second build",
    () =>
      Effect.scoped(Effect.flatMap(engine(root, { ...application, services: undefined }), (on) => replayFlights(on))),
    120_000
  )
})
describe("the applications", () => {
  it(`had late events and dead letters, retried and discarded ones, too, seed ${seed}`, () => {
    if (runs < 60) return
    // the sums of 60 applications differ much from seed to seed: 7 to 100 were retried
    for (const [name, count] of Object.entries(all)) assert.isAbove(count, 0, name)
  })
})
