// The dead letters of one batch: what is written down of each, and the segment that publishes them. It decides nothing about failures.
import { deadLetterTopic, type DeadLetterMessage } from "../model/dead-letter-topic.ts"
import { describeError } from "../dead-letter/event-failure.ts"
import { traceIdOf } from "../log/envelope.ts"
import type { LogRecord } from "../log/log.ts"
import { metaText } from "./segment-meta.ts"
import type { Projection } from "../model/projection.ts"
import { storedEnvelope } from "../dead-letter/retry-record.ts"
import type { DeadLetter, RetriedDeadLetter, Segment } from "./store.ts"
import type { Topic } from "../model/topic.ts"

/** An event that failed, as far as it was read. */
export interface Failure {
  readonly record: LogRecord
  readonly error: unknown
  readonly attempts: number
  /** As the event says, epoch milliseconds; undefined where it could not be read. */
  readonly eventTime: number | undefined
  readonly tenant: string | undefined
  /** A sound one, for it is published as it is. */
  readonly traceparent: string | undefined
}

// A message must pass where the largest record did, and JSON in JSON may take six bytes a character: brokers take 1 MiB by default.
const mostBytes = 512 * 1024
const mostCharacters = { value: 80_000, message: 8_192, headers: 16_384 }

const encoder = new TextEncoder()
const bytesOf = (value: unknown) => encoder.encode(JSON.stringify(value)).length

/** Collects the letters of a batch. */
export class Parking {
  letters: Array<DeadLetter> = []
  /** Letters of earlier batches, and what became of them. */
  retried: Array<RetriedDeadLetter> = []
  private metas: Array<string> = []
  private vals: Array<string> = []
  private readonly projection: Projection.Any
  private readonly source: Topic.Any
  private readonly topic: string | undefined

  constructor(projection: Projection.Any, source: Topic.Any) {
    this.projection = projection
    this.source = source
    this.topic = deadLetterTopic(projection, source)?.name
  }

  reset(): void {
    this.letters = []
    this.retried = []
    this.metas = []
    this.vals = []
  }

  add(failure: Failure, status: DeadLetter["status"]): void {
    const letter = letterOf(failure, status)
    this.letters.push(letter)
    this.publish(failure, letter)
  }
  /** A letter that was brought back is done with, or failed once more. */
  again({ position }: LogRecord, by: number, failure?: Failure): void {
    if (failure === undefined) return void this.retried.push({ position, by, failed: undefined })
    const letter = letterOf(failure, "parked")
    this.retried.push({ position, by, failed: letter })
    this.publish(failure, letter)
  }

  private publish(failure: Failure, letter: DeadLetter): void {
    const { status } = letter
    if (this.topic === undefined || status !== "parked") return
    this.metas.push(metaOf(failure, this.projection.maxAheadMs))
    this.vals.push(JSON.stringify(this.message(letter, failure.record.partition)))
  }

  /** Messages go where their keys do, whatever the number of partitions: who ships them parts them. */
  segments(): ReadonlyArray<Segment> {
    const { metas, topic, vals } = this
    if (topic === undefined || metas.length === 0) return []
    const [meta, lines] = [`[${metas.join(",")}]`, vals.join("\n")]
    return [{ topic, partition: undefined, messages: metas.length, meta, vals: lines }]
  }

  private message(letter: DeadLetter, partition: number): DeadLetterMessage {
    const { name: projection, version } = this.projection
    const { attempts, error, eventTime, headers, key, message, position, traceId, value } = letter
    const place = { projection, version, topic: this.source.name, partition, position, key }
    const times = { event_time: Number.isFinite(eventTime) ? eventTime! : null, trace_id: traceId ?? null }
    const whole = { error, message, attempts, ...place, value, headers, truncated: false, ...times }
    if (bytesOf(whole) <= mostBytes) return whole
    return {
      ...whole,
      message: message.slice(0, mostCharacters.message),
      value: value && value.slice(0, mostCharacters.value),
      headers: JSON.stringify(headers).length > mostCharacters.headers ? {} : headers,
      truncated: true
    }
  }
}

const metaOf = ({ eventTime, record, tenant, traceparent }: Failure, maxAheadMs: number): string => {
  // what its clock says is at fault where it was parked for its time, and brokers refuse what is dated far ahead
  const time = eventTime ?? record.eventTime
  const sound = Number.isFinite(time) && time >= 0 && time <= record.appendedAt + maxAheadMs
  const { appendedAt, eventId, key } = record
  return metaText(key ?? "", Math.floor(sound ? time : appendedAt), eventId, tenant ?? record.tenant, traceparent)
}
const letterOf = ({ attempts, error, eventTime, record }: Failure, status: DeadLetter["status"]): DeadLetter => ({
  ...describeError(error),
  position: record.position,
  status,
  key: record.key,
  attempts,
  value: record.value,
  headers: record.headers,
  eventTime: eventTime ?? record.eventTime,
  traceId: traceIdOf(record.traceparent),
  envelope: storedEnvelope(record)
})
