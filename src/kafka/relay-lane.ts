// One lane of the relay to Kafka: a producer, and the streams that it brings there, a transaction a round. Which lanes run is decided elsewhere.
import { setImmediate } from "node:timers/promises"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { UnknownTopic } from "../log.ts"
import { type Bounds, type Following, type Mirrored, nameOf, type Outbox, type Place, type Segment } from "../outbox.ts"
import { type Halt, RelayError, type Stream } from "../relay-target.ts"
import { isMoved } from "./client.ts"
import { KafkaFailure, reasonOf, typeOf } from "./errors.ts"
import type { Options } from "./options.ts"
import { Batches, type Encoded, type Origin, streamHeader } from "./relay-encode.ts"
import { gap, groupOf, type Halted, misfit, placeOf, unfit } from "./relay-position.ts"
import { isFenced, type Offset, PartitionRefused, TransactionalProducer } from "./transaction.ts"

/** What all lanes of a relay share. */
export interface Setting {
  readonly target: string
  /** Of groups and transactional ids. */
  readonly prefix: string
  readonly kafka: Options
  readonly outbox: Outbox["Service"]
  readonly accepts: (topic: string) => boolean
  readonly bounds: Bounds
  /** How long an offset may go unwritten, in milliseconds. */
  readonly refreshMs: number
}
/** What a lane's round did. */
export interface Round {
  readonly messages: number
  readonly more: boolean
}

/** What a batch may take, unpacked. Topics take a mebibyte unless told, and more at once gains nothing. */
const batchBytes = 1_000_000
/** How often what a topic refused, or lacks, is tried again. */
const blockedMs = 5_000
const missingMs = 250
/** How often a position that does not fit is looked at again. */
const wrongMs = 1_000
/** How long positions may wait that only passed over segments of other targets. */
const passMs = 1_000
/** Encoding lets others run after so many bytes. */
const turnBytes = 512 << 10

/** What a person must set right. */
const fatal =
  /^(SASL_.*|.*_AUTHORIZATION_FAILED|UNSUPPORTED_.*|ILLEGAL_SASL_STATE|INVALID_TRANSACTION_TIMEOUT|ENOTFOUND|CERT_.*|DEPTH_.*|SELF_SIGNED.*|UNABLE_TO_.*|ERR_.*|EPROTO)$/
const tooLarge = /^(MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE)$/

/** A stream while a lane has it. */
interface State extends Origin {
  readonly group: string
  place: Place
  /** The sequence that Kafka has. */
  kept: number
  /** When it was written there. */
  keptAt: number
  /** Where the position itself is wrong, until it is looked at again. */
  wrong: Halted | undefined
  wrongUntil: number
}
interface Blocked extends Halted {
  readonly until: number
  /** Of a stream: the message that is refused. */
  readonly seq?: number
}
/** A transaction, ready to be sent. */
interface Work {
  readonly batches: ReadonlyArray<Encoded>
  readonly messages: number
  /** Where the streams stand after it. */
  readonly after: ReadonlyMap<string, Place>
  readonly halted: ReadonlyMap<string, string>
  readonly more: boolean
}

/** A lane. Rounds are made one after another. */
export class Lane {
  private readonly setting: Setting
  private readonly id: string
  /** Fails where the grouping is not the one that this lane belongs to any more. */
  private readonly current: Effect.Effect<void, RelayError>
  private producer: TransactionalProducer | undefined
  private readonly states = new Map<string, State>()
  private prepared: Work | undefined
  /** By topic, and by stream. */
  private readonly blocked = new Map<string, Blocked>()
  private readonly limits = new Map<string, number>()
  private readonly passed = new Set<string>()
  /** Reasons as the database has them. */
  private readonly marked = new Map<string, string>()
  private reasons: ReadonlyMap<string, string> = new Map()
  /** Whether somebody else has taken the id over. */
  fenced = false

  constructor(setting: Setting, id: string, current: Effect.Effect<void, RelayError>) {
    this.setting = setting
    this.id = id
    this.current = current
  }

  /** The streams that stand still. */
  get halted(): ReadonlyArray<Halt> {
    return [...this.reasons].flatMap(([name, reason]) => {
      const state = this.states.get(name)
      if (state === undefined) return []
      const { partition, projection, source } = state.place
      return [{ projection, source, partition, reason }]
    })
  }
  /** Gives the producer up, with what it has under way; the next round begins with another one. */
  close(): void {
    this.producer?.close()
    this.producer = undefined
    this.prepared = undefined
    this.states.clear()
  }

