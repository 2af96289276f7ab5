// Dead letters on Pulsar: topics that subscriptions gave messages up to, and messages that a relay parked and that are sent by themselves.
import * as Effect from "effect/Effect"
import type { BridgeRecord } from "../bridge/record.ts"
import type { BridgeError } from "../bridge/errors.ts"
import { streamHeaders } from "../log/envelope.ts"
import type { ParkedMessage } from "../relay/outbox.ts"
import type { FanOutError } from "../subscription/fanout.ts"
import { partitionOf } from "../model/partitioner.ts"
import { DeadLetterRejected, type DeadLetterSender } from "../dead-letter/resend.ts"
import { orRejected, PulsarResender } from "../bridge/pulsar-resender.ts"
import { retryHeader } from "../dead-letter/retry-record.ts"
import {
  type DeadLetterTopics,
  isRetryOf,
  subscriptionDeadLetter,
  retryProperties,
  type SubscriptionDeadLetter
} from "../subscription/dead-letter.ts"
import { endFrom } from "./bridge-end.ts"
import { orUndefined } from "./client/admin.ts"
import { adminOf, type Cluster, connect } from "./client/cluster.ts"
import { fanOutError } from "./subscription/errors.ts"
import type { PulsarOptions } from "./client/options.ts"
import { localName, namespaceOf, partitionTopics, topicName } from "./client/topic-names.ts"
import { messagesOf } from "./relay/messages.ts"
import { readToEnd } from "./client/read-to-end.ts"

const attempt = <A>(operation: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: fanOutError(operation) })

const connected = (options: PulsarOptions) => Effect.mapError(connect(options), fanOutError("connect"))

/** The dead-letter topics in the namespace that the options name. */
const namesOf = async (cluster: Cluster): Promise<ReadonlyArray<string>> => {
  const { namespace, tenant } = namespaceOf(topicName(cluster.options, ""))
  const found = (await adminOf(cluster).call("GET", `persistent/${tenant}/${namespace}`, undefined, [404])) ?? []
  return [...new Set((found as ReadonlyArray<string>).map(localName))]
    .filter((name) => name.endsWith(".dlq"))
    .toSorted()
    .map((name) => topicName(cluster.options, name))
}

/** The partitions of a topic by full name; none where there is no such topic. */
const partsIn = async (cluster: Cluster, name: string): Promise<ReadonlyArray<string>> => {
  const count = await orUndefined(adminOf(cluster).partitions(name))
  return count === undefined ? [] : partitionTopics(name, count)
}

/** The dead-letter topics of the cluster. Everything needs the admin interface. */
export const fromCluster = (cluster: Cluster): DeadLetterTopics<FanOutError | BridgeError> => ({
  names: attempt("list dead letters", () => namesOf(cluster)),
  each: (topic, take) =>
    attempt("read dead letters", async () => {
      const name = topicName(cluster.options, topic)
      for (const part of await partsIn(cluster, name))
        await readToEnd(cluster, part, undefined, ({ eventTime, key, properties, publishTime, value }) => {
          const letter = subscriptionDeadLetter(name, { key, value, eventTime, properties, takenAt: publishTime })
          if (letter !== undefined) take(letter)
        })
    }),
  sender: subscriptionSender(cluster)
})

const subscriptionSender = (cluster: Cluster): DeadLetterSender<SubscriptionDeadLetter, FanOutError | BridgeError> => {
  const resender = new PulsarResender(endFrom(cluster), "millrace-dlq/subscription")
  const partOf = async ({ partition, source, topic }: SubscriptionDeadLetter) => {
    // the subscription's tenant is that of its dead letters
    const namespace = namespaceOf(topicName(cluster.options, topic))
    return (await partsIn(cluster, topicName(namespace, source)))[partition]
  }
  return {
    aim: Effect.fnUntraced(function* (letter) {
      const part = yield* attempt("retry a dead letter", () => partOf(letter))
      const { partition, source } = letter
      if (part === undefined)
        return yield* new DeadLetterRejected({
          reason: `there is no partition ${partition} of ${source}: TopicNotFound`
        })
      return yield* resender.aim(part)
    }),
    isThere: (letter, target) => resender.find(target, (properties) => isRetryOf(letter, properties)),
    send: (letter, to) => {
      const { eventTime, key, value } = letter
      return resender.send(to, { key, value, eventTime, headers: retryProperties(letter) })
    }
  }
}
/** The dead-letter topics of a cluster, until the scope closes. */
export const make = (options: PulsarOptions) => Effect.map(connected(options), fromCluster)

const parkedMessage = (parked: ParkedMessage) => {
  const { incarnation, meta, partition, projection, seq, source, topic, val } = parked
  const encoder = new TextEncoder()
  const segment = { firstSeq: seq, messages: 1, incarnation, topic, partition: undefined }
  const texts = { meta: encoder.encode(meta), vals: encoder.encode(val) }
  const to = { tenant: undefined, namespace: undefined, topicFor: undefined }
  return messagesOf({ ...segment, ...texts }, `${projection}/${source}/${partition}`, to)[0]!
}
const parkedRecord = (parked: ParkedMessage): BridgeRecord => {
  const { eventTime, key, properties, value } = parkedMessage(parked)
  return { key, value, eventTime, headers: { ...properties, [retryHeader]: "relay" } }
}
const placeProperties = [...Object.values(streamHeaders), retryHeader]

/**
 * Sends messages that a relay parked, each by itself: relays that read the topic pass it over, and consumers know it by stream and sequence.
 * Connected until the scope closes.
 */
export const makeSender = (options: PulsarOptions) =>
  Effect.map(connected(options), (cluster): DeadLetterSender<ParkedMessage, BridgeError> => {
    const end = endFrom(cluster)
    const resender = new PulsarResender(end, "millrace-dlq/relay")
    const partsOfTopics = new Map<string, ReadonlyArray<string>>()
    // one that was parked before its topic was there says no partition
    const partOf = Effect.fnUntraced(function* ({ key, topic }: ParkedMessage) {
      const parts = partsOfTopics.get(topic) ?? (yield* end.partitionsOf(topic))
      partsOfTopics.set(topic, parts)
      return parts[partitionOf(key, parts.length)]!
    })
    return {
      aim: Effect.fnUntraced(function* (parked) {
        const { refusal: reason } = parkedMessage(parked)
        if (reason !== undefined) return yield* new DeadLetterRejected({ reason })
        const { after } = yield* resender.aim(yield* orRejected(partOf(parked)))
        return { part: parked.topic, after }
      }),
      isThere: Effect.fnUntraced(function* (parked, target) {
        const { headers } = parkedRecord(parked)
        const is = (found: BridgeRecord["headers"]) => placeProperties.every((name) => found[name] === headers[name])
        return yield* resender.find({ ...target, part: yield* partOf(parked) }, is)
      }),
      send: Effect.fnUntraced(function* (parked, to) {
        return yield* resender.send({ ...to, part: yield* partOf(parked) }, parkedRecord(parked))
      })
    }
  })
