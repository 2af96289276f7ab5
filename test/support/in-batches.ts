// A random projection in memory, whose records are processed in batches that end wherever a test wants, and all that came of it.
import * as Effect from "effect/Effect"
import { recordFromEnvelope, retryRecord } from "../../src/dead-letter/retry-record.ts"
import type { LogRecord, NewRecord } from "../../src/log/log.ts"
import type { Projection } from "../../src/model/projection.ts"
import type { Topic } from "../../src/model/topic.ts"
import { MemoryEngine } from "../../src/runner/in-memory.ts"
import { MemoryStore } from "../../src/runner/memory-store.ts"
import { Mismatch } from "../../src/runner/store.ts"
import { recordOf } from "./engine.ts"
import { bySize, outboxOf, type Engine } from "./same-as-memory.ts"

/** The partitions of topics, by `topic/partition`. */
export type Partitions = Map<string, Array<LogRecord>>
/** Appends records to the partitions of a topic. */
export const appendTo = (partitions: Partitions, topic: string, records: ReadonlyArray<NewRecord>): void => {
  for (const record of records) {
    const at = `${topic}/${record.partition}`
    const of = partitions.get(at) ?? []
    of.push({ ...record, position: of.length, appendedAt: Date.UTC(2030, 0, 1) })
    partitions.set(at, of)
  }
}
/** Events as records of their topic. */
export const recordsOf = (topic: Topic.Any, events: ReadonlyArray<object>, partitions: number) =>
  events.map((event) => recordOf(topic, event, partitions))

/** A store in memory that counts the events and duplicates of its commits. */
class CountingStore extends MemoryStore {
  events = 0
  duplicates = 0
  constructor(projection: Projection.Any) {
    super(projection)
    const { commit } = this.service
    Object.assign(this.service, {
      commit: (...args: Parameters<typeof commit>) =>
        Effect.tap(commit(...args), () =>
          Effect.sync(() => {
            this.events += args[2].events
            this.duplicates += args[2].duplicates
          })
        )
    })
  }
}

/** A projection in memory that goes on from where it is. `sizeOf` says how many records the next batch has. */
export class Batches {
  readonly engine: Engine
  private readonly store: CountingStore
  private readonly next = new Map<string, number>()
  private readonly halts = new Map<string, string>()
  private readonly sizeOf: () => number

  constructor(projection: Projection.Any, partitions: number, sizeOf: () => number) {
    this.store = new CountingStore(projection)
    this.engine = new MemoryEngine(projection as never, partitions, this.store)
    this.sizeOf = sizeOf
  }

  /** Processes all that is in the partitions, one after the other. */
  readonly process = Effect.fnUntraced(function* (this: Batches, partitions: Partitions) {
    for (const [at, records] of [...partitions].toSorted(([a], [b]) => bySize(a, b))) {
      const [topic, partition] = at.split("/") as [string, string]
      while (!this.halts.has(at) && (this.next.get(at) ?? 0) < records.length) {
        const from = this.next.get(at) ?? 0
        const batch = records.slice(from, from + this.sizeOf())
        const done = yield* Effect.result(
          this.engine.processBatch(topic, Number(partition), { records: batch, next: from + batch.length })
        )
        if (done._tag === "Success") this.next.set(at, from + batch.length)
        else if (done.failure instanceof Mismatch) this.halts.set(at, done.failure.message)
        else return yield* Effect.die(done.failure)
      }
    }
  })

  /** The records that ask for a retry of dead letters, by the topic that they belong to. */
  retries(projection: string, isWanted: (position: number) => boolean): ReadonlyArray<readonly [string, NewRecord]> {
    return this.store.deadLetters
      .filter(({ envelope, position }) => envelope !== undefined && isWanted(position))
      .toSorted((a, b) => bySize(a.at.topic, b.at.topic) || a.at.partition - b.at.partition || a.position - b.position)
      .map(({ at, envelope, position, value }) => [
        at.topic,
        retryRecord(recordFromEnvelope(envelope!, at.partition, value), projection, position)
      ])
  }

  /** Everything that must not depend on where batches ended. */
  outcome() {
    const { claims, deadLetters, duplicates, events, late } = this.store
    const text = (values: ReadonlyArray<unknown>) => values.map((value) => JSON.stringify(value)).toSorted(bySize)
    const rows = Object.entries(this.engine.rows()).map(([name, of]) => [name, text(of.map(sorted))])
    const messages = Map.groupBy(outboxOf(this.engine), ([stream, topic]) => `${stream} ${topic}`)
    return {
      halts: [...this.halts].toSorted(),
      counts: this.halts.size === 0 ? { events, duplicates } : undefined,
      rows: Object.fromEntries(rows),
      deadLetters: text(
        deadLetters.map(({ at, cause: _, ...deadLetter }) => [at.topic, at.partition, sorted({ ...deadLetter })])
      ),
      late: text(late.map(({ at, ...event }) => [at.topic, at.partition, sorted({ ...event })])),
      progress: text(
        [...claims.values()].map(({ fingerprint, partition, position, streamTime, topic }) => [
          topic,
          partition,
          position,
          streamTime,
          fingerprint
        ])
      ),
      // a window publishes once a batch what became of its rows: the last message of each row counts
      messages: Object.fromEntries(
        [...messages]
          .toSorted(([a], [b]) => bySize(a, b))
          .map(([stream, of]) => [
            stream,
            /\.changed$|daily/.test(stream)
              ? text([...new Map(of.map((message) => [rowOf(message[6]), message])).values()])
              : of
          ])
      )
    }
  }
}
const sorted = (row: object) => Object.fromEntries(Object.entries(row).toSorted(([a], [b]) => bySize(a, b)))
const rowOf = (value: unknown) => {
  const { tag, user, window_size, window_start } = value as Readonly<Record<string, unknown>>
  return JSON.stringify([user, tag, window_size, window_start])
}
