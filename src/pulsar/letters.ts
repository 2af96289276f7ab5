// Dead letters on Pulsar: topics that subscriptions gave messages up to, and messages that a relay parked and that are sent by themselves.
import * as Effect from "effect/Effect"
import type { FanOutError } from "../fanout.ts"
import type { Parked } from "../outbox.ts"
import { retryHeader } from "../retry.ts"
import { type DeadLetterTopics, letterOf, retryProperties } from "../subscription-letter.ts"
import { fanOutError } from "./errors.ts"
import { type Cluster, connect } from "./fanout.ts"
import { byPlace } from "./message-id.ts"
import { type Options, topicName } from "./options.ts"
import { localName, partsOf } from "./parts.ts"
import { messagesOf } from "./relay-decode.ts"
import { endOf } from "./relay-tail.ts"
import type { Outgoing, Received } from "./transport.ts"

/** How long a message that is there may take to come, in milliseconds. */
const patienceMs = 10_000
const attempt = <A>(operation: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: fanOutError(operation) })

const adminOf = ({ admin }: Cluster) => {
  if (admin === undefined) throw new Error("the admin interface is not known: set MILLRACE_PULSAR_ADMIN_URL")
  return admin
}

/** The dead-letter topics in the namespace that the options name. */
const namesOf = async (cluster: Cluster): Promise<ReadonlyArray<string>> => {
  const [, , tenant, namespace] = topicName(cluster.options, "").split("/")
  const found = (await adminOf(cluster).call("GET", `persistent/${tenant}/${namespace}`, undefined, [404])) ?? []
  return [...new Set((found as ReadonlyArray<string>).map(localName))]
    .filter((name) => name.endsWith(".dlq"))
    .toSorted()
    .map((name) => topicName(cluster.options, name))
}

/** The partitions of a topic by full name; none where there is no such topic. */
const partsIn = async (cluster: Cluster, name: string): Promise<ReadonlyArray<string>> => {
  const count = await adminOf(cluster).partitions(name)
  return count === undefined ? [] : partsOf(name, count)
}
const readPart = async (cluster: Cluster, part: string, take: (message: Received) => void) => {
  const end = await endOf(cluster, part)
  if (end === undefined) return
  const reader = await cluster.transport.read({ topic: part, from: "earliest" })
  try {
    while (true) {
      const next = await reader.next(patienceMs)
      if (next === undefined) throw new Error(`${part}: its last messages do not come: TimeOut`)
      take(next)
      if (byPlace(next.id, end) >= 0) return
    }
  } finally {
    await reader.close()
  }
}

const send = async ({ transport }: Cluster, topic: string, message: Outgoing) => {
  const producer = await transport.produce({ topic, batching: false, maxPending: 1 })
  try {
    await producer.send(message)
  } finally {
    await producer.close()
  }
}

/** The dead-letter topics of the cluster. Everything needs the admin interface. */
export const fromCluster = (cluster: Cluster): DeadLetterTopics => ({
  names: attempt("list dead letters", () => namesOf(cluster)),
  each: (topic, take) =>
    attempt("read dead letters", async () => {
      const name = topicName(cluster.options, topic)
      for (const part of await partsIn(cluster, name))
        await readPart(cluster, part, ({ eventTime, key, properties, publishTime, value }) => {
          const letter = letterOf(name, { key, value, eventTime, properties, takenAt: publishTime })
          if (letter !== undefined) take(letter)
        })
    }),
  retry: (letter) =>
    attempt("retry a dead letter", async () => {
      const { eventTime, key, partition, source, topic, value } = letter
      // the subscription's tenant is that of its dead letters
      const [, , tenant, namespace] = topicName(cluster.options, topic).split("/")
      const parts = await partsIn(cluster, topicName({ tenant: tenant!, namespace: namespace! }, source))
      const part = parts[partition]
      if (part === undefined) throw new Error(`there is no partition ${partition} of ${source}: TopicNotFound`)
      await send(cluster, part, { key, value, eventTime, properties: retryProperties(letter) })
    })
})
/** The dead-letter topics of a cluster, until the scope closes. */
export const make = (options: Options) => Effect.map(connect(options), fromCluster)

/**
 * Sends messages that a relay parked, each by itself: relays that read the topic pass it over, and consumers know it by stream and sequence.
 * Connected until the scope closes; fails with why Pulsar refuses one.
 */
export const makeSender = Effect.fnUntraced(function* (options: Options) {
  const cluster = yield* connect(options)
  return (parked: Parked): Effect.Effect<void, FanOutError> =>
    attempt("send a parked message", async () => {
      const { incarnation, meta, partition, projection, seq, source, topic, val } = parked
      const encoder = new TextEncoder()
      const segment = { firstSeq: seq, messages: 1, incarnation, topic, partition: undefined }
      const texts = { meta: encoder.encode(meta), vals: encoder.encode(val) }
      const to = { tenant: undefined, namespace: undefined, topicFor: undefined }
      const [message] = messagesOf({ ...segment, ...texts }, `${projection}/${source}/${partition}`, to)
      const { eventTime, key, properties, value } = message!
      await send(cluster, topic, { key, value, eventTime, properties: { ...properties, [retryHeader]: "relay" } })
    })
})
