// A message that a subscription gave up, as its dead-letter topic has it, and how it comes again to that subscription alone. No I/O.
import type * as Effect from "effect/Effect"
import type { FanOutError, Message } from "./fanout.ts"
import type { DeadLetterSender } from "../dead-letter/resend.ts"
import { retryHeader } from "../dead-letter/retry-record.ts"

/** What a letter is made of: a message of a dead-letter topic, and when the topic took it, in epoch milliseconds. */
export type DeadLetterRecord = Pick<Message, "key" | "value" | "eventTime" | "properties"> & {
  readonly takenAt: number
}
/** A message that a subscription gave up. */
export interface SubscriptionDeadLetter {
  /** The dead-letter topic, by its full name. */
  readonly topic: string
  /** The message's place in the topic that it came from, `partition:position`. A letter that was written twice has the same. */
  readonly origin: string
  readonly subscription: string
  /** The topic that it came from, as the subscription names it, and its partition there. */
  readonly source: string
  readonly partition: number
  readonly reason: string
  readonly redeliveries: number
  readonly key: string
  readonly value: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  readonly failedAt: number
  /** The message's own. */
  readonly properties: Readonly<Record<string, string>>
}
/** The dead-letter topics of a system's subscriptions, read and retried. Adapters are PostgreSQL and Pulsar. `E` is what sending fails with. */
export interface DeadLetterTopics<out E> {
  /** Topics whose names end as those of dead letters do, where nothing else was said: `.dlq`. */
  readonly names: Effect.Effect<ReadonlyArray<string>, FanOutError>
  /** Hands over a topic's letters from the first to the last that is there now, partition by partition; nothing of a topic that is not there. */
  readonly each: (topic: string, take: (letter: SubscriptionDeadLetter) => void) => Effect.Effect<void, FanOutError>
  /** Sends a letter's message to the end of the topic that it came from, where its subscription alone handles it. */
  readonly sender: DeadLetterSender<SubscriptionDeadLetter, E>
}

const own = {
  source: "millrace-topic",
  partition: "millrace-partition",
  position: "millrace-position",
  subscription: "millrace-subscription",
  redeliveries: "millrace-redeliveries",
  reason: "millrace-reason"
} as const
/** Says of a message that comes again which letter it is of. */
const retryOf = "millrace-retry-of"
const names = new Set<string>([...Object.values(own), retryHeader, retryOf])

/** The letter that a message is; undefined where no subscription wrote it. */
export const subscriptionDeadLetter = (
  topic: string,
  { eventTime, key, properties, takenAt, value }: DeadLetterRecord
) => {
  const [source, partition, position] = [properties[own.source], properties[own.partition], properties[own.position]]
  const subscription = properties[own.subscription]
  if (source === undefined || partition === undefined || position === undefined || subscription === undefined) return
  return {
    topic,
    origin: `${partition}:${position}`,
    subscription,
    source,
    partition: Number(partition),
    reason: properties[own.reason] ?? "",
    redeliveries: Number(properties[own.redeliveries] ?? 0),
    key,
    value,
    eventTime,
    failedAt: takenAt,
    properties: Object.fromEntries(Object.entries(properties).filter(([name]) => !names.has(name)))
  } satisfies SubscriptionDeadLetter
}

const prefix = "subscription:"
/** The properties of a letter's message when it comes again: its own, with which `once` knows it, and whom it is for. */
export const retryProperties = ({
  origin,
  properties,
  subscription
}: SubscriptionDeadLetter): Record<string, string> => ({
  ...properties,
  [retryHeader]: `${prefix}${subscription}`,
  [retryOf]: origin
})
/** Whether a message's properties are those of a letter that comes again. */
export const isRetryOf = (
  { origin, subscription }: SubscriptionDeadLetter,
  properties: Readonly<Record<string, string>>
): boolean => properties[retryHeader] === `${prefix}${subscription}` && properties[retryOf] === origin
/** Whether a message is there for another subscription to retry, so that this one passes it over. */
export const isRetryForAnother = (subscription: string, { properties }: Pick<Message, "properties">): boolean => {
  const wanted = properties[retryHeader]
  return wanted?.startsWith(prefix) === true && wanted !== `${prefix}${subscription}`
}
