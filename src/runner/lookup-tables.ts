// Lookup tables: compacted topics in memory, read in full before the first event, and followed from then on.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { describeError } from "../dead-letter/event-failure.ts"
import { assertAcceptable } from "../log/acceptable.ts"
import { traceIdOf } from "../log/envelope.ts"
import { parseJson } from "../log/json.ts"
import type { Log, LogRecord, ReadError } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import { reducedDeadLetter, storableDeadLetter } from "./dead-letter-texts.ts"
import type { DeadLetter, StoreError, Unstorable } from "./store.ts"
import type { Topic } from "../model/topic.ts"

/** What is read of the log. */
export type LookupLog = Pick<Log["Service"], "ends" | "bounds" | "read">
/** Stores a dead letter of a projection that reads the lookup topic, for the record's partition. */
export type ParkLookup = (partition: number, deadLetter: DeadLetter) => Effect.Effect<void, StoreError | Unstorable>
/** Everything that following a lookup's topic can fail with. */
export type LookupError = ReadError | StoreError

/**
 * The newest value of each key of one compacted topic. After `catchUp` it holds everything that the log had acknowledged before
 * the call, so an event's lookup sees each value that was appended before the event was.
 *
 * Its memory is that of the topic's current values. A record that cannot be read does not replace its key's value; it becomes a dead letter
 * of each reader. A dead letter that a store refuses is reduced, and if that is refused, too, logged: no record stops the table.
 */
export class LookupTable {
  private readonly values = new Map<string, unknown>()
  private readonly positions: Array<number> = []
  private readonly turn = Semaphore.makeUnsafe(1)
  private asked = 0
  private served = 0
  private readonly topic: Topic.Any
  private readonly log: LookupLog
  private readonly readers = new Map<string, ParkLookup>()

  constructor(log: LookupLog, topic: Topic.Any) {
    this.log = log
    this.topic = topic
  }

  /** Adds a projection that reads the table, before the first `catchUp`. A reader with the same name is replaced. */
  addReader(name: string, park: ParkLookup): void {
    this.readers.set(name, park)
  }

  /** The newest value of a key; undefined if there is none, or if it was deleted. */
  get(key: string): unknown {
    return this.values.get(key)
  }

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

  private readonly advance = Effect.fnUntraced(function* (this: LookupTable) {
    const ends = yield* this.log.ends(this.topic.name)
    if (ends.every((end, partition) => end <= (this.positions[partition] ?? -1))) return
    for (const { end, partition, start } of yield* this.log.bounds(this.topic.name)) {
      let position = Math.max(this.positions[partition] ?? 0, start)
      while (position < end) {
        const batch = yield* this.log.read(this.topic.name, partition, position)
        for (const record of batch.records) yield* this.take(record)
        position = batch.next
      }
      this.positions[partition] = position
    }
  })

  private take(record: LogRecord): Effect.Effect<void, LookupError> {
    const { key, value } = record
    if (isTimeMark(record)) return Effect.void
    if (key === null) return this.refuse(record, new Error("it has no key"))
    try {
      assertAcceptable(record)
      if (value === null) this.values.delete(key)
      else this.values.set(key, this.topic.decode(parseJson(value), record.schemaVersion))
      return Effect.void
    } catch (error) {
      return this.refuse(record, error)
    }
  }

  private refuse(record: LogRecord, cause: unknown): Effect.Effect<void, LookupError> {
    const { eventTime, headers, key, partition, position, traceparent, value } = record
    const deadLetter: DeadLetter = {
      ...describeError(cause),
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
