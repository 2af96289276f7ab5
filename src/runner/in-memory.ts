// The engine in memory, for the test kit and `Projection.live`: events become records, which the runner's own processor handles and
// commits to a store in memory.
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { erasedJson } from "../erasure/sealed.ts"
import type { Batch, LogRecord } from "../log/log.ts"
import { publishedBy } from "../model/application.ts"
import { keyProblem } from "../model/columns.ts"
import type { DeadLetterMessage } from "../model/dead-letter-topic.ts"
import type { Named } from "../model/fields.ts"
import type { Meta, Out, Writable } from "../model/handler.ts"
import { partitionOf } from "../model/partitioner.ts"
import { personalFieldsOf } from "../model/personal.ts"
import type { Projection, Rows } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Row } from "../model/recorder.ts"
import type { Topic } from "../model/topic.ts"
import { definitionProblem } from "../model/unsupported.ts"
import { messageOf } from "./batch-dead-letters.ts"
import { LookupTable } from "./lookup-tables.ts"
import { MemoryStore } from "./memory-store.ts"
import { PartitionProcessor, type ProcessError } from "./partition-processor.ts"
import { runNow } from "./run-now.ts"

/** A message that was published: its topic's name, key and partition, and the value as a reader of the topic gets it. */
export interface PublishedMessage {
  readonly topic: string
  readonly key: string
  readonly partition: number
  readonly value: Row
}
/** A clock that moves on at once by what is slept: retries of handlers wait for no time, and schedules that last for a time end. */
export const waitingForNoTime = (clock: Clock.Clock): Clock.Clock => {
  let sleptMs = 0
  const millis = () => clock.currentTimeMillisUnsafe() + sleptMs
  const nanos = () => clock.currentTimeNanosUnsafe() + BigInt(Math.floor(sleptMs)) * 1_000_000n
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration: Duration.Duration) => Effect.sync(() => void (sleptMs += Duration.toMillis(duration)))
  } as Clock.Clock
}
const canEncode = (topic: Topic.Any, value: unknown): boolean => {
  try {
    return topic.stringify(value) !== undefined
  } catch {
    return false
  }
}
const textAt = (topic: string, partition: number) => `${topic}/${partition}`

/** A projection in memory: feed it events, look at its rows, messages, late events and dead letters. */
export class MemoryEngine<Ev, E, R> {
  readonly store: MemoryStore
  /** The clock that handlers see and that events without a time of their own get, in epoch milliseconds. */
  nowMs = 0
  /** Whether events arrive at the time of this clock. Else they arrive now, so that events of the past pass. */
  isClockSet = false
  /** The fiber of the last Effect that a handler returned. */
  handlerFiber: Fiber.Fiber<unknown, unknown> | undefined
  /** Whether a handler has read `replaying`. */
  hasReadReplaying = false
  private readonly projection: Projection.Of<E, R>
  private readonly partitions: number
  private readonly sources: ReadonlyArray<Topic.Any>
  private readonly topics: ReadonlyMap<string, Topic.Any>
  private readonly processors = new Map<string, PartitionProcessor<E, R>>()
  private readonly positions = new Map<string, number>()
  /** What the clock shows while a record of the current batch is handled, by `topic/partition/position`. */
  private readonly clocks = new Map<string, number>()
  private handlerClock = Clock.Clock.defaultValue()
  private readonly lookupRecords = new Map<string, Array<LogRecord>>()
  private readonly lookupTables: ReadonlyMap<string, LookupTable>

  /** `partitions`: how many each source has. `store`: that of an engine before, to go on from. Throws if nothing can run the projection. */
  constructor(projection: Projection<string, Ev, any, E, R, any>, partitions = 1, store = new MemoryStore(projection)) {
    const { enrich, name, sources, writes } = projection
    const reason = definitionProblem(projection) ?? keyProblem(writes as ReadonlyArray<Writable>)
    if (reason !== undefined) throw new Error(`projection ${name}: ${reason}`)
    this.projection = { ...projection, handle: (event, out, context) => this.handle(projection, event, out, context) }
    this.partitions = partitions
    this.sources = sources as ReadonlyArray<never>
    this.store = store
    this.topics = new Map(publishedBy(projection).map((topic) => [topic.name, topic]))
    const tables = Object.values(enrich).map(({ topic }) => [topic.name, this.lookupTable(topic)] as const)
    this.lookupTables = new Map(tables)
  }

