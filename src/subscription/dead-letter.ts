// Dead letters of subscriptions: how a message of a dead-letter topic is read, and how it is sent to its subscription again. Pure.
import type * as Effect from "effect/Effect"
import type { FanOutError, Message } from "./fanout.ts"
import type { DeadLetterSender } from "../dead-letter/resend.ts"
import { retryHeader } from "../dead-letter/retry-record.ts"

/** A message of a dead-letter topic, and when the topic stored it (epoch milliseconds). */
export type DeadLetterRecord = Pick<Message, "key" | "value" | "eventTime" | "properties"> & {
  readonly takenAt: number
}
/** A dead letter of a subscription. */
export interface SubscriptionDeadLetter {
  /** The dead-letter topic, by its full name. */
  readonly topic: string
  /** The message's position in its source topic, `partition:position`. A dead letter that a crash wrote twice has the same one. */
  readonly origin: string
  readonly subscription: string
  /** The source topic, by the name that the subscription uses, and the message's partition there. */
  readonly source: string
  readonly partition: number
  readonly reason: string
  readonly redeliveries: number
  readonly key: string
  readonly value: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  readonly failedAt: number
  /** The properties of the message, without those that describe the dead letter. */
  readonly properties: Readonly<Record<string, string>>
}
/** The dead-letter topics of a system's subscriptions, read and retried. Adapters are PostgreSQL and Pulsar. `E` is what sending fails with. */
export interface DeadLetterTopics<out E> {
  /** The topics whose names end with `.dlq`, as dead-letter topics do by default. */
  readonly names: Effect.Effect<ReadonlyArray<string>, FanOutError>
  /** Calls `take` with each dead letter that the topic has now, partition by partition, in order. Not at all if the topic does not exist. */
  readonly each: (topic: string, take: (deadLetter: SubscriptionDeadLetter) => void) => Effect.Effect<void, FanOutError>
  /** Sends a dead letter's message to the end of its source topic, where only its subscription handles it. */
  readonly sender: DeadLetterSender<SubscriptionDeadLetter, E>
}

/** The names of the properties that describe a dead letter. */
const propertyNames = {
  source: "millrace-topic",
  partition: "millrace-partition",
  position: "millrace-position",
  subscription: "millrace-subscription",
  redeliveries: "millrace-redeliveries",
  reason: "millrace-reason"
} as const
/** The property of a retried message that has the `origin` of its dead letter. */
const retryOf = "millrace-retry-of"
const addedProperties = new Set<string>([...Object.values(propertyNames), retryHeader, retryOf])

/** The properties (on PostgreSQL: headers) that a message gets when it becomes a dead letter; `position` is the adapter's text for it. */
export const deadLetterProperties = (deadLetter: {
  readonly source: string
  readonly partition: number
  readonly position: string
  readonly subscription: string
  readonly redeliveries: number
  readonly reason: string
}): Record<string, string> => ({
  [propertyNames.source]: deadLetter.source,
  [propertyNames.partition]: String(deadLetter.partition),
  [propertyNames.position]: deadLetter.position,
  [propertyNames.subscription]: deadLetter.subscription,
  [propertyNames.redeliveries]: String(deadLetter.redeliveries),
  [propertyNames.reason]: deadLetter.reason
})
/** The dead letter that a message describes; undefined if no subscription wrote the message. */
export const subscriptionDeadLetter = (
  topic: string,
  { eventTime, key, properties, takenAt, value }: DeadLetterRecord
) => {
  const [source, partition, position] = [
    properties[propertyNames.source],
    properties[propertyNames.partition],
    properties[propertyNames.position]
  ]
  const subscription = properties[propertyNames.subscription]
  if (source === undefined || partition === undefined || position === undefined || subscription === undefined) return
  return {
    topic,
    origin: `${partition}:${position}`,
    subscription,
    source,
    partition: Number(partition),
    reason: properties[propertyNames.reason] ?? "",
    redeliveries: Number(properties[propertyNames.redeliveries] ?? 0),
    key,
    value,
    eventTime,
    failedAt: takenAt,
    properties: Object.fromEntries(Object.entries(properties).filter(([name]) => !addedProperties.has(name)))
  } satisfies SubscriptionDeadLetter
}

const retryPrefix = "subscription:"
/** The properties of a retried message: its own (by which `once` recognises it), and those that name its subscription and dead letter. */
export const retryProperties = ({
  origin,
  properties,
  subscription
}: SubscriptionDeadLetter): Record<string, string> => ({
  ...properties,
  [retryHeader]: `${retryPrefix}${subscription}`,
  [retryOf]: origin
})
/** Whether a message with these properties retries the dead letter. */
export const isRetryOf = (
  { origin, subscription }: SubscriptionDeadLetter,
  properties: Readonly<Record<string, string>>
): boolean => properties[retryHeader] === `${retryPrefix}${subscription}` && properties[retryOf] === origin
/** Whether a message is a retry for another subscription, so that this one skips it. */
export const isRetryForAnother = (subscription: string, { properties }: Pick<Message, "properties">): boolean => {
  const wanted = properties[retryHeader]
  return wanted?.startsWith(retryPrefix) === true && wanted !== `${retryPrefix}${subscription}`
}
