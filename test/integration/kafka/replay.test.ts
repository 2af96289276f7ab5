// A rebuild of January's flights on Kafka gives what live processing gave, byte for byte. See test/integration/runner/replay.test.ts.
import { afterAll, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import application from "../../../millrace.config.ts"
import { shared } from "../../../stack/testing.ts"
import type { Projection } from "../../../src/model/projection.ts"
import { specOf } from "../../../src/log/log.ts"
import { topicsOf } from "../../../src/model/application.ts"
import * as PostgresStore from "../../../src/postgres/store/store.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { replayFlights } from "../../support/replay-flights.ts"
import { kafkaLogOn } from "../../support/replay-kafka.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let postgres = ""
let brokers: ReadonlyArray<string> = []

suite("On Kafka a second build equals the first", () => {
  beforeAll(async () => {
    postgres = await Effect.runPromise(Scope.provide(server, scope))
    brokers = (await Effect.runPromise(Scope.provide(shared("kafka"), scope))).MILLRACE_KAFKA_BROKERS!.split(",")
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it.live(
    "January's flights",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const database = yield* databaseOn(postgres, 6)
          const log = yield* kafkaLogOn(brokers)
          const topics = topicsOf(application)
          yield* log.declare(topics.map(({ partitions, topic }) => specOf(topic, partitions)))
          const store = PostgresStore.make(database.sql)
          yield* store.prepare(
            application.projections.map(({ projection }) => projection as Projection.Any),
            (name) => topics.find(({ topic }) => topic.name === name)!.partitions
          )
          yield* replayFlights({ ...database, application: { ...application, services: undefined }, log, store })
        })
      ),
    180_000
  )
})
