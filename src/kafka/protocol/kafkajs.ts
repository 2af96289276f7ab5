// The parts of kafkajs 2.2.4 that this adapter uses, with types: connections, authentication and plain requests (decision 0009). The version
// is pinned, because some of them are not public. Import kafkajs from here: this file also repairs its encoder and its request queue.
import { createRequire } from "node:module"
import KafkaJs from "kafkajs"
import type { KafkaOptions } from "./options.ts"

/** A connection, once its broker is connected. */
export interface Connection {
  readonly isConnected: () => boolean
  /** Encodes, sends and waits for the answer. Answers come in the order of the requests. */
  readonly send: <A>(protocol: {
    readonly request: {
      readonly apiKey: number
      readonly apiVersion: number
      readonly apiName: string
      readonly encode: () => Promise<{ readonly buffer: Buffer; readonly size: () => number }>
    }
    readonly response: {
      readonly decode: (raw: Buffer) => Promise<A & Throttled>
      readonly parse: (decoded: A) => Promise<A>
    }
    readonly requestTimeout?: number
    readonly logResponseError?: boolean
  }) => Promise<A>
  readonly rejectRequests: (error: Error) => void
  readonly disconnect: () => Promise<unknown>
  readonly socket?: { readonly destroy: () => unknown }
}
/** An answer of a broker. */
export interface Throttled {
  /** How long the broker wants further requests held back, in milliseconds. */
  readonly clientSideThrottleTime?: number
}
interface Pool {
  readonly pool: ReadonlyArray<Connection>
  readonly getConnection: (index: number) => Promise<Connection>
}
/** What a broker knows of topics. */
export interface Metadata {
  readonly brokers: ReadonlyArray<{ readonly nodeId: number; readonly host: string; readonly port: number }>
  readonly topicMetadata: ReadonlyArray<{
    readonly topic: string
    readonly partitionMetadata: ReadonlyArray<{
      readonly partitionErrorCode: number
      readonly partitionId: number
      readonly leader: number
      readonly replicas: ReadonlyArray<number>
    }>
  }>
}
/** One broker over one connection. Every call rejects with kafkajs's errors. */
export interface Broker {
  readonly connectionPool: Pool
  readonly brokerAddress: string
  /** The versions that the broker supports, by API key; null before it is connected. */
  readonly versions: Readonly<Record<number, { readonly maxVersion: number }>> | null
  readonly connect: () => Promise<void>
  readonly isConnected: () => boolean
  readonly metadata: (topics: ReadonlyArray<string>) => Promise<Metadata>
  readonly initProducerId: (_: {
    readonly transactionalId: string | null
    readonly transactionTimeout: number
  }) => Promise<{ readonly producerId: string; readonly producerEpoch: number }>
  readonly listOffsets: (_: {
    readonly replicaId: number
    readonly isolationLevel: number
    readonly topics: ReadonlyArray<{
      readonly topic: string
      readonly partitions: ReadonlyArray<{ readonly partition: number; readonly timestamp: string }>
    }>
  }) => Promise<{
    readonly responses: ReadonlyArray<{
      readonly partitions: ReadonlyArray<{ readonly partition: number; readonly offset: string }>
    }>
  }>
  readonly findGroupCoordinator: (_: { readonly groupId: string; readonly coordinatorType: number }) => Promise<{
    readonly coordinator: { readonly nodeId: number; readonly host: string; readonly port: number }
  }>
  readonly joinGroup: (_: {
    readonly groupId: string
    readonly sessionTimeout: number
    readonly rebalanceTimeout: number
    readonly memberId: string
    readonly protocolType: string
    readonly groupProtocols: ReadonlyArray<{ readonly name: string; readonly metadata: Buffer }>
  }) => Promise<{
    readonly generationId: number
    readonly leaderId: string
    readonly memberId: string
    readonly members: ReadonlyArray<{ readonly memberId: string; readonly memberMetadata: Buffer }>
  }>
  readonly syncGroup: (_: {
    readonly groupId: string
    readonly generationId: number
    readonly memberId: string
    readonly groupAssignment: ReadonlyArray<{ readonly memberId: string; readonly memberAssignment: Buffer }>
  }) => Promise<{ readonly memberAssignment: Buffer }>
  readonly heartbeat: (_: {
    readonly groupId: string
    readonly groupGenerationId: number
    readonly memberId: string
  }) => Promise<unknown>
  readonly describeGroups: (_: { readonly groupIds: ReadonlyArray<string> }) => Promise<{
    readonly groups: ReadonlyArray<{
      readonly members: ReadonlyArray<{ readonly memberId: string; readonly memberMetadata: Buffer }>
    }>
  }>
  readonly leaveGroup: (_: { readonly groupId: string; readonly memberId: string }) => Promise<unknown>
}
interface Cluster {
  readonly rootLogger: unknown
  readonly connectionPoolBuilder: { readonly build: (_: { host: string; port: number }) => Promise<Pool> }
  readonly brokerPool: { readonly createBroker: (_: { connectionPool: Pool; logger: unknown }) => Broker }
}

const require = createRequire(import.meta.url)
const internal = (path: string): unknown => require(`kafkajs/src/${path}`)

