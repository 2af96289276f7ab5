// Aggregates on Pulsar: `millrace pulsar apply` creates their topics, and the relay publishes their events there, encrypted where they are personal.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import { Aggregate } from "../../../src/aggregate/aggregate.ts"
import { EventStore } from "../../../src/aggregate/event-store.ts"
import * as PulsarFanOut from "../../../src/pulsar/subscription/fanout.ts"
import type { Database } from "../../../src/system/database.ts"
import { openSystem, runRelay } from "../../../src/system/system.ts"
import { receiveJust } from "../../contract/fanout-support.ts"
import { run } from "../../support/cli.ts"
import application, { Customer } from "../../support/customers.config.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { environmentOf, optionsOf } from "../../support/pulsar.ts"
import { needing } from "../../support/stack.ts"

/** Sets variables of the environment until the scope closes. */
const environmentWith = (given: Readonly<Record<string, string | undefined>>) => {
  const set = (values: typeof given) => {
    for (const [name, value] of Object.entries(values))
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
  }
  const before = Object.fromEntries(Object.keys(given).map((name) => [name, process.env[name]]))
  return Effect.acquireRelease(
    Effect.sync(() => set(given)),
    () => Effect.sync(() => set(before))
  )
}
const suite = await needing("pulsar")
const scope = Scope.makeUnsafe()
let root = ""
suite("Aggregates on Pulsar", () => {
  beforeAll(async () => {
    root = await Effect.runPromise(Scope.provide(server, scope))
  }, 60_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it.live(
    "have topics that the command creates, with every event once, its version, and personal fields encrypted",
    () =>
      Effect.gen(function* () {
        const endpoints = yield* shared("pulsar")
        const namespace = `aggregates${process.pid}`
        const environment = environmentOf("websocket", endpoints, namespace)
        const applied = yield* run(environment, "pulsar", "apply", "--config", "test/support/customers.config.ts")
        assert.strictEqual(applied.code, 0, applied.errors)
        assert.include(applied.output, `+ topic public/${namespace}/customer: create`)
        assert.include(applied.output, `+ topic public/${namespace}/ticket: create`)
        yield* environmentWith({ ...environment, MILLRACE_KAFKA_BROKERS: undefined })
        const own = yield* databaseOn(root, 8)
        const database: Database = { ...own, embedded: false, failed: Effect.never }
        const system = yield* openSystem(application, database)
        yield* Effect.forkScoped(runRelay(system))
        const register = (id: string) =>
          Aggregate.execute(
            Customer,
            "ada",
            { type: "register", customer_id: "ada", email: "plain@example.org" },
            {
              commandId: id
            }
          ).pipe(Effect.provideService(EventStore, system.eventStore))
        for (const id of ["c1", "c2", "c1"]) yield* register(id)
        const fanOut = yield* PulsarFanOut.make({ ...optionsOf("websocket", endpoints), namespace })
        const consumer = yield* fanOut.subscribe({
          topic: "customer",
          name: "reader",
          type: "exclusive",
          from: "earliest"
        })
        const messages = yield* receiveJust(consumer, 2)
        assert.deepStrictEqual(
          messages.map(({ key, properties }) => [key, properties["millrace-version"], properties["millrace-command"]]),
          [
            ["ada", "1", "c1"],
            ["ada", "2", "c2"]
          ]
        )
        assert.notInclude(JSON.stringify(messages), "plain@example.org")
        assert.isTrue(messages.every(({ value }) => value.includes("$sealed")))
      }).pipe(Effect.scoped),
    120_000
  )
})
