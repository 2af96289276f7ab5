// Lookup tables: compacted topics in memory, read in full before the first event, and followed from then on.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { describeError, placeInApplication } from "../dead-letter/event-failure.ts"
import { assertAcceptable } from "../log/acceptable.ts"
import { traceIdOf } from "../log/envelope.ts"
import { parseJson } from "../log/json.ts"
import { type Batch, brokerTimeOf, type Log, type LogRecord, type Position, type ReadError } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import { partitionOf } from "../model/partitioner.ts"
import { reducedDeadLetter, storableDeadLetter } from "./dead-letter-texts.ts"
import {
  type LookupPin,
  type LookupRequest,
  type LookupStore,
  type LookupVersion,
  memoryLookupStore,
  type StoredVersions
} from "./lookup-store.ts"
import { beforeEveryEvent } from "./stream-time.ts"
import { type DeadLetter, StoreError, type Unstorable } from "./store.ts"
import type { Topic } from "../model/topic.ts"

/** What is read of the log. */
export type LookupLog = Pick<Log["Service"], "ends" | "bounds" | "read"> & Partial<Pick<Log["Service"], "identity">>
/** Stores a dead letter of a projection that reads the lookup topic, for the record's partition. */
export type ParkLookup = (partition: number, deadLetter: DeadLetter) => Effect.Effect<void, StoreError | Unstorable>
/** Everything that following a lookup's topic can fail with. */
export type LookupError = ReadError | StoreError

/** The newest version of a key. */
interface NewestVersion {
  readonly partition: number
  readonly position: Position
  /** When the log stored it, epoch milliseconds; -Infinity if the log does not know. */
  readonly appendedAt: number
  /** Undefined if the key was deleted. */
  readonly value: unknown
}
/** What the table knows about a key without the store. */
export interface LookupAnswer {
  readonly value: unknown
  /** The partition of the version; undefined if there is none. */
  readonly partition: number | undefined
}
/** A record of the topic that could be read. */
interface ReadVersion {
  readonly version: LookupVersion
  readonly value: unknown
}
const nothing: LookupAnswer = { value: undefined, partition: undefined }
/** So many deletions are remembered; the store has the others. */
const mostDeletions = 10_000

/**
 * The newest value of each key of one compacted topic. After `catchUp` it holds everything that the log had acknowledged before
 * the call, so an event's lookup sees each value that was appended before the event was.
 *
 * A batch notes the `pin` when it begins and asks for values at that pin: other batches may read on in the meantime. What the newest value
 * cannot answer the store of versions does, in which each version is before any pin includes it.
 *
 * Its memory is that of the topic's current values. A record that cannot be read does not replace its key's value; it becomes a dead letter
 * of each reader. A dead letter that a store refuses is reduced, and if that is refused, too, logged: no record stops the table.
 */
export class LookupTable {
  /** Null: the key has versions in several partitions, so the store must say which is the newest. */
  private readonly values = new Map<string, NewestVersion | null>()
  private positions: Array<Position> = []
  private readonly turn = Semaphore.makeUnsafe(1)
  private asked = 0
  private served = 0
  /** What the store has of the topic's versions; undefined before the first read, and when they must be looked at again. */
  private stored: StoredVersions | undefined
  /** Deleted keys among `values`. */
  private deletions = 0
  /** A key that is missing may have been deleted at a position below these, or at a time not after this. */
  private forgotten: { readonly positions: Array<Position>; appendedAt: number } = {
    positions: [],
    appendedAt: -Infinity
  }
  private readonly topic: Topic.Any
  private readonly log: LookupLog
  private readonly store: LookupStore
  private readonly readers = new Map<string, ParkLookup>()

  /** `store`: where the versions are kept, by default in memory. */
  constructor(log: LookupLog, topic: Topic.Any, store: LookupStore = memoryLookupStore()) {
    this.log = log
    this.topic = topic
    this.store = store
  }

  /** Adds a projection that reads the table, before the first `catchUp`. A reader with the same name is replaced. */
  addReader(name: string, park: ParkLookup): void {
    this.readers.set(name, park)
  }
  /** Removes a reader, which gets no dead letters any more. */
  removeReader(name: string): void {
    this.readers.delete(name)
  }

  /** The newest value of a key; undefined if there is none, or if it was deleted. */
  get(key: string): unknown {
    return this.values.get(key)?.value
  }
  /** All versions that were read so far. */
  get pin(): LookupPin {
    return { generation: this.stored?.generation ?? 1, positions: [...this.positions] }
  }
  /** Whether a record lies in another partition than the one that Millrace gives to its key. */
  get isScattered(): boolean {
    return this.stored?.isScattered === true
  }

