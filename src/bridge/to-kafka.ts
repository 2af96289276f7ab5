// A stream from Pulsar to Kafka: one part's messages, in order, each there once. A transaction on Kafka has the records and the place on Pulsar that they reach to.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Bridge, type BridgeRecord, type BridgeRule, errorsSuffix } from "./rules.ts"
import type { AddressedRecord, GroupPartition, KafkaWriter } from "./kafka-side.ts"
import type { PulsarMessage, PulsarConsumer } from "./pulsar-side.ts"
import type { BridgeError } from "./errors.ts"
import { comparePositions, parsePosition, type PulsarPosition, formatPosition } from "./pulsar-position.ts"
import { deadLetter } from "./dead-letter.ts"
import { Letters } from "./dead-letter-writer.ts"
import { route, type RouteContext } from "./route.ts"
import type { Counts, StreamState } from "./status.ts"
import { type BridgeContext, lostBecause, parseMetadata, persist, type StreamError } from "./stream.ts"
import { partitionOf } from "../model/partitioner.ts"

/** Messages of a transaction, at most. */
const mostAtOnce = 1_000
/** A message from before a position was committed after it, if clocks differ by less. */
const skewMs = 60_000

/** A part to mirror. */
export interface Inward {
  readonly rule: BridgeRule
  /** The topic's name without its partition. */
  readonly topic: string
  readonly words: Readonly<Record<string, string>>
  readonly part: string
  readonly partition: number
  /** Whose offset on Kafka keeps the place. */
  readonly held: GroupPartition
  /** Ends where everything that is there at its beginning is mirrored. */
  readonly once: boolean
}
/** What becomes of messages that were taken together. */
interface Work {
  readonly records: ReadonlyArray<AddressedRecord>
  /** Of each record, its message. */
  readonly sources: ReadonlyArray<PulsarMessage>
  readonly dead: ReadonlyMap<PulsarMessage, string>
  readonly counts: Partial<Counts>
}
/** What one session learned that the next one must know. */
interface Memory {
  /** Messages that Kafka refuses, by place, and why. */
  readonly refused: Map<string, string>
  /** How many messages the next transaction takes: fewer after one was too large. */
  size: number
  /** Messages of so many characters go in transactions of their own: one of them was perhaps too large. */
  alone: number
  /** Whether the last failure told any of this. */
  learned: boolean
}

const lengthOf = ({ record: { value } }: PulsarMessage) => value?.length ?? 0
/** Runs of messages in their order, those of a length by themselves. */
const apart = (messages: ReadonlyArray<PulsarMessage>, length: number): ReadonlyArray<ReadonlyArray<PulsarMessage>> => {
  const runs: Array<Array<PulsarMessage>> = []
  let last: Array<PulsarMessage> | undefined
  for (const message of messages) {
    const large = lengthOf(message) >= length
    if (last === undefined || large) runs.push((last = [message]))
    else last.push(message)
    if (large) last = undefined
  }
  return runs
}
/** A message so many times as long as the others is what was too large, more likely than all of them together. */
const suspect = 8

class Session {
  private readonly joined: BridgeContext
  private readonly inward: Inward
  private readonly state: StreamState
  private readonly memory: Memory
  private readonly writer: KafkaWriter
  private readonly consumer: PulsarConsumer
  private readonly way: RouteContext
  private readonly letters: Letters
  private readonly partitions = new Map<string, { readonly count: number; readonly until: number }>()
  /** What Kafka has. */
  private position: PulsarPosition | undefined
  private mirrored: number
  private committedAt: number

  constructor(
    shared: { joined: BridgeContext; inward: Inward; state: StreamState; memory: Memory },
    ends: { writer: KafkaWriter; consumer: PulsarConsumer; way: RouteContext; letters: Letters },
    from: { position: PulsarPosition | undefined; mirrored: number; committedAt: number }
  ) {
    this.joined = shared.joined
    this.inward = shared.inward
    this.state = shared.state
    this.memory = shared.memory
    this.writer = ends.writer
    this.consumer = ends.consumer
    this.way = ends.way
    this.letters = ends.letters
    this.position = from.position
    this.mirrored = from.mirrored
    this.committedAt = from.committedAt
  }

