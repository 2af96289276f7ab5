// Makes sure that one database of an application publishes to a topic on Kafka, and not two.
import * as Effect from "effect/Effect"
import type { KafkaOptions } from "../kafka/protocol/options.ts"
import { aggregatesOf, type Application, goesTo, topicsOf } from "../model/application.ts"
import { ForeignDatabase } from "./errors.ts"
import type { Identity } from "./identity.ts"

/** How often the note on Kafka is written again; brokers keep it for a week. */
const renewed = "1 day"

/** Fails with `ForeignDatabase` if another database of the application publishes to one of its topics on Kafka. Renews the claim until the scope closes. */
export const ownTopics = Effect.fnUntraced(function* (
  application: Application.Any,
  kafka: KafkaOptions,
  { id }: Identity,
  takesOver: boolean
) {
  const { claimTopics } = yield* Effect.promise(() => import("../kafka/relay/topic-owner.ts"))
  const accepts = goesTo(application, "kafka")
  const derived = topicsOf(application).flatMap(({ topic: { name }, writtenBy }) =>
    writtenBy.length > 0 && accepts(name) ? [name] : []
  )
  const topics = [...derived, ...aggregatesOf(application).map(({ name }) => name)]
  const claim = (over: boolean) =>
    claimTopics(kafka, { application: application.name, database: id, topics, takesOver: over }).pipe(
      // the relay itself says what it lacks; a user that may not write notes may publish all the same
      Effect.catchIf(
        ({ retryable }) => !retryable,
        ({ reason }) =>
          Effect.as(
            Effect.logWarning(
              `it cannot be checked whether another database publishes to the same topics on Kafka: ${reason}; allow the group and the transactional id millrace-relay-topics/${application.name}`
            ),
            undefined
          )
      )
    )
  const other = yield* claim(takesOver)
  if (other !== undefined)
    return yield* new ForeignDatabase({
      message: `topic ${other.topic} on Kafka is published by another database of the application ${application.name} (id ${other.database}; this one is ${id}): both would publish every message`,
      try: "give this database brokers or topics of its own. If it replaces the other one, stop the other's processes and run: millrace migrate --adopt"
    })
  const renew = Effect.flatMap(claim(false), (taken) =>
    taken === undefined
      ? Effect.void
      : Effect.logError(`topic ${taken.topic} on Kafka was taken over by the database with the id ${taken.database}`)
  )
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(renewed), Effect.ignore(renew))))
})