  /** One transaction at most, with what follows the lane's streams. After a failure everything begins anew. */
  readonly round = (streams: ReadonlyArray<Mirrored>): Effect.Effect<Round, RelayError> =>
    this.step(streams).pipe(Effect.tapError(() => Effect.sync(() => this.close())))

  private attempt<A>(run: () => Promise<A>): Effect.Effect<A, RelayError> {
    return Effect.tryPromise({ try: run, catch: (cause) => this.failure(cause) })
  }
  private failure(cause: unknown): RelayError {
    if (cause instanceof RelayError) return cause
    const fenced = isFenced(cause)
    this.fenced ||= fenced
    const [retryable, reason] = fenced
      ? [true, `another relay took ${this.id} over, or the transaction took too long`]
      : reasonOf(cause)
    // a new producer may succeed where nothing has to be set right by hand
    const again = retryable || (!(cause instanceof KafkaFailure) && typeOf(cause) !== "" && !fatal.test(typeOf(cause)))
    return new RelayError({ target: this.setting.target, operation: "ship", retryable: again, reason, cause })
  }

  private readonly step = Effect.fnUntraced(function* (
    this: Lane,
    streams: ReadonlyArray<Mirrored>
  ): Effect.fn.Return<Round, RelayError> {
    this.producer ??= yield* this.start()
    yield* this.admit(this.producer, streams)
    const work = this.prepared ?? (yield* this.prepare(new Map()))
    this.prepared = undefined
    yield* this.mark(work.halted)
    const due = this.due(work)
    if (due.length === 0 && work.batches.length === 0) {
      this.advance(work.after)
      return { messages: 0, more: work.more }
    }
    const { producer } = this
    const ahead = work.more ? yield* Effect.forkChild(this.prepare(work.after)) : undefined
    const sent = yield* Effect.exit(this.attempt(() => this.send(producer, work, due)))
    if (Exit.isFailure(sent) || sent.value) {
      // it uses what is given up now
      if (ahead !== undefined) yield* Fiber.await(ahead)
      this.close()
      yield* sent
      return { messages: 0, more: true }
    }
    this.advance(work.after)
    const keptAt = performance.now()
    for (const place of due) Object.assign(this.states.get(nameOf(place))!, { kept: place.seq, keptAt })
    const { outbox, target } = this.setting
    const [next] = yield* Effect.all(
      [ahead === undefined ? Effect.undefined : Fiber.join(ahead), outbox.move(target, due)],
      { concurrency: 2 }
    )
    for (const place of due) this.marked.delete(nameOf(place))
    this.prepared = next
    return { messages: work.messages, more: work.more }
  })

  /** A new producer, which ends what its predecessor had under way. Only then are positions read. */
  private readonly start = Effect.fnUntraced(function* (
    this: Lane
  ): Effect.fn.Return<TransactionalProducer, RelayError> {
    this.close()
    const producer = yield* this.attempt(() => TransactionalProducer.take(this.setting.kafka, this.id))
    this.fenced = false
    // read after the id was taken: whoever changes the grouping later takes the id over later
    yield* this.current.pipe(Effect.tapError(() => Effect.sync(() => producer.close())))
    return producer
  })

  /** Reads the positions of streams that are new here, and of those whose position is wrong. */
  private readonly admit = Effect.fnUntraced(function* (
    this: Lane,
    producer: TransactionalProducer,
    streams: ReadonlyArray<Mirrored>
  ): Effect.fn.Return<void, RelayError> {
    const { prefix } = this.setting
    const now = performance.now()
    const unknown = streams.filter((stream) => {
      const state = this.states.get(nameOf(stream))
      return state === undefined || (state.wrong !== undefined && state.wrongUntil < now)
    })
    if (unknown.length === 0) return
    const offsets = new Map<string, Offset>()
    for (const [projection, of] of Map.groupBy(unknown, (stream) => stream.projection)) {
      const asked = of.map(({ partition, source }) => ({ topic: source, partition }))
      const found = yield* this.attempt(() => producer.offsets(groupOf(prefix, projection), asked))
      for (const offset of found)
        offsets.set(nameOf({ projection, source: offset.topic, partition: offset.partition }), offset)
    }
    for (const mirrored of unknown) {
      const name = nameOf(mirrored)
      const offset = offsets.get(name)
      const group = groupOf(prefix, mirrored.projection)
      const place = placeOf(mirrored, group, offset)
      const wrong = "reason" in place ? place : undefined
      if (mirrored.halted !== undefined) this.marked.set(name, mirrored.halted)
      this.states.set(name, {
        stream: name,
        header: this.states.get(name)?.header ?? streamHeader(name),
        group,
        place: "reason" in place ? mirrored : place,
        kept: "reason" in place ? 0 : place.seq,
        // not known: written with the first transaction
        keptAt: -Infinity,
        wrong,
        wrongUntil: now + wrongMs
      })
    }
  })

