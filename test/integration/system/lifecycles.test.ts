// Projections of aggregates in a whole system: behind the log, inline, and on their way from one to the other, with runners that start and stop.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Aggregate, Application, EventStore, Projection, type Run } from "../../../src/index.ts"
import { readMoves } from "../../../src/postgres/store/lifecycles.ts"
import { readBuilds } from "../../../src/postgres/store/builds.ts"
import { readProcesses } from "../../../src/postgres/store/processes.ts"
import { embedded } from "../../../src/postgres/relay/to-log.ts"
import type { Database } from "../../../src/system/database.ts"
import { retire } from "../../../src/system/retire.ts"
import { readStatus } from "../../../src/system/observed.ts"
import { makeReadiness } from "../../../src/system/readiness.ts"
import { openSystem, runProjections } from "../../../src/system/system.ts"
import { untilProcessed } from "../../../src/system/until-processed.ts"
import { Account, accounts } from "../../support/accounts.ts"
import { foldedRows, shown } from "../../support/inline.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const at = Date.UTC(2026, 0, 1)
const applicationOf = (projections: ReadonlyArray<Run<never, never>>) =>
  Application.make({ name: "bank", aggregates: [Account], projections })
/** Opens a system and runs its projections, until the scope closes. */
const opened = Effect.fnUntraced(function* (projections: ReadonlyArray<Run<never, never>>, database: Database) {
  const system = yield* openSystem(applicationOf(projections), database)
  yield* Effect.forkScoped(runProjections(system))
  const move = (id: string, amount: number) =>
    Effect.provideService(
      Aggregate.execute(Account, id, { type: "move", account_id: id, at, amount }),
      EventStore,
      system.eventStore
    )
  const open = (id: string) =>
    Effect.provideService(
      Aggregate.execute(Account, id, { type: "open", account_id: id, at, owner: "ann" }),
      EventStore,
      system.eventStore
    )
  const untilMoved = Effect.gen(function* () {
    while ((yield* readMoves(database.sql)).length > 0) yield* Effect.sleep("20 millis")
  })
  return { ...system, move, open, untilMoved }
})

it.live(
  "a projection of an aggregate runs async, becomes inline while the system runs, goes back, and ends with retire",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const own = yield* databaseOn(url, 8)
        const database: Database = { ...own, embedded: false, failed: Effect.never }
        const { sql } = own
        const isSame = Effect.gen(function* () {
          assert.deepStrictEqual(yield* shown(sql), yield* foldedRows(sql))
        })
        // behind the log
        yield* Effect.scoped(
          Effect.gen(function* () {
            const system = yield* opened([Projection.async(accounts)], database)
            for (const id of ["a", "b", "c"]) {
              yield* system.open(id)
              yield* system.move(id, 5)
            }
            yield* untilProcessed(system)
            yield* isSame
          })
        )
        // events that no process has projected yet, and then inline: the runner catches up first
        yield* Effect.scoped(
          Effect.flatMap(opened([], database), (system) => Effect.andThen(system.move("a", 1), system.move("b", 1)))
        )
        yield* Effect.scoped(
          Effect.gen(function* () {
            const system = yield* opened([Projection.inline(accounts)], database)
            yield* system.move("a", 2)
            yield* system.untilMoved
            yield* system.move("c", 2)
            yield* isSame
            assert.isTrue((yield* readBuilds(sql, "accounts"))[0]!.inline)
          })
        )
        // and back, by a process that is started later
        yield* Effect.scoped(
          Effect.gen(function* () {
            const system = yield* opened([Projection.async(accounts)], database)
            yield* system.move("a", 3)
            yield* system.untilMoved
            yield* system.move("b", 3)
            yield* untilProcessed(system)
            yield* isSame
          })
        )
        // inline once more, then removed from the configuration: a process without it refuses commands while another one that takes commands has it
        yield* Effect.scoped(
          Effect.gen(function* () {
            const older = yield* opened([Projection.inline(accounts)], database)
            yield* older.presence.add("gateway")
            yield* older.untilMoved
            while ((yield* readProcesses(sql)).length === 0) yield* Effect.sleep("20 millis")
            const system = yield* opened([], database)
            const refused = yield* Effect.flip(system.move("a", 4))
            assert.strictEqual((refused as { readonly _tag: string })._tag, "InlineMissing")
            // the status and the readiness of a gateway say so, too, and before a client meets it
            const { message } = refused as Error
            const untilListed = Effect.gen(function* () {
              while ((yield* readStatus(system)).problems.length === 0) yield* Effect.sleep("20 millis")
            })
            yield* untilListed
            const { problems } = yield* readStatus(system)
            assert.deepStrictEqual(
              problems.map(({ kind, what }) => [kind, what]),
              [["needs_a_person", "commands of account"]]
            )
            assert.include(problems[0]!.message, message)
            const ready = yield* Effect.flatten(makeReadiness(system, ["gateway"]))
            assert.deepStrictEqual(ready.roles, { gateway: { ready: false, reason: message } })
            yield* older.move("a", 4)
            yield* isSame
          })
        )
        // once none has it, its rows stay as they are until it is retired
        yield* Effect.scoped(
          Effect.gen(function* () {
            const before = yield* shown(sql)
            const system = yield* opened([], database)
            yield* system.move("a", 4)
            assert.deepStrictEqual(yield* shown(sql), before)
            yield* retire(
              { application: applicationOf([]), sql, targets: [embedded] },
              { name: "accounts", version: undefined, drop: false, dryRun: false }
            )
            yield* system.move("a", 4)
          })
        )
      })
    ),
  60_000
)
