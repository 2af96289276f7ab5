// Dead-letter topics of subscriptions on PostgreSQL: finds and reads them, and sends dead letters again, through the log.
import * as Effect from "effect/Effect"
import { FanOutError } from "../../subscription/fanout.ts"
import { envelopeHeaders } from "../../log/envelope.ts"
import type { Log, LogError, NewRecord, OutOfRange, UnknownTopic } from "../../log/log.ts"
import { DeadLetterRejected, type DeadLetterSender } from "../../dead-letter/resend.ts"
import {
  type DeadLetterTopics,
  isRetryOf,
  subscriptionDeadLetter,
  retryProperties,
  type SubscriptionDeadLetter
} from "../../subscription/dead-letter.ts"
import { fanOutQuery } from "./consumer.ts"
import { messageOf } from "./message.ts"
import type { Sql } from "../client/client.ts"

const failed = (operation: string) => (error: { readonly message: string }) =>
  new FanOutError({ operation, retryable: false, reason: error.message, cause: error })

/** The record of a message, whose properties hold its headers and envelope. */
const recordOf = (
  partition: number,
  key: string,
  value: string,
  eventTime: number,
  properties: Record<string, string>
) => {
  const {
    [envelopeHeaders.eventId]: eventId,
    [envelopeHeaders.schemaVersion]: schemaVersion,
    [envelopeHeaders.tenant]: tenant,
    [envelopeHeaders.traceId]: _,
    [envelopeHeaders.traceparent]: traceparent,
    ...headers
  } = properties
  return {
    partition,
    key,
    value: value === "null" ? null : value,
    eventTime,
    eventId,
    tenant,
    traceparent,
    schemaVersion: schemaVersion === undefined ? undefined : Number(schemaVersion),
    headers
  } satisfies NewRecord
}

/** The dead-letter topics of the log, whose database `sql` is. */
export const make = (sql: Sql, log: Log["Service"]): DeadLetterTopics<FanOutError> => ({
  names: fanOutQuery("list dead letters", async () => {
    const rows = await sql<Array<{ readonly name: string }>>`
      select name from millrace.log_topic where name like '%.dlq' order by name`
    return rows.map(({ name }) => name)
  }),
  each: Effect.fnUntraced(
    function* (topic, take) {
      for (const { end, partition, start } of yield* log.bounds(topic)) {
        for (let position = start; position < end;) {
          const { next, records } = yield* log.read(topic, partition, position)
          for (const record of records) {
            const { eventTime, key, properties, value } = messageOf(topic, record, 0)
            const deadLetter = subscriptionDeadLetter(topic, {
              key,
              value,
              eventTime,
              properties,
              takenAt: record.appendedAt
            })
            if (deadLetter !== undefined) take(deadLetter)
          }
          position = next
        }
      }
    },
    Effect.catchTag("UnknownTopic", () => Effect.void),
    Effect.mapError(failed("read dead letters"))
  ),
  sender: senderOf(log)
})

const retryFailed = failed("retry a dead letter")
const orRefused = (error: LogError | UnknownTopic | OutOfRange) =>
  error._tag === "UnknownTopic" ? new DeadLetterRejected({ reason: error.message }) : retryFailed(error)

/** Sends dead letters to their source. A target's `part` is the number of the partition. */
const senderOf = (log: Log["Service"]): DeadLetterSender<SubscriptionDeadLetter, FanOutError> => ({
  aim: Effect.fnUntraced(function* ({ partition, source }) {
    const bounds = yield* Effect.mapError(log.bounds(source), orRefused)
    const found = bounds.find((one) => one.partition === partition)
    if (found === undefined) return yield* new DeadLetterRejected({ reason: `${source} has no partition ${partition}` })
    return { part: String(partition), after: String(found.end) }
  }),
  isThere: Effect.fnUntraced(function* (deadLetter, { after }) {
    const { partition, source } = deadLetter
    const { end, start } = (yield* log.bounds(source)).find((one) => one.partition === partition)!
    for (let position = Math.max(start, Number(after)); position < end;) {
      const { next, records } = yield* log.read(source, partition, position)
      if (records.some(({ headers }) => isRetryOf(deadLetter, headers))) return true
      position = next
    }
    return false
  }, Effect.mapError(retryFailed)),
  send: (deadLetter) => {
    const { eventTime, key, partition, source, value } = deadLetter
    const record = recordOf(partition, key, value, eventTime, retryProperties(deadLetter))
    return Effect.as(Effect.mapError(log.append(source, [record]), orRefused), true)
  }
})
