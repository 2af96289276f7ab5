// The fan-out port: durable subscriptions of derived topics. Its adapters are PostgreSQL and Pulsar.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { UnknownTopic } from "../log/log.ts"
import { parseToken } from "../log/position-token.ts"
import { checkedChoice, checkedCount, checkedDuration, InvalidOption, invalidOption } from "../model/options.ts"

/** How a subscription's messages are shared among its consumers. */
export type SubscriptionType =
  /** One consumer; a second one fails with `ConsumerBusy`. */
  | "exclusive"
  /** One consumer receives all messages; the others take over when it ends. */
  | "failover"
  /** Any consumer gets any message, in no order. */
  | "shared"
  /**
   * The messages of a key go to one consumer at a time, in order. While one of them is not acknowledged, the next ones go to no other
   * consumer; while one waits for its redelivery, they wait behind it.
   */
  | "keyShared"

/** A message as a consumer receives it. */
export interface Message {
  /** The derived topic. */
  readonly topic: string
  /** The partition that has the message. */
  readonly partition: number
  /** The message's position in the partition. */
  readonly position: number
  /** The message's key. */
  readonly key: string
  /** The record's JSON text. */
  readonly value: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  /** The headers, among them the envelope: event id, tenant, trace and schema version. */
  readonly properties: Readonly<Record<string, string>>
  /**
   * The outbox stream of the message and its sequence number there, from 1 without a gap: consumers can detect duplicates by them. Undefined
   * for a message that no relay published.
   */
  readonly stream: string | undefined
  /** The sequence number in the stream; undefined if there is no stream. */
  readonly seq: number | undefined
  /**
   * The incarnation in which the sequence number counts: after a restore from backup or a rebuild, the same number may mean another
   * message. Undefined if the publisher does not give it.
   */
  readonly incarnation: string | undefined
  /** How often the message was delivered before. */
  readonly redeliveries: number
}
/** A position in a topic. */
export type MessagePosition = Pick<Message, "partition" | "position">
/**
 * Where a new subscription starts, or where `seek` moves one: at the first message (`earliest`), after the last one (`latest`), at the first
 * message that the topic stored at or after a `time` (epoch milliseconds), at given positions (`places`; partitions that are not among them
 * start at their first message), or at a position `token`, the answer to a write: at the messages that follow it (see the guide on position
 * tokens). Pulsar has no tokens.
 */
export type StartAt =
  | "earliest"
  | "latest"
  | { readonly time: number }
  | { readonly places: ReadonlyArray<MessagePosition> }
  | { readonly token: string }
/** A start that every adapter of the port has. */
export type StartPosition = Exclude<StartAt, { readonly token: string }>
/** A durable subscription. What was acknowledged is kept under its name, across consumers and restarts. */
export interface SubscribeOptions {
  /** The name of the topic. */
  readonly topic: string
  /** The name of the subscription, under which the cluster keeps what was acknowledged. */
  readonly name: string
  /** How its messages are shared among its consumers. */
  readonly type: SubscriptionType
  /** Where a new subscription starts; an existing one continues where it was (see `seek`). Default `latest`. */
  readonly from?: StartAt
  /** The most messages that a consumer may hold without acknowledging them; `receive` waits at this limit. Default 1,000. */
  readonly receiveQueue?: number
  /**
   * A message that was redelivered this often goes to the dead-letter topic after its next failure. The death or a timeout of its consumer
   * counts as a redelivery too. Default 16.
   */
  readonly maxRedeliveries?: number
  /** The dead-letter topic; it is created with the first dead letter. Default `<topic>.<name>.dlq`. */
  readonly deadLetterTopic?: string
  /** How long after a negative acknowledgement a message is redelivered, in milliseconds. Default 1,000. */
  readonly redeliveryDelayMs?: number
  /** The delay doubles with each redelivery up to this limit, in milliseconds. Default: the delay stays the same. */
  readonly maxRedeliveryDelayMs?: number
  /**
   * If a consumer acknowledges none of its messages for so long, they are redelivered, to another consumer if there is one. Milliseconds;
   * default 60,000.
   */
  readonly ackTimeoutMs?: number
}
/** The defaults of `SubscribeOptions`. */
export const defaults = {
  from: "latest",
  receiveQueue: 1_000,
  maxRedeliveries: 16,
  redeliveryDelayMs: 1_000,
  ackTimeoutMs: 60_000
} as const
// timers of JavaScript and integers of PostgreSQL reach so far; 24 days for a delay
const most = 2 ** 31 - 1
/** Throws `InvalidOption` if a subscription's settings make no sense. `topic` is the topic's name. */
export const checkSubscription = (options: SubscribeOptions): void => {
  const what = (option: string) => `subscription ${options.name} of ${options.topic}: ${option}`
  const { from, maxRedeliveries, receiveQueue, type } = options
  checkedChoice(what("type"), type, ["exclusive", "failover", "shared", "keyShared"])
  if (receiveQueue !== undefined) checkedCount(what("receiveQueue"), receiveQueue, { least: 1, most })
  if (maxRedeliveries !== undefined && maxRedeliveries !== Infinity)
    checkedCount(what("maxRedeliveries"), maxRedeliveries, { most })
  for (const [option, least] of [
    ["redeliveryDelayMs", 0],
    ["maxRedeliveryDelayMs", 0],
    ["ackTimeoutMs", 1]
  ] as const) {
    const value = options[option]
    if (value !== undefined) checkedDuration(what(option), value, { least, most })
  }
  checkStart(what("from"), from)
}
const checkStart = (what: string, at: StartAt | undefined): void => {
  if (at === undefined || at === "earliest" || at === "latest") return
  if (typeof at === "object" && "places" in at) {
    for (const { partition, position } of at.places) {
      checkedCount(`${what}, a partition in \`places\`,`, partition)
      checkedCount(`${what}, a position in \`places\`,`, position)
    }
  } else if (typeof at === "object" && "token" in at) {
    if (typeof at.token !== "string" || parseToken(at.token) === undefined)
      throw invalidOption(what, at, "use the `token` of an answer to events or commands, as it was")
  } else if (typeof at !== "object" || !Number.isFinite(at.time))
    throw invalidOption(what, at, 'use "earliest", "latest", a `time` in epoch milliseconds, `places`, or a `token`')
}
const refuseInvalid = (operation: "subscribe" | "seek", check: () => void): Effect.Effect<void, FanOutError> =>
  Effect.suspend(() => {
    try {
      check()
    } catch (error) {
      if (error instanceof InvalidOption)
        return Effect.fail(new FanOutError({ operation, retryable: false, reason: error.message }))
      throw error
    }
    return Effect.void
  })
