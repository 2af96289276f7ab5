// Dead letters of subscriptions: messages that their consumer could not process, as the subscriptions' dead-letter topics have them.
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import type { Sql } from "../../postgres/client/client.ts"
import { localName } from "../../pulsar/client/topic-names.ts"
import type { DeadLetterTopics, SubscriptionDeadLetter } from "../../subscription/dead-letter.ts"
import { type DeadLetterSource, iso, type ListedDeadLetter, traceOf } from "./source.ts"
import { topicDeadLetters } from "./topics.ts"

const describe = (deadLetter: SubscriptionDeadLetter): Omit<ListedDeadLetter, "id" | "status" | "key"> => {
  const { eventTime, failedAt, key, origin, properties, reason, redeliveries, source, subscription, value } = deadLetter
  const error = reason.startsWith("redelivered") ? "Redelivered" : "Refused"
  const attempts = redeliveries + 1
  const content = { key, error, message: reason, attempts, value, properties, ...traceOf(properties) }
  const times = { event_time: iso(eventTime), failed_at: iso(failedAt) }
  return {
    failedIn: `subscription ${subscription}`,
    record: `${localName(source)}@${origin}`,
    // a list shows the number of attempts in a column of its own
    error: `${error}: ${reason.replace(/^redelivered \d+ times, and failed: /, "")}`,
    attempts,
    failedAt,
    details: { kind: "subscription", subscription, topic: source, place: origin, ...content, ...times }
  }
}

/** The message's position; if the topic has dead letters of several subscriptions, a hash of the subscription as well. */
const originOf = ({ origin, source, subscription, topic }: SubscriptionDeadLetter) => {
  if (localName(topic) === `${localName(source)}.${subscription}.dlq`) return origin
  const name = JSON.stringify([localName(source), subscription])
  return `${origin}.${createHash("sha256").update(name).digest("hex").slice(0, 16)}`
}

/** The dead letters of all subscriptions. */
export const subscriptionDeadLetters = (sql: Sql, topics: DeadLetterTopics<Error>): DeadLetterSource =>
  topicDeadLetters<SubscriptionDeadLetter>(sql, {
    names: topics.names,
    each: topics.each,
    originOf,
    describe,
    keyOf: ({ key }) => key,
    openSender: Effect.succeed(topics.sender)
  })
