// The dead letters of one batch: what is stored of each failed event, and the segment that publishes the parked ones.
import * as Cause from "effect/Cause"
import { describeError, EarlierParked, placeInApplication } from "../dead-letter/event-failure.ts"
import { storedEnvelope } from "../dead-letter/retry-record.ts"
import { nameProblem } from "../log/acceptable.ts"
import { traceIdOf } from "../log/envelope.ts"
import type { LogRecord } from "../log/log.ts"
import { deadLetterTopic, type DeadLetterMessage } from "../model/dead-letter-topic.ts"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import { storable } from "../text/text.ts"
import { reducedDeadLetter, reducedFailure, storableHeaders } from "./dead-letter-texts.ts"
import { metaText } from "./segments.ts"
import { beforeEveryEvent } from "./stream-time.ts"
import type { DeadLetter, ProjectionPartition, RetriedDeadLetter, Segment } from "./store.ts"

/** An event that failed, as far as it was read. */
export interface FailedEvent {
  readonly record: LogRecord
  readonly error: unknown
  /** The store refused its changes. The cause may be in the database, and be gone later. */
  readonly isOfStore?: true
  /** How the handler's Effect failed; undefined if `error` was thrown. */
  readonly cause?: Cause.Cause<unknown> | undefined
  /** Where `error` was thrown, if it stands for another error. */
  readonly thrownAt?: string | undefined
  readonly attempts: number
  /** The event's time, epoch milliseconds; undefined if it could not be read. */
  readonly eventTime: number | undefined
  /** The stream time at its position; undefined before the partition's first event. */
  readonly streamTime: number | undefined
  readonly tenant: string | undefined
  /** A valid trace context, for it is published as it is. */
  readonly traceparent: string | undefined
}

// A message must pass where the largest record did, and JSON in JSON may take six bytes a character: brokers take 1 MiB by default.
const mostBytes = 512 * 1024
const mostCharacters = { value: 80_000, message: 8_192, headers: 16_384 }

const encoder = new TextEncoder()
const bytesOf = (value: unknown) => encoder.encode(JSON.stringify(value)).length

// no value of ours may have a field called __proto__
const publishedHeaders = (headers: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(storableHeaders(headers)).filter(([name]) => name !== "__proto__"))
const cut = (text: string, characters: number) => text.slice(0, characters).toWellFormed()

/** A dead letter as it is published; `at` is where its record lies. Texts that not every reader could take are there as JSON, with escapes. */
export const messageOf = (
  { attempts, error, eventTime, headers, key, message, position, traceId, value }: Omit<DeadLetter, "status">,
  { partition, projection, topic, version }: ProjectionPartition
): DeadLetterMessage => ({
  error: storable(error),
  message: storable(message),
  attempts,
  projection,
  version,
  topic,
  partition,
  position,
  key: key === null ? null : storable(key),
  value: value === null ? null : storable(value),
  headers: publishedHeaders(headers),
  truncated: false,
  event_time: Number.isFinite(eventTime) ? eventTime! : null,
  trace_id: traceId ?? null
})
const truncated = (message: DeadLetterMessage): DeadLetterMessage =>
  bytesOf(message) <= mostBytes
    ? message
    : {
        ...message,
        message: cut(message.message, mostCharacters.message),
        value: message.value && cut(message.value, mostCharacters.value),
        headers: JSON.stringify(message.headers).length > mostCharacters.headers ? {} : message.headers,
        truncated: true
      }

/** Collects the dead letters of a batch. */
export class BatchDeadLetters {
  added: Array<DeadLetter> = []
  /** Dead letters of earlier batches that this one retries, and what became of them. */
  retried: Array<RetriedDeadLetter> = []
  /** `by` and `position` give their order. */
  private messages: Array<{ readonly by: number; readonly position: number; meta: string; vals: string }> = []
  private readonly at: ProjectionPartition
  private readonly maxAheadMs: number
  private readonly topic: string | undefined

  constructor(projection: Projection.Any, source: Topic.Any, at: ProjectionPartition) {
    this.at = at
    this.maxAheadMs = projection.maxAheadMs
    this.topic = deadLetterTopic(projection, source)?.name
  }

