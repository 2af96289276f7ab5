// A new version of an inline projection takes the place of the live one while commands go on, in each way of deploying it: systems on one database stand
// for processes that take commands.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Aggregate, Application, EventStore, Projection } from "../../../src/index.ts"
import { readBuilds } from "../../../src/postgres/store/builds.ts"
import { readProcesses } from "../../../src/postgres/store/processes.ts"
import type { Database } from "../../../src/system/database.ts"
import { layer } from "../../../src/system/layer.ts"
import { promote } from "../../../src/system/promote.ts"
import { openSystem, runProjections } from "../../../src/system/system.ts"
import { makeReadiness } from "../../../src/system/readiness.ts"
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
const newer = { ...accounts, version: 2 }
const [v1, v2] = [Projection.inline(accounts), Projection.inline(newer)]
const applicationOf = (projections: ReadonlyArray<typeof v1>) =>
  Application.make({ name: "bank", aggregates: [Account], projections })

/** A process that takes commands and runs its projections, until `stop`. */
const start = Effect.fnUntraced(function* (database: Database, projections: ReadonlyArray<typeof v1>) {
  const application = applicationOf(projections)
  const own = yield* Scope.make()
  const opening = Effect.gen(function* () {
    const system = yield* openSystem(application, database)
    yield* Effect.forkScoped(runProjections(system))
    yield* system.presence.add("gateway")
    const ready = yield* makeReadiness(system, ["gateway"])
    return { ...system, ready: Effect.map(ready, (found) => found.ready) }
  })
  const system = yield* Scope.provide(opening, own)
  const isKnown = Effect.map(readProcesses(database.sql), (all) =>
    all.some(({ id, roles }) => id === system.presence.id && roles.includes("gateway"))
  )
  while (!(yield* isKnown)) yield* Effect.sleep("10 millis")
  return { ...system, application, stop: Scope.close(own, Exit.void) }
})
type Process = Effect.Success<ReturnType<typeof start>>

/** Sends commands until it is stopped, each to the first process that takes it, and counts those that none took, asked twice. */
const client = Effect.fnUntraced(function* () {
  const processes = new Set<Process>()
  const counts = { sent: 0, refusedByAll: 0 }
  const send = (type: "open" | "move", id: string) =>
    Effect.gen(function* () {
      // twice, because a promotion may come between the questions to two processes
      for (const { eventStore } of [...processes, ...processes]) {
        const command =
          type === "open"
            ? ({ type, account_id: id, at, owner: "ann" } as const)
            : ({ type, account_id: id, at, amount: 1 } as const)
        const executed = yield* Effect.result(
          Effect.provideService(Aggregate.execute(Account, id, command), EventStore, eventStore)
        )
        if (executed._tag === "Success") return true
        assert.include(["InlineMissing", "StreamBusy"], (executed.failure as { readonly _tag: string })._tag)
      }
      return false
    })
  const loop = Effect.gen(function* () {
    while (true) {
      if (processes.size > 0) {
        const n = counts.sent
        const isTaken = yield* send(n < 5 ? "open" : "move", `a${n % 5}`)
        counts.sent++
        if (!isTaken) counts.refusedByAll++
      }
      yield* Effect.sleep("5 millis")
    }
  })
  const running = yield* Effect.forkScoped(loop)
  /** Waits until commands that were sent from now on are answered. */
  const more = Effect.suspend(() => {
    const from = counts.sent
    const until = Effect.gen(function* () {
      while (counts.sent < from + 10) {
        assert.isUndefined(running.pollUnsafe())
        yield* Effect.sleep("5 millis")
      }
    })
    return until
  })
  return { processes, counts, more, stop: Fiber.interrupt(running) }
})

interface World {
  readonly database: Database
  readonly clients: Effect.Success<ReturnType<typeof client>>
  /** Starts a process to which the client sends commands. */
  readonly started: (projections: ReadonlyArray<typeof v1>) => Effect.Effect<Process, unknown, Scope.Scope>
  /** Stops sending to a process, and then the process. */
  readonly stopped: (process: Process) => Effect.Effect<void>
  readonly promoted: (by: Process, rollback?: boolean) => Effect.Effect<unknown, unknown>
  /** Which build readers see, and whether appends write its rows. */
  readonly until: (number: number, inline: boolean) => Effect.Effect<void, unknown>
}
const test = (title: string, body: (world: World) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(
    title,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const own = yield* databaseOn(url, 12)
          const database: Database = { ...own, embedded: false, failed: Effect.never }
          const { sql } = own
          const clients = yield* client()
          const started: World["started"] = (projections) =>
            Effect.acquireRelease(start(database, projections), ({ stop }) => stop).pipe(
              Effect.tap((one) => Effect.sync(() => clients.processes.add(one)))
            )
          const stopped: World["stopped"] = (one) =>
            Effect.suspend(() => {
              clients.processes.delete(one)
              return one.stop
            })
          const promoted: World["promoted"] = ({ application, log }, rollback = false) =>
            promote(
              { application, sql, log, on: "PostgreSQL" },
              { name: "accounts", rollback, dryRun: false, timeoutMs: 30_000 }
            )
          const until: World["until"] = (number, inline) =>
            Effect.gen(function* () {
              const isSo = Effect.map(readBuilds(sql, "accounts"), (builds) =>
                builds.some((build) => build.live && build.number === number && build.inline === inline)
              )
              while (!(yield* isSo)) yield* Effect.sleep("20 millis")
            })
          yield* body({ database, clients, started, stopped, promoted, until })
          yield* clients.more
          yield* clients.stop
          assert.strictEqual(clients.counts.refusedByAll, 0, `of ${clients.counts.sent}`)
          assert.deepStrictEqual(yield* shown(sql), yield* foldedRows(sql))
        })
      ),
    60_000
  )
