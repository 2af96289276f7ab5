// A chain of projections in memory, step by step in random order: the runner's own processors over stores in memory, and a relay that
// appends what they publish to derived topics. Batches, restarts and the order of all steps are random; protections can be removed.
import * as Effect from "effect/Effect"
import { streamHeaders } from "../../src/log/envelope.ts"
import type { LogRecord } from "../../src/log/log.ts"
import { chainsOf } from "../../src/model/chains.ts"
import { partitionOf } from "../../src/model/partitioner.ts"
import type { Projection } from "../../src/model/projection.ts"
import type { Topic } from "../../src/model/topic.ts"
import { unpack } from "../../src/postgres/log/batch-codec.ts"
import { type ChainLinks, linksOf } from "../../src/runner/chain.ts"
import { MemoryStore } from "../../src/runner/memory-store.ts"
import { PartitionProcessor } from "../../src/runner/partition-processor.ts"
import { Store, type Changes, type Segment } from "../../src/runner/store.ts"
import type { Random } from "./random.ts"

/** A protection that is removed. */
export type ChainMutant = "maximum" | "silent streams do not count" | "no marks" | "marks first"

interface Work {
  readonly projection: Projection.Any
  readonly service: Store["Service"]
  readonly source: Topic.Any
  readonly partition: number
  processor: PartitionProcessor<never, never> | undefined
  position: number
}
interface SentMessage {
  readonly topic: string
  readonly partition: number
  readonly record: Omit<LogRecord, "position" | "appendedAt" | "partition">
}

/** The largest batch of a step, in records. */
const mostRecords = 40
const nothing = { eventId: undefined, tenant: undefined, traceparent: undefined, schemaVersion: undefined, headers: {} }

/** The chain. Records are appended with `append`, or by its own relay. */
export class ChainSimulation {
  /** By topic, then by partition. */
  readonly logs: ReadonlyMap<string, ReadonlyArray<Array<LogRecord>>>
  readonly stores: ReadonlyMap<string, MemoryStore>
  private readonly work: ReadonlyArray<Work>
  private readonly outbox = new Map<string, Array<SentMessage>>()
  private readonly sequences = new Map<string, number>()
  private readonly random: Random
  private readonly publishes: boolean
  private readonly projections: ReadonlyArray<Projection.Any>
  private readonly mutant: ChainMutant | undefined
  /** The clock that append times are taken from. */
  nowMs: number

  constructor(
    projections: ReadonlyArray<Projection.Any>,
    partitions: Readonly<Record<string, number>>,
    random: Random,
    options: {
      readonly nowMs: number
      readonly mutant?: ChainMutant | undefined
      /** The log of another simulation, to replay it. */
      readonly logs?: ChainSimulation["logs"]
      /** The projections that run; what they publish is dropped. Default: all run, and publish. */
      readonly runs?: ReadonlyArray<string>
    }
  ) {
    this.projections = projections
    this.random = random
    this.mutant = options.mutant
    this.nowMs = options.nowMs
    this.logs =
      options.logs ??
      new Map(Object.entries(partitions).map(([name, count]) => [name, Array.from({ length: count }, () => [])]))
    this.stores = new Map(projections.map((projection) => [projection.name, new MemoryStore(projection)]))
    this.publishes = options.runs === undefined
    const running = projections.filter(({ name }) => options.runs?.includes(name) !== false)
    this.work = running.flatMap((projection) =>
      (projection.sources as ReadonlyArray<Topic.Any>).flatMap((source) =>
        this.logs.get(source.name)!.map((_, partition): Work => {
          const store = this.stores.get(projection.name)!
          const service = this.recording(store, `${projection.name}/${source.name}/${partition}`)
          return { projection, service, source, partition, processor: undefined, position: 0 }
        })
      )
    )
  }

  /** Appends a value to a source. */
  append(topic: Topic.Any, value: object): void {
    const key = topic.keyOf(value)
    const partition = partitionOf(key, this.logs.get(topic.name)!.length)
    const eventTime = topic.timeOf!(value)
    this.put(topic.name, partition, { ...nothing, key, value: JSON.stringify(value), eventTime })
  }
  /** Appends a record to a partition. */
  put(topic: string, partition: number, record: SentMessage["record"]): void {
    const log = this.logs.get(topic)![partition]!
    log.push({ ...record, partition, position: log.length, appendedAt: this.nowMs })
  }

  /** Runs until nothing is left to process, to publish or to announce. `restarts`: how likely a step first ends a process. */
  readonly settle = Effect.fnUntraced(function* (this: ChainSimulation, restarts = 0.02) {
    while (true) {
      const steps = [...this.processing(), ...this.publishing()]
      const due = steps.length > 0 ? steps : this.announcing()
      if (due.length === 0) return
      if (this.random.chance(restarts)) this.random.pick(this.work).processor = undefined
      yield* this.random.pick(due)()
    }
  })
  /** Runs some steps only. */
  readonly run = Effect.fnUntraced(function* (this: ChainSimulation, count: number) {
    for (let n = 0; n < count; n++) {
      const steps = [...this.processing(), ...this.publishing()]
      if (steps.length === 0) return
      yield* this.random.pick(steps)()
    }
  })

