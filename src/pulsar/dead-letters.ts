// Dead letters on Pulsar: reads and retries the dead-letter topics of subscriptions, and sends messages that the relay parked.
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
import * as BridgeSide from "./bridge-side.ts"
import { orUndefined } from "./client/admin.ts"
import { adminOf, type Cluster, connect } from "./client/cluster.ts"
import { fanOutError } from "./subscription/errors.ts"
import type { PulsarOptions } from "./client/options.ts"
import { localName, namespaceOf, partitionTopics, topicName } from "./client/topic-names.ts"
import { messagesOf } from "./relay/messages.ts"
import { readToEnd } from "./client/read-to-end.ts"

const runFanOut = <A>(operation: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: fanOutError(operation) })

const connected = (options: PulsarOptions) => Effect.mapError(connect(options), fanOutError("connect"))

/** The full names of the dead-letter topics in the namespace of the options. */
const namesOf = async (cluster: Cluster): Promise<ReadonlyArray<string>> => {
  const { namespace, tenant } = namespaceOf(topicName(cluster.options, ""))
  const found = (await adminOf(cluster).call("GET", `persistent/${tenant}/${namespace}`, undefined, [404])) ?? []
  return [...new Set((found as ReadonlyArray<string>).map(localName))]
    .filter((name) => name.endsWith(".dlq"))
    .toSorted()
    .map((name) => topicName(cluster.options, name))
}

/** The partitions of a topic, by full names; empty if the topic does not exist. */
const partitionsOf = async (cluster: Cluster, name: string): Promise<ReadonlyArray<string>> => {
  const count = await orUndefined(adminOf(cluster).partitions(name))
  return count === undefined ? [] : partitionTopics(name, count)
}

/** The dead-letter topics of a cluster. Everything needs the admin interface. */
export const fromCluster = (cluster: Cluster): DeadLetterTopics<FanOutError | BridgeError> => ({
  names: runFanOut("list dead letters", () => namesOf(cluster)),
  each: (topic, take) =>
    runFanOut("read dead letters", async () => {
      const name = topicName(cluster.options, topic)
      for (const partition of await partitionsOf(cluster, name))
        await readToEnd(cluster, partition, undefined, ({ eventTime, key, properties, publishTime, value }) => {
          const deadLetter = subscriptionDeadLetter(name, { key, value, eventTime, properties, takenAt: publishTime })
          if (deadLetter !== undefined) take(deadLetter)
        })
    }),
  sender: subscriptionSender(cluster)
})

const subscriptionSender = (cluster: Cluster): DeadLetterSender<SubscriptionDeadLetter, FanOutError | BridgeError> => {
  const resender = new PulsarResender(BridgeSide.fromCluster(cluster), "millrace-dlq/subscription")
  const partitionFor = async ({ partition, source, topic }: SubscriptionDeadLetter) => {
    // the source has the tenant and the namespace of the dead-letter topic
    const namespace = namespaceOf(topicName(cluster.options, topic))
    return (await partitionsOf(cluster, topicName(namespace, source)))[partition]
  }
  return {
    aim: Effect.fnUntraced(function* (deadLetter) {
      const target = yield* runFanOut("retry a dead letter", () => partitionFor(deadLetter))
      if (target !== undefined) return yield* resender.aim(target)
      const { partition, source } = deadLetter
      return yield* new DeadLetterRejected({ reason: `${source} has no partition ${partition}, or does not exist` })
    }),
    isThere: (deadLetter, target) => resender.find(target, (properties) => isRetryOf(deadLetter, properties)),
    send: (deadLetter, to) => {
      const { eventTime, key, value } = deadLetter
      return resender.send(to, { key, value, eventTime, headers: retryProperties(deadLetter) })
    }
  }
}
/** Connects to the dead-letter topics of a cluster until the scope closes. */
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
const identifyingProperties = [...Object.values(streamHeaders), retryHeader]

/**
 * Sends messages that the relay parked, one at a time. Relays that read the topic ignore them, and consumers recognize them by stream and sequence
 * number. Stays connected until the scope closes.
 */
export const makeSender = (options: PulsarOptions) =>
  Effect.map(connected(options), (cluster): DeadLetterSender<ParkedMessage, BridgeError> => {
    const pulsar = BridgeSide.fromCluster(cluster)
    const resender = new PulsarResender(pulsar, "millrace-dlq/relay")
    const partitionsByTopic = new Map<string, ReadonlyArray<string>>()
    // a message that was parked before its topic existed has no partition yet
    const partitionFor = Effect.fnUntraced(function* ({ key, topic }: ParkedMessage) {
      const partitions = partitionsByTopic.get(topic) ?? (yield* pulsar.partitionsOf(topic))
      partitionsByTopic.set(topic, partitions)
      return partitions[partitionOf(key, partitions.length)]!
    })
    return {
      aim: Effect.fnUntraced(function* (parked) {
        const { refusal: reason } = parkedMessage(parked)
        if (reason !== undefined) return yield* new DeadLetterRejected({ reason })
        const { after } = yield* resender.aim(yield* orRejected(partitionFor(parked)))
        return { part: parked.topic, after }
      }),
      isThere: Effect.fnUntraced(function* (parked, target) {
        const { headers } = parkedRecord(parked)
        const is = (found: BridgeRecord["headers"]) =>
          identifyingProperties.every((name) => found[name] === headers[name])
        return yield* resender.find({ ...target, part: yield* partitionFor(parked) }, is)
      }),
      send: Effect.fnUntraced(function* (parked, to) {
        return yield* resender.send({ ...to, part: yield* partitionFor(parked) }, parkedRecord(parked))
      })
    }
  })
