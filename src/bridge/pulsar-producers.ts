// What one stream from Kafka sends to Pulsar: a producer for each topic that its records go to, beginning after what is there. It reads no log.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { BridgeError } from "./errors.ts"
import type { NumberedRecord, PulsarSide, PulsarProducer } from "./pulsar-side.ts"
import { type PulsarPosition, parsePosition } from "./pulsar-position.ts"
import { offsetHeader, streamHeader } from "./route.ts"
import { Offsets, shortName } from "./stream.ts"

/** Sent at once before it is known that the broker has none of it. */
const unbatched = 64
/** After that long a topic that refused is asked again. */
const blockedMs = 5_000

interface Lane {
  readonly part: string
  readonly present: Offsets
  scope: Scope.Closeable
  producer: PulsarProducer
  /** The broker took a new message: what follows is new as well, and may be batched. */
  fresh: boolean
}
/** What a stream knows of where it sends. */
export interface PulsarProducersOptions {
  readonly pulsar: PulsarSide
  /** The name of every producer of this stream; also its name in headers. */
  readonly stream: string
  readonly batching: boolean
  /** The first offset that is not committed. What lies before is there and of no interest. */
  readonly position: number
  /** Where each part ended when that was committed, by short name. */
  readonly places: Readonly<Record<string, unknown>>
}

const unexpected = (part: string) =>
  new BridgeError({
    side: "pulsar",
    operation: "send",
    kind: "other",
    topic: part,
    retryable: true,
    reason: "the broker has messages that were not there a moment ago: another bridge wrote them; looking again"
  })

/** Sends a stream's records, each once whatever was sent before. Offsets must ascend. */
export class PulsarProducers {
  /** The last place that is known of each part, the last that moved at the end. */
  readonly places = new Map<string, PulsarPosition>()
  private readonly options: PulsarProducersOptions
  private readonly lanes = new Map<string, Lane>()
  private readonly blocked = new Map<string, { readonly reason: string; readonly until: number }>()
  private readonly known = new Map<string, { readonly parts: ReadonlyArray<string>; readonly until: number }>()

  constructor(options: PulsarProducersOptions) {
    this.options = options
  }

  /** The parts of a topic, or why it has none. */
  readonly parts = Effect.fnUntraced(function* (
    this: PulsarProducers,
    topic: string
  ): Effect.fn.Return<ReadonlyArray<string> | { readonly reason: string }, BridgeError> {
    const there = this.known.get(topic)
    if (there !== undefined && there.until > performance.now()) return there.parts
    const found = yield* this.unlessRefused(topic, this.options.pulsar.partitionsOf(topic))
    if ("reason" in found) return found
    this.known.set(topic, { parts: found.value, until: performance.now() + 30_000 })
    return found.value
  })
  private unlessRefused<A, R>(
    name: string,
    effect: Effect.Effect<A, BridgeError, R>
  ): Effect.Effect<{ readonly value: A } | { readonly reason: string }, BridgeError, R> {
    const blocked = this.blocked.get(name)
    if (blocked !== undefined && blocked.until > performance.now()) return Effect.succeed({ reason: blocked.reason })
    return effect.pipe(
      Effect.map((value) => ({ value })),
      Effect.catch((error) => {
        if (error.kind !== "refused") return Effect.fail(error)
        this.blocked.set(name, { reason: error.reason, until: performance.now() + blockedMs })
        return Effect.succeed({ reason: error.reason })
      })
    )
  }

  private readonly open = Effect.fnUntraced(function* (
    this: PulsarProducers,
    part: string
  ): Effect.fn.Return<Lane, BridgeError, Scope.Scope> {
    const { places, position: committed, pulsar, stream } = this.options
    const scope = yield* Scope.fork(yield* Effect.scope)
    // the name first: from then on nobody else writes under it, and the end stands still
    const producer = yield* Scope.provide(pulsar.produce(part, stream, false), scope)
    const kept = places[shortName(part)]
    const present = new Offsets()
    const after = typeof kept === "string" ? parsePosition(kept) : undefined
    if (after !== undefined) this.places.set(part, after)
    yield* pulsar.scan(part, after, ({ position, record: { headers } }) => {
      this.moved(part, position)
      if (headers[streamHeader] !== stream) return
      const offset = Number(headers[offsetHeader])
      if (offset >= committed) present.add(offset)
    })
    const lane: Lane = { part, present, scope, producer, fresh: false }
    this.lanes.set(part, lane)
    return lane
  })
  private moved(part: string, position: PulsarPosition) {
    this.places.delete(part)
    this.places.set(part, position)
  }

  /** Sends records in their order. The offsets of those that are refused, and why; all others are there when this answers. */
  readonly send = Effect.fnUntraced(function* (
    this: PulsarProducers,
    part: string,
    messages: ReadonlyArray<NumberedRecord>
  ): Effect.fn.Return<ReadonlyMap<number, string>, BridgeError, Scope.Scope> {
    const opened = this.lanes.get(part) ?? (yield* this.unlessRefused(part, this.open(part)))
    if ("reason" in opened) return new Map(messages.map(({ sequenceId }) => [sequenceId, opened.reason]))
    const lane = "value" in opened ? opened.value : opened
    const refused = new Map<number, string>()
    const missing = messages.filter(({ sequenceId }) => !lane.present.has(sequenceId))
    for (let at = 0; at < missing.length;) {
      const some = lane.fresh ? missing.slice(at) : missing.slice(at, at + unbatched)
      at += some.length
      const sent = yield* lane.producer.send(some)
      for (const [i, one] of sent.entries()) {
        if (one.kind === "stored") this.moved(part, one.position)
        else if (one.kind === "refused") refused.set(some[i]!.sequenceId, one.reason)
        else if (lane.fresh) return yield* unexpected(part)
      }
      if (!lane.fresh && sent.at(-1)?.kind === "stored") yield* this.freshen(lane)
    }
    return refused
  })
  private readonly freshen = Effect.fnUntraced(function* (
    this: PulsarProducers,
    lane: Lane
  ): Effect.fn.Return<void, BridgeError, Scope.Scope> {
    const { batching, pulsar, stream } = this.options
    const { part } = lane
    lane.fresh = true
    if (!batching) return
    yield* Scope.close(lane.scope, Exit.void)
    lane.scope = yield* Scope.fork(yield* Effect.scope)
    lane.producer = yield* Scope.provide(pulsar.produce(part, stream, true), lane.scope)
    // the name was free for a moment, and who had it before may have used that
    let used = false
    yield* pulsar.scan(part, this.places.get(part), ({ record: { headers } }) => {
      used ||= headers[streamHeader] === stream
    })
    if (used) return yield* unexpected(part)
  })
}
