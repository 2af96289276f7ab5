// The transport over the package `pulsar-client`, a native addon. The package is optional and loaded on first use.
import { bytesOf } from "../../text/utf8.ts"
import { pathToFileURL } from "node:url"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { isAbsolute, join } from "node:path"
import { rootCertificates } from "node:tls"
import { tmpdir } from "node:os"
import type * as Pulsar from "./native-types.ts"
import { failureOf, PulsarFailure } from "./errors.ts"
import { findRefusal } from "./handshake.ts"
import { decodeMessageId } from "./message-id.ts"
import { connectionLost, giveUpAfterMs, type Connection, receivedOf } from "./native-connection.ts"
import { lookSeconds, Readers } from "./native-reader.ts"
import { defaults, type PulsarOptions } from "./options.ts"
import type {
  ConsumeOptions,
  Outgoing,
  ProduceOptions,
  Receipt,
  Received,
  Transport,
  TransportConsumer,
  TransportProducer
} from "./transport.ts"

type Module = Pulsar.Module

/** Loads the package. Rejects with a failure that says what to do without it. */
const load = async (name: string): Promise<Module> => {
  try {
    const specifier = isAbsolute(name) ? pathToFileURL(join(name, "index.js")).href : name
    const module = (await import(specifier)) as Module & { readonly default?: Module }
    return module.default ?? module
  } catch (cause) {
    const reason = (cause as Error).message.split("\n")[0]
    throw new PulsarFailure(
      "other",
      false,
      `the native client '${name}' cannot be loaded (${reason}): install it where its binary can be downloaded (npm install pulsar-client), or use the WebSocket interface, which needs no native client: MILLRACE_PULSAR_URL=ws://HOST:8080`,
      cause
    )
  }
}

/** Writes the certificates to files, as the client needs them. It knows no authorities of its own, so those of Node are the default. */
const certificateFiles = ({ tls = {}, url }: PulsarOptions) => {
  if (!url.startsWith("pulsar+ssl:")) return undefined
  const directory = mkdtempSync(join(tmpdir(), "millrace-tls-"))
  const write = (name: string, text: string | undefined) => {
    if (text === undefined) return undefined
    writeFileSync(join(directory, name), text, { mode: 0o600 })
    return join(directory, name)
  }
  const ca = write("ca.pem", tls.ca ?? rootCertificates.join("\n"))
  const paths = { ca, cert: write("cert.pem", tls.cert), key: write("key.pem", tls.key) }
  return { ...paths, remove: () => rmSync(directory, { recursive: true, force: true }) }
}

const types = { exclusive: "Exclusive", shared: "Shared", keyShared: "KeyShared" } as const
/** How soon a message comes again after a negative acknowledgement: the shortest delay that the client supports. */
const negativeAckMs = 100
/** How many messages one call receives at most. */
const receiveAtOnce = 200
/** How often the state of a connection is checked. */
const watchMs = 200
/** The demand for messages: asks for more, or says that no more are wanted. */
interface Demand {
  readonly ask: (count: number) => void
  readonly end: () => void
}
/**
 * Receives as many messages as were asked for, and up to a batch more. It makes one call at a time, because answers to several calls come in any
 * order. A single message is received at once; when there are many, receiving batches is ten times as fast.
 *
 * It drops nothing. The client may return messages of a lost connection until the broker has accepted the next one, when it empties its queue
 * (`handleCreateConsumer` in its ConsumerImpl.cc), and it says that it is connected before. So nobody can tell of which connection a message is, and
 * after a dropped one the next would come too early.
 */
const pulling = (consumer: Pulsar.Consumer, { arrived, lost }: ConsumeOptions): Demand => {
  const state = { credit: 0, ended: false, running: false }
  const run = async () => {
    let busy = false
    while (state.credit > 0 && !state.ended) {
      const messages: ReadonlyArray<Pulsar.Message> = busy ? await consumer.batchReceive() : [await consumer.receive()]
      busy = messages.length > (busy ? 1 : 0)
      state.credit -= messages.length
      for (const message of messages) arrived(receivedOf(message))
    }
  }
  const start = () => {
    if (state.running || state.ended) return
    state.running = true
    run()
      .catch((cause: unknown) => {
        if (!state.ended) lost(failureOf(cause, "receive"), true)
        state.ended = true
      })
      .finally(() => {
        state.running = false
        if (state.credit > 0) start()
      })
  }
  return {
    ask: (count) => {
      state.credit += count
      start()
    },
    end: () => (state.ended = true)
  }
}
/**
 * A listener that returns only when more was asked for. The client lets the broker send the next message only then, so it fetches nothing ahead.
 * The listener occupies a thread of the client meanwhile.
 */
