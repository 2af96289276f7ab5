// What tests of the relay to Pulsar share: a database with an outbox, tenants for each test, and reading topics. No tests.
import { afterAll, assert, beforeAll } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import type { Endpoints } from "../../stack/service.ts"
import { shared } from "../../stack/testing.ts"
import type { Outbox } from "../../src/relay/outbox.ts"
import * as PostgresOutbox from "../../src/postgres/relay/outbox.ts"
import type { NewRecord } from "../../src/log/log.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import { pack } from "../../src/postgres/log/batch-codec.ts"
import { compareMessageIds } from "../../src/pulsar/client/message-id.ts"
import { type Cluster, connect } from "../../src/pulsar/client/cluster.ts"
import type { PulsarOptions } from "../../src/pulsar/client/options.ts"
import type { RelayMessage } from "../../src/pulsar/relay/messages.ts"
import * as PulsarRelay from "../../src/pulsar/relay/relay.ts"
import type { Received } from "../../src/pulsar/client/transport.ts"
import type { RelayError, RelayTarget, RelayRound } from "../../src/relay/target.ts"
import { incarnation } from "./outbox.ts"
import { databaseOn, server } from "./postgres.ts"
import { optionsOf, type TransportName } from "./pulsar.ts"
import { testOver } from "./stack.ts"

/** What a test gets. */
export interface Case {
  readonly sql: Sql
  readonly url: string
  /** A connection of the test's own. */
  readonly cluster: Cluster
  readonly options: PulsarOptions
  /** A name for the test's tenants and producers. A tenant of this name exists, with the namespace `alerts`. */
  readonly name: string
  readonly outbox: Outbox["Service"]
  readonly relay: (
    options?: PulsarRelay.PulsarRelayOptions,
    outbox?: Outbox["Service"]
  ) => Effect.Effect<RelayTarget, unknown, Scope.Scope>
  /** All messages of a topic of a tenant, by default the test's. */
  readonly messages: (topic: string, tenant?: string) => Effect.Effect<ReadonlyArray<Received>>
}

/** A tenant with a namespace `alerts` whose topics keep everything. */
export const makeTenant = async ({ admin }: Cluster, tenant: string) => {
  await admin!.call("PUT", `tenants/${tenant}`, { allowedClusters: ["standalone"], adminRoles: [] }, [409])
  await admin!.call("PUT", `namespaces/${tenant}/alerts`, {}, [409])
  await admin!.call("POST", `namespaces/${tenant}/alerts/retention`, {
    retentionTimeInMinutes: -1,
    retentionSizeInMB: -1
  })
}
/** Calls `each` with all present messages of a topic; not at all if the topic does not exist. */
export const eachMessage = async (
  { admin, transport }: Cluster,
  topic: string,
  each: (message: Received) => void
): Promise<void> => {
  const end = await admin!.lastMessageId(topic).catch(() => undefined)
  if (end === undefined) return
  const reader = await transport.read({ topic, from: "earliest" })
  for (let next = await reader.next(10_000); next !== undefined; next = await reader.next(10_000)) {
    each(next)
    if (compareMessageIds(next.id, end) >= 0) break
  }
  await reader.close()
}
/** All present messages of a topic; empty if the topic does not exist. */
export const messagesOf = async (cluster: Cluster, topic: string): Promise<ReadonlyArray<Received>> => {
  const found: Array<Received> = []
  await eachMessage(cluster, topic, (message) => void found.push(message))
  return found
}

/** The cluster with another way to open producers. */
export const withProduce = (cluster: Cluster, produce: Cluster["transport"]["produce"]): Cluster => ({
  ...cluster,
  transport: { ...cluster.transport, produce }
})

