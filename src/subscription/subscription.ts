// Durable subscriptions as users write them: a value, and two ways to consume its messages (`stream`, `run`).
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import {
  checkSubscription,
  type Consumer,
  type ConsumerBusy,
  defaults,
  FanOut,
  type FanOutError,
  type Message,
  type SubscribeOptions
} from "./fanout.ts"
import { InFlight, positionText, processChain, returnLost } from "./in-flight.ts"
import { describeError } from "../dead-letter/event-failure.ts"
import { envelopeHeaders } from "../log/envelope.ts"
import { parseJson } from "../log/json.ts"
import type { UnknownTopic } from "../log/log.ts"
import { messageIdentity, type Once, OnceError } from "./once.ts"
import { isRetryForAnother } from "./dead-letter.ts"
import { checkedCount } from "../model/options.ts"
import { assertOptions } from "../model/declaration.ts"
import type { Topic } from "../model/topic.ts"
import { assertHandler, handlerResult } from "../model/user-code.ts"
import { counted } from "../text/counted.ts"

/** A durable subscription of a topic. A message that was acknowledged under its name is not delivered again, to any process. */
export interface Subscription<in out V> extends Omit<SubscribeOptions, "topic"> {
  /** The topic whose messages are delivered. */
  readonly topic: Topic<string, V>
}
/** A received value, and its message with key, event time, properties, stream and sequence number. */
export interface Received<out V> {
  /** The decoded value. */
  readonly value: V
  /** The message that has it. */
  readonly message: Message
  /** Marks the message as handled: it is not delivered again. */
  readonly acknowledge: Effect.Effect<void, FanOutError>
  /** Returns the message: it is redelivered after the delay, or goes to the dead-letter topic after `maxRedeliveries`. */
  readonly negativeAcknowledge: Effect.Effect<void, FanOutError>
}
/** Every error of consuming. */
export type SubscriptionError = FanOutError | ConsumerBusy | UnknownTopic | OnceError

/** How `Subscription.run` handles messages. */
export interface RunOptions {
  /**
   * The most messages that are handled at once; with `keyShared` those of one key one after another. Default 16 for `shared` and `keyShared`,
   * 1 for `exclusive` and `failover`.
   */
  readonly concurrency?: number
}
/** How `Subscription.run` handles messages effectively once. */
export interface OnceOptions<in out Tx> extends RunOptions {
  /** Records what was handled. The handler receives a transaction as its third argument, and makes its changes in it. */
  readonly once: Once<Tx>
}

const receiveAtOnce = 256
/** Each is a fiber. */
const mostConcurrency = 100_000

const pauses = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(Schedule.jittered)
const backoff = pauses.pipe(
  Schedule.setInputType<FanOutError>(),
  Schedule.while(({ input }) => input.retryable)
)
/** A consumer that retries every retryable failure. */
const retrying = (consumer: Consumer): Consumer => ({
  receive: (max) => Effect.retry(consumer.receive(max), backoff),
  acknowledge: (messages) => Effect.retry(consumer.acknowledge(messages), backoff),
  negativeAcknowledge: (messages) => Effect.retry(consumer.negativeAcknowledge(messages), backoff),
  deadLetter: (messages, reason) => Effect.retry(consumer.deadLetter(messages, reason), backoff)
})
const isRetryable = (error: SubscriptionError) => error._tag === "FanOutError" && error.retryable
/** Opens the consumer, and tries again while the fan-out is unavailable. */
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
    Effect.map(retrying)
  )

/** The value of a message. Undefined if it has none for the handler; the message is then acknowledged or in the dead-letter topic. */
const decode = Effect.fnUntraced(function* <V>(
  { name, topic }: Pick<Subscription<V>, "name" | "topic">,
  consumer: Consumer,
  message: Message
) {
  // a deletion in a compacted topic, or a retry of another subscription's dead letter
  if (message.value === "null" || isRetryForAnother(name, message))
    return yield* Effect.as(consumer.acknowledge([message]), undefined)
  const version = message.properties[envelopeHeaders.schemaVersion]
  try {
    return { value: topic.decode(parseJson(message.value), version === undefined ? undefined : Number(version)) }
  } catch (error) {
    const reason = `the value cannot be decoded: ${describeError(error).message}`
    const { partition, position } = message
    yield* Effect.logWarning(
      `subscription ${name}: message ${partition}:${position} of ${topic.name} goes to the dead-letter topic: ${reason}`
    )
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

/** Acknowledges messages in the background: one call for all that were added during the last call. */
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
  // acknowledges what was handled before the end; what this misses is redelivered
  yield* Effect.addFinalizer(() => Effect.ignore(flush))
  const add = (message: Message) => {
    waiting.push(message)
    some.openUnsafe()
  }
  return { add, run: Effect.forever(Effect.andThen(some.await, Effect.uninterruptible(flush))) }
})

/** Why a handler failed, for a dead letter. */
const textOf = (cause: Cause.Cause<unknown>): string => {
  const failure = Cause.squash(cause)
  const { error, message } = describeError(failure)
  return (typeof failure === "object" ? `${error}: ${message}` : message).slice(0, 1_000)
}

/** A function that handles one message, and returns whether it is finished. */
const messageHandler = <V, E, R>(
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
    // the consumer's database failed, not the handler: every other message would fail too
    const failure = Cause.findErrorOption(exit.cause)
    if (failure._tag === "Some" && failure.value instanceof OnceError) return yield* failure.value
    const { redeliveries } = message
    const text = `subscription ${name}: message ${positionText(message)} of ${topic.name} failed after ${redeliveries} redeliveries`
    yield* Effect.logWarning(text, exit.cause)
    if (redeliveries >= maxRedeliveries) {
      yield* consumer.deadLetter(
        [message],
        `redelivered ${counted(redeliveries, "time")}, and failed: ${textOf(exit.cause)}`
      )
      return true
    }
    yield* consumer.negativeAcknowledge([message])
    return type !== "keyShared"
  })
}

