// Publishing with a name and numbers of one's own, so that the broker drops what it has already; and reading what a topic ends with.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { streamHeaders } from "../../log/envelope.ts"
import { failureOf } from "./errors.ts"
import type { Cluster } from "./cluster.ts"
import type { MessageId } from "./message-id.ts"
import { topicName } from "./options.ts"
import { scan } from "./read-to-end.ts"
import type { Outgoing, Received, Receipt, TransportProducer } from "./transport.ts"

/** Publishing to Pulsar failed, or reading from it. `busy`: another producer has the name, or its connection is not given up yet. */
export class PulsarError extends Schema.TaggedError<PulsarError>()("PulsarError", {
  operation: Schema.Literals(["open", "send", "read"]),
  topic: Schema.String,
  kind: Schema.String,
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `pulsar: ${this.operation} ${this.topic} failed: ${this.reason}`
  }
}
const failed = (operation: PulsarError["operation"], topic: string) => (cause: unknown) => {
  const { kind, message, retryable } = failureOf(cause, topic)
  return new PulsarError({ operation, topic, kind, retryable, reason: message, cause })
}

/** A producer to open. */
export interface ProducerOptions {
  /** As `topicName` reads it. */
  readonly topic: string
  /** Of a partitioned topic, whose producers are each one partition's. */
  readonly partition?: number
  /** One connection may have it at a time; the broker keeps the last sequence id under it. */
  readonly name: string
  /** The last sequence id that was sent under this name, as far as known; -1 for none. */
  readonly initialSequenceId: number
  /** Sent and not received by the broker, at most. Default 1,000. */
  readonly maxInFlight?: number
  /** How long a name that is taken is asked for again: a connection that died has it until the broker notices. Default 10,000 ms. */
  readonly patienceMs?: number
}
/** A message with its number. Numbers ascend, each by 1 or more. */
export interface Numbered extends Outgoing {
  readonly sequenceId: number
}
/**
 * A producer with a name. It begins without batching: the broker drops a batch whole whose first message it has, and loses new ones with
 * it, so nothing may be batched before the first receipt that is no duplicate.
 */
export interface Producer {
  /**
   * Sends in this order, and answers with the receipts when the broker has all. After a failure it sends nothing more: what was in flight
   * is there or not, and a new producer may send it again.
   */
  readonly send: (messages: ReadonlyArray<Numbered>) => Effect.Effect<ReadonlyArray<Receipt>, PulsarError>
  /**
   * Batching, or none, from now on. A batch goes where its first key belongs: the messages of a topic that has `keyShared` consumers must
   * not be batched.
   */
  readonly setBatching: (batching: boolean) => Effect.Effect<void, PulsarError>
}

const partitionName = (cluster: Cluster, topic: string, partition: number | undefined) =>
  `${topicName(cluster.options, topic)}${partition === undefined ? "" : `-partition-${partition}`}`

const pauseMs = 50

class NamedProducer implements Producer {
  private readonly cluster: Cluster
  private readonly options: ProducerOptions
  private readonly topic: string
  private readonly maxInFlight: number
  private readonly one = Semaphore.makeUnsafe(1)
  private producer: TransportProducer | undefined
  private batching = false
  private last: number
  private failure: unknown

  constructor(cluster: Cluster, options: ProducerOptions) {
    this.cluster = cluster
    this.options = options
    this.topic = partitionName(cluster, options.topic, options.partition)
    this.maxInFlight = options.maxInFlight ?? 1_000
    this.last = options.initialSequenceId
  }
  async open(): Promise<void> {
    const { name, patienceMs = 10_000 } = this.options
    const { batching, last, maxInFlight, topic } = this
    for (const until = Date.now() + patienceMs; ; await new Promise((resolve) => setTimeout(resolve, pauseMs))) {
      try {
        this.producer = await this.cluster.transport.produce({
          topic,
          name,
          initialSequenceId: last,
          batching,
          maxPending: maxInFlight
        })
        return
      } catch (cause) {
        if (failureOf(cause, topic).kind !== "busy" || Date.now() > until) throw cause
      }
    }
  }
  async close(): Promise<void> {
    await this.producer?.close()
    this.producer = undefined
  }
  private async sendAll(messages: ReadonlyArray<Numbered>): Promise<ReadonlyArray<Receipt>> {
    const producer = this.producer
    if (producer === undefined || this.failure !== undefined) throw this.failure ?? new Error("AlreadyClosed")
    const receipts: Array<Receipt> = []
    const inFlight = new Set<Promise<unknown>>()
    const sendOne = async (message: Numbered, i: number) => {
      try {
        receipts[i] = await producer.send(message)
      } catch (cause) {
        this.failure ??= cause
      }
    }
    for (const [i, message] of messages.entries()) {
      if (message.sequenceId <= this.last) throw new Error(`sequence id ${message.sequenceId} follows ${this.last}`)
      this.last = message.sequenceId
      const sent = sendOne(message, i).finally(() => inFlight.delete(sent))
      inFlight.add(sent)
      while (inFlight.size >= this.maxInFlight) await Promise.race(inFlight)
      if (this.failure !== undefined) break
    }
    await Promise.all(inFlight)
    if (this.failure !== undefined) throw this.failure
    return receipts
  }
  readonly send = (messages: ReadonlyArray<Numbered>) =>
    this.one.withPermit(
      Effect.uninterruptible(
        Effect.tryPromise({ try: () => this.sendAll(messages), catch: failed("send", this.options.topic) })
      )
    )
  readonly setBatching = (batching: boolean) =>
    this.one.withPermit(
      Effect.uninterruptible(
        Effect.tryPromise({
          try: async () => {
            if (this.batching === batching) return
            this.batching = batching
            await this.close()
            await this.open()
          },
          catch: failed("open", this.options.topic)
        })
      )
    )
}

/** Opens a producer until the scope closes. Fails with `busy` where another one keeps the name. */
export const open = (cluster: Cluster, options: ProducerOptions): Effect.Effect<Producer, PulsarError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const producer = new NamedProducer(cluster, options)
        await producer.open()
        return producer
      },
      catch: failed("open", options.topic)
    }),
    (producer) => Effect.promise(() => producer.close())
  )

/** Where to look for the last message of a stream. */
export interface LastOptions {
  readonly topic: string
  readonly partition?: number
  /** As `millrace-stream` says; undefined: of any. */
  readonly stream?: string
  /** A message known to be there, to begin after; default: the topic's first. */
  readonly after?: MessageId
}

/**
 * The last message of a stream in a topic, as the topic is now; undefined where there is none. It reads what lies after `after`: where to
 * look is to be kept with the position.
 */
export const last = Effect.fnUntraced(function* (cluster: Cluster, options: LastOptions) {
  const name = partitionName(cluster, options.topic, options.partition)
  let found: Received | undefined
  const take = (message: Received) => {
    if (options.stream === undefined || message.properties[streamHeaders.stream] === options.stream) found = message
  }
  yield* Effect.tryPromise({
    try: () => scan(cluster, name, options.after, take),
    catch: failed("read", options.topic)
  })
  return found
})
