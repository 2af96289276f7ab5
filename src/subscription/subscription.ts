// A durable subscription as users write it: a value, and two ways to consume it. Which system keeps it, the fan-out says.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  type Consumer,
  type ConsumerBusy,
  defaults,
  FanOut,
  type FanOutError,
  type Message,
  type SubscribeOptions
} from "./fanout.ts"
import { envelopeHeaders } from "../log/envelope.ts"
import type { UnknownTopic } from "../log/log.ts"
import { messageIdentity, type Once, OnceError } from "./once.ts"
import { isRetryForAnother } from "./dead-letter.ts"
import type { Topic } from "../model/topic.ts"

/** A durable subscription of a topic's values. What was acknowledged under its name does not come again, to whichever process. */
export interface Subscription<in out V> extends Omit<SubscribeOptions, "topic"> {
  readonly topic: Topic<string, V>
}
/** A value that came, and its message, which says key, event time, properties, stream and sequence. */
export interface Received<out V> {
  readonly value: V
  readonly message: Message
  /** It was handled and does not come again. */
  readonly acknowledge: Effect.Effect<void, FanOutError>
  /** It comes again after the redelivery delay, or goes to the dead-letter topic once the cap is reached. */
  readonly negativeAcknowledge: Effect.Effect<void, FanOutError>
}
/** Everything that consuming can fail with. */
export type SubscriptionError = FanOutError | ConsumerBusy | UnknownTopic | OnceError

/** How messages are handled. */
export interface RunOptions {
  /** Messages handled at once, at most; those of one key in turn where the type is `keyShared`. Default 16; 1 where one consumer has all. */
  readonly concurrency?: number
}
/** How messages are handled effectively once. */
export interface OnceOptions<in out Tx> extends RunOptions {
  /** Where it is kept what was handled. The handler is given a transaction, and makes its changes in that. */
  readonly once: Once<Tx>
}

const receiveAtOnce = 256

const pauses = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered)
const backoff = pauses.pipe(
  Schedule.setInputType<FanOutError>(),
  Schedule.while(({ input }) => input.retryable)
)
/** A consumer that waits and tries again where that may help. */
const patient = (consumer: Consumer): Consumer => ({
  receive: (max) => Effect.retry(consumer.receive(max), backoff),
  acknowledge: (messages) => Effect.retry(consumer.acknowledge(messages), backoff),
  negativeAcknowledge: (messages) => Effect.retry(consumer.negativeAcknowledge(messages), backoff),
  deadLetter: (messages, reason) => Effect.retry(consumer.deadLetter(messages, reason), backoff)
})
const isRetryable = (error: SubscriptionError) => error._tag === "FanOutError" && error.retryable
/** While what keeps the subscription is away it is asked again. */
const subscribe = <V>({ topic, ...options }: Subscription<V>) =>
  Effect.service(FanOut).pipe(
    Effect.flatMap((fanOut) =>
      fanOut.subscribe({ ...options, topic: topic.name }).pipe(
        Effect.tapError((error) =>
          isRetryable(error) ? Effect.logWarning(`${error.message}; trying again`) : Effect.void
        ),
        Effect.retry({ schedule: pauses, while: isRetryable })
      )
    ),
    Effect.map(patient)
  )

/** A message's value. Undefined: it is none, which is taken care of. */
const decode = Effect.fnUntraced(function* <V>(
  { name, topic }: Pick<Subscription<V>, "name" | "topic">,
  consumer: Consumer,
  message: Message
) {
  // a compacted topic's deletion, or another subscription's dead letter that comes again
  if (message.value === "null" || isRetryForAnother(name, message))
    return yield* Effect.as(consumer.acknowledge([message]), undefined)
  const version = message.properties[envelopeHeaders.schemaVersion]
  try {
    return { value: topic.decode(JSON.parse(message.value), version === undefined ? undefined : Number(version)) }
  } catch (error) {
    const reason = `it cannot be decoded: ${error instanceof Error ? error.message : String(error)}`
    const { partition, position } = message
    yield* Effect.logWarning(`${topic.name} ${partition}/${position} goes to the dead-letter topic: ${reason}`)
    return yield* Effect.as(consumer.deadLetter([message], reason), undefined)
  }
})