  /** How many partitions a topic has; undefined: there is none. */
  private async partitions(topic: string): Promise<number | undefined> {
    const name = `topic ${topic}`
    if ((this.blocked.get(name)?.until ?? 0) > performance.now()) return undefined
    try {
      return (await this.producer!.client.topic(topic)).leaders.length
    } catch (cause) {
      if (!(cause instanceof UnknownTopic)) throw cause
      this.blocked.set(name, { reason: "", until: performance.now() + missingMs })
      return undefined
    }
  }

  /** Reads what follows and encodes it. `ahead`: where streams will stand that are under way. */
  private readonly prepare = Effect.fnUntraced(function* (
    this: Lane,
    ahead: ReadonlyMap<string, Place>
  ): Effect.fn.Return<Work, RelayError> {
    const { bounds, outbox, target } = this.setting
    const halted = new Map<string, string>()
    const places: Array<Place> = []
    for (const [name, { place, wrong }] of this.states) {
      if (wrong === undefined) places.push(ahead.get(name) ?? place)
      else halted.set(name, wrong.reason)
    }
    const following = yield* outbox.read(target, places, bounds, [...this.passed])
    return yield* this.attempt(async () => {
      while (true) {
        const work = await this.encode(following, new Map(halted))
        if (work !== undefined) return work
      }
    })
  })

  /** Undefined: a segment is broken, which blocks its stream; the others can be encoded. */
  private async encode(following: ReadonlyArray<Following>, halted: Map<string, string>): Promise<Work | undefined> {
    const partitions = new Map<string, number | undefined>()
    for (const { place, segments } of following) {
      partitions.set(place.source, undefined)
      for (const { topic } of segments) {
        if (this.setting.accepts(topic)) partitions.set(topic, undefined)
        else this.passed.add(topic)
      }
    }
    for (const topic of partitions.keys()) partitions.set(topic, await this.partitions(topic))
    const batches = new Batches(this.setting.kafka.compression ?? "none", Date.now())
    const after = new Map<string, Place>()
    let messages = 0
    let more = false
    let turnAt = turnBytes
    for (const one of following) {
      const name = nameOf(one.place)
      const state = this.states.get(name)!
      let stop = misfit(one)
      if (stop !== undefined) Object.assign(state, { wrong: stop, wrongUntil: performance.now() + wrongMs })
      else if (one.segments.length > 0) stop = this.sourceless(one.place, partitions)
      let { seq } = one.place
      for (const segment of stop === undefined ? one.segments : []) {
        stop =
          gap(seq + 1, segment) ??
          (this.passed.has(segment.topic) ? undefined : this.obstacle(name, segment, partitions))
        if (stop !== undefined) break
        if (!this.passed.has(segment.topic)) {
          if (!this.add(batches, segment, state, partitions.get(segment.topic)!)) return undefined
          messages += segment.messages
          if (batches.bytes > turnAt) {
            turnAt = batches.bytes + turnBytes
            await setImmediate()
          }
        }
        seq += segment.messages
        after.set(name, { ...one.place, seq, incarnation: segment.incarnation })
      }
      if (stop !== undefined) halted.set(name, stop.reason)
      more ||= one.more && stop === undefined
    }
    return { batches: batches.seal(), messages, after, halted, more }
  }
  private add(batches: Batches, segment: Segment, state: State, partitions: number): boolean {
    try {
      batches.add(segment, state, partitions, this.limits.get(segment.topic) ?? batchBytes)
      return true
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause
      const seq = segment.firstSeq
      const reason = `the segment of message ${seq} is broken: ${cause.message}`
      this.blocked.set(state.stream, { seq, reason, until: performance.now() + blockedMs })
      return false
    }
  }
  private sourceless({ partition, source }: Place, partitions: ReadonlyMap<string, number | undefined>) {
    const count = partitions.get(source)
    if (count !== undefined && partition < count) return undefined
    const reason = `Kafka keeps the position under ${source}/${partition}, and has no such partition: run 'millrace topics apply'`
    return { reason }
  }
  private obstacle(
    name: string,
    segment: Segment,
    partitions: ReadonlyMap<string, number | undefined>
  ): Halted | undefined {
    const now = performance.now()
    const stream = this.blocked.get(name)
    if (stream !== undefined && stream.until > now) {
      const { seq = 0 } = stream
      if (seq >= segment.firstSeq && seq < segment.firstSeq + segment.messages) return stream
    }
    const topic = this.blocked.get(segment.topic)
    if (topic !== undefined && topic.until > now) return topic
    return unfit(segment, partitions.get(segment.topic))
  }

