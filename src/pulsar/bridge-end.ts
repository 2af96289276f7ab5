// Pulsar as one end of a bridge: named producers, what a topic ends with, and exclusive consumers, over either transport. It keeps no position.
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

/** Sent and not answered, at most. */
const inFlight = 1_000
/** Messages that a consumer holds ready, at most. */
const heldReady = 4_000

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
const attempt = <A>(operation: string, topic: string, run: () => Promise<A>): Effect.Effect<A, BridgeError> =>
  Effect.tryPromise({ try: run, catch: bridgeError(operation, topic) })

const arrivedOf = (message: Received): PulsarMessage => {
  const { eventTime, id, key, properties, publishTime, value } = message
  const record = { key, value, eventTime: eventTime === 0 ? publishTime : eventTime, headers: properties }
  return { position: id, publishTime, record }
}

class Producer implements PulsarProducer {
  private readonly producer: TransportProducer
  private readonly part: string
  constructor(producer: TransportProducer, part: string) {
    this.producer = producer
    this.part = part
  }
  readonly send = (messages: ReadonlyArray<NumberedRecord>): Effect.Effect<ReadonlyArray<SendResult>, BridgeError> =>
    attempt("send", this.part, () => this.all(messages))

  private async one({ record, sequenceId }: NumberedRecord): Promise<SendResult> {
    const { eventTime, headers, key, value } = record
    try {
      const message = { key: key ?? "", value: value ?? "", eventTime, properties: headers, sequenceId }
      const { duplicate, id } = await this.producer.send(message)
      return duplicate ? { kind: "duplicate" } : { kind: "stored", position: id }
    } catch (cause) {
      const failure = failureOf(cause, this.part)
      if (failure.kind === "messageTooLarge") return { kind: "refused", reason: failure.message }
      throw failure
    }
  }
  private async all(messages: ReadonlyArray<NumberedRecord>): Promise<ReadonlyArray<SendResult>> {
    const sent: Array<SendResult> = []
    const under = { count: 0, answered: () => {} }
    let failed: { readonly cause: unknown } | undefined
    const track = async (i: number, message: NumberedRecord) => {
      try {
        sent[i] = await this.one(message)
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
      if (under.count >= inFlight) await fewerThan(inFlight)
      // a later message that arrived without this one would be the last that the broker knows
      if (failed !== undefined) break
      under.count++
      void track(i, message)
    }
    await fewerThan(1)
    if (failed !== undefined) throw (failed as { readonly cause: unknown }).cause
    return sent
  }
}

class Consumer implements PulsarConsumer {
  consumer: TransportConsumer | undefined
  private readonly part: string
  private readonly ready: Array<Received> = []
  private readonly handles = new Map<PulsarMessage, Received>()
  private failed: unknown
  private wake: () => void = () => undefined

  constructor(part: string) {
    this.part = part
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
    attempt("receive", this.part, async () => {
      while (this.ready.length === 0 && this.failed === undefined)
        await new Promise<void>((resolve) => (this.wake = resolve))
      if (this.failed !== undefined) throw this.failed
      const taken = this.ready.splice(0, max)
      this.consumer?.ask(taken.length)
      return taken.map((message) => {
        const arrived = arrivedOf(message)
        this.handles.set(arrived, message)
        return arrived
      })
    })
  readonly acknowledge = (messages: ReadonlyArray<PulsarMessage>): Effect.Effect<void, BridgeError> =>
    attempt("acknowledge", this.part, async () => {
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
  part: string,
  subscription: string,
  start: "earliest" | "latest"
): Effect.Effect<PulsarConsumer, BridgeError, Scope.Scope> =>
  Effect.acquireRelease(
    attempt("subscribe", part, async () => {
      const made = new Consumer(part)
      made.consumer = await transport.consume({
        topic: part,
        subscription,
        name: `bridge-${randomUUID()}`,
        type: "exclusive",
        earliest: start === "earliest",
        prefetch: 1_000,
        arrived: (message) => made.arrived(message),
        // a transport that goes on by itself gives messages anew without a word: a new session knows where it is
        lost: (cause: unknown) => made.lost(cause),
        recovered: () => undefined
      })
      made.consumer.ask(heldReady)
      return made
    }),
    ({ consumer }) => Effect.promise(async () => void (await consumer?.close().catch(() => undefined)))
  )

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

/** How long a broker may take to let a client in. */
const signInMs = 5_000
/** What a role may not do is an answer as well. */
const answered = [401, 403, 404]

/** A cluster that is connected, as a bridge's end. */
export const endFrom = (cluster: Cluster): PulsarSide => {
  const { admin, options, transport } = cluster
  return {
    ping: attempt("reach a broker", options.url, async () => {
      // a WebSocket's URL is the admin interface's
      if (isWebSocket(options.url)) await admin?.call("GET", "clusters", undefined, answered)
      else await checkSignIn(options, signInMs)
    }),
    topics: (tenant, namespace) =>
      attempt("list topics", tenant ?? "all tenants", async () => topicsIn(adminOf(cluster), tenant, namespace)),
    partitionsOf: (topic) =>
      attempt("look up the topic", topic, async () =>
        partitionTopics(topic, (await partitionCount(cluster, topic)) ?? 0)
      ),
    produce: (part, name, batching) =>
      Effect.acquireRelease(
        attempt("open a producer", part, () =>
          transport.produce({ topic: part, name, batching, maxPending: inFlight })
        ),
        (producer) => Effect.promise(async () => void (await producer.close().catch(() => undefined)))
      ).pipe(Effect.map((producer) => new Producer(producer, part))),
    scan: (part, after, show) =>
      attempt(
        "read the end",
        part,
        async () => void (await readToEnd(cluster, part, after, (message) => show(arrivedOf(message))))
      ),
    consume: (part, subscription, start) => consume(cluster, part, subscription, start),
    lastPosition: (part) => attempt("ask for the end", part, async () => adminOf(cluster).lastMessageId(part)),
    backlog: (part, subscription) =>
      attempt("ask for the backlog", part, async () => (await admin?.subscription(part, subscription))?.msgBacklog)
  }
}

/** Pulsar for a bridge, connected while the scope is open. Fails where the native client is needed and not there. */
export const make = (options: PulsarOptions): Effect.Effect<PulsarSide, BridgeError, Scope.Scope> =>
  connect(options).pipe(
    Effect.mapError(
      ({ message: reason, retryable }) =>
        new BridgeError({ side: "pulsar", operation: "connect", kind: "other", retryable, reason })
    ),
    Effect.map(endFrom)
  )
