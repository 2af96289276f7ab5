// The bridge's Pulsar side: named producers, exclusive consumers, and reading topics to their end, over either transport.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type {
  PulsarMessage,
  NumberedRecord,
  PulsarConsumer,
  PulsarSide,
  PulsarProducer,
  SendResult
} from "../bridge/pulsar-side.ts"
import { BridgeError } from "../bridge/errors.ts"
import type { Admin } from "./client/admin.ts"
import { type FailureKind, failureOf } from "./client/errors.ts"
import { adminOf, type Cluster, connect, partitionCount } from "./client/cluster.ts"
import { checkSignIn } from "./client/handshake.ts"
import { isWebSocket, type PulsarOptions } from "./client/options.ts"
import { partitionTopics, withoutPartition } from "./client/topic-names.ts"
import { readToEnd } from "./client/read-to-end.ts"
import type { Received, TransportConsumer, TransportProducer } from "./client/transport.ts"

/** How many messages of a producer may wait for the broker's answer. */
const maxInFlight = 1_000
/** How many messages a consumer asks for ahead of `take`. */
const askedAhead = 4_000

/** The port's kind for each kind of the client, and whether a new session of the bridge may fix it although the failure itself is not retryable. */
const kinds: Readonly<Record<FailureKind, readonly [kind: BridgeError["kind"], tryAgain: boolean]>> = {
  missing: ["refused", false],
  namespaceMissing: ["refused", false],
  notFound: ["refused", false],
  invalidName: ["refused", false],
  forbidden: ["refused", false],
  messageTooLarge: ["refused", false],
  busy: ["busy", true],
  fenced: ["fenced", true],
  // no topic is to blame: messages must wait until a person corrects the configuration
  unauthenticated: ["other", false],
  adminUnknown: ["other", false],
  lost: ["other", false],
  other: ["other", true]
}
/** The port's error for what an operation on a topic failed with. */
export const bridgeError = (operation: string, topic: string) => (cause: unknown) => {
  const failure = failureOf(cause, topic)
  const [kind, tryAgain] = kinds[failure.kind]
  const retryable = failure.retryable || tryAgain
  return new BridgeError({ side: "pulsar", operation, kind, topic, retryable, reason: failure.message, cause })
}
const runBridge = <A>(operation: string, topic: string, run: () => Promise<A>): Effect.Effect<A, BridgeError> =>
  Effect.tryPromise({ try: run, catch: bridgeError(operation, topic) })

const pulsarMessageOf = (message: Received): PulsarMessage => {
  const { eventTime, id, key, properties, publishTime, value } = message
  const record = { key, value, eventTime: eventTime === 0 ? publishTime : eventTime, headers: properties }
  return { position: id, publishTime, record }
}

class BridgeProducer implements PulsarProducer {
  private readonly producer: TransportProducer
  private readonly partition: string
  constructor(producer: TransportProducer, partition: string) {
    this.producer = producer
    this.partition = partition
  }
  readonly send = (messages: ReadonlyArray<NumberedRecord>): Effect.Effect<ReadonlyArray<SendResult>, BridgeError> =>
    runBridge("send", this.partition, () => this.sendAll(messages))

  private async sendOne({ record, sequenceId }: NumberedRecord): Promise<SendResult> {
    const { eventTime, headers, key, value } = record
    try {
      const message = { key: key ?? "", value: value ?? "", eventTime, properties: headers, sequenceId }
      const { duplicate, id } = await this.producer.send(message)
      return duplicate ? { kind: "duplicate" } : { kind: "stored", position: id }
    } catch (cause) {
      const failure = failureOf(cause, this.partition)
      if (failure.kind === "messageTooLarge") return { kind: "refused", reason: failure.message }
      throw failure
    }
  }
  private async sendAll(messages: ReadonlyArray<NumberedRecord>): Promise<ReadonlyArray<SendResult>> {
    const sent: Array<SendResult> = []
    const under = { count: 0, answered: () => {} }
    let failed: { readonly cause: unknown } | undefined
    const track = async (i: number, message: NumberedRecord) => {
      try {
        sent[i] = await this.sendOne(message)
      } catch (cause) {
        failed ??= { cause }
      }
      under.count--
      under.answered()
    }
    const fewerThan = async (most: number) => {
      while (under.count >= most) await new Promise<void>((resolve) => (under.answered = resolve))
    }
    for (const [i, message] of messages.entries()) {
      if (under.count >= maxInFlight) await fewerThan(maxInFlight)
      // the broker would drop this message as a duplicate if a later one arrived before it
      if (failed !== undefined) break
      under.count++
      void track(i, message)
    }
    await fewerThan(1)
    if (failed !== undefined) throw (failed as { readonly cause: unknown }).cause
    return sent
  }
}

class BridgeConsumer implements PulsarConsumer {
  consumer: TransportConsumer | undefined
  private readonly partition: string
  private readonly ready: Array<Received> = []
  private readonly handles = new Map<PulsarMessage, Received>()
  private failed: unknown
  private wake: () => void = () => undefined