const streamOf = <V>(subscription: Subscription<V>): Stream.Stream<Received<V>, SubscriptionError, FanOut> =>
  Stream.unwrap(
    Effect.map(subscribe(subscription), (consumer) =>
      Stream.fromEffectRepeat(
        consumer.receive(Math.min(receiveAtOnce, subscription.receiveQueue ?? receiveAtOnce))
      ).pipe(
        Stream.flattenIterable,
        Stream.mapEffect((message) =>
          Effect.map(decode(subscription, consumer, message), (decoded) =>
            decoded === undefined
              ? []
              : [
                  {
                    value: decoded.value,
                    message,
                    acknowledge: consumer.acknowledge([message]),
                    negativeAcknowledge: consumer.negativeAcknowledge([message])
                  }
                ]
          )
        ),
        Stream.flattenIterable
      )
    )
  )

/** Acknowledges what is handed to it, all that came while the last statement was under way with the next one. */
const acknowledger = Effect.fnUntraced(function* (
  consumer: Consumer
): Effect.fn.Return<
  { readonly add: (message: Message) => void; readonly run: Effect.Effect<never, FanOutError> },
  never,
  Scope.Scope
> {
  const some = Latch.makeUnsafe(false)
  let waiting: Array<Message> = []
  const flush = Effect.suspend(() => {
    some.closeUnsafe()
    const messages = waiting
    waiting = []
    return messages.length === 0 ? Effect.void : consumer.acknowledge(messages)
  })
  // what was handled when it ended; what this misses comes again
  yield* Effect.addFinalizer(() => Effect.ignore(flush))
  const add = (message: Message) => {
    waiting.push(message)
    some.openUnsafe()
  }
  return { add, run: Effect.forever(Effect.andThen(some.await, Effect.uninterruptible(flush))) }
})

/** Messages of one key in their order, or one message where keys do not matter. */
interface Chain {
  readonly messages: Array<Message>
  /** The first one failed and comes again, at the latest then. The others wait for it. */
  blockedUntil: number | undefined
  /** The first one came again before its failure was dealt with. */
  again: Message | undefined
}
const placeOf = ({ partition, position }: Message) => `${partition}:${position}`

/** What one `run` has in hand: chains that wait for a worker, or for a message that failed to come again. */
class Hand {
  readonly work = Latch.makeUnsafe(false)
  readonly freed = Latch.makeUnsafe(false)
  readonly waiting: Array<Chain> = []
  count = 0
  private readonly chains = new Map<string, Chain>()
  private readonly keyed: boolean

  constructor(keyed: boolean) {
    this.keyed = keyed
  }
  private keyOf(message: Message): string {
    return this.keyed ? message.key : placeOf(message)
  }
  add(message: Message): void {
    const chain = this.chains.get(this.keyOf(message))
    const first = chain?.messages[0]
    if (chain === undefined || first === undefined) {
      this.count += 1
      const made: Chain = { messages: [message], blockedUntil: undefined, again: undefined }
      this.chains.set(this.keyOf(message), made)
      this.start(made)
      return
    }
    const at = chain.messages.findIndex((other) => placeOf(other) === placeOf(message))
    if (at > 0) chain.messages[at] = message
    else if (at === 0 && chain.blockedUntil === undefined) chain.again = message
    else if (at === 0) {
      chain.messages[0] = message
      this.start(chain)
    } else {
      this.count += 1
      chain.messages.push(message)
    }
  }
  private start(chain: Chain): void {
    chain.blockedUntil = undefined
    this.waiting.push(chain)
    this.work.openUnsafe()
  }
  /** The first message of a chain is done with. */
  settle(chain: Chain): void {
    const message = chain.messages.shift()!
    this.count -= 1
    if (chain.messages.length === 0) this.chains.delete(this.keyOf(message))
    this.freed.openUnsafe()
  }
  /** Chains whose first message did not come again: this consumer lost it. */
  lost(now: number): ReadonlyArray<Chain> {
    const lost = [...this.chains.values()].filter(
      ({ blockedUntil }) => blockedUntil !== undefined && blockedUntil < now
    )
    for (const chain of lost) {
      this.chains.delete(this.keyOf(chain.messages[0]!))
      this.count -= chain.messages.length
    }
    return lost
  }
}

