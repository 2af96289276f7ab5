// Opens what dead letters are read from and sent again with, where that depends on the environment.
import * as Effect from "effect/Effect"
import * as PostgresDeadLetters from "../postgres/subscription/dead-letters.ts"
import type { Sql } from "../postgres/client/client.ts"
import { pulsarOptions } from "./environment.ts"
import { InvalidEnvironment } from "./errors.ts"
import { openLog } from "./open-log.ts"

/**
 * Opens the dead-letter topics of subscriptions: on Pulsar, or in the log on PostgreSQL. Undefined if the log is on Kafka and Pulsar is not
 * configured: Kafka has no subscriptions.
 */
export const openDeadLetterTopics = Effect.fnUntraced(function* (sql: Sql) {
  const pulsar = yield* pulsarOptions
  if (pulsar !== undefined)
    return yield* (yield* Effect.promise(() => import("../pulsar/dead-letters.ts"))).make(pulsar)
  const { log, on } = yield* openLog(Effect.succeed(sql))
  return on === "Kafka" ? undefined : PostgresDeadLetters.make(sql, log)
})

/** Opens what sends to Pulsar the messages that the relay parked. Fails with `InvalidEnvironment` if `MILLRACE_PULSAR_URL` is not set. */
export const openParkedSender = Effect.gen(function* () {
  const pulsar = yield* pulsarOptions
  if (pulsar !== undefined)
    return yield* (yield* Effect.promise(() => import("../pulsar/dead-letters.ts"))).makeSender(pulsar)
  const message = "messages that the relay parked go to Pulsar, and MILLRACE_PULSAR_URL is not set"
  return yield* new InvalidEnvironment({ message, try: "set MILLRACE_PULSAR_URL" })
})