  /** Streams whose position goes into the transaction: where records do, where it waited long enough, or was not written for long. */
  private due(work: Work): ReadonlyArray<Place> {
    const now = performance.now()
    const due: Array<Place> = []
    for (const [name, state] of this.states) {
      if (state.wrong !== undefined || (work.halted.has(name) && !work.after.has(name))) continue
      const place = work.after.get(name) ?? state.place
      if (place.incarnation === undefined) continue
      const waited = now - state.keptAt
      const moved = place.seq > state.kept
      if (moved ? work.batches.length > 0 || waited > passMs : waited > this.setting.refreshMs) due.push(place)
    }
    return due
  }
  private advance(after: ReadonlyMap<string, Place>) {
    for (const [name, place] of after) this.states.get(name)!.place = place
  }

  /** Commits. Whether a broker refused a batch for what it is: then the next round goes around it. */
  private async send(producer: TransactionalProducer, work: Work, due: ReadonlyArray<Place>): Promise<boolean> {
    const offsets = new Map<string, Array<Offset>>()
    for (const { incarnation, partition, projection, seq, source } of due) {
      const group = groupOf(this.setting.prefix, projection)
      const offset = { topic: source, partition, offset: seq, metadata: incarnation! }
      const list = offsets.get(group)
      if (list === undefined) offsets.set(group, [offset])
      else list.push(offset)
    }
    try {
      await producer.commit(work.batches, offsets)
      return false
    } catch (cause) {
      if (!(cause instanceof PartitionRefused) || isMoved(cause) || isFenced(cause)) throw cause
      return this.block(work, cause)
    }
  }
  private block(work: Work, cause: PartitionRefused): boolean {
    const until = performance.now() + blockedMs
    const [retryable, reason] = reasonOf(cause)
    if (retryable) throw cause
    const { partition, topic } = cause
    const batch = work.batches
      .filter((one) => one.topic === topic && one.partition === partition)
      .toSorted((a, b) => b.bytes.length - a.bytes.length)[0]
    if (batch === undefined || !tooLarge.test(typeOf(cause)))
      this.blocked.set(topic, { reason: `${topic}: ${reason}`, until })
    else if (batch.records > 1) this.limits.set(topic, Math.ceil((this.limits.get(topic) ?? batchBytes) / 2))
    else {
      const what = `message ${batch.seq}, of ${batch.bytes.length} bytes, for ${topic}`
      this.blocked.set(batch.stream, { seq: batch.seq, until, reason: `${what}: ${reason}` })
    }
    return true
  }

  /** Writes down what has halted, or goes on, since it was last written. */
  private readonly mark = Effect.fnUntraced(function* (
    this: Lane,
    halted: ReadonlyMap<string, string>
  ): Effect.fn.Return<void, RelayError> {
    this.reasons = halted
    const { outbox, target } = this.setting
    const news: Array<Stream & { reason: string | undefined }> = this.halted.filter(
      (halt) => this.marked.get(nameOf(halt)) !== halt.reason
    )
    for (const name of this.marked.keys()) {
      const state = this.states.get(name)
      if (state !== undefined && !halted.has(name)) news.push({ ...state.place, reason: undefined })
    }
    if (news.length === 0) return
    yield* outbox.halt(target, news)
    for (const { reason, ...stream } of news) {
      if (reason === undefined) this.marked.delete(nameOf(stream))
      else this.marked.set(nameOf(stream), reason)
    }
  })
}