/** A request's bytes after its header, as kafkajs takes them. */
export interface Payload {
  readonly buf: Buffer
  readonly buffer: Buffer
  readonly size: () => number
}
interface Encoder {
  buf: Buffer
  offset: number
  /** Bytes that follow `buf`, not copied until the whole request is sent. */
  tail?: Buffer | undefined
}
const encoders = internal("protocol/encoder") as {
  readonly prototype: {
    writeEncoder: (this: Encoder, value: Encoder | Payload) => Encoder
    size: (this: Encoder) => number
  }
}
const { size: sizeOf, writeEncoder } = encoders.prototype
// kafkajs copies a request three times on its way to the socket, each time into a zeroed buffer of up to twice its size
encoders.prototype.writeEncoder = function (this: Encoder, value: Encoder | Payload) {
  if (!("tail" in value) || value.tail === undefined) return writeEncoder.call(this, value)
  const head = { buf: value.buf, buffer: value.buf.subarray(0, value.offset), size: () => value.offset }
  if (value.offset > 0) writeEncoder.call(this, head)
  this.tail = value.tail
  return this
}
encoders.prototype.size = function (this: Encoder) {
  return sizeOf.call(this) + (this.tail?.length ?? 0)
}
Object.defineProperty(encoders.prototype, "buffer", {
  get(this: Encoder) {
    if (this.tail !== undefined) {
      this.buf = Buffer.concat([this.buf.subarray(0, this.offset), this.tail])
      this.offset = this.buf.length
      this.tail = undefined
    }
    return this.buf.subarray(0, this.offset)
  }
})
/** Bytes that this adapter encoded. They are not copied before they are sent, so they must not change. */
const payloadOf = (bytes: Buffer): Payload =>
  ({ buf: Buffer.alloc(0), buffer: bytes, size: () => bytes.length, offset: 0, tail: bytes }) as Payload
/**
 * Sends a request that this adapter encoded, and decodes the answer. Waits as long as kafkajs is configured to, or for `requestTimeout`
 * milliseconds. Rejects with kafkajs's errors.
 */
export const exchange = async <A>(
  broker: Broker,
  [apiKey, apiVersion, apiName]: readonly [key: number, version: number, name: string],
  bytes: Buffer,
  decode: (raw: Buffer) => A & Throttled,
  requestTimeout?: number
): Promise<A> => {
  const connection = await broker.connectionPool.getConnection(0)
  return connection.send<A>({
    request: { apiKey, apiVersion, apiName, encode: () => Promise.resolve(payloadOf(bytes)) },
    response: { decode: (raw) => Promise.resolve(decode(raw)), parse: (answer) => Promise.resolve(answer) },
    ...(requestTimeout !== undefined && { requestTimeout }),
    logResponseError: false
  })
}
/** kafkajs's error for an error number of a broker's answer. */
export const errorFromCode = (internal("protocol/error") as { createErrorFromCode: (code: number) => Error })
  .createErrorFromCode

interface RequestQueue {
  readonly pending: ReadonlyArray<unknown>
}
const queues = internal("network/requestQueue") as {
  readonly prototype: { scheduleCheckPendingRequests: (this: RequestQueue) => void }
}
const schedule = queues.prototype.scheduleCheckPendingRequests
// An empty queue sets a timer of "throttled until" (-1) minus now, about minus 1.8e12 ms. It fires after 1 ms and sets the next one, for ever: a
// thousand turns a second for each connection, and since Node 24 a TimeoutNegativeWarning on the user's terminal (kafkajs #1556, #1704, #1751). With
// requests pending the delay is positive, and without there is nothing to send later.
queues.prototype.scheduleCheckPendingRequests = function (this: RequestQueue) {
  if (this.pending.length > 0) schedule.call(this)
}

/** The options as kafkajs takes them. It logs nothing. */
export const configOf = (options: KafkaOptions): KafkaJs.KafkaConfig => ({
  brokers: [...options.brokers],
  clientId: options.clientId ?? "millrace",
  connectionTimeout: options.connectMs ?? 5_000,
  authenticationTimeout: options.connectMs ?? 5_000,
  requestTimeout: options.requestMs ?? 20_000,
  logLevel: KafkaJs.logLevel.NOTHING,
  // with kafkajs's default, 300 ms, back-to-back transactions and new leaders would wait for that long
  retry: { initialRetryTime: 20, maxRetryTime: 1_000, retries: 5 },
  ...(options.tls !== undefined && { ssl: options.tls === true ? {} : options.tls }),
  ...(options.sasl !== undefined && { sasl: options.sasl as KafkaJs.SASLOptions })
})
export { KafkaJs }
/** kafkajs's client, for its admin requests. */
export const clientOf = (options: KafkaOptions) => new KafkaJs.Kafka(configOf(options))

/** Creates brokers that are not connected yet. Each has a connection of its own, so that no long wait delays another one's request. */
export const dialer = (options: KafkaOptions) => {
  // the caller watches the time and drops a hung connection; kafkajs would forget the request and keep the connection
  const kafka = new KafkaJs.Kafka({ ...configOf(options), enforceRequestTimeout: false }) as unknown as Record<
    symbol,
    (_: object) => Cluster
  >
  const create = Object.getOwnPropertySymbols(kafka).find(
    ({ description }) => description === "private:Kafka:createCluster"
  )!
  const cluster = kafka[create]!({ allowAutoTopicCreation: false, metadataMaxAge: 300_000 })
  return async (host: string, port: number): Promise<Broker> =>
    cluster.brokerPool.createBroker({
      connectionPool: await cluster.connectionPoolBuilder.build({ host, port }),
      logger: cluster.rootLogger
    })
}

/** Closes a broker's connections at once. kafkajs itself would wait for requests that may never be answered. */
export const abandon = (broker: Broker, reason = "the connection was closed by this process"): void => {
  for (const connection of broker.connectionPool.pool) {
    connection.rejectRequests(Object.assign(new Error(reason), { name: "KafkaJSConnectionError", retriable: true }))
    connection.socket?.destroy()
    connection.disconnect().catch(() => undefined)
  }
}