  constructor(partition: string) {
    this.partition = partition
  }
  arrived(message: Received) {
    this.ready.push(message)
    this.wake()
  }
  lost(cause: unknown) {
    this.failed ??= cause
    this.wake()
  }
  readonly take = (max: number): Effect.Effect<ReadonlyArray<PulsarMessage>, BridgeError> =>
    runBridge("receive", this.partition, async () => {
      while (this.ready.length === 0 && this.failed === undefined)
        await new Promise<void>((resolve) => (this.wake = resolve))
      if (this.failed !== undefined) throw this.failed
      const taken = this.ready.splice(0, max)
      this.consumer?.ask(taken.length)
      return taken.map((message) => {
        const arrived = pulsarMessageOf(message)
        this.handles.set(arrived, message)
        return arrived
      })
    })
  readonly acknowledge = (messages: ReadonlyArray<PulsarMessage>): Effect.Effect<void, BridgeError> =>
    runBridge("acknowledge", this.partition, async () => {
      const some = messages.flatMap((arrived) => {
        const message = this.handles.get(arrived)
        this.handles.delete(arrived)
        return message === undefined ? [] : [message]
      })
      await this.consumer?.acknowledge(some)
    })
}

const consume = (
  { transport }: Cluster,
  partition: string,
  subscription: string,
  start: "earliest" | "latest"
): Effect.Effect<PulsarConsumer, BridgeError, Scope.Scope> =>
  Effect.acquireRelease(
    runBridge("subscribe", partition, async () => {
      const opened = new BridgeConsumer(partition)
      opened.consumer = await transport.consume({
        topic: partition,
        subscription,
        name: `bridge-${randomUUID()}`,
        type: "exclusive",
        earliest: start === "earliest",
        prefetch: 1_000,
        arrived: (message) => opened.arrived(message),
        // a transport that reconnects by itself delivers messages again unannounced, so any lost connection ends the consumer
        lost: (cause: unknown) => opened.lost(cause),
        recovered: () => undefined
      })
      opened.consumer.ask(askedAhead)
      return opened
    }),
    ({ consumer }) => Effect.promise(async () => void (await consumer?.close().catch(() => undefined)))
  )

/** The names of the topics of a tenant and a namespace, without partitions and without Pulsar's own topics. */
const topicsIn = async (admin: Admin, tenant: string | undefined, namespace: string | undefined) => {
  const list = async (path: string) =>
    ((await admin.call("GET", path, undefined, [404])) ?? []) as ReadonlyArray<string>
  const found = new Set<string>()
  const tenants = tenant === undefined ? await list("tenants") : [tenant]
  for (const one of tenants) {
    const all = namespace === undefined ? await list(`namespaces/${encodeURIComponent(one)}`) : [`${one}/${namespace}`]
    for (const name of all.filter((some) => some !== "pulsar/system")) {
      const path = `persistent/${name.split("/").map(encodeURIComponent).join("/")}`
      for (const topic of [...(await list(path)), ...(await list(`${path}/partitioned`))])
        if (!topic.includes("/__")) found.add(withoutPartition(topic))
    }
  }
  return [...found]
}

/** How long a broker may take to accept a client. */
const signInMs = 5_000
/** Statuses that show that the interface answers, although the role may not list clusters. */
const answeredStatuses = [401, 403, 404]

/** The Pulsar side over a cluster that stays connected as long as it is used. */
export const fromCluster = (cluster: Cluster): PulsarSide => {
  const { admin, options, transport } = cluster
  return {
    ping: runBridge("reach a broker", options.url, async () => {
      // the WebSocket interface is at the admin interface's address
      if (isWebSocket(options.url)) await admin?.call("GET", "clusters", undefined, answeredStatuses)
      else await checkSignIn(options, signInMs)
    }),
    topics: (tenant, namespace) =>
      runBridge("list topics", tenant ?? "all tenants", async () => topicsIn(adminOf(cluster), tenant, namespace)),
    partitionsOf: (topic) =>
      runBridge("look up the topic", topic, async () =>
        partitionTopics(topic, (await partitionCount(cluster, topic)) ?? 0)
      ),
    produce: (partition, name, batching) =>
      Effect.acquireRelease(
        runBridge("open a producer", partition, () =>
          transport.produce({ topic: partition, name, batching, maxPending: maxInFlight })
        ),
        (producer) => Effect.promise(async () => void (await producer.close().catch(() => undefined)))
      ).pipe(Effect.map((producer) => new BridgeProducer(producer, partition))),
    scan: (partition, after, show) =>
      runBridge(
        "read the end",
        partition,
        async () => void (await readToEnd(cluster, partition, after, (message) => show(pulsarMessageOf(message))))
      ),
    consume: (partition, subscription, start) => consume(cluster, partition, subscription, start),
    lastPosition: (partition) =>
      runBridge("look up the end", partition, async () => adminOf(cluster).lastMessageId(partition)),
    backlog: (partition, subscription) =>
      runBridge(
        "look up the backlog",
        partition,
        async () => (await admin?.subscription(partition, subscription))?.msgBacklog
      )
  }
}

/** Connects the Pulsar side until the scope closes. Fails if the URL needs the native client and that cannot be loaded. */
export const make = (options: PulsarOptions): Effect.Effect<PulsarSide, BridgeError, Scope.Scope> =>
  connect(options).pipe(
    Effect.mapError(
      ({ message: reason, retryable }) =>
        new BridgeError({ side: "pulsar", operation: "connect", kind: "other", retryable, reason })
    ),
    Effect.map(fromCluster)
  )