const listening = ({
  arrived
}: ConsumeOptions): Demand & { readonly listener: (message: Pulsar.Message) => Promise<void> } => {
  const state = { credit: 0, wake: () => {} }
  const wanted = async () => {
    while (state.credit < 1) await new Promise<void>((resolve) => (state.wake = resolve))
  }
  const ask = (count: number) => {
    state.credit += count
    state.wake()
  }
  return {
    listener: async (message: Pulsar.Message) => {
      // the first message arrives without having been asked for
      await wanted()
      state.credit -= 1
      arrived(receivedOf(message))
      await wanted()
    },
    ask,
    end: () => ask(Infinity)
  }
}

class NativeConsumer implements TransportConsumer {
  readonly ask: (count: number) => void
  private readonly demand: Demand
  private readonly consumer: Pulsar.Consumer
  private readonly end: () => Promise<void>
  private readonly watch: NodeJS.Timeout
  private readonly topic: string
  private closed = false

  constructor(
    consumer: Pulsar.Consumer,
    options: ConsumeOptions,
    demand: Demand | undefined,
    end: () => Promise<void>
  ) {
    this.consumer = consumer
    this.topic = options.topic
    this.demand = demand ?? pulling(consumer, options)
    this.ask = this.demand.ask
    this.end = end
    let lostSince: number | undefined
    // what others can have meanwhile must be forgotten, and messages of the lost connection would come after that: only a new consumer has none
    const isAlone = options.type === "exclusive"
    this.watch = setInterval(() => {
      if (this.closed) return
      const now = performance.now()
      if (consumer.isConnected()) {
        if (lostSince !== undefined) options.recovered()
        lostSince = undefined
      } else if (!isAlone || now > (lostSince ?? now) + giveUpAfterMs) {
        clearInterval(this.watch)
        options.lost(connectionLost(), true)
      } else if (lostSince === undefined) {
        lostSince = now
        options.lost(connectionLost(), false)
      }
    }, watchMs)
  }
  private failed(operation: string) {
    return (cause: unknown) => failureOf(cause, `${operation} ${this.topic}`)
  }
  async acknowledge(messages: ReadonlyArray<Received>): Promise<void> {
    const failed = this.failed("acknowledge")
    await Promise.all(messages.map(({ handle }) => this.consumer.acknowledgeId(handle as Pulsar.MessageId))).catch(
      (cause: unknown) => {
        throw failed(cause)
      }
    )
  }
  async negativeAcknowledge(messages: ReadonlyArray<Received>): Promise<void> {
    for (const { handle } of messages) this.consumer.negativeAcknowledgeId(handle as Pulsar.MessageId)
    // the client sends them by a timer of its own, and drops what it has not sent yet when it is closed
    await new Promise((resolve) => setTimeout(resolve, negativeAckMs * 3))
  }
  async close(): Promise<void> {
    if (this.closed) return
    this.closed = true
    clearInterval(this.watch)
    // a waiting listener would occupy the client's thread
    this.demand.end()
    await this.consumer.close().catch(() => undefined)
    await this.end()
  }
}

class NativeProducer implements TransportProducer {
  private readonly producer: Pulsar.Producer
  constructor(producer: Pulsar.Producer) {
    this.producer = producer
  }
  async send({ eventTime, key, properties, sequenceId, value }: Outgoing): Promise<Receipt> {
    try {
      const sent = await this.producer.send({
        data: bytesOf(value),
        partitionKey: key,
        ...(eventTime > 0 && { eventTimestamp: eventTime }),
        properties,
        ...(sequenceId !== undefined && { sequenceId })
      })
      const id = decodeMessageId(sent.serialize())
      return { id, duplicate: id.ledger < 0 }
    } catch (cause) {
      throw failureOf(cause, `send to ${this.producer.getTopic()}`)
    }
  }
  async close(): Promise<void> {
    await this.producer.close().catch(() => undefined)
  }
}