/** A PostgreSQL server and a Pulsar. */
export interface Services {
  readonly root: string
  readonly endpoints: Endpoints
}
/** Both, from before the first test of a suite until after its last one. The result is available while tests run. */
export const servicesOfSuite = (): (() => Services) => {
  const scope = Scope.makeUnsafe()
  let services: Services = { root: "", endpoints: {} }
  beforeAll(async () => {
    const root = await Effect.runPromise(Scope.provide(server, scope))
    services = { root, endpoints: await Effect.runPromise(Scope.provide(shared("pulsar"), scope)) }
  }, 180_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  return () => services
}

let made = 0
/** Tests on services that are known when they run, which use a second transport too where one is given. */
export const testsOn =
  (transport: TransportName, services: () => Services, second = transport) =>
  (title: string, body: (_: Case) => Effect.Effect<void, unknown, Scope.Scope>, timeout = 240_000) =>
    testOver(second)(
      title,
      () =>
        Effect.gen(function* () {
          const { endpoints, root } = services()
          const { sql, url } = yield* databaseOn(root, 20)
          const name = `r${process.pid}-${made++}`
          const options: PulsarOptions = { ...optionsOf(transport, endpoints), namespace: "alerts", tenant: name }
          const cluster = yield* connect(options)
          yield* Effect.promise(() => makeTenant(cluster, name))
          const outbox = PostgresOutbox.make(sql)
          const relay = (relayOptions: PulsarRelay.PulsarRelayOptions = {}, own = outbox) =>
            PulsarRelay.make(options, own, { prefix: name, ...relayOptions })
          const messages = (topic: string, tenant = name) =>
            Effect.promise(() => messagesOf(cluster, `persistent://${tenant}/alerts/${topic}`))
          yield* body({ sql, url, cluster, options, name, outbox, relay, messages })
        }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal")),
      timeout
    )

/** A segment to publish. */
export interface Publishing {
  readonly projection?: string
  readonly partition?: number
  readonly firstSeq: number
  readonly messages: number
  readonly target?: string
  readonly tenant?: string | undefined
  readonly incarnation?: string
  readonly record?: (seq: number) => Partial<NewRecord>
}
/** Publishes records with 7 keys, whose values contain their stream and sequence number. */
export const publish = (sql: Sql, options: Publishing) => {
  const { firstSeq, messages, partition = 0, projection = "p", target = "alerts", tenant } = options
  const records = Array.from({ length: messages }, (_, i): NewRecord => {
    const seq = firstSeq + i
    const record = {
      partition: 0,
      key: `k${seq % 7}`,
      value: JSON.stringify({ from: `${projection}/events/${partition}`, seq }),
      eventTime: 1_000 + seq,
      eventId: `e${seq}`,
      tenant,
      traceparent: `00-0af7651916cd43dd8448eb211c80319c-${String(seq).padStart(16, "0")}-01`,
      schemaVersion: 1,
      headers: {}
    }
    return Object.assign(record, options.record?.(seq))
  })
  const { meta, vals } = pack(records)
  return query(
    "publish",
    () => sql`
    insert into millrace.outbox
      (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    values (${projection}, 'events', ${partition}, ${firstSeq}, ${messages}, ${options.incarnation ?? incarnation}, ${target},
      ${partition}, ${meta}, ${vals})`
  )
}

/** A message of the stream `s`, as a channel gets it. */
export const channelMessage = (topic: string, seq: number, value = `{"seq":${seq}}`): RelayMessage => {
  const key = `k${seq % 7}`
  const properties = { "millrace-stream": "s", "millrace-seq": String(seq), "millrace-incarnation": "i" }
  const what = { key, value, eventTime: seq, properties, meta: [key, seq] as const, headers: undefined }
  return { seq, incarnation: "i", topic, ...what }
}

/** Runs rounds until no stream lags. Returns how many messages were published. */
export const shipAll = Effect.fnUntraced(function* (target: RelayTarget) {
  let messages = 0
  const count = (shipment: RelayRound) => void (messages += shipment.messages)
  yield* rounds(target, (shipment, lag) => {
    count(shipment)
    return lag === 0
  })
  return messages
})
/** Runs rounds until `done` returns true. */
export const rounds = Effect.fnUntraced(function* (
  target: RelayTarget,
  done: (shipment: RelayRound, lag: number) => boolean
): Effect.fn.Return<RelayRound, RelayError> {
  while (true) {
    const shipment = yield* target.publish
    const lag = (yield* target.lag).reduce((sum, one) => sum + Math.max(0, one.lag), 0)
    if (done(shipment, lag)) return shipment
    if (!shipment.more) yield* Effect.raceFirst(target.wait, Effect.sleep(20))
  }
})
/** Sequence numbers by stream, in the topic's order. */
export const sequencesOf = (messages: ReadonlyArray<Received>) => {
  const found: Record<string, Array<number>> = {}
  for (const { properties } of messages)
    (found[properties["millrace-stream"]!] ??= []).push(Number(properties["millrace-seq"]))
  return found
}
/** Asserts that each message of each stream is there once and in order. */
export const assertOnce = (messages: ReadonlyArray<Received>, expected: Readonly<Record<string, number>>) => {
  const found = sequencesOf(messages)
  for (const [stream, n] of Object.entries(expected))
    assert.deepStrictEqual(
      found[stream] ?? [],
      Array.from({ length: n }, (_, i) => i + 1),
      stream
    )
}
/** Makes the broker forget the producers of a tenant's namespace, as it does by itself after six hours. */
export const purge = async ({ admin }: Cluster, tenant: string) => {
  const path = `namespaces/${tenant}/alerts/deduplication`
  const enabled = async (topic: string) => {
    const found = (await admin!.call("GET", `persistent/${tenant}/alerts/${topic}/internalStats`)) as {
      readonly cursors: Readonly<Record<string, unknown>>
    }
    return "pulsar.dedup" in found.cursors
  }
  for (const on of [false, true]) {
    await admin!.call("POST", path, on)
    while ((await enabled("alerts")) !== on) await new Promise((resolve) => setTimeout(resolve, 50))
  }
}
