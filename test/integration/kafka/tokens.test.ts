// Position tokens over real HTTP, with the log on Kafka and the aggregates on embedded PostgreSQL.
import * as Effect from "effect/Effect"
import { shared } from "../../../stack/testing.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { needing } from "../../support/stack.ts"
import { tokenTests } from "../../support/tokens.ts"

const suite = await needing("kafka")
suite("Position tokens on Kafka", () =>
  tokenTests(
    `shop${process.pid}x${Date.now() % 100_000}`,
    Effect.gen(function* () {
      const { MILLRACE_KAFKA_BROKERS: brokers } = yield* shared("kafka")
      yield* Effect.acquireRelease(
        Effect.sync(() => (process.env["MILLRACE_KAFKA_BROKERS"] = brokers!)),
        () => Effect.sync(() => delete process.env["MILLRACE_KAFKA_BROKERS"])
      )
      return yield* databaseOn(yield* server, 12)
    })
  )
)