  /**
   * The newest value of a key among those that the pin includes and that were appended by `appendedBy` (undefined: all). Returns undefined if
   * only the store knows it.
   */
  answer(key: string, pin: LookupPin, appendedBy: number | undefined): LookupAnswer | undefined {
    if (pin.generation !== this.stored?.generation) return undefined
    const newest = this.values.get(key)
    if (newest === null) return undefined
    if (newest === undefined) {
      const { appendedAt, positions } = this.forgotten
      // a pin may include nothing of the partitions that have no version of the key
      const own = this.isScattered ? undefined : partitionOf(key, this.stored.next.length)
      const isKnown =
        (appendedBy === undefined || appendedBy >= appendedAt) &&
        positions.every(
          (position, partition) =>
            (own !== undefined && partition !== own) || (pin.positions[partition] ?? 0) >= position
        )
      return isKnown ? nothing : undefined
    }
    if (newest.position >= (pin.positions[newest.partition] ?? 0)) return undefined
    return appendedBy === undefined || newest.appendedAt <= appendedBy ? newest : undefined
  }
  /** The same for all pins and times, from the store: each request's value, or why its version cannot be read. */
  readonly find = Effect.fnUntraced(function* (this: LookupTable, requests: ReadonlyArray<LookupRequest>) {
    const found = yield* this.store.find(this.topic.name, requests, this.isScattered)
    return found.map((version): LookupAnswer | { readonly error: unknown } => {
      if (version === undefined) return nothing
      const { partition, position, value } = version
      try {
        return { partition, value: value === null ? undefined : this.topic.decode(parseJson(value)) }
      } catch (cause) {
        const what = `the lookup value at ${this.topic.name}/${partition} position ${position} cannot be read`
        return { error: new Error(`${what}: ${describeError(cause).message}`, { cause }) }
      }
    })
  })

  /** Reads up to where the topic ended when this was called. Concurrent calls share a run that began after them. */
  readonly catchUp: Effect.Effect<void, LookupError> = Effect.suspend(() => {
    const asked = ++this.asked
    // the first caller runs; a run that began after this call has done its work
    return this.turn.withPermits(1)(
      Effect.suspend(() => {
        if (this.served >= asked) return Effect.void
        const upTo = this.asked
        return Effect.tap(this.advance(), () => Effect.sync(() => (this.served = upTo)))
      })
    )
  })

  private readonly advance = Effect.fnUntraced(function* (this: LookupTable): Effect.fn.Return<void, LookupError> {
    const ends = yield* this.log.ends(this.topic.name)
    const isShrunk = ends.some((end, partition) => end < (this.positions[partition] ?? 0))
    const isFirst = this.stored === undefined || isShrunk
    if (isFirst) yield* this.open(ends.length, isShrunk)
    if (ends.every((end, partition) => end <= (this.positions[partition] ?? -1))) return
    for (const { end, partition, start } of yield* this.log.bounds(this.topic.name)) {
      this.positions[partition] = Math.max(this.positions[partition] ?? 0, start)
      while (this.positions[partition]! < end) {
        const batch: Batch = yield* this.log.read(this.topic.name, partition, this.positions[partition]!)
        yield* this.takeBatch(partition, batch)
        this.positions[partition] = batch.next
      }
    }
    // what was compacted away before this process read the topic is not known here
    if (isFirst) for (const [partition, position] of this.positions.entries()) this.forget(partition, position)
    if (this.deletions > mostDeletions) this.forgetDeletions()
  })

  /** Looks at what the store has. Begins from the start of the topic if that was recreated, or if nothing was read yet. */
  private readonly open = Effect.fnUntraced(function* (
    this: LookupTable,
    partitions: number,
    isShrunk: boolean
  ): Effect.fn.Return<void, LookupError> {
    const { identity, name } = {
      name: this.topic.name,
      identity: yield* this.log.identity?.(this.topic.name) ?? Effect.undefined
    }
    const stored = yield* this.store.open(name, partitions, identity, isShrunk)
    this.values.clear()
    this.positions = []
    this.deletions = 0
    this.forgotten = { positions: [], appendedAt: stored.deletedAt ?? -Infinity }
    this.stored = stored
  })