  /** Mirrors what comes; never ends by itself. */
  readonly run = Effect.fnUntraced(function* (this: Session) {
    let seen = this.position
    while (true) {
      this.state.waits = performance.now()
      const taken = yield* this.consumer.take(this.memory.size)
      this.state.waits = undefined
      const fresh = taken.filter(({ position }) => seen === undefined || comparePositions(position, seen) > 0)
      // their acknowledgement was lost
      const known = taken.filter(
        ({ position }) => this.position !== undefined && comparePositions(position, this.position) <= 0
      )
      yield* this.suspicious(known)
      if (known.length > 0) yield* this.consumer.acknowledge(known)
      if (fresh.length === 0) continue
      seen = fresh.at(-1)!.position
      for (const some of apart(fresh, this.memory.alone)) {
        yield* this.mirror(some)
        yield* this.consumer.acknowledge(some)
      }
      this.memory.size = Math.min(this.memory.size * 2, mostAtOnce)
    }
  })
  /** What was published after the position was committed cannot lie before it, unless this is another topic. */
  private suspicious(known: ReadonlyArray<PulsarMessage>): Effect.Effect<void, BridgeError> {
    const wrong = known.find(({ publishTime }) => publishTime > this.committedAt + skewMs)
    if (wrong === undefined || this.inward.rule.lost === "continue") return Effect.void
    const { part } = this.inward
    return Effect.fail(
      lostBecause(
        "pulsar",
        part,
        `${part} has a new message at ${formatPosition(wrong.position)}, before the position that was mirrored last: it is another ` +
          "cluster, or was restored to an older state"
      )
    )
  }

  /** How many partitions a topic has, or why it cannot be had. */
  private readonly count = Effect.fnUntraced(function* (this: Session, topic: string) {
    const there = this.partitions.get(topic)
    if (there !== undefined && there.until > performance.now()) return there.count
    const found = yield* this.writer
      .partitionCount(topic)
      .pipe(Effect.catch((error) => (error.kind === "refused" ? Effect.succeed(error.reason) : Effect.fail(error))))
    if (typeof found === "number") this.partitions.set(topic, { count: found, until: performance.now() + 5_000 })
    return found
  })
  private readonly prepare = Effect.fnUntraced(function* (this: Session, messages: ReadonlyArray<PulsarMessage>) {
    const records: Array<AddressedRecord> = []
    const sources: Array<PulsarMessage> = []
    const dead = new Map<PulsarMessage, string>()
    const counts = { mirrored: 0, filtered: 0, returned: 0, dead: 0 }
    for (const message of messages) {
      const offset = formatPosition(message.position)
      const refused = this.memory.refused.get(offset)
      const routed =
        refused === undefined ? route(this.way, message.record, offset) : { kind: "dead" as const, reason: refused }
      if (routed.kind === "dead") dead.set(message, routed.reason)
      else if (routed.kind !== "send") counts[routed.kind]++
      else {
        const count = yield* this.count(routed.topic)
        if (typeof count === "string") dead.set(message, `${routed.topic}: ${count}`)
        else {
          const { key } = routed.record
          const partition = key === null ? this.inward.partition % count : partitionOf(key, count)
          records.push({ topic: routed.topic, partition, record: routed.record })
          sources.push(message)
        }
      }
    }
    return { records, sources, dead, counts: { ...counts, mirrored: records.length, dead: dead.size } } satisfies Work
  })
  private readonly mirror = Effect.fnUntraced(function* (this: Session, messages: ReadonlyArray<PulsarMessage>) {
    const work = yield* this.prepare(messages)
    if (work.dead.size > 0) yield* this.bury(work.dead)
    const position = messages.at(-1)!.position
    const offset = this.mirrored + messages.length
    const metadata = JSON.stringify({
      place: formatPosition(position),
      at: Date.now(),
      ...(this.letters.position !== undefined && { errors: formatPosition(this.letters.position) })
    })
    yield* this.writer
      .commit(work.records, [{ ...this.inward.held, offset, metadata }])
      .pipe(Effect.tapError((error) => Effect.sync(() => this.blame(error, work))))
    this.position = position
    this.mirrored = offset
    this.committedAt = Date.now()
    this.memory.refused.clear()
    this.state.moves()
    yield* this.state.count(work.counts)
  })
  /** The next session leaves out what Kafka refuses, or finds out which message it is: by its length, else by halving. */
  private blame({ kind, reason, topic }: BridgeError, { records, sources }: Work) {
    const concerned = sources.filter((_, i) => topic === undefined || records[i]!.topic === topic)
    if (kind === "tooLarge" && records.length > 1) {
      const lengths = concerned.map(lengthOf)
      const longest = Math.max(...lengths)
      const usual = (lengths.reduce((sum, length) => sum + length, 0) - longest) / lengths.length
      if (longest > suspect * usual) this.memory.alone = Math.min(this.memory.alone, longest)
      else this.memory.size = Math.max(1, Math.floor(records.length / 2))
    } else if (kind === "tooLarge" || kind === "refused")
      for (const { position } of concerned) this.memory.refused.set(formatPosition(position), `${topic}: ${reason}`)
    else return
    this.memory.learned = concerned.length > 0
  }
  private readonly bury = Effect.fnUntraced(function* (this: Session, dead: ReadonlyMap<PulsarMessage, string>) {
    const { part, rule } = this.inward
    const letters = [...dead].map(([{ position, record }, reason]): readonly [PulsarPosition, BridgeRecord] => [
      position,
      deadLetter(this.way, record, formatPosition(position), reason)
    ])
    const [message, reason] = dead.entries().next().value!
    yield* Effect.logError(
      `bridge: ${rule.name} ${part}: ${dead.size} to ${this.letters.topic}; ${formatPosition(message.position)}: ${reason}`
    )
    yield* this.letters.send(letters)
  })