/** Why a handler failed, for a dead letter. */
const textOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  const { _tag: tag, message, name } = (error ?? {}) as Readonly<Record<"_tag" | "message" | "name", unknown>>
  const text = typeof message === "string" ? `${String(tag ?? name ?? "Error")}: ${message}` : String(error)
  return text.slice(0, 1_000)
}

/** Handles one message; whether it is done with. */
const handling = <V, E, R>(
  subscription: Subscription<V>,
  consumer: Consumer,
  handle: (value: V, message: Message) => Effect.Effect<unknown, E | OnceError, R>,
  acknowledge: (message: Message) => void
) => {
  const { maxRedeliveries, name, topic, type } = { ...defaults, ...subscription }
  return Effect.fnUntraced(function* (message: Message) {
    const decoded = yield* decode(subscription, consumer, message)
    if (decoded === undefined) return true
    const exit = yield* Effect.exit(Effect.suspend(() => handle(decoded.value, message)))
    if (exit._tag === "Success") {
      acknowledge(message)
      return true
    }
    // the consumer's database, not the handler: nothing would become of any message
    const failure = Cause.findErrorOption(exit.cause)
    if (failure._tag === "Some" && failure.value instanceof OnceError) return yield* failure.value
    const { redeliveries } = message
    const what = `subscription ${name}: ${topic.name} ${placeOf(message)} failed, redelivered ${redeliveries} times`
    yield* Effect.logWarning(what, exit.cause)
    if (redeliveries >= maxRedeliveries) {
      yield* consumer.deadLetter([message], `redelivered ${redeliveries} times, and failed: ${textOf(exit.cause)}`)
      return true
    }
    yield* consumer.negativeAcknowledge([message])
    return type !== "keyShared"
  })
}

/** Handles a chain's messages in turn until there is none, or one failed that the others must wait for. */
const follow = <E, R>(hand: Hand, attempt: (message: Message) => Effect.Effect<boolean, E, R>, patienceMs: number) =>
  Effect.fnUntraced(function* (chain: Chain) {
    while (chain.messages.length > 0) {
      const done = yield* attempt(chain.messages[0]!)
      const { again } = chain
      chain.again = undefined
      if (!done && again !== undefined) {
        chain.messages[0] = again
        continue
      }
      if (!done && chain.messages.length > 1) {
        // it comes again to this consumer, which has others of its key
        chain.blockedUntil = performance.now() + patienceMs
        return
      }
      hand.settle(chain)
    }
  })

/** The handler within a transaction that marks the message. While the consumer's database is away it is tried again, and counts as no failure. */
const inTransaction =
  <V, E, R, Tx>(
    { name, topic }: Subscription<V>,
    handle: (value: V, message: Message, tx: Tx) => Effect.Effect<unknown, E, R>,
    once: Once<Tx>
  ) =>
  (value: V, message: Message): Effect.Effect<unknown, E | OnceError, R> =>
    once
      .handle(messageIdentity({ topic: topic.name, name }, message), (tx) => handle(value, message, tx))
      .pipe(Effect.retry({ schedule: pauses, while: (error) => error instanceof OnceError && error.retryable }))

