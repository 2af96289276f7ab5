// The topics of aggregates on PostgreSQL: declares them, finds their numbers and keeps these in memory.
import * as Effect from "effect/Effect"
import { EventStoreError } from "../../aggregate/errors.ts"
import type { AggregateSpec } from "../../aggregate/event-store.ts"
import type { Sql } from "../client/client.ts"
import { retrying } from "../client/retrying.ts"
import * as LogTopics from "../log/topics.ts"
import { patienceMs } from "./errors.ts"

/** The topic of an aggregate. */
export interface AggregateTopic {
  readonly topicId: number
  readonly name: string
  readonly partitions: number
}
/** The topics of a database's aggregates. */
export interface AggregateTopics {
  readonly declare: (aggregates: ReadonlyArray<AggregateSpec>) => Effect.Effect<void, EventStoreError>
  /** Fails if the aggregate was not declared. */
  readonly find: (
    operation: EventStoreError["operation"],
    name: string
  ) => Effect.Effect<AggregateTopic, EventStoreError>
  /** The name of a topic that was found. */
  readonly nameOf: (topicId: number) => string
}

/** The topics of aggregates. They are never deleted, so what was found stays right. */
export const make = (sql: Sql): AggregateTopics => {
  const names = new Map<number, string>()
  const log = LogTopics.make(sql)
  const undeclared = "it was not declared: add it to `aggregates` of the application, and start that once"
  return {
    declare: (aggregates) =>
      log
        .declare(
          aggregates.map(({ name, partitions }) => ({
            name,
            partitions,
            compacted: false,
            retentionMs: undefined,
            isAggregate: true
          }))
        )
        .pipe(
          Effect.mapError(
            ({ cause, reason, retryable, topic }) =>
              new EventStoreError({ operation: "declare", aggregate: topic, retryable, reason, cause })
          )
        ),
    find: (operation, aggregate) => {
      const known = log.known(aggregate)
      if (known?.isAggregate === true) {
        names.set(known.topicId, aggregate)
        return Effect.succeed(known)
      }
      return log.find("append", aggregate).pipe(
        Effect.mapError((error) => {
          const { retryable, reason } = error._tag === "LogError" ? error : { retryable: false, reason: undeclared }
          return new EventStoreError({ operation, aggregate, retryable, reason, cause: error })
        }),
        (found) => retrying(found, { forMs: patienceMs }),
        Effect.filterOrFail(
          ({ isAggregate }) => isAggregate,
          () => new EventStoreError({ operation, aggregate, retryable: false, reason: undeclared })
        ),
        Effect.tap(({ topicId }) => Effect.sync(() => names.set(topicId, aggregate)))
      )
    },
    nameOf: (topicId) => names.get(topicId) ?? String(topicId)
  }
}
