// The event store in memory: an adapter for tests and trials. Its events are lost when the process ends.
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { BoundaryMoved, CommandReused, EventStoreError, StreamClosed, VersionConflict } from "../aggregate/errors.ts"
import {
  appendAllProblem,
  commandIdProblem,
  pageEvents,
  rememberedMs,
  streamProblem,
  tagsOf,
  toEvent,
  toRecords
} from "../aggregate/event-rules.ts"
import {
  type Answer,
  type Append,
  type Appended,
  type DecidedNothing,
  defaultPartitions,
  EventStore,
  type Expected,
  type NewSnapshot,
  type RecordedEvent
} from "../aggregate/event-store.ts"
import { executorOf } from "../aggregate/executor.ts"
import { sealing } from "../aggregate/sealing-store.ts"
import { SubjectKeys } from "../erasure/subject-keys.ts"
import { aggregateHeaders } from "../log/envelope.ts"
import { Log, type NewRecord } from "../log/log.ts"
import type { InlineAppend } from "../aggregate/inline.ts"
import { partitionOf } from "../model/partitioner.ts"
import type { Projection } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import { InlineRows } from "./inline.ts"
import * as MemoryLog from "./log.ts"
import * as MemoryKeys from "./subject-keys.ts"
import { counted } from "../text/counted.ts"

/** What a command answered: the events from `firstVersion` on, or nothing but the version it was decided on. */
interface Answered {
  readonly digest: string | undefined
  readonly firstVersion: number
  readonly decided: DecidedNothing
  readonly rememberedAt?: number
}
interface EventStream {
  readonly events: Array<RecordedEvent>
  readonly answers: Map<string, Answered>
  readonly snapshots: Map<string, NewSnapshot>
  closed?: "archived"
}
interface Topic {
  readonly name: string
  readonly partitions: number
  readonly streams: Map<string, EventStream>
  /** How often each tag was appended to. */
  readonly tags: Map<string, number>
  /** All events, in the order of their appends. */
  readonly events: Array<RecordedEvent>
}

/** Compares texts by their bytes of UTF-8, as PostgreSQL does. */
const byBytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** Deletes the snapshots that may have a subject's data, and returns how many there were. */
const deleteSnapshots = (topics: ReadonlyMap<string, Topic>, subject: string): number => {
  let deleted = 0
  for (const { streams } of topics.values())
    for (const { snapshots } of streams.values())
      for (const [shape, { subjects }] of snapshots)
        if (subjects.includes(subject) && snapshots.delete(shape)) deleted++
  return deleted
}

const fits = (expected: Expected, version: number): boolean => {
  if (expected === "any") return true
  return expected === "exists" ? version > 0 : version === (expected === "noStream" ? 0 : expected)
}

/** The topics and streams of a store, and what commands answered. */
const makeStreams = (log: Log["Service"]) => {
  const topics = new Map<string, Topic>()

  const declareOne = Effect.fnUntraced(function* (name: string, partitions: number) {
    const there = topics.get(name)
    if (there !== undefined && there.partitions === partitions) return there
    const failed = (reason: string, cause?: unknown) =>
      new EventStoreError({
        operation: "declare",
        aggregate: name,
        retryable: false,
        reason,
        ...(cause === undefined ? {} : { cause })
      })
    if (there !== undefined) {
      return yield* failed(
        `its topic has ${counted(there.partitions, "partition")} but is declared with ${partitions}, which would break the order of its streams; declare ${there.partitions}`
      )
    }
    yield* log
      .declare([{ name, partitions, compacted: false, retentionMs: undefined }])
      .pipe(Effect.mapError((error) => failed(error.reason, error)))
    const topic: Topic = { name, partitions, streams: new Map(), tags: new Map(), events: [] }
    topics.set(name, topic)
    return topic
  })
  const topicOf = (name: string) =>
    Effect.suspend(() => declareOne(name, topics.get(name)?.partitions ?? defaultPartitions))
  const streamOf = (topic: Topic, id: string): EventStream => {
    const stream = topic.streams.get(id) ?? { events: [], answers: new Map(), snapshots: new Map() }
    topic.streams.set(id, stream)
    return stream
  }
  /** What a command answered before, if it did. Fails if it was another command. */
  const answered = Effect.fnUntraced(function* (
    stream: EventStream,
    commandId: string,
    digest: string | undefined
  ): Effect.fn.Return<Answered | undefined, CommandReused> {
    const found = stream.answers.get(commandId)
    if (found?.rememberedAt !== undefined && found.rememberedAt < (yield* Clock.currentTimeMillis) - rememberedMs) {
      stream.answers.delete(commandId)
      return undefined
    }
    if (found?.digest !== undefined && digest !== undefined && found.digest !== digest)
      return yield* new CommandReused({ commandId })
    return found
  })
  const repeated = (topic: Topic, id: string, { decided, firstVersion }: Answered): Appended => ({
    firstVersion,
    version: decided.version,
    partition: partitionOf(id, topic.partitions),
    position: firstVersion > decided.version ? -1 : streamOf(topic, id).events[firstVersion - 1]!.position,
    repeated: true
  })
  const answerOf = (topic: Topic, id: string, { decided, firstVersion }: Answered): Answer => {
    const events = streamOf(topic, id).events.slice(firstVersion - 1, decided.version)
    return {
      ...decided,
      events,
      partition: partitionOf(id, topic.partitions),
      position: events[0]?.position ?? -1
    }
  }

  return { topics, declareOne, topicOf, streamOf, answered, repeated, answerOf }
}

