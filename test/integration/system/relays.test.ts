// A process whose relay to Pulsar cannot run: projections and the relay into the log go on, and the status says what fails.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Schema } from "effect"
import { Application, Event, Projection, Topic } from "../../../src/index.ts"
import { readStatus } from "../../../src/system/observed.ts"
import { openSystem, runProjections, runRelay } from "../../../src/system/system.ts"
import { record } from "../../contract/log-support.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
const before = { ...process.env }
beforeAll(async () => {
  delete process.env["MILLRACE_KAFKA_BROKERS"]
  // the native client cannot be loaded
  Object.assign(process.env, { MILLRACE_PULSAR_URL: "pulsar://127.0.0.1:9", MILLRACE_PULSAR_CLIENT: "/none" })
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(async () => {
  for (const name of ["MILLRACE_KAFKA_BROKERS", "MILLRACE_PULSAR_URL", "MILLRACE_PULSAR_CLIENT"]) {
    if (before[name] === undefined) delete process.env[name]
    else process.env[name] = before[name]
  }
  await Effect.runPromise(Scope.close(scope, Exit.void))
})

const Happened = Event.make("happened", { id: Schema.String })
const source = Topic.events("source", { events: [Happened], key: "id", partitions: 1 })
const derived = Topic.records("derived", { value: { id: Schema.String }, key: "id", partitions: 1 })
const copies = Projection.make({
  name: "copies",
  version: 1,
  source,
  writes: [derived],
  handle: ({ id }, out) => {
    out.publish(derived, { id })
  }
})
const application = Application.make({ name: "relays", projections: [Projection.async(copies)] })

describe("a relay to Pulsar that cannot connect", () => {
  it.live("holds up neither the projections nor the relay into the log, and is reported", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql, url } = yield* databaseOn(root)
        const database = { sql, url, embedded: false, failed: Effect.never }
        const system = yield* openSystem(application, database)
        yield* Effect.forkScoped(runProjections(system))
        yield* Effect.forkScoped(runRelay(system))
        const recordOf = (id: string) =>
          record({
            key: id,
            value: JSON.stringify({ type: "happened", id }),
            eventTime: Date.now(),
            schemaVersion: 1
          })
        yield* system.log.append("source", ["a", "b", "c"].map(recordOf))
        for (let n = 0; (yield* system.log.ends("derived"))[0] !== 3; n++) {
          if (n > 400) assert.fail("the relay into the log did not run")
          yield* Effect.sleep(25)
        }
        for (let n = 0; !system.presence.failures.list.some(({ what }) => what === "relay to pulsar"); n++) {
          if (n > 400) assert.fail("the relay to Pulsar reported no failure")
          yield* Effect.sleep(25)
        }
        const status = yield* readStatus(system)
        assert.deepStrictEqual(
          status.relays.map(({ lag, target }) => [target, lag]),
          [
            ["embedded", 0],
            ["pulsar", 3]
          ]
        )
      })
    )
  )
})
