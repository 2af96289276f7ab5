// The fan-out port: topics of derived records with durable subscriptions. Adapters are PostgreSQL, embedded, and Pulsar.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { UnknownTopic } from "../log/log.ts"

/** How a subscription's messages are shared among its consumers. */
export type SubscriptionType =
  /** One consumer; a second is refused with `ConsumerBusy`. */
  | "exclusive"
  /** One consumer works, others stand by. */
  | "failover"
  /** Any consumer gets any message: no order. */
  | "shared"
  /**
   * A key's messages go to one consumer at a time, in their order: while one is not acknowledged the next ones go to no other
   * consumer, and while one waits to be redelivered they wait behind it.
   */
  | "keyShared"

/** A message as a consumer gets it. */
export interface Message {
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly key: string
  /** The record's JSON text. */
  readonly value: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  readonly properties: Readonly<Record<string, string>>
  /** The outbox stream that it came from and its sequence there, from 1 with no gap: what a consumer can dedupe by. Undefined for foreign messages. */
  readonly stream: string | undefined
  readonly seq: number | undefined
  /**
   * Which history of the stream its sequence counts in, 8 hex digits: after a restore from backup or a rebuild the same sequence may
   * mean another message. Undefined where whoever brought it does not say.
   */
  readonly incarnation: string | undefined
  /** How often it was delivered before. */
  readonly redeliveries: number
}
/** A place in a topic: that of a message, for one. */
export type MessagePosition = Pick<Message, "partition" | "position">
/**
 * Where a subscription begins, or is moved to: at the first message, after the last one, at the first that the topic took at a time
 * (epoch milliseconds) or after it, or at given places. Partitions that no place is given for begin at their first message.
 */
export type StartAt =
  | "earliest"
  | "latest"
  | { readonly time: number }
  | { readonly places: ReadonlyArray<MessagePosition> }
/** A durable subscription. It remembers what was acknowledged under its name, across consumers and restarts. */
export interface SubscribeOptions {
  readonly topic: string
  readonly name: string
  readonly type: SubscriptionType
  /** Where a subscription that is new begins; one that is there goes on where it was: see `seek`. Default `latest`. */
  readonly from?: StartAt
  /** Messages delivered to a consumer and not yet acknowledged, at most: `receive` waits then. Default 1,000. */
  readonly receiveQueue?: number
  /** After this many redeliveries a message goes to the dead-letter topic instead. A consumer that dies or hangs counts too. Default 16. */
  readonly maxRedeliveries?: number
  /** Made with the subscription's first dead letter where it is not there. Default `<topic>.<name>.dlq`. */
  readonly deadLetterTopic?: string
  /** How long after a negative acknowledgement a message comes again, in milliseconds. Default 1,000. */
  readonly redeliveryDelayMs?: number
  /** The delay doubles with each redelivery up to this, in milliseconds. Default: it stays the same. */
  readonly maxRedeliveryDelayMs?: number
  /** A consumer that acknowledges nothing of what it has for so long loses it: it is redelivered, to another where there is one, in milliseconds. Default 60,000. */
  readonly ackTimeoutMs?: number
}
/** What a subscription does where it says nothing else. */
export const defaults = {
  from: "latest",
  receiveQueue: 1_000,
  maxRedeliveries: 16,
  redeliveryDelayMs: 1_000,
  ackTimeoutMs: 60_000
} as const
/** How long a message that is given back waits, which was delivered so often before. Milliseconds. */
export const redeliveryDelay = (
  options: Pick<SubscribeOptions, "redeliveryDelayMs" | "maxRedeliveryDelayMs">,
  redeliveries: number
): number => {
  const { redeliveryDelayMs: first = defaults.redeliveryDelayMs } = options
  return Math.min(first * 2 ** redeliveries, Math.max(first, options.maxRedeliveryDelayMs ?? first))
}
/** One consumer of a subscription. Every message is delivered until it is acknowledged: at least once. */
export interface Consumer {
  /** Waits for the next messages; at least one, `max` at most. */
  readonly receive: (max: number) => Effect.Effect<ReadonlyArray<Message>, FanOutError>
  /** They were handled and do not come again. */
  readonly acknowledge: (messages: ReadonlyArray<Message>) => Effect.Effect<void, FanOutError>
  /** They come again after the redelivery delay, or go to the dead-letter topic once the cap is reached. */
  readonly negativeAcknowledge: (messages: ReadonlyArray<Message>) => Effect.Effect<void, FanOutError>
  /** They go to the dead-letter topic now and do not come again: no redelivery would mend them. */
  readonly deadLetter: (messages: ReadonlyArray<Message>, reason: string) => Effect.Effect<void, FanOutError>
}

/** The fan-out failed. */
export class FanOutError extends Schema.TaggedError<FanOutError>()("FanOutError", {
  operation: Schema.String,
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `fan-out: ${this.operation} failed: ${this.reason}`
  }
}
/** Fails where a place is in a partition that the topic does not have. */
export const assertPositions = (
  operation: "subscribe" | "seek",
  topic: string,
  partitions: number,
  at: StartAt
): Effect.Effect<void, FanOutError> => {
  const lost =
    typeof at === "object" && "places" in at ? at.places.find((one) => one.partition >= partitions) : undefined
  if (lost === undefined) return Effect.void
  const reason = `there is no partition ${lost.partition}: ${topic} has ${partitions === 1 ? "0 alone" : `0 to ${partitions - 1}`}`
  return Effect.fail(new FanOutError({ operation, retryable: false, reason }))
}
/** A subscription has a consumer that suffers no other one, or none of this type. `type` is the subscription's. */
export class ConsumerBusy extends Schema.TaggedError<ConsumerBusy>()("ConsumerBusy", {
  topic: Schema.String,
  subscription: Schema.String,
  type: Schema.String
}) {
  override get message() {
    const advice = this.type === "exclusive" ? "subscribe as failover or shared" : `subscribe as ${this.type}`
    return `subscription ${this.subscription} of ${this.topic} is ${this.type} and has a consumer; stop that one, or ${advice}`
  }
}

/** Topics with durable subscriptions. */
export class FanOut extends Context.Service<
  FanOut,
  {
    readonly subscribe: (
      options: SubscribeOptions
    ) => Effect.Effect<Consumer, FanOutError | ConsumerBusy | UnknownTopic, Scope.Scope>
    /**
     * Moves a subscription, forwards or back: what lies behind the new place is delivered, again where it was before, and what lies
     * before it is not. One that is not there is made. Refused with `ConsumerBusy` while it has a consumer.
     */
    readonly seek: (
      options: Pick<SubscribeOptions, "topic" | "name" | "type">,
      to: StartAt
    ) => Effect.Effect<void, FanOutError | ConsumerBusy | UnknownTopic>
    /** Forgets a subscription and what it had acknowledged. */
    readonly unsubscribe: (topic: string, name: string) => Effect.Effect<void, FanOutError>
  }
>()("millrace/FanOut") {}