type Streams = ReturnType<typeof makeStreams>

const makeAppendAll = (log: Log["Service"], streams: Streams, one: Semaphore.Semaphore, inline: InlineRows) => {
  const { answered, repeated, streamOf, topicOf, topics } = streams
  const store = Effect.fnUntraced(function* (topic: Topic, append: Append, commandId: string, index: number) {
    const stream = streamOf(topic, append.stream)
    const partition = partitionOf(append.stream, topic.partitions)
    const now = yield* Clock.currentTimeMillis
    const version = stream.events.length
    const records = toRecords(append, { partition, commandId, index, now }).map((record, i): NewRecord => {
      const headers = { ...record.headers, [aggregateHeaders.version]: String(version + i + 1) }
      return Object.assign(record, { headers })
    })
    const positions = yield* log.append(topic.name, records).pipe(Effect.orDie)
    for (const [i, record] of records.entries()) {
      const { position } = positions[i]!
      const event = toEvent(topic.name, { ...record, position, appendedAt: now }, version + i + 1)
      stream.events.push(event)
      topic.events.push(event)
    }
    for (const tag of tagsOf(append.events)) topic.tags.set(tag, (topic.tags.get(tag) ?? 0) + 1)
    const decided = { version: stream.events.length }
    stream.answers.set(commandId, { digest: append.digest, firstVersion: version + 1, decided })
    const { position } = positions[0]!
    return { firstVersion: version + 1, version: decided.version, partition, position, repeated: false }
  })

  const appendAll: EventStore["Service"]["appendAll"] = Effect.fnUntraced(function* (appends, commandId, boundary) {
    // the clock of a test may begin in 1970, and its events are of today
    const latest = Math.max(Date.now(), yield* Clock.currentTimeMillis)
    const limits = { now: latest, maxAheadOf: (name: string) => inline.maxAheadOf(name) }
    const problem = commandIdProblem(commandId) ?? appendAllProblem(appends, limits)
    if (problem !== undefined) return yield* problem
    const before: Array<Appended> = []
    const found: Array<readonly [Topic, Append]> = []
    for (const append of appends) {
      const topic = yield* topicOf(append.aggregate)
      found.push([topic, append])
      const answer = yield* answered(streamOf(topic, append.stream), commandId, append.digest)
      if (answer !== undefined) before.push(repeated(topic, append.stream, answer))
    }
    if (before.length === appends.length) return before
    if (before.length > 0) return yield* new CommandReused({ commandId })
    for (const [{ name }, { expected, follows, stream: id }] of found) {
      const { answers, closed, events } = streamOf(topics.get(name)!, id)
      if (closed !== undefined) return yield* new StreamClosed({ aggregate: name, stream: id, reason: closed })
      const isAfter = follows === undefined || answers.get(follows)?.decided.version === events.length
      if (!fits(expected, events.length) || !isAfter)
        return yield* new VersionConflict({ aggregate: name, stream: id, expected, actual: events.length })
    }
    const moved = (boundary?.tags ?? []).flatMap(({ aggregate, tag, version: expected }) => {
      const actual = topics.get(aggregate)?.tags.get(tag) ?? 0
      return actual === expected ? [] : [{ aggregate, tag, expected, actual }]
    })
    if (moved.length > 0) return yield* new BoundaryMoved({ tags: moved })
    const now = yield* Clock.currentTimeMillis
    const written: Array<InlineAppend> = []
    for (const [topic, append] of found) {
      const partition = partitionOf(append.stream, topic.partitions)
      const records = toRecords(append, { partition, commandId, index: 0, now })
      written.push({ aggregate: topic.name, stream: append.stream, records })
    }
    yield* inline.write(written, now)
    const all: Array<Appended> = []
    let index = 0
    for (const [topic, append] of found) {
      all.push(yield* store(topic, append, commandId, index))
      index += append.events.length
    }
    return all
  }, one.withPermit)

  return appendAll
}