  /** Whether everything up to a place is mirrored, or nothing is left that the subscription has to give. */
  readonly reached = Effect.fnUntraced(function* (
    this: Session,
    end: PulsarPosition | undefined,
    subscription: string
  ) {
    if (end === undefined) return true
    const { position } = this
    if (
      position !== undefined &&
      (position.ledger > end.ledger || (position.ledger === end.ledger && position.entry > end.entry))
    )
      return true
    const whole = position !== undefined && position.ledger === end.ledger && position.entry === end.entry
    if (whole && (position.batch < 0 || position.batch === position.batchSize - 1)) return true
    return (yield* this.joined.pulsar.backlog(this.inward.part, subscription)) === 0
  })
}

const subscriptionOf = (bridge: Bridge, rule: BridgeRule) => `${bridge.name}/${rule.name}`

const session = Effect.fnUntraced(function* (
  joined: BridgeContext,
  inward: Inward,
  state: StreamState,
  memory: Memory
): Effect.fn.Return<void, StreamError, Scope.Scope> {
  const { bridge, clusters, kafka, pulsar } = joined
  const { held, once, part, rule, topic, words } = inward
  const subscription = subscriptionOf(bridge, rule)
  const end = once ? yield* pulsar.lastPosition(part) : undefined
  // who has the subscription may take the id: the other way round, one that stands by would fence the one that works
  const consumer = yield* pulsar.consume(part, subscription, rule.start ?? "earliest")
  const writer = yield* kafka.openWriter(`${bridge.name}/${rule.name}/${part}`)
  const stored = yield* writer.committedPosition(held)
  const { at, errors, place } = parseMetadata(stored?.metadata ?? "")
  const parse = (text: unknown) => (typeof text === "string" ? parsePosition(text) : undefined)
  const way: RouteContext = {
    rule,
    words,
    bridge: bridge.name,
    source: clusters.pulsar,
    target: clusters.kafka,
    stream: part
  }
  const letters = new Letters({
    pulsar,
    topic: rule.errors ?? `${topic}${errorsSuffix}`,
    of: { bridge: bridge.name, rule: rule.name, stream: part },
    name: `${bridge.name}/${rule.name}/${part}`,
    after: parse(errors)
  })
  const one = new Session(
    { joined, inward, state, memory },
    { writer, consumer, way, letters },
    { position: parse(place), mirrored: stored?.offset ?? 0, committedAt: typeof at === "number" ? at : Infinity }
  )
  const ending = Effect.gen(function* () {
    while (!(yield* one.reached(end, subscription))) yield* Effect.sleep(50)
    yield* state.behind(0)
  })
  yield* Effect.raceAllFirst<Effect.Effect<void, BridgeError, Scope.Scope>>([one.run(), once ? ending : Effect.never])
})

/** Mirrors one part until interrupted, or once; begins anew after every failure. */
export const toKafka = (joined: BridgeContext, inward: Inward): Effect.Effect<void, StreamError> => {
  const { once, part, partition, rule, topic } = inward
  const state = joined.board.of(rule.name, topic, partition)
  const memory: Memory = { refused: new Map(), size: mostAtOnce, alone: Infinity, learned: false }
  const learned = () => {
    const { learned } = memory
    memory.learned = false
    return learned
  }
  const lag = joined.pulsar
    .backlog(part, subscriptionOf(joined.bridge, rule))
    .pipe(Effect.orElseSucceed(() => undefined))
  return persist(joined, state, session(joined, inward, state, memory), { once, learned, lag })
}