const untilReady = ({ ready }: Process, wanted: boolean) =>
  Effect.gen(function* () {
    while ((yield* ready) !== wanted) yield* Effect.sleep("20 millis")
  })

test("in place: the new version alone takes commands before, during and after its promotion", (world) =>
  Effect.gen(function* () {
    const { clients, promoted, started, stopped, until } = world
    const old = yield* started([v1])
    yield* until(1, true)
    yield* clients.more
    yield* stopped(old)
    const one = yield* started([v2])
    yield* until(1, false)
    assert.isTrue(yield* one.ready)
    yield* clients.more
    yield* promoted(one)
    yield* until(2, true)
    yield* clients.more
    assert.isTrue(yield* one.ready)
    // and the old code again, in place: it goes on where it stopped once the promotion is taken back
    yield* stopped(one)
    const back = yield* started([v1])
    yield* until(2, false)
    yield* clients.more
    yield* promoted(back, true)
    yield* until(1, true)
  }))

test("two images: the one that has the live version takes commands, and the other one after the promotion", (world) =>
  Effect.gen(function* () {
    const { clients, promoted, started, stopped, until } = world
    const old = yield* started([v1])
    yield* until(1, true)
    const one = yield* started([v2])
    yield* untilReady(one, false)
    assert.isTrue(yield* old.ready)
    yield* clients.more
    yield* until(1, true)
    yield* promoted(one)
    yield* until(2, true)
    yield* untilReady(one, true)
    yield* untilReady(old, false)
    yield* clients.more
    yield* promoted(old, true)
    yield* until(1, true)
    yield* clients.more
    yield* promoted(one)
    yield* until(2, true)
    yield* stopped(old)
    yield* clients.more
  }))

test("both versions in one configuration: every process that has both takes commands all the time", (world) =>
  Effect.gen(function* () {
    const { clients, promoted, started, stopped, until } = world
    const old = yield* started([v1])
    yield* until(1, true)
    const one = yield* started([v1, v2])
    assert.isTrue(yield* one.ready)
    yield* stopped(old)
    yield* clients.more
    yield* promoted(one)
    yield* until(2, true)
    assert.isTrue(yield* one.ready)
    yield* clients.more
    const last = yield* started([v2])
    yield* stopped(one)
    assert.isTrue(yield* last.ready)
  }))

it.live(
  "a program beside the system takes commands as its processes do: what it has the code of is not released, and what it lacks is, while no other one takes commands",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const own = yield* databaseOn(url, 12)
        const { sql } = own
        const database: Database = { ...own, embedded: false, failed: Effect.never }
        // a process that runs the projections of the first version, and takes no commands
        const system = yield* openSystem(applicationOf([v1]), database)
        yield* Effect.forkScoped(runProjections(system))
        const live = Effect.map(readBuilds(sql, "accounts"), (builds) => builds.find((build) => build.live)?.inline)
        const until = (inline: boolean) =>
          Effect.gen(function* () {
            while ((yield* live) !== inline) yield* Effect.sleep("20 millis")
          })
        yield* until(true)
        /** Opens `layer` with the code of a version, until `close`. */
        const program = Effect.fnUntraced(function* (version: typeof v1) {
          const scope = yield* Scope.make()
          yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
          process.env["MILLRACE_DATABASE_URL"] = own.url
          const context = yield* Layer.buildWithScope(layer({ application: applicationOf([version]) }), scope).pipe(
            Effect.ensuring(Effect.sync(() => delete process.env["MILLRACE_DATABASE_URL"]))
          )
          const command = { type: "move", account_id: "a", at, amount: 1 } as const
          const send = Effect.result(Effect.provide(Aggregate.execute(Account, "a", command), context))
          return { send, close: Scope.close(scope, Exit.void) }
        })
        const opening = { type: "open", account_id: "a", at, owner: "ann" } as const
        yield* Effect.provideService(Aggregate.execute(Account, "a", opening), EventStore, system.eventStore)

        const newerCode = yield* program(v2)
        yield* until(false)
        while ((yield* newerCode.send)._tag === "Failure") yield* Effect.sleep("20 millis")
        const liveCode = yield* program(v1)
        yield* until(true)
        assert.strictEqual((yield* liveCode.send)._tag, "Success")
        const refused = yield* newerCode.send
        assert.strictEqual(refused._tag === "Failure" && refused.failure._tag, "InlineMissing")
        const roles = () => Effect.map(readProcesses(sql), (all) => all.flatMap((one) => one.roles).toSorted())
        assert.deepStrictEqual(yield* roles(), ["commands", "commands", "projections"])
        yield* liveCode.close
        yield* until(false)
        yield* newerCode.close
        assert.deepStrictEqual(yield* roles(), ["projections"])
        // what was appended while the build was released follows behind the log
        yield* untilProcessed(system)
        assert.deepStrictEqual(yield* shown(sql), yield* foldedRows(sql))
      })
    ),
  60_000
)
