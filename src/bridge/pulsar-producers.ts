// The producers of one bridge stream from Kafka: one for each partition on Pulsar, each starting after the records that are there already.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { BridgeError } from "./errors.ts"
import { offsetHeader, streamHeader } from "./headers.ts"
import { OffsetSet } from "./offset-set.ts"
import { shortName } from "./position-metadata.ts"
import { parsePosition, type PulsarPosition } from "./pulsar-position.ts"
import type { NumberedRecord, PulsarProducer, PulsarSide } from "./pulsar-side.ts"

/** Records that are sent together as long as the broker may have some of them already. */
const unbatchedCount = 64
/** How long a topic that was refused is not asked again. */
const refusedMs = 5_000
const partitionsMs = 30_000

interface OpenProducer {
  readonly partition: string
  /** Offsets of records that were there when the producer was opened. */
  readonly present: OffsetSet
  scope: Scope.Closeable
  producer: PulsarProducer
  /**
   * The broker stored a record that it did not have. All later ones are new as well, so they may be sent in batches: of a batch the broker
   * would drop all records if it has one of them.
   */
  isPastDuplicates: boolean
}
/** What the producers of a stream need to know. */
export interface PulsarProducersOptions {
  readonly pulsar: PulsarSide
  /** The stream's name: the name of each of its producers, and the value of the stream header. */
  readonly stream: string
  readonly batching: boolean
  /** The first offset that is not committed. Pulsar has everything before it. */
  readonly position: number
  /** Where each partition on Pulsar ended when that was committed, by short name. A partition is scanned from there. */
  readonly ends: Readonly<Record<string, unknown>>
}

const unexpected = (partition: string) =>
  new BridgeError({
    side: "pulsar",
    operation: "send",
    kind: "other",
    topic: partition,
    retryable: true,
    reason: "the broker has messages of this stream that it did not have before, so another process wrote them"
  })

/** Sends a stream's records, each once, whatever earlier sessions sent. Offsets must ascend. */
export class PulsarProducers {
  /** The last known position of each partition; the partition whose position changed last comes last. */
  readonly ends = new Map<string, PulsarPosition>()
  private readonly options: PulsarProducersOptions
  private readonly producers = new Map<string, OpenProducer>()
  private readonly refused = new Map<string, { readonly reason: string; readonly until: number }>()
  private readonly partitions = new Map<string, { readonly names: ReadonlyArray<string>; readonly until: number }>()

  constructor(options: PulsarProducersOptions) {
    this.options = options
  }

  /** A topic's partitions, or why the topic is refused. */
  readonly partitionsOf = Effect.fnUntraced(function* (
    this: PulsarProducers,
    topic: string
  ): Effect.fn.Return<ReadonlyArray<string> | { readonly reason: string }, BridgeError> {
    const known = this.partitions.get(topic)
    if (known !== undefined && known.until > performance.now()) return known.names
    const found = yield* this.unlessRefused(topic, this.options.pulsar.partitionsOf(topic))
    if ("reason" in found) return found
    this.partitions.set(topic, { names: found.value, until: performance.now() + partitionsMs })
    return found.value
  })
  private unlessRefused<A, R>(
    name: string,
    effect: Effect.Effect<A, BridgeError, R>
  ): Effect.Effect<{ readonly value: A } | { readonly reason: string }, BridgeError, R> {
    const refused = this.refused.get(name)
    if (refused !== undefined && refused.until > performance.now()) return Effect.succeed({ reason: refused.reason })
    return effect.pipe(
      Effect.map((value) => ({ value })),
      Effect.catch((error) => {
        if (error.kind !== "refused") return Effect.fail(error)
        this.refused.set(name, { reason: error.reason, until: performance.now() + refusedMs })
        return Effect.succeed({ reason: error.reason })
      })
    )
  }

  private readonly open = Effect.fnUntraced(function* (
    this: PulsarProducers,
    partition: string
  ): Effect.fn.Return<OpenProducer, BridgeError, Scope.Scope> {
    const { ends, position: committed, pulsar, stream } = this.options
    const scope = yield* Scope.fork(yield* Effect.scope)
    // first the name: from then on no other process can write under it, so the scan below sees everything
    const producer = yield* Scope.provide(pulsar.produce(partition, stream, false), scope)
    const end = ends[shortName(partition)]
    const present = new OffsetSet()
    const after = typeof end === "string" ? parsePosition(end) : undefined
    if (after !== undefined) this.ends.set(partition, after)
    yield* pulsar.scan(partition, after, ({ position, record: { headers } }) => {
      this.moveEnd(partition, position)
      if (headers[streamHeader] !== stream) return
      const offset = Number(headers[offsetHeader])
      if (offset >= committed) present.add(offset)
    })
    const opened: OpenProducer = { partition, present, scope, producer, isPastDuplicates: false }
    this.producers.set(partition, opened)
    return opened
  })
  private moveEnd(partition: string, position: PulsarPosition) {
    this.ends.delete(partition)
    this.ends.set(partition, position)
  }

  /** Sends records in their order. Returns the offsets that are refused, with why; Pulsar has all others. */
  readonly send = Effect.fnUntraced(function* (
    this: PulsarProducers,
    partition: string,
    records: ReadonlyArray<NumberedRecord>
  ): Effect.fn.Return<ReadonlyMap<number, string>, BridgeError, Scope.Scope> {
    const found = this.producers.get(partition) ?? (yield* this.unlessRefused(partition, this.open(partition)))
    if ("reason" in found) return new Map(records.map(({ sequenceId }) => [sequenceId, found.reason]))
    const open = "value" in found ? found.value : found
    const refused = new Map<number, string>()
    const missing = records.filter(({ sequenceId }) => !open.present.has(sequenceId))
    for (let at = 0; at < missing.length;) {
      const some = open.isPastDuplicates ? missing.slice(at) : missing.slice(at, at + unbatchedCount)
      at += some.length
      const sent = yield* open.producer.send(some)
      for (const [i, result] of sent.entries()) {
        if (result.kind === "stored") this.moveEnd(partition, result.position)
        else if (result.kind === "refused") refused.set(some[i]!.sequenceId, result.reason)
        else if (open.isPastDuplicates) return yield* unexpected(partition)
      }
      if (!open.isPastDuplicates && sent.at(-1)?.kind === "stored") yield* this.startBatching(open)
    }
    return refused
  })
  /** Reopens the producer with batching, if the rule wants that, now that all further records are new. */
  private readonly startBatching = Effect.fnUntraced(function* (
    this: PulsarProducers,
    open: OpenProducer
  ): Effect.fn.Return<void, BridgeError, Scope.Scope> {
    const { batching, pulsar, stream } = this.options
    const { partition } = open
    open.isPastDuplicates = true
    if (!batching) return
    yield* Scope.close(open.scope, Exit.void)
    open.scope = yield* Scope.fork(yield* Effect.scope)
    open.producer = yield* Scope.provide(pulsar.produce(partition, stream, true), open.scope)
    // the name was free for a moment, and a process that had it before may have written in that moment
    let used = false
    yield* pulsar.scan(partition, this.ends.get(partition), ({ record: { headers } }) => {
      used ||= headers[streamHeader] === stream
    })
    if (used) return yield* unexpected(partition)
  })
}