const makeReads = (streams: Streams, one: Semaphore.Semaphore) => {
  const { answered, answerOf, streamOf, topicOf } = streams
  const load: EventStore["Service"]["load"] = Effect.fnUntraced(function* (aggregate, id, options = {}) {
    const { commandId, digest, from, limit = pageEvents, shape, upTo } = options
    const problem = streamProblem(aggregate, id) ?? (commandId === undefined ? undefined : commandIdProblem(commandId))
    if (problem !== undefined) return yield* problem
    const topic = yield* topicOf(aggregate)
    const stream = streamOf(topic, id)
    const answer = commandId === undefined ? undefined : yield* answered(stream, commandId, digest)
    const { closed, events, snapshots } = stream
    const stored = from === undefined && shape !== undefined ? snapshots.get(shape) : undefined
    const snapshot = stored === undefined || stored.version > (upTo ?? Infinity) ? undefined : stored
    const first = from ?? (snapshot?.version ?? 0) + 1
    return {
      ...(snapshot === undefined ? {} : { snapshot: { version: snapshot.version, state: snapshot.state } }),
      version: events.length,
      events: events.slice(first - 1, Math.min(first - 1 + limit, upTo ?? Infinity)),
      ...(answer === undefined ? {} : { answered: answerOf(topic, id, answer) }),
      ...(closed === undefined ? {} : { closed })
    }
  }, one.withPermit)
  const read: EventStore["Service"]["read"] = (aggregate, id, { backwards = false, from, limit } = {}) =>
    Stream.unwrap(
      Effect.gen(function* () {
        const problem = streamProblem(aggregate, id)
        if (problem !== undefined) return yield* problem
        const { events } = streamOf(yield* topicOf(aggregate), id)
        const chosen = backwards ? events.slice(0, from ?? events.length).toReversed() : events.slice((from ?? 1) - 1)
        return Stream.fromIterable(chosen.slice(0, limit))
      })
    )
  const readBoundary: EventStore["Service"]["readBoundary"] = Effect.fnUntraced(function* (aggregate, { tags, types }) {
    const topic = yield* topicOf(aggregate)
    const events = topic.events.filter(
      (event) => event.tags.some((tag) => tags.includes(tag)) && (types === undefined || types.includes(event.type))
    )
    const versions = [...new Set(tags)].map((tag) => ({ aggregate, tag, version: topic.tags.get(tag) ?? 0 }))
    return { events, boundary: { tags: versions } }
  }, one.withPermit)
  return { load, read, readBoundary }
}

/**
 * Creates an empty store, whose events are records of `log` too. An aggregate that was not declared has 16 partitions. Appends write the rows
 * of `inline`.
 */
export const make = (log: Log["Service"], inline = new InlineRows([])): EventStore["Service"] =>
  makeStore(log, inline).store
