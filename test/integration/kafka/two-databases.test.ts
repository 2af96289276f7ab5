// Two databases of one application on one broker: they share no consumer group and no producer, and do not both publish to a topic.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import type { Database } from "../../../src/system/database.ts"
import type { ForeignDatabase } from "../../../src/system/errors.ts"
import { openSystem, runProjections, runRelay } from "../../../src/system/system.ts"
import { untilProcessed } from "../../../src/system/until-processed.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { applicationOf, eventOf } from "../../support/named-applications.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let root = ""

suite("Two databases of one application", () => {
  beforeAll(async () => {
    root = await Effect.runPromise(Scope.provide(server, scope))
    const endpoints = await Effect.runPromise(Scope.provide(shared("kafka"), scope))
    process.env["MILLRACE_KAFKA_BROKERS"] = endpoints.MILLRACE_KAFKA_BROKERS!
  }, 120_000)
  afterAll(async () => {
    delete process.env["MILLRACE_KAFKA_BROKERS"]
    await Effect.runPromise(Scope.close(scope, Exit.void))
  })

  it.live(
    "each process every partition; the second one publishes only after a person has said that it replaces the first",
    () =>
      Effect.gen(function* () {
        const name = `twin${process.pid}${Date.now() % 100_000}`
        const application = applicationOf(name, name, { publishes: true })
        const database = Effect.map(databaseOn(root, 6), (own): Database => ({
          ...own,
          embedded: false,
          failed: Effect.never
        }))
        const [production, staging] = [yield* database, yield* database]
        const open = (own: Database, relaysHere: boolean, adopt = false) =>
          openSystem(application, own, { makesTopics: true, relaysHere, identity: { adopt } })
        const first = yield* open(production, true)
        yield* Effect.forkScoped(runProjections(first))
        yield* Effect.forkScoped(runRelay(first))
        const refused = (yield* Effect.flip(Effect.scoped(open(staging, true)))) as ForeignDatabase
        assert.match(
          refused.message,
          new RegExp(`topic ${name}\\..* on Kafka is published by another database of the application ${name}`)
        )
        assert.match(refused.try, /millrace migrate --adopt$/)
        // without a relay it reads beside the first one, and neither takes partitions from the other
        const second = yield* Effect.provideService(open(staging, false), Scope.Scope, yield* Effect.scope)
        assert.notStrictEqual(second.groups.prefix, first.groups.prefix)
        yield* Effect.forkScoped(runProjections(second))
        const ids = Array.from({ length: 40 }, (_, i) => `e${i}`)
        yield* first.log.append(`${name}.events`, ids.map(eventOf))
        yield* untilProcessed(first)
        const rows = ({ sql }: Database) =>
          Effect.map(
            query("rows", () => sql.unsafe<Array<{ rows: number }>>(`select count(*) as rows from ${name}_ids`)),
            ([row]) => row!.rows
          )
        while ((yield* rows(staging)) < ids.length) yield* Effect.sleep("50 millis")
        assert.deepStrictEqual([yield* rows(production), yield* rows(staging)], [40, 40])
        // the second one replaces the first
        yield* Effect.scoped(open(staging, false, true))
        yield* Effect.scoped(open(staging, true))
        assert.strictEqual(
          ((yield* Effect.flip(Effect.scoped(open(production, true)))) as ForeignDatabase)._tag,
          "ForeignDatabase"
        )
      }).pipe(Effect.scoped),
    120_000
  )
})