  private readonly takeBatch = Effect.fnUntraced(function* (
    this: LookupTable,
    partition: number,
    { next, records }: Batch
  ): Effect.fn.Return<void, LookupError> {
    const read: Array<ReadVersion> = []
    for (const record of records) {
      const taken = this.read(record)
      if (taken instanceof Unreadable) yield* this.refuse(record, taken.reason)
      else if (taken !== undefined) read.push(taken)
    }
    // what is between it and the batch is not in the topic any more
    const from = this.stored!.next[partition] ?? 0
    // before any batch can see them: compaction may take them from the topic
    if (next > from) yield* this.keep(partition, from, next, read)
    for (const { value, version } of read) this.set(partition, version, value)
  })
  private readonly keep = Effect.fnUntraced(function* (
    this: LookupTable,
    partition: number,
    from: Position,
    next: Position,
    read: ReadonlyArray<ReadVersion>
  ): Effect.fn.Return<void, LookupError> {
    const { generation, isScattered, next: stored } = this.stored!
    const versions = read.flatMap(({ version }) => (version.position < from ? [] : [version]))
    const partitions = stored.length
    const scattered = isScattered || versions.some(({ key }) => partitionOf(key, partitions) !== partition)
    const batch = { generation, partition, from, next, isScattered: scattered, versions }
    if (!(yield* this.store.keep(this.topic.name, batch))) {
      this.stored = undefined
      const reason = `the versions of ${this.topic.name} are not those that this process stored: the topic was recreated, or the database restored`
      return yield* new StoreError({ operation: "store lookup values", retryable: true, reason })
    }
    this.stored = {
      ...this.stored!,
      isScattered: scattered,
      next: stored.map((other, i) => (i === partition ? next : other))
    }
  })

  private set(partition: number, { appendedAt = -Infinity, key, position }: LookupVersion, value: unknown): void {
    const before = this.values.get(key)
    if (before === null) return
    if (before !== undefined && before.value === undefined) this.deletions--
    if (before !== undefined && before.partition !== partition) return void this.values.set(key, null)
    if (value === undefined) this.deletions++
    this.values.set(key, { partition, position, appendedAt, value })
  }
  private forget(partition: number, position: Position): void {
    const { positions } = this.forgotten
    positions[partition] = Math.max(positions[partition] ?? 0, position)
  }
  private forgetDeletions(): void {
    for (const [key, newest] of this.values) {
      if (newest === null || newest.value !== undefined) continue
      this.values.delete(key)
      this.forget(newest.partition, newest.position + 1)
      this.forgotten.appendedAt = Math.max(this.forgotten.appendedAt, newest.appendedAt)
    }
    this.deletions = 0
  }

  /** The version that a record is; undefined for a time mark. */
  private read(record: LogRecord): ReadVersion | Unreadable | undefined {
    const { key, position, value: text } = record
    if (isTimeMark(record)) return undefined
    if (key === null) return new Unreadable(new Error("it has no key"))
    try {
      assertAcceptable(record)
      const value = text === null ? undefined : this.topic.decode(parseJson(text), record.schemaVersion)
      const time = text === null ? record.eventTime : (this.topic.timeOf?.(value) ?? record.eventTime)
      const validFrom = Number.isFinite(time) ? time : beforeEveryEvent
      return { value, version: { position, key, value: text, appendedAt: brokerTimeOf(record), validFrom } }
    } catch (error) {
      return new Unreadable(error)
    }
  }

  private refuse(record: LogRecord, cause: unknown): Effect.Effect<void, LookupError> {
    const { eventTime, headers, key, partition, position, traceparent, value } = record
    const deadLetter: DeadLetter = {
      ...describeError(cause),
      thrownAt: placeInApplication(cause),
      position,
      status: "parked",
      key,
      attempts: 1,
      value,
      headers,
      eventTime,
      traceId: traceIdOf(traceparent),
      cause: Cause.die(cause)
    }
    const stored = storableDeadLetter(deadLetter)
    return Effect.forEach(this.readers, ([name, park]) => this.parkFor(name, park, partition, stored), {
      discard: true
    })
  }
  private parkFor(
    reader: string,
    park: ParkLookup,
    partition: number,
    deadLetter: DeadLetter
  ): Effect.Effect<void, StoreError> {
    return park(partition, deadLetter).pipe(
      Effect.catchTag("Unstorable", ({ message }) => park(partition, reducedDeadLetter(deadLetter, message))),
      Effect.catchTag("Unstorable", ({ message }) =>
        Effect.logError(
          `${reader}: the record at ${this.topic.name}/${partition} position ${deadLetter.position} cannot be read, and is skipped ` +
            `without a dead letter: ${message}`
        )
      )
    )
  }
}

/** Why a record of a lookup topic cannot be read. */
class Unreadable {
  readonly reason: unknown

  constructor(reason: unknown) {
    this.reason = reason
  }
}