  /** Forgets the dead letters of the batch before. */
  reset(): void {
    this.added = []
    this.retried = []
    this.messages = []
  }

  /** Adds a dead letter for an event that failed. */
  add(failed: FailedEvent, status: DeadLetter["status"]): void {
    const deadLetter = deadLetterOf(failed, status)
    this.added.push(deadLetter)
    if (status === "parked") this.publish(failed, deadLetter, deadLetter.position)
  }
  /** Notes that a dead letter's retry, requested at `by`, succeeded. */
  retrySucceeded({ position }: LogRecord, by: number): void {
    this.retried.push({ position, by, failed: undefined })
  }
  /** Notes that a dead letter's retry, requested at `by`, failed once more. */
  retryFailed(failed: FailedEvent, by: number): void {
    const deadLetter = deadLetterOf(failed, "parked")
    this.retried.push({ position: failed.record.position, by, failed: deadLetter })
    this.publish(failed, deadLetter, by)
  }
  /** Notes that a dead letter was not retried, as asked for at `by`, because one before it of its key is open: it waits for that one. */
  retryBlocked({ key, position }: LogRecord, by: number): void {
    this.retried.push({ position, by, failed: { ...describeError(new EarlierParked({ key: key! })), attempts: 0 } })
  }

  /**
   * Keeps of each dead letter only what any store can hold: where its record is, and the error, in ASCII. Nothing is published. For a commit
   * that is refused for its dead letters.
   */
  reduce(reason: string): void {
    this.added = this.added.map((deadLetter) => reducedDeadLetter(deadLetter, reason))
    this.retried = this.retried.map((one) => ({ ...one, failed: one.failed && reducedFailure(one.failed, reason) }))
    this.messages = []
  }

  private publish(failed: FailedEvent, deadLetter: DeadLetter, by: number): void {
    if (this.topic === undefined) return
    const meta = metaOf(failed, this.maxAheadMs)
    const vals = JSON.stringify(truncated(messageOf(deadLetter, this.at)))
    this.messages.push({ by, position: deadLetter.position, meta, vals })
  }

  /** The parked events in the order of the log, as one segment. It names no partition: each message goes to that of its key, which the relay computes. */
  segments(): ReadonlyArray<Segment> {
    const { topic } = this
    if (topic === undefined || this.messages.length === 0) return []
    // events that could not be read failed first
    const messages = this.messages.toSorted((a, b) => a.by - b.by || a.position - b.position)
    const meta = `[${messages.map((message) => message.meta).join(",")}]`
    const vals = messages.map((message) => message.vals).join("\n")
    return [{ topic, partition: undefined, messages: messages.length, meta, vals }]
  }
}

const metaOf = ({ eventTime, record, tenant, traceparent }: FailedEvent, maxAheadMs: number): string => {
  // an event that was parked for its time is published with its arrival's: brokers refuse records that are dated far ahead
  const time = eventTime ?? record.eventTime
  const isValid = Number.isFinite(time) && time >= 0 && time <= record.appendedAt + maxAheadMs
  const { appendedAt, eventId, key } = record
  const named = (name: string | undefined) => (name === undefined || nameProblem(name) !== undefined ? undefined : name)
  const at = Math.floor(isValid ? time : appendedAt)
  return metaText(storable(key ?? ""), at, named(eventId), named(tenant ?? record.tenant), traceparent)
}
const deadLetterOf = (
  { attempts, cause, error, eventTime, record, streamTime = beforeEveryEvent, thrownAt, traceparent }: FailedEvent,
  status: DeadLetter["status"]
): DeadLetter => ({
  ...describeError(error),
  thrownAt: thrownAt ?? placeInApplication(error),
  position: record.position,
  status,
  key: record.key,
  attempts,
  value: record.value,
  headers: record.headers,
  eventTime: eventTime ?? record.eventTime,
  streamTime,
  traceId: traceIdOf(traceparent),
  envelope: storedEnvelope(record),
  cause: cause ?? Cause.die(error)
})
