// Decodes the records of one source into events, with their times, tenants and ids. Throws what is wrong with a record.
import { describeError } from "../dead-letter/event-failure.ts"
import { retryProblem, type RetryOwner } from "../dead-letter/retry-record.ts"
import { assertAcceptable, tenantProblem } from "../log/acceptable.ts"
import { isTraceparent } from "../log/envelope.ts"
import { parseJson } from "../log/json.ts"
import { appendTimeOf, type LogRecord } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import { type FindKey, isErased, redacted, unseal } from "../erasure/sealed.ts"
import { unreadablePersonal } from "../erasure/unreadable.ts"
import { firstTime, lastTime } from "../model/event-times.ts"
import { personalFieldsOf } from "../model/personal.ts"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"

/** A record, and the event in it. */
export interface DecodedEvent {
  readonly record: LogRecord
  readonly event: unknown
  /** The event time, epoch milliseconds. */
  readonly time: number
  readonly tenant: string | undefined
  /** Whether its personal fields are erased. */
  readonly erased: boolean
  /** The id by which duplicates are found; undefined if the projection does not dedupe. */
  readonly id: string | undefined
}

/** A record that no handler sees, and how many events of its batch come before it. */
export interface OtherRecord {
  readonly record: LogRecord
  readonly before: number
  /** Why it cannot be read; undefined for a time mark. */
  readonly unread: { readonly error: unknown } | undefined
}

/** An event is dated further beyond its arrival than the projection's `maxAhead` allows. */
export class DatedAhead extends Error {
  override readonly name = "DatedAhead"
  constructor(time: number, maxAheadMs: number) {
    super(
      `it is dated ${new Date(Math.min(time, lastTime)).toISOString()}, more than ${maxAheadMs} ms after it arrived; ` +
        "correct the producer's clock, or raise the projection's maxAhead"
    )
  }
}

/** Decodes records of one source for one projection. */
export class EventDecoder {
  private readonly source: Topic.Any
  private readonly isAggregate: boolean
  private readonly maxAheadMs: number
  private readonly dedupeBy: ((event: never) => string) | undefined
  private trace: { readonly given: string | undefined; readonly valid: string | undefined } = {
    given: undefined,
    valid: undefined
  }

  private readonly owner: RetryOwner | undefined

  /** `owner`: the database, whose retry records are no events. */
  constructor(projection: Projection.Any, source: Topic.Any, owner?: RetryOwner) {
    this.source = source
    this.isAggregate = source.kind === ("aggregate" as string)
    this.owner = owner
    this.maxAheadMs = projection.maxAheadMs
    if (projection.dedupe !== undefined) this.dedupeBy = projection.dedupe.by ?? source.idOf
  }

  /**
   * Throws if the record's envelope or value is not acceptable, if the value does not fit the source's schemas, if its time cannot be stored
   * or lies too far ahead, if its personal fields cannot be decrypted, or if it has no id by which duplicates could be found.
   */
  decode(record: LogRecord, find?: FindKey): DecodedEvent {
    const { source } = this
    assertAcceptable(record)
    const unclear = retryProblem(record, this.owner)
    if (unclear !== undefined) throw new Error(unclear)
    if (record.value === null)
      throw new Error(`a null value deletes a key of a compacted topic; ${source.name} has events`)
    const json = parseJson(record.value)
    const open = this.unsealed(json, record, find)
    const erased = this.isAggregate && isErased(open)
    const event = open === json && !erased ? source.decode(json, record.schemaVersion) : this.decodeOpen(open, record)
    const time = source.timeOf?.(event) ?? record.eventTime
    if (!(time >= firstTime && time <= lastTime)) {
      throw new Error(`its event time ${time} is not between the years 4713 BC and 275760; send epoch milliseconds`)
    }
    const appendedAt = appendTimeOf(record)
    if (appendedAt !== undefined && time > appendedAt + this.maxAheadMs) throw new DatedAhead(time, this.maxAheadMs)
    const id: unknown = this.dedupeBy?.(event as never)
    if (id !== undefined && typeof id !== "string")
      throw new Error(`the id by which duplicates are found is ${describeError(id).message}, which is not a text`)
    if (id === "") throw new Error("the id by which duplicates are found is empty")
    const tenant = record.tenant ?? source.tenantOf?.(event)
    const problem = tenant === undefined ? undefined : tenantProblem(tenant)
    if (problem !== undefined) throw new Error(`its tenant ${problem}`)
    return { record, event, time, tenant, erased, id }
  }

  /**
   * Decodes JSON that was encrypted, with what replaces erased fields. The path of what does not fit the source's schemas is named, and not the value,
   * because the message is stored in a dead letter.
   */
  private decodeOpen(open: unknown, { schemaVersion = 1 }: LogRecord): object {
    const { type } = open as { readonly type: string }
    try {
      return this.source.decode(
        redacted(open, personalFieldsOf(this.source.eventTypes, type, schemaVersion)),
        schemaVersion
      )
    } catch (error) {
      throw unreadablePersonal(error, type, schemaVersion, this.source.eventTypes)
    }
  }
  /** The JSON with its personal fields, or with the note that they are erased. The same object if nothing is encrypted. */
  private unsealed(json: unknown, { eventId, key }: LogRecord, find: FindKey | undefined): unknown {
    return find === undefined ? json : unseal(json, { aggregate: this.source.name, stream: key, eventId }, find)
  }

  /** Undefined if the record cannot be decoded. */
  tryDecode(record: LogRecord): DecodedEvent | undefined {
    try {
      return this.decode(record)
    } catch {
      return undefined
    }
  }

  /**
   * Decodes records in their order, and sets those apart that no handler sees. `find` has the keys of their personal fields; undefined if no
   * record has sealed ones.
   */
  decodeAll(
    records: ReadonlyArray<LogRecord>,
    find?: FindKey
  ): {
    readonly decoded: ReadonlyArray<DecodedEvent>
    readonly others: Array<OtherRecord>
  } {
    const decoded: Array<DecodedEvent> = []
    const others: Array<OtherRecord> = []
    for (const record of records) {
      try {
        if (isTimeMark(record)) others.push({ record, before: decoded.length, unread: undefined })
        else decoded.push(this.decode(record, find))
      } catch (error) {
        others.push({ record, before: decoded.length, unread: { error } })
      }
    }
    return { decoded, others }
  }

  /** A valid trace context as it is; undefined for an invalid one, for it is written into what is published. */
  traceOf(traceparent: string | undefined): string | undefined {
    if (traceparent !== this.trace.given) {
      const isValid = traceparent !== undefined && isTraceparent(traceparent)
      this.trace = { given: traceparent, valid: isValid ? traceparent : undefined }
    }
    return this.trace.valid
  }
}

/** The decoders of a projection's sources, each made when it is first needed. */
export class SourceDecoders {
  private readonly projection: Projection.Any
  private readonly owner: RetryOwner | undefined
  private readonly decoders = new Map<string, EventDecoder>()

  /** `owner`: as for `EventDecoder`. */
  constructor(projection: Projection.Any, owner?: RetryOwner) {
    this.projection = projection
    this.owner = owner
  }

  /** The decoder of a source. */
  of(source: Topic.Any): EventDecoder {
    let decoder = this.decoders.get(source.name)
    if (decoder === undefined)
      this.decoders.set(source.name, (decoder = new EventDecoder(this.projection, source, this.owner)))
    return decoder
  }
}