/** Opens the transport. It connects on first use. Rejects with a `PulsarFailure` if the package cannot be loaded. */
export const native = async (options: PulsarOptions): Promise<Transport> => {
  const module = await load(options.client ?? defaults.client)
  const tls = certificateFiles(options)
  const connect = (config: Partial<Pulsar.ClientConfig> = {}): Connection => {
    const client = new module.Client({ ...configurationOf(module, options, tls), ...config })
    return { client, close: async () => void (await client.close().catch(() => undefined)) }
  }
  const shared = connect()
  const readers = new Readers(module, () => connect({ operationTimeoutSeconds: lookSeconds }))
  const failed = (operation: string, topic: string) => async (cause: unknown) => {
    const failure = failureOf(cause, `${operation} ${topic}`)
    // the client reports a broker that refuses it like one that cannot be reached
    throw (failure.kind === "lost" ? await findRefusal(options, lookSeconds * 1_000) : undefined) ?? failure
  }
  return {
    consume: (settings) => consume(settings, shared, connect).catch(failed("subscribe to", settings.topic)),
    produce: (settings) => produce(shared.client, settings, options).catch(failed("produce to", settings.topic)),
    read: (settings) => readers.open(settings).catch(failed("read", settings.topic)),
    sendsSequenceIds: true,
    partitions: async (topic) => {
      const names = await shared.client.getPartitionsForTopic(topic).catch(failed("look up", topic))
      return names.length === 1 && names[0] === topic ? 0 : names.length
    },
    close: async () => {
      await readers.close()
      await shared.close()
      tls?.remove()
    }
  }
}

const configurationOf = (
  module: Module,
  options: PulsarOptions,
  tls: ReturnType<typeof certificateFiles>
): Pulsar.ClientConfig => {
  const seconds = Math.max(1, Math.ceil((options.timeoutMs ?? defaults.timeoutMs) / 1_000))
  const authentication =
    options.token !== undefined
      ? new module.AuthenticationToken({ token: options.token })
      : tls?.cert !== undefined && tls.key !== undefined
        ? new module.AuthenticationTls({ certificatePath: tls.cert, privateKeyPath: tls.key })
        : undefined
  return {
    serviceUrl: options.url,
    operationTimeoutSeconds: seconds,
    connectionTimeoutMs: seconds * 1_000,
    logLevel: module.LogLevel.ERROR,
    // what it logs it also returns, or `findRefusal` finds out
    log: () => undefined,
    ...(authentication !== undefined && { authentication }),
    ...(tls?.ca !== undefined && { tlsTrustCertsFilePath: tls.ca }),
    ...(tls?.cert !== undefined && { tlsCertificateFilePath: tls.cert }),
    ...(tls?.key !== undefined && { tlsPrivateKeyFilePath: tls.key }),
    tlsValidateHostname: true
  }
}

const consume = async (options: ConsumeOptions, shared: Connection, connect: () => Connection) => {
  const { earliest, name, prefetch, subscription, topic, type } = options
  const listens = prefetch < 1 ? listening(options) : undefined
  const connection = listens === undefined ? shared : connect()
  const end = listens === undefined ? () => Promise.resolve() : connection.close
  try {
    const consumer = await connection.client.subscribe({
      topic,
      subscription,
      subscriptionType: types[type],
      subscriptionInitialPosition: earliest ? "Earliest" : "Latest",
      consumerName: name,
      receiverQueueSize: listens === undefined ? Math.floor(prefetch) : 0,
      nAckRedeliverTimeoutMs: negativeAckMs,
      // without this the whole batch comes again while one of its messages is not acknowledged
      batchIndexAckEnabled: true,
      batchReceivePolicy: {
        maxNumMessages: Math.min(receiveAtOnce, Math.max(1, Math.floor(prefetch))),
        maxNumBytes: -1,
        timeoutMs: 1
      },
      ...(listens !== undefined && { listener: listens.listener })
    })
    return new NativeConsumer(consumer, options, listens, end)
  } catch (cause) {
    await end()
    throw cause
  }
}

const produce = async (client: Pulsar.Client, options: ProduceOptions, { timeoutMs }: PulsarOptions) =>
  new NativeProducer(
    await client.createProducer({
      topic: options.topic,
      ...(options.name !== undefined && { producerName: options.name }),
      ...(options.initialSequenceId !== undefined && { initialSequenceId: options.initialSequenceId }),
      batchingEnabled: options.batching,
      batchingMaxPublishDelayMs: 1,
      batchingMaxMessages: 1_000,
      maxPendingMessages: options.maxPending,
      blockIfQueueFull: false,
      sendTimeoutMs: timeoutMs ?? defaults.timeoutMs
    })
  )