  /** Puts values on a lookup topic, or rows into a table, before the events. Throws if they do not fit, or if the table is not written. */
  seed(target: Topic.Any | Table.Any, values: ReadonlyArray<object>): void {
    if (target.kind === "table") {
      const { name } = this.projection
      if (!this.store.has(target.name))
        throw new Error(`${name} writes no table ${target.name}; list it in its \`writes\``)
      return this.store.seed(target.name, values as ReadonlyArray<Row>)
    }
    const records = this.recordsOf(target.name)
    for (const value of values) {
      const given = { partition: 0, key: target.keyOf(value), eventTime: this.nowMs }
      // events that arrive now, at no set time, are later
      const appendedAt = this.isClockSet ? this.nowMs : Math.min(this.nowMs, Date.now())
      records.push(this.record(target, value, { ...given, position: records.length, appendedAt }))
    }
  }

  /**
   * Processes events: consecutive events of one source are one batch for each partition. Dies if an event does not fit its topic's
   * schema. If the failure policy stops the partition at an event, it fails with that event's own error. `areErased`: as if the personal data of
   * their subjects was erased.
   */
  readonly process = Effect.fnUntraced(function* (
    this: MemoryEngine<Ev, E, R>,
    events: ReadonlyArray<Ev>,
    areErased = false
  ): Effect.fn.Return<void, E | ProcessError, R> {
    this.clocks.clear()
    this.handlerClock = yield* Clock.Clock
    const given = events.map((event) => ({ event, source: this.sourceOf(event) }))
    let clockMs = this.nowMs
    for (let from = 0, to = 0; from < given.length; from = to) {
      const { source } = given[from]!
      while (given[to]?.source === source) to++
      const records = given.slice(from, to).map(({ event }) => {
        const appended = this.eventRecord(source, event, clockMs)
        const record = areErased ? erasedRecord(source, appended) : appended
        if (record.eventTime <= record.appendedAt + this.projection.maxAheadMs)
          clockMs = Math.max(clockMs, record.eventTime)
        this.clocks.set(`${textAt(source.name, record.partition)}/${record.position}`, clockMs)
        return record
      })
      for (const [partition, of] of Map.groupBy(records, (record) => record.partition))
        yield* Effect.catchTag(
          this.processBatch(source.name, partition, { records: of, next: of.at(-1)!.position + 1 }),
          "Mismatch",
          (error) => Effect.fail((error.cause ?? error) as E)
        )
    }
    this.nowMs = clockMs
  })
  /** The same, but fails as the first event failed, whether it was parked, skipped or stopped at. */
  readonly processOrFail = Effect.fnUntraced(function* (
    this: MemoryEngine<Ev, E, R>,
    events: ReadonlyArray<Ev>,
    areErased = false
  ) {
    yield* this.process(events, areErased)
    const cause = this.store.deadLetters[0]?.cause
    if (cause !== undefined) yield* Effect.failCause(cause as Cause.Cause<E>)
  })

  /** Processes records of a partition of a source as one batch. */
  readonly processBatch = Effect.fnUntraced(function* (
    this: MemoryEngine<Ev, E, R>,
    topic: string,
    partition: number,
    batch: Pick<Batch, "records" | "next">
  ): Effect.fn.Return<void, ProcessError, R> {
    const at = textAt(topic, partition)
    let processor = this.processors.get(at)
    if (processor === undefined) {
      const { lookupTables, partitions, projection } = this
      const store = this.store.service
      const source = this.sources.find(({ name }) => name === topic)!
      const claim = yield* store.claim(projection, topic, partition, 1)
      // the events of an aggregate that declares no `id` do not say which stream they are of
      const hasKeys = (source.kind as string) === "topic" || source.keyField !== undefined
      processor = new PartitionProcessor({ projection, source, partitions, claim, lookupTables, store, hasKeys })
      this.processors.set(at, processor)
    }
    const { handlerClock } = this
    yield* Effect.provideService(processor.process(batch), Clock.Clock, waitingForNoTime(handlerClock))
  })

  /** The rows of every table and window, by name, in the order in which they were inserted. */
  rows(): Record<string, ReadonlyArray<Row>> {
    const models = (this.projection.writes as ReadonlyArray<Writable>).filter(({ kind }) => kind !== "topic")
    return Object.fromEntries(models.map(({ name }) => [name, this.store.rows(name)]))
  }
  /** The messages that were published. Throws if one does not fit its topic's schema. */
  published(): ReadonlyArray<PublishedMessage> {
    return this.store.outbox.map(({ key, schemaVersion, topic, value }) => {
      const { decode, partitions = this.partitions } = this.topics.get(topic)!
      return {
        topic,
        key,
        partition: partitionOf(key, partitions),
        value: decode(JSON.parse(value), schemaVersion) as Row
      }
    })
  }
  /** The events that came too late for a window, once for each window. */
  late(): ReadonlyArray<Row> {
    return this.store.late.map(({ key, size, start, window }): Row => ({
      window,
      ...key,
      window_size: size,
      window_start: start
    }))
  }
  /** The events that failed, and records of lookup topics that could not be read, as their dead letters are published. */
  deadLetters(): ReadonlyArray<DeadLetterMessage> {
    return this.store.deadLetters.map((deadLetter) => messageOf(deadLetter, deadLetter.at))
  }
  /** Calls the projection's handler under the clock that the event is to be handled at. */
  private handle(projection: Projection.Of<E, R>, event: unknown, out: Out<never>, context: object) {
    const { meta, replaying } = context as { readonly meta: Meta; readonly replaying: boolean }
    this.nowMs = this.clocks.get(`${textAt(meta.topic, meta.partition)}/${meta.position}`) ?? this.nowMs
    const get = () => {
      this.hasReadReplaying = true
      return replaying
    }
    const done = projection.handle(event, out, Object.defineProperty(context, "replaying", { get, enumerable: true }))
    if (!Effect.isEffect(done)) return done
    return Effect.withFiber<void, E, R>((fiber) => {
      this.handlerFiber = fiber
      return Effect.provideService(done, Clock.Clock, this.handlerClock)
    })
  }

