// A rebuild on Kafka gives what live processing gave, byte for byte: January's flights, and random applications. See test/integration/runner/replay.test.ts.
import { afterAll, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import application from "../../support/signals.ts"
import { shared } from "../../../stack/testing.ts"
import type { Projection } from "../../../src/model/projection.ts"
import { specOf } from "../../../src/log/log.ts"
import { topicsOf } from "../../../src/model/application.ts"
import * as PostgresStore from "../../../src/postgres/store/store.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { seed } from "../../support/random.ts"
import { playReplay } from "../../support/replay.ts"
import { replayFlights } from "../../support/replay-flights.ts"
import { inKafka, kafkaLogOn } from "../../support/replay-kafka.ts"
import { isLong } from "../../support/size.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
const runs = Number(process.env["MILLRACE_TEST_RUNS"] ?? (isLong ? 40 : 4))
/** How many events an application has; fewer to find the smallest that fails. */
const count = process.env["MILLRACE_TEST_EVENTS"]
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

  describe.concurrent("applications", () => {
    for (let run = 0; run < runs; run++)
      it.live(
        `application ${run}, seed ${seed}`,
        () =>
          Effect.scoped(
            Effect.gen(function* () {
              const { sql } = yield* databaseOn(postgres, 5)
              const number = seed + 13 * run
              yield* playReplay(sql, inKafka(brokers), number, count === undefined ? undefined : Number(count))
            })
          ),
        180_000
      )
  })
})