const makeStore = (log: Log["Service"], inline: InlineRows) => {
  const streams = makeStreams(log)
  const { answered, answerOf, declareOne, streamOf, topicOf } = streams
  const one = Semaphore.makeUnsafe(1)
  const appendAll = makeAppendAll(log, streams, one, inline)
  const store = EventStore.of({
    ...makeReads(streams, one),
    declare: Effect.fnUntraced(function* (aggregates) {
      for (const { name, partitions } of aggregates) yield* declareOne(name, partitions)
    }, one.withPermit),
    append: (append, commandId) =>
      appendAll([append], commandId).pipe(
        Effect.map(([appended]) => appended!),
        Effect.catchTag("BoundaryMoved", Effect.die)
      ),
    appendAll,
    remember: Effect.fnUntraced(function* (aggregate, id, commandId, digest, decided, expected = "any") {
      const problem = streamProblem(aggregate, id) ?? commandIdProblem(commandId)
      if (problem !== undefined) return yield* problem
      const topic = yield* topicOf(aggregate)
      const stream = streamOf(topic, id)
      const before = yield* answered(stream, commandId, digest)
      if (before !== undefined) return { ...answerOf(topic, id, before), repeated: true }
      const actual = stream.events.length
      if (typeof expected === "number" || expected === "noStream")
        if (!fits(expected, actual)) return yield* new VersionConflict({ aggregate, stream: id, expected, actual })
      const rememberedAt = yield* Clock.currentTimeMillis
      const answer: Answered = { digest, firstVersion: decided.version + 1, decided, rememberedAt }
      stream.answers.set(commandId, answer)
      return { ...answerOf(topic, id, answer), repeated: false }
    }, one.withPermit),
    saveSnapshot: Effect.fnUntraced(function* (aggregate, id, snapshot) {
      const problem = streamProblem(aggregate, id)
      if (problem !== undefined) return yield* problem
      const { snapshots } = streamOf(yield* topicOf(aggregate), id)
      if ((snapshots.get(snapshot.shape)?.version ?? 0) < snapshot.version) snapshots.set(snapshot.shape, snapshot)
    }, one.withPermit),
    list: Effect.fnUntraced(function* (aggregate, { after = "", limit, order, prefix = "", tenant }) {
      const topic = yield* topicOf(aggregate)
      const found = [...topic.streams].flatMap(([id, { closed, events }]) => {
        const [first, last] = [events[0], events.at(-1)]
        if (first === undefined || last === undefined || !id.startsWith(prefix)) return []
        if (tenant !== undefined && first.tenant !== tenant) return []
        const stream = { id, version: events.length, appendedAt: last.appendedAt, tenant: first.tenant }
        return [closed === undefined ? stream : { ...stream, closed }]
      })
      if (order === "recent") {
        // not by time: many appends have the same millisecond
        const lasts = new Map(topic.events.map(({ stream }, i) => [stream, i]))
        return {
          streams: found.toSorted((a, b) => lasts.get(b.id)! - lasts.get(a.id)!).slice(0, limit),
          next: undefined
        }
      }
      const behind = found.toSorted((a, b) => byBytes(a.id, b.id)).filter(({ id }) => byBytes(id, after) > 0)
      const streams = behind.slice(0, limit)
      return { streams, next: behind.length > limit ? streams.at(-1)!.id : undefined }
    }),
    archive: Effect.fnUntraced(function* (aggregate, id) {
      const problem = streamProblem(aggregate, id)
      if (problem !== undefined) return yield* problem
      const stream = streamOf(yield* topicOf(aggregate), id)
      stream.closed ??= "archived"
    }, one.withPermit)
  })
  const forget = (subject: string) => deleteSnapshots(streams.topics, subject)
  return { store, forget }
}

const layerOf = (inline: InlineRows): Layer.Layer<EventStore | Log | SubjectKeys> =>
  Layer.syncContext(() => {
    const { log } = MemoryLog.make()
    const { forget, store } = makeStore(log, inline)
    const keys = MemoryKeys.make((subject) => {
      executorOf(sealed).forget()
      return forget(subject)
    })
    const sealed = sealing(store, keys)
    return Context.make(EventStore, sealed).pipe(Context.add(Log, log), Context.add(SubjectKeys, keys))
  })
/**
 * An empty store in memory over a log in memory. It encrypts personal fields; `SubjectKeys` erases them.
 *
 * ```ts
 * yield* Effect.flatMap(SubjectKeys, (keys) => keys.erase("customer-17"))
 * ```
 */
export const layer: Layer.Layer<EventStore | Log | SubjectKeys> = layerOf(new InlineRows([]))
/** The same with inline projections: `rows` has what appends have written of a table or window. */
export const layerInline = (
  projections: ReadonlyArray<Projection.Any>
): {
  readonly layer: Layer.Layer<EventStore | Log | SubjectKeys>
  readonly rows: (name: string) => ReadonlyArray<Row>
} => {
  const inline = new InlineRows(projections)
  return { layer: layerOf(inline), rows: (name) => inline.rows(name) }
}