/** The handler in a transaction that marks the message. While the consumer's database is unavailable it is retried, and no failure is counted. */
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
  // with `shared`, a message that waits here could be handled by another consumer
  const most = type === "shared" ? concurrency : Math.max(concurrency, receiveAtOnce)
  const inFlight = new InFlight(keyed)
  const handleMessage = messageHandler(subscription, consumer, handle, acknowledged.add)
  const runChain = processChain(inFlight, handleMessage, redeliveryDelayMs + ackTimeoutMs)

  const worker = Effect.gen(function* () {
    while (true) {
      const chain = inFlight.waiting.shift()
      if (chain !== undefined) yield* runChain(chain)
      else {
        inFlight.work.closeUnsafe()
        yield* inFlight.work.await
      }
    }
  })
  const receiver = Effect.gen(function* () {
    while (true) {
      inFlight.freed.closeUnsafe()
      // with `keyShared`, messages in flight may wait for a redelivery, so receiving must go on; `receiveQueue` limits it
      if (inFlight.count >= most && !keyed) yield* inFlight.freed.await
      else inFlight.add(yield* consumer.receive(Math.max(most - inFlight.count, 1)))
    }
  })
  const cleaner = Effect.gen(function* () {
    while (true) {
      yield* Effect.sleep(ackTimeoutMs)
      yield* returnLost(inFlight, consumer.negativeAcknowledge)
    }
  })
  const workers = Array.from({ length: concurrency }, () => worker)
  return yield* Effect.raceAllFirst([receiver, cleaner, acknowledged.run, ...workers])
}, Effect.scoped)

const subscriptionOptions = [
  "topic",
  "name",
  "type",
  "from",
  "receiveQueue",
  "maxRedeliveries",
  "deadLetterTopic",
  "redeliveryDelayMs",
  "maxRedeliveryDelayMs",
  "ackTimeoutMs"
]
/** Defines subscriptions (`make`) and consumes their messages (`run`, or `stream`). */
export const Subscription = {
  /**
   * Defines a subscription of a topic. `type` decides how consumers share its messages: `exclusive`, `failover`, `shared`, or `keyShared`,
   * which keeps the order of each key. Throws `InvalidOption` if a setting makes no sense.
   *
   * ```ts
   * const mails = Subscription.make({ topic: Alerts, name: "mails", type: "keyShared", from: "earliest" })
   * ```
   */
  make: <V>(options: Subscription<V>): Subscription<V> => {
    assertOptions(`subscription ${String(options?.name)}`, options, subscriptionOptions, ["topic", "name", "type"])
    checkSubscription({ ...options, topic: options.topic.name })
    return options
  },
  /**
   * The decoded messages, for as long as the stream runs. Delivery is at least once: each message is redelivered until it is acknowledged.
   * A message that cannot be decoded goes to the dead-letter topic; deletions in a compacted topic are left out. Retryable failures are
   * retried; the stream fails with any other.
   */
  stream: streamOf,
  /**
   * Runs a handler for each message until it is interrupted. A message whose handler succeeds is acknowledged; one whose handler fails is
   * redelivered, and goes to the dead-letter topic after `maxRedeliveries`. With `keyShared` the messages of a key are handled one after
   * another, also when one of them failed. Fails with the first failure of the fan-out that is not retryable.
   *
   * A message may be delivered more than once. With `once` it takes effect once: the handler receives a transaction, and its changes there
   * are committed together with a mark of the message, by which a second delivery is recognised. Effects outside of the transaction may
   * happen more than once.
   *
   * ```ts
   * yield* Subscription.run(mails, (alert) => sendMail(alert))
   * ```
   */
  run: ((
    subscription: Subscription<unknown>,
    handle: (value: unknown, message: Message, tx: unknown) => Effect.Effect<unknown, unknown, unknown>,
    options: RunOptions & { readonly once?: Once<unknown> } = {}
  ) => {
    const { concurrency, once } = options
    if (concurrency !== undefined)
      checkedCount(`subscription ${subscription.name}: concurrency`, concurrency, { least: 1, most: mostConcurrency })
    assertHandler(`subscription ${subscription.name}: the handler`, handle)
    const checked = (value: unknown, message: Message, tx: unknown) =>
      handlerResult(handle(value, message, tx)) ?? Effect.void
    const handler =
      once === undefined
        ? (value: unknown, message: Message) => checked(value, message, undefined)
        : inTransaction(subscription, checked, once)
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