  private sourceOf(event: Ev): Topic.Any {
    const { type } = event as Partial<Named>
    const typed = this.sources.find(({ types }) => type !== undefined && types?.includes(type))
    if (typed !== undefined || this.sources.length === 1) return typed ?? this.sources[0]!
    // topics of records are told apart by their fields: one may fit several, which leave out what they do not declare
    const names = Object.keys(event as object)
    const fits = this.sources.filter((source) => source.types === undefined && canEncode(source, event))
    return fits.find(({ fields }) => names.every((name) => fields?.includes(name))) ?? fits[0] ?? this.sources[0]!
  }
  private eventRecord(source: Topic.Any, event: Ev, clockMs: number): LogRecord {
    const key = source.keyOf(event)
    const partition = partitionOf(key, this.partitions)
    const at = textAt(source.name, partition)
    const position = this.positions.get(at) ?? 0
    this.positions.set(at, position + 1)
    const eventTime = source.timeOf?.(event) ?? clockMs
    const appendedAt = this.isClockSet ? clockMs : Date.now()
    return this.record(source, event, { partition, position, key, eventTime, appendedAt })
  }
  /** A value as the record that an append would make of it. */
  private record(
    topic: Topic.Any,
    value: unknown,
    given: Pick<LogRecord, "partition" | "position" | "key" | "eventTime" | "appendedAt">
  ): LogRecord {
    const text = topic.stringify(value)
    if (text === undefined) throw new Error(`${topic.name}: the value has no JSON form`)
    return {
      ...given,
      value: text,
      eventId: topic.idOf?.(value),
      tenant: topic.tenantOf?.(value),
      traceparent: undefined,
      schemaVersion: topic.versionOf(value),
      headers: {}
    }
  }

  private recordsOf(topic: string): Array<LogRecord> {
    const found = this.lookupRecords.get(topic) ?? []
    this.lookupRecords.set(topic, found)
    return found
  }
  private lookupTable(topic: Topic.Any): LookupTable {
    const { name, version } = this.projection
    const log = {
      ends: (of: string) => Effect.succeed([this.recordsOf(of).length]),
      bounds: (of: string) => Effect.succeed([{ partition: 0, start: 0, end: this.recordsOf(of).length }]),
      read: (of: string, _: number, position: number) => {
        const { length } = this.recordsOf(of)
        return Effect.succeed({ records: this.recordsOf(of).slice(position), next: length, end: length })
      }
    }
    const table = new LookupTable(log, topic, this.store.service.lookups)
    table.addReader(name, (partition, deadLetter) =>
      this.store.service.park({ projection: name, version, topic: topic.name, partition }, deadLetter)
    )
    return table
  }
}

/** The record of an event as it is read once the keys of its personal fields are destroyed. */
const erasedRecord = ({ eventTypes }: Topic.Any, record: LogRecord): LogRecord => {
  const json = JSON.parse(record.value!) as Readonly<Record<string, unknown>>
  const personal = personalFieldsOf(eventTypes, String(json["type"]), record.schemaVersion ?? 1)
  const absent = [...personal.keys()].filter((name) => json[name] === undefined)
  // without a personal value nothing is encrypted
  if (absent.length === personal.size) return record
  const open = Object.fromEntries(Object.entries(json).filter(([name]) => !personal.has(name)))
  return { ...record, value: JSON.stringify(erasedJson(open, absent)) }
}

/** Processes events at once and returns the rows; nothing is stored or published. Throws the first error of a handler. */
export const live = <Ev, W extends Writable>(
  projection: Projection<string, Ev, W>,
  events: ReadonlyArray<NoInfer<Ev>>
): Rows<W> => {
  const engine = new MemoryEngine(projection)
  const exit = runNow(engine.processOrFail(events))
  if (exit === undefined) throw new Error("a handler is asynchronous, which `Projection.live` does not wait for")
  if (Exit.isFailure(exit)) throw Cause.squash(exit.cause)
  return engine.rows() as Rows<W>
}
