// Pulsar for tests, on both transports: options, topics, producers, and the fan-out. No tests.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import { shared } from "../../stack/testing.ts"
import type { Endpoints } from "../../stack/service.ts"
import { Admin } from "../../src/pulsar/client/admin.ts"
import { type Cluster, connect } from "../../src/pulsar/client/cluster.ts"
import { failureOf } from "../../src/pulsar/client/errors.ts"
import * as PulsarFanOut from "../../src/pulsar/subscription/fanout.ts"
import type { PulsarOptions } from "../../src/pulsar/client/options.ts"
import { topicName } from "../../src/pulsar/client/topic-names.ts"
import type { Outgoing, ProduceOptions, TransportProducer } from "../../src/pulsar/client/transport.ts"
import { Topics } from "../contract/fanout-support.ts"
import { pulsarClient } from "./pulsar-client.ts"
import type { TransportName } from "./stack.ts"

export { type TransportName, transports } from "./stack.ts"

/** Options that reach a cluster over a transport. */
export const optionsOf = (transport: TransportName, endpoints: Endpoints): PulsarOptions => {
  const { MILLRACE_PULSAR_ADMIN_URL: adminUrl = "", MILLRACE_PULSAR_URL: url = "" } = endpoints
  const namespace = "contract"
  if (transport === "websocket") return { url: adminUrl.replace(/^http/, "ws"), adminUrl, namespace }
  const client = pulsarClient()
  return { url, adminUrl, namespace, ...(client !== undefined && { client }) }
}

/** Environment variables by which a command reaches a cluster over a transport. */
export const environmentOf = (
  transport: TransportName,
  endpoints: Endpoints,
  namespace: string
): Readonly<Record<string, string | undefined>> => {
  const { adminUrl, client, url } = optionsOf(transport, endpoints)
  return {
    MILLRACE_PULSAR_URL: url,
    MILLRACE_PULSAR_ADMIN_URL: adminUrl,
    MILLRACE_PULSAR_CLIENT: client,
    MILLRACE_PULSAR_NAMESPACE: namespace
  }
}

/** A namespace whose topics keep everything. */
export const makeNamespace = async (options: PulsarOptions): Promise<void> => {
  const admin = new Admin(options)
  const name = `${options.tenant ?? "public"}/${options.namespace ?? "alerts"}`
  await admin.call("PUT", `namespaces/${name}`, {}, [409])
  await admin.call("POST", `namespaces/${name}/retention`, { retentionTimeInMinutes: -1, retentionSizeInMB: -1 })
}

/** Topics of a cluster. With `batching` what is published at once may be one batch. */
export const topicsOn = Effect.fnUntraced(function* (options: PulsarOptions, batching: boolean) {
  const cluster = yield* connect(options)
  const name = (topic: string) => `persistent://${options.tenant ?? "public"}/${options.namespace}/${topic}`
  const partitioned = new Set<string>()
  return Topics.of({
    declare: (topic, partitions) =>
      Effect.promise(async () => {
        const path = name(topic).replace("://", "/")
        if (partitions === 1) return cluster.admin!.create(name(topic))
        partitioned.add(topic)
        await cluster.admin!.call("PUT", `${path}/partitions`, partitions)
      }),
    publish: (topic, messages) =>
      Effect.promise(async () => {
        const of = Map.groupBy(messages, ({ partition = 0 }) => partition)
        for (const [partition, some] of of) {
          const full = partitioned.has(topic) ? `${name(topic)}-partition-${partition}` : name(topic)
          const producer = await cluster.transport.produce({ topic: full, batching, maxPending: 1_000 })
          await Promise.all(
            some.map(({ key, seq }) =>
              producer.send({
                key,
                value: JSON.stringify({ seq, key }),
                eventTime: 1_000 + seq,
                properties: {
                  event_id: `e${seq}`,
                  tenant: "t",
                  schema_version: "1",
                  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                  trace_id: "0af7651916cd43dd8448eb211c80319c",
                  "millrace-stream": "s",
                  "millrace-seq": String(seq),
                  "millrace-incarnation": "0123abcd"
                }
              })
            )
          )
          await producer.close()
        }
      }),
    another: PulsarFanOut.make(options)
  })
})

/** The fan-out on the Pulsar that all test files share. */
export const fanOutOnPulsar = (transport: TransportName, batching = false) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const options = optionsOf(transport, yield* shared("pulsar"))
      yield* Effect.promise(() => makeNamespace(options))
      const quiet = Layer.succeed(References.MinimumLogLevel, "Error")
      return Layer.mergeAll(quiet, PulsarFanOut.layer(options), Layer.effect(Topics, topicsOn(options, batching)))
    })
  )

/** A message with its sequence id. */
export interface NumberedMessage extends Outgoing {
  readonly sequenceId: number
}
/** The name of a test's producer, and how it starts. */
export interface TestProducerOptions extends Partial<Pick<ProduceOptions, "name" | "initialSequenceId" | "batching">> {
  /** How long to wait while another connection has the name. A connection that died has it until the broker notices. Default 10,000 ms. */
  readonly patienceMs?: number
}
/** Opens a producer of the transport on a topic until the scope closes. Topics without a tenant are those of the cluster's options. */
export const openProducer = (
  cluster: Cluster,
  topic: string,
  { batching = false, initialSequenceId, name = "s#1", patienceMs = 10_000 }: TestProducerOptions = {}
) => {
  const options: ProduceOptions = {
    topic: topicName(cluster.options, topic),
    name,
    batching,
    maxPending: 2_000,
    ...(initialSequenceId !== undefined && { initialSequenceId })
  }
  const until = performance.now() + patienceMs
  return Effect.acquireRelease(
    Effect.tryPromise({
      try: () => cluster.transport.produce(options),
      catch: (cause) => failureOf(cause, topic)
    }).pipe(
      Effect.retry({
        schedule: Schedule.spaced("50 millis"),
        while: ({ kind }) => kind === "busy" && performance.now() < until
      })
    ),
    (producer) => Effect.promise(() => producer.close())
  )
}
/** Sends messages in their order, and returns the receipts when the broker has answered all. Fails with the first failure. */
export const sendAll = (producer: TransportProducer, messages: ReadonlyArray<NumberedMessage>) =>
  Effect.tryPromise({
    try: async () => {
      const answers = await Promise.allSettled(messages.map((message) => producer.send(message)))
      return answers.map((answer) => {
        if (answer.status === "rejected") throw answer.reason
        return answer.value
      })
    },
    catch: (cause) => failureOf(cause, "send")
  })