/** The same as an effect, for adapters: fails if settings make no sense. */
export const assertSettings = (options: SubscribeOptions): Effect.Effect<void, FanOutError> =>
  refuseInvalid("subscribe", () => checkSubscription(options))
/** How long a message waits for its redelivery after a negative acknowledgement, by the number of its redeliveries so far. Milliseconds. */
export const redeliveryDelay = (
  options: Pick<SubscribeOptions, "redeliveryDelayMs" | "maxRedeliveryDelayMs">,
  redeliveries: number
): number => {
  const { redeliveryDelayMs: first = defaults.redeliveryDelayMs } = options
  return Math.min(first * 2 ** redeliveries, Math.max(first, options.maxRedeliveryDelayMs ?? first))
}
/** One consumer of a subscription. Delivery is at least once: a message is redelivered until it is acknowledged. */
export interface Consumer {
  /** Waits for messages and returns at least one, at most `max`. */
  readonly receive: (max: number) => Effect.Effect<ReadonlyArray<Message>, FanOutError>
  /** Marks messages as handled: they are not delivered again. */
  readonly acknowledge: (messages: ReadonlyArray<Message>) => Effect.Effect<void, FanOutError>
  /** Returns messages: they are redelivered after the delay, or go to the dead-letter topic after `maxRedeliveries`. */
  readonly negativeAcknowledge: (messages: ReadonlyArray<Message>) => Effect.Effect<void, FanOutError>
  /** Moves messages to the dead-letter topic at once, because a redelivery would not help. */
  readonly deadLetter: (messages: ReadonlyArray<Message>, reason: string) => Effect.Effect<void, FanOutError>
}

/** The fan-out failed. `retryable`: the same call may succeed later. */
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
/** Fails if a position is in a partition that the topic does not have. */
export const assertPositions = (
  operation: "subscribe" | "seek",
  topic: string,
  partitions: number,
  at: StartAt
): Effect.Effect<void, FanOutError> => {
  const outside =
    typeof at === "object" && "places" in at ? at.places.find(({ partition }) => partition >= partitions) : undefined
  if (outside === undefined) return refuseInvalid(operation, () => checkStart(`${operation} of ${topic}`, at))
  const existing = partitions === 1 ? "partition 0 only" : `partitions 0 to ${partitions - 1}`
  const reason = `partition ${outside.partition} does not exist; ${topic} has ${existing}`
  return Effect.fail(new FanOutError({ operation, retryable: false, reason }))
}
/** The subscription has a consumer, and is exclusive or of another type than was requested. `type` is the subscription's. */
export class ConsumerBusy extends Schema.TaggedError<ConsumerBusy>()("ConsumerBusy", {
  topic: Schema.String,
  subscription: Schema.String,
  type: Schema.String
}) {
  override get message() {
    const advice = this.type === "exclusive" ? "subscribe as failover or shared" : `subscribe as ${this.type}`
    return `subscription ${this.subscription} of ${this.topic} is ${this.type} and already has a consumer; stop that consumer, or ${advice}`
  }
}

/** Durable subscriptions of topics. */
export class FanOut extends Context.Service<
  FanOut,
  {
    /** Opens a consumer until the scope closes. Creates the subscription if it does not exist. */
    readonly subscribe: (
      options: SubscribeOptions
    ) => Effect.Effect<Consumer, FanOutError | ConsumerBusy | UnknownTopic, Scope.Scope>
    /**
     * Moves a subscription forwards or back. Messages from the new position on are delivered, even if they were acknowledged before; earlier
     * ones are not. Creates the subscription if it does not exist. Fails with `ConsumerBusy` while it has a consumer.
     */
    readonly seek: (
      options: Pick<SubscribeOptions, "topic" | "name" | "type">,
      to: StartAt
    ) => Effect.Effect<void, FanOutError | ConsumerBusy | UnknownTopic>
    /** Deletes a subscription with all that is known of its acknowledgements. */
    readonly unsubscribe: (topic: string, name: string) => Effect.Effect<void, FanOutError>
  }
>()("millrace/FanOut") {}
