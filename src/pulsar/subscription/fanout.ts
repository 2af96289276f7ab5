// The fan-out on Apache Pulsar: durable subscriptions whose state Pulsar keeps, over the native client or WebSocket.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import {
  assertPositions,
  assertSettings,
  ConsumerBusy,
  defaults as subscriptions,
  FanOut,
  FanOutError,
  redeliveryDelay,
  type StartAt,
  type StartPosition,
  type SubscribeOptions
} from "../../subscription/fanout.ts"
import { UnknownTopic } from "../../log/log.ts"
import { adminOf, type Cluster, connect, partitionCount } from "../client/cluster.ts"
import { PulsarConsumer, type SubscriptionSettings } from "./consumer.ts"
import { failureOf } from "../client/errors.ts"
import { fanOutError } from "./errors.ts"
import type { PulsarOptions } from "../client/options.ts"
import { partitionTopics, topicName } from "../client/topic-names.ts"
import { createAt, moveTo } from "./seek.ts"
import type { Outgoing, TransportProducer } from "../client/transport.ts"

const createAdvice =
  "set MILLRACE_PULSAR_TENANT to the tenant that has it, or create it: 'millrace pulsar apply', with --tenants TENANT if the application does not declare the tenant"
/** The full names of a topic's partitions. Fails with `UnknownTopic` if the admin interface says that the topic does not exist. */
const partitionsOf = Effect.fnUntraced(function* (cluster: Cluster, operation: string, topic: string) {
  const name = topicName(cluster.options, topic)
  const count = yield* Effect.tryPromise({
    try: () => partitionCount(cluster, name),
    catch: fanOutError(operation)
  })
  if (count === undefined)
    return yield* new UnknownTopic({ topic, reason: `${name} does not exist`, advice: createAdvice })
  return partitionTopics(name, count)
})

const portTypes: Readonly<Record<string, string>> = {
  Exclusive: "exclusive",
  Failover: "failover",
  Shared: "shared",
  Key_Shared: "keyShared"
}
/** A producer of a topic. The topic is created, and the producer opened, with the first message. */
const lazyProducer = (cluster: Cluster, topic: string) => {
  const { admin, options, transport } = cluster
  const name = topicName(options, topic)
  let opened: Promise<TransportProducer> | undefined
  const open = async () => {
    // without permission to create it, the broker may create it for the first message
    const count = await partitionCount(cluster, name).catch(() => 0)
    if (count === undefined) await admin?.create(name).catch(() => undefined)
    return transport.produce({ topic: name, batching: false, maxPending: 100 })
  }
  const send = async (message: Outgoing) => {
    const opening = (opened ??= open())
    try {
      await (await opening).send(message)
    } catch (cause) {
      if (opened === opening) opened = undefined
      void opening.then((producer) => producer.close()).catch(() => undefined)
      throw cause
    }
  }
  const close = async () => void (await opened?.then((producer) => producer.close()).catch(() => undefined))
  return { send, close }
}

/** A subscription's type in the port's words, if the brokers report it. */
const typeOf = async ({ admin }: Cluster, topic: string, name: string) => {
  const stats = await admin?.subscription(topic, name).catch(() => undefined)
  return portTypes[stats?.type ?? ""] ?? "of another type, or exclusive,"
}

/** Fails for a token: its positions are of the log, and Pulsar has its own. */
const withoutToken = (operation: "subscribe" | "seek", at: StartAt): Effect.Effect<StartPosition, FanOutError> =>
  typeof at === "object" && "token" in at
    ? Effect.fail(
        new FanOutError({
          operation,
          retryable: false,
          reason:
            "a position token has positions of the log, and the messages of Pulsar have others. try: start at the time of the write ({ time }, or --from a date on the command line)"
        })
      )
    : Effect.succeed(at)

const subscribe = Effect.fnUntraced(function* (cluster: Cluster, options: SubscribeOptions) {
  yield* assertSettings(options)
  const start = yield* withoutToken("subscribe", options.from ?? subscriptions.from)
  const settings: SubscriptionSettings = {
    ...subscriptions,
    deadLetterTopic: `${options.topic}.${options.name}.dlq`,
    maxRedeliveryDelayMs: redeliveryDelay(options, 0),
    ...options
  }
  const topics = yield* partitionsOf(cluster, "subscribe", options.topic)
  const { name } = settings
  yield* assertPositions("subscribe", options.topic, topics.length, start)
  if (typeof start === "object")
    yield* Effect.tryPromise({
      try: () => createAt(adminOf(cluster), topics, name, start),
      catch: fanOutError("subscribe")
    })
  const deadLetters = yield* Effect.acquireRelease(
    Effect.sync(() => lazyProducer(cluster, settings.deadLetterTopic)),
    ({ close }) => Effect.promise(close)
  )
  const consumer = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new PulsarConsumer({
          transport: cluster.transport,
          settings,
          name: `millrace-${randomUUID()}`,
          topics,
          sendDeadLetter: deadLetters.send,
          typeOf: () => typeOf(cluster, topics[0]!, name)
        })
    ),
    (opened) => Effect.promise(() => opened.close())
  )
  const refused = yield* Effect.tryPromise({
    try: () => consumer.open().then(() => undefined),
    catch: (cause) => failureOf(cause, "subscribe")
  }).pipe(Effect.catch(Effect.succeed))
  // a failover consumer stands by
  if (refused === undefined || (refused.kind === "busy" && settings.type === "failover")) return consumer
  return yield* yield* Effect.promise(() => consumer.refusal(refused))
})

/** Moves a subscription. Fails with `ConsumerBusy` if it has a consumer. */
const seek = Effect.fnUntraced(function* (
  cluster: Cluster,
  { name, topic }: Pick<SubscribeOptions, "topic" | "name">,
  to: StartAt
) {
  const start = yield* withoutToken("seek", to)
  const topics = yield* partitionsOf(cluster, "seek", topic)
  yield* assertPositions("seek", topic, topics.length, start)
  const busy = yield* Effect.tryPromise({
    try: async () => {
      const admin = adminOf(cluster)
      for (const one of topics) {
        const stats = await admin.subscription(one, name)
        if ((stats?.consumers?.length ?? 0) > 0) return typeOf(cluster, one, name)
      }
      await moveTo(admin, topics, name, start)
      return undefined
    },
    catch: fanOutError("seek")
  })
  if (busy !== undefined) return yield* new ConsumerBusy({ topic, subscription: name, type: busy })
})

/** Runs an effect in a scope of its own, and closes that scope at once if the effect fails. */
const allOrNothing = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  return yield* Scope.provide(effect, scope).pipe(
    Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
  )
})

/** The fan-out over a cluster that stays connected as long as it is used. */
export const fromCluster = (cluster: Cluster): FanOut["Service"] =>
  FanOut.of({
    subscribe: (options) => allOrNothing(subscribe(cluster, options)),
    seek: (options, to) => seek(cluster, options, to),
    unsubscribe: (topic, name) =>
      Effect.tryPromise({
        try: () => adminOf(cluster).unsubscribe(topicName(cluster.options, topic), name),
        catch: fanOutError("unsubscribe")
      })
  })

/** Connects to a cluster until the scope closes. Fails if the client cannot be loaded or its options do not fit each other. */
export const make = (options: PulsarOptions): Effect.Effect<FanOut["Service"], FanOutError, Scope.Scope> =>
  connect(options).pipe(Effect.mapError(fanOutError("connect")), Effect.map(fromCluster))

/** The fan-out on a cluster, as a layer. */
export const layer = (options: PulsarOptions): Layer.Layer<FanOut, FanOutError> => Layer.effect(FanOut, make(options))