const runWith = Effect.fnUntraced(function* <V, E, R>(
  subscription: Subscription<V>,
  handle: (value: V, message: Message) => Effect.Effect<unknown, E | OnceError, R>,
  options: RunOptions
) {
  const { ackTimeoutMs, redeliveryDelayMs, type } = { ...defaults, ...subscription }
  const consumer = yield* subscribe(subscription)
  const acknowledged = yield* acknowledger(consumer)
  const keyed = type === "keyShared"
  const concurrency = options.concurrency ?? (keyed || type === "shared" ? 16 : 1)
  // where any consumer may have any message, what waits here would be idle elsewhere
  const most = type === "shared" ? concurrency : Math.max(concurrency, receiveAtOnce)
  const hand = new Hand(keyed)
  const attempt = handling(subscription, consumer, handle, acknowledged.add)
  const proceed = follow(hand, attempt, redeliveryDelayMs + ackTimeoutMs)

  const worker = Effect.gen(function* () {
    while (true) {
      const chain = hand.waiting.shift()
      if (chain !== undefined) yield* proceed(chain)
      else {
        hand.work.closeUnsafe()
        yield* hand.work.await
      }
    }
  })
  const receiver = Effect.gen(function* () {
    while (true) {
      hand.freed.closeUnsafe()
      // with keys in order, what is in hand may wait for what comes again, so it must go on receiving; its queue bounds it
      if (hand.count >= most && !keyed) yield* hand.freed.await
      else for (const message of yield* consumer.receive(Math.max(most - hand.count, 1))) hand.add(message)
    }
  })
  const cleaner = Effect.gen(function* () {
    while (true) {
      yield* Effect.sleep(ackTimeoutMs)
      for (const { messages } of hand.lost(performance.now())) yield* consumer.negativeAcknowledge(messages)
    }
  })
  const workers = Array.from({ length: concurrency }, () => worker)
  return yield* Effect.raceAllFirst([receiver, cleaner, acknowledged.run, ...workers])
}, Effect.scoped)

export const Subscription = {
  /**
   * A subscription of a topic. `type` says how its messages are shared: `exclusive`, `failover`, `shared`, or `keyShared`, which
   * keeps the order of each key. A new one begins at the latest message, or at the `earliest`.
   */
  make: <V>(options: Subscription<V>): Subscription<V> => options,
  /**
   * Its messages, decoded, for as long as the stream runs. Each is delivered until it is acknowledged: at least once. What cannot be
   * decoded goes to the dead-letter topic; deletions of a compacted topic are left out. A failure that is retryable is tried again.
   */
  stream: streamOf,
  /**
   * Runs a handler for each message until it is interrupted: success acknowledges, failure brings the message again, up to the cap,
   * then to the dead-letter topic. With `keyShared` the messages of a key are handled one after another, also when one failed. Ends with
   * a failure of the fan-out that is not retryable.
   *
   * A message may come more than once. With `once` it takes effect once: the handler gets a transaction, and what it does with that is
   * committed together with a mark of the message, by which it is known if it comes again. What the handler does elsewhere may happen
   * more than once.
   */
  run: ((
    subscription: Subscription<unknown>,
    handle: (value: unknown, message: Message, tx: unknown) => Effect.Effect<unknown, unknown, unknown>,
    options: RunOptions & { readonly once?: Once<unknown> } = {}
  ) => {
    const { once } = options
    const handler =
      once === undefined
        ? (value: unknown, message: Message) => handle(value, message, undefined)
        : inTransaction(subscription, handle, once)
    return runWith(subscription, handler, options)
  }) as {
    <V, E, R, Tx>(
      subscription: Subscription<V>,
      handle: (value: V, message: Message, tx: Tx) => Effect.Effect<unknown, E, R>,
      options: OnceOptions<Tx>
    ): Effect.Effect<never, SubscriptionError, FanOut | Exclude<R, Scope.Scope>>
    <V, E, R>(
      subscription: Subscription<V>,
      handle: (value: V, message: Message) => Effect.Effect<unknown, E, R>,
      options?: RunOptions
    ): Effect.Effect<never, SubscriptionError, FanOut | Exclude<R, Scope.Scope>>
  }
}