  private processing() {
    return this.work.flatMap((one) => (one.position < this.logOf(one).length ? [() => this.process(one)] : []))
  }
  private announcing() {
    return this.work.flatMap((one) =>
      one.processor === undefined || one.processor.announceDueMs === undefined
        ? []
        : [() => one.processor!.announce as Effect.Effect<void>]
    )
  }
  private publishing() {
    return [...this.outbox].flatMap(([stream, queue]) =>
      queue.length > 0 ? [() => Effect.sync(() => this.publish(stream, queue))] : []
    )
  }
  private logOf({ partition, source }: Work) {
    return this.logs.get(source.name)![partition]!
  }

  private readonly process = Effect.fnUntraced(function* (this: ChainSimulation, one: Work) {
    const processor = (one.processor ??= yield* this.open(one))
    const records = this.logOf(one).slice(one.position, one.position + this.random.int(1, mostRecords))
    one.position += records.length
    yield* processor.process({ records, next: one.position }) as Effect.Effect<unknown>
  })
  private readonly open = Effect.fnUntraced(function* (this: ChainSimulation, one: Work) {
    const { partition, projection, service, source } = one
    const partitions = this.logs.get(source.name)!.length
    const ends = (topic: string) => Effect.succeed(this.logs.get(topic)!.map(({ length }) => length))
    const found = yield* Effect.orDie(
      linksOf(chainsOf(this.projections), projection, source.name, partitions, { ends })
    )
    const links = { ...this.mutated(found), markEveryMs: 0 }
    const claim = yield* Effect.orDie(service.claim(projection, source.name, partition, 1))
    const lookupTables = new Map()
    const made = new PartitionProcessor({ projection, source, partitions, claim, lookupTables, store: service, links })
    return made as unknown as PartitionProcessor<never, never>
  })
  private mutated(links: ChainLinks): ChainLinks {
    if (links.feeds !== undefined && links.feeds.length > 0) {
      if (this.mutant === "maximum") return { ...links, feeds: [] }
      if (this.mutant === "silent streams do not count") return { ...links, feeds: undefined }
    }
    return this.mutant === "no marks" ? { ...links, targets: [] } : links
  }

  /** The store, and beside it what each commit publishes, as an outbox has it. */
  private recording(store: MemoryStore, stream: string): Store["Service"] {
    const { service } = store
    return Store.of({
      ...service,
      commit: (projection, claim, changes) => {
        const before = store.outbox.length
        return Effect.tap(service.commit(projection, claim, changes), () =>
          Effect.sync(() => {
            if (!this.publishes) return
            const queue = this.outbox.get(stream) ?? []
            this.outbox.set(stream, queue)
            const segments = changes.segments.flatMap((segment) => this.messagesOf(segment))
            const windows = this.windowMessages(store, before + segments.length, changes)
            const marks = (changes.marks ?? []).flatMap((segment) => this.messagesOf(segment))
            const messages = [...segments, ...windows]
            queue.push(...(this.mutant === "marks first" ? [...marks, ...messages] : [...messages, ...marks]))
          })
        )
      }
    })
  }
  private messagesOf({ messages, meta, partition, topic, vals }: Segment): ReadonlyArray<SentMessage> {
    const records: Array<LogRecord> = []
    unpack({ partition: 0, base: 0, next: messages, bytes: 0, appendedAt: 0, meta, vals }, 0, records)
    const count = this.logs.get(topic)?.length ?? 1
    return records.map((record) => ({ topic, record, partition: partition ?? partitionOf(record.key ?? "", count) }))
  }
  private windowMessages(store: MemoryStore, from: number, { windows }: Changes): ReadonlyArray<SentMessage> {
    return store.outbox.slice(from).map(({ eventTime, key, topic, value }) => {
      const { window_start: start } = JSON.parse(value) as { readonly window_start: number }
      const delta = windows
        .flatMap(({ deltas, window }) => (window.topic?.name === topic ? deltas : []))
        .find(({ key: of, row }) => of === key && row["window_start"] === start)!
      const headers = delta.sentTime === undefined ? {} : { "millrace-time": delta.sentTime }
      return { topic, partition: delta.partition, record: { ...nothing, key, value, eventTime, headers } }
    })
  }
  /** Appends some messages of a stream to their topics. */
  private publish(stream: string, queue: Array<SentMessage>): void {
    for (const { partition, record, topic } of queue.splice(0, this.random.int(1, mostRecords))) {
      const seq = (this.sequences.get(stream) ?? 0) + 1
      this.sequences.set(stream, seq)
      if (!this.logs.has(topic)) continue
      const identity = { [streamHeaders.stream]: stream, [streamHeaders.sequence]: String(seq) }
      this.put(topic, partition, { ...record, headers: { ...record.headers, ...identity } })
    }
  }
}
