// The transport over Pulsar's WebSocket interface, without native code. A lost connection ends its consumer, producer or reader.
import { bytesOf, textOf } from "../../text/utf8.ts"
import { WebSocket } from "ws"
import { randomUUID } from "node:crypto"
import type { Duplex } from "node:stream"
import { type Admin, pathOf } from "./admin.ts"
import { readAhead, ReceiveQueue } from "./receive-queue.ts"
import { failureOf, failureOfStatus, PulsarFailure } from "./errors.ts"
import { decodeMessageId, encodeMessageId } from "./message-id.ts"
import { defaults, type PulsarOptions } from "./options.ts"
import type {
  ConsumeOptions,
  Outgoing,
  ProduceOptions,
  ReadOptions,
  Receipt,
  Received,
  Transport,
  TransportConsumer,
  TransportProducer,
  TransportReader
} from "./transport.ts"

const types = { exclusive: "Exclusive", shared: "Shared", keyShared: "Key_Shared" } as const
/** How often a connection is pinged. It counts as lost if nothing came until the next ping. */
const pingMs = 10_000
const negativeAckMs = 100
/** The largest frame in bytes that the interface accepts: its default `webSocketMaxTextFrameSize`, which a client cannot look up. */
const mostFrame = 1 << 20

/** An open socket. It calls `message` for each frame and `lost` once at most, and not after `close`. */
interface Socket {
  readonly send: (frame: object | string) => void
  readonly isOpen: () => boolean
  readonly close: () => Promise<void>
}
const lostBecause = (reason: string) =>
  new PulsarFailure("lost", true, `the WebSocket to Pulsar was lost${reason === "" ? "" : ` (${reason})`}`)

/** What all connections of a transport share. */
interface Connections {
  readonly options: PulsarOptions
  readonly admin: Admin
  readonly sockets: Set<Socket>
  /** Topics that were found to have batches. */
  readonly batched: Set<string>
}
/** Writes all frames of one turn of the event loop at once: a system call for each frame would cost more than everything else. */
const corking = (socket: WebSocket) => {
  let connection: Pick<Duplex, "cork" | "uncork"> | undefined
  let corked = false
  socket.on("upgrade", (response) => (connection = response.socket))
  return () => {
    if (corked || connection === undefined) return
    corked = true
    connection.cork()
    setImmediate(() => {
      corked = false
      connection?.uncork()
    })
  }
}
const open = (
  { options, sockets }: Connections,
  path: string,
  query: Readonly<Record<string, string>>,
  message: (frame: Frame, socket: Socket) => void,
  lost: (cause: PulsarFailure) => void
): Promise<Socket> => {
  const { tls, token, url } = options
  const where = `${url.replace(/\/+$/, "")}/ws/v2/${path}`
  const socket = new WebSocket(`${where}?${new URLSearchParams(query)}`, {
    ...tls,
    handshakeTimeout: options.timeoutMs ?? defaults.timeoutMs,
    perMessageDeflate: false,
    ...(token !== undefined && { headers: { authorization: `Bearer ${token}` } })
  })
  return new Promise((resolve, reject) => {
    let opened = false
    let ended = false
    let alive = true
    let ping: NodeJS.Timeout | undefined
    const fail = (cause: unknown) => {
      clearInterval(ping)
      sockets.delete(own)
      if (!opened) return reject(failureOf(cause, where))
      if (!ended) lost(failureOf(cause, where))
      ended = true
    }
    socket.on("unexpected-response", (_request, response) => {
      const chunks: Array<Buffer> = []
      response.on("data", (chunk: Buffer) => chunks.push(chunk))
      response.on("end", () => {
        fail(failureOfStatus(response.statusCode ?? 0, Buffer.concat(chunks).toString("utf8"), where))
        socket.terminate()
      })
    })
    socket.on("error", fail)
    socket.on("close", (code, reason) => fail(lostBecause(`${code} ${reason.toString("utf8")}`.trim())))
    socket.on("pong", () => (alive = true))
    const cork = corking(socket)
    const own: Socket = {
      send: (frame) => {
        if (socket.readyState !== WebSocket.OPEN) throw lostBecause("it is closed")
        cork()
        socket.send(typeof frame === "string" ? frame : JSON.stringify(frame))
      },
      isOpen: () => socket.readyState === WebSocket.OPEN,
      close: () => {
        ended = true
        clearInterval(ping)
        return closing(socket)
      }
    }
    sockets.add(own)
    socket.on("message", (data) => {
      alive = true
      message(JSON.parse((data as Buffer).toString("utf8")) as Frame, own)
    })
    socket.on("open", () => {
      opened = true
      ping = setInterval(() => {
        if (!alive) return socket.terminate()
        alive = false
        socket.ping()
      }, pingMs)
      resolve(own)
    })
  })
}
const closing = (socket: WebSocket) =>
  new Promise<void>((resolve) => {
    if (socket.readyState === WebSocket.CLOSED) return resolve()
    const timer = setTimeout(() => socket.terminate(), 2_000)
    socket.once("close", () => {
      clearTimeout(timer)
      resolve()
    })
    socket.close()
  })

/** A frame that the interface sends: a message, a receipt, or an answer. */
interface Frame {
  readonly messageId?: string
  readonly payload?: string
  readonly properties?: Readonly<Record<string, string>>
  readonly key?: string
  readonly publishTime?: string
  readonly eventTime?: string
  readonly redeliveryCount?: number
  readonly result?: string
  readonly errorMsg?: string
  readonly context?: string
}
const receivedOf = (frame: Frame): Received => ({
  id: decodeMessageId(Buffer.from(frame.messageId ?? "", "base64")),
  handle: frame.messageId,
  key: frame.key ?? "",
  value: textOf(Buffer.from(frame.payload ?? "", "base64")),
  eventTime: frame.eventTime === undefined ? 0 : Date.parse(frame.eventTime),
  publishTime: Date.parse(frame.publishTime ?? ""),
  properties: frame.properties ?? {},
  redeliveries: frame.redeliveryCount ?? 0
})

const goneMs = 5_000
/** Waits until the broker has removed the consumer. The interface closes it only after the socket. */
const consumerGone = async (admin: Admin, { name, subscription, topic }: ConsumeOptions) => {
  for (const until = Date.now() + goneMs; Date.now() < until;) {
    const stats = await admin.subscription(topic, subscription).catch(() => undefined)
    if (stats?.consumers?.some(({ consumerName }) => consumerName === name) !== true) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const watchMs = { first: 1_000, most: 30_000 }
/**
 * A consumer of the interface that fetches nothing ahead ends silently with the first batch, and stalls after its broker was down. So this asks the
 * broker whether the consumer still waits for messages, less often while nothing happens. Returns a function that stops it.
 */
const watch = (
  admin: Admin,
  { name, subscription, topic }: ConsumeOptions,
  waits: () => boolean,
  ended: () => void
) => {
  let timer: NodeJS.Timeout | undefined
  let ms: number = watchMs.first
  const look = async () => {
    const stats = waits() ? await admin.subscription(topic, subscription).catch(() => undefined) : undefined
    if (timer === undefined) return
    const own = stats?.consumers?.find(({ consumerName }) => consumerName === name)
    if (stats !== undefined && waits() && (own?.availablePermits ?? 0) <= 0) return ended()
    ms = stats === undefined ? watchMs.first : Math.min(ms * 2, watchMs.most)
    timer = setTimeout(look, ms)
  }
  timer = setTimeout(look, ms)
  return () => {
    clearTimeout(timer)
    timer = undefined
  }
}

const consume = async (connections: Connections, settings: ConsumeOptions): Promise<TransportConsumer> => {
  const { admin, batched } = connections
  const { arrived, earliest, lost, name, subscription, topic, type } = settings
  const prefetch = batched.has(topic) ? Math.max(1, settings.prefetch) : settings.prefetch
  const query = {
    subscriptionType: types[type],
    subscriptionInitialPosition: earliest ? "Earliest" : "Latest",
    consumerName: name,
    receiverQueueSize: String(Math.min(Math.floor(prefetch), 1_000)),
    negativeAckRedeliveryDelay: String(negativeAckMs),
    pullMode: "true"
  }
  const path = `consumer/${pathOf(topic)}/${encodeURIComponent(subscription)}`
  let asked = 0
  let quiet = true
  const message = (frame: Frame) => {
    if (frame.messageId === undefined) return
    asked -= 1
    quiet = false
    arrived(receivedOf(frame))
  }
  const waits = () => {
    const still = quiet
    quiet = true
    return still && asked > 0
  }
  const socket = await open(connections, path, query, message, (cause) => {
    unwatch()
    lost(cause, true)
  })
  const ended = () => {
    batched.add(topic)
    lost(new PulsarFailure("lost", true, "the WebSocket interface ended the consumer"), true)
  }
  const unwatch = prefetch < 1 ? watch(admin, settings, waits, ended) : () => {}
  return {
    ask: (count) => {
      asked += count
      // a lost socket is reported by `lost`
      if (socket.isOpen()) socket.send({ type: "permit", permitMessages: count })
    },
    acknowledge: async (messages) => {
      for (const { handle } of messages) socket.send({ messageId: handle })
    },
    negativeAcknowledge: async (messages) => {
      for (const { handle } of messages) socket.send({ type: "negativeAcknowledge", messageId: handle })
      // the interface sends them by a timer of its own, and drops what it has not sent yet when it is closed
      await new Promise((resolve) => setTimeout(resolve, negativeAckMs * 3))
    },
    close: async () => {
      unwatch()
      await socket.close()
      await consumerGone(admin, settings)
    }
  }
}

/** A message that waits for its receipt. */
interface Pending {
  readonly resolve: (receipt: Receipt) => void
  readonly reject: (cause: PulsarFailure) => void
}
class WebSocketProducer implements TransportProducer {
  private readonly pending = new Map<string, Pending>()
  private readonly maxPending: number
  private readonly topic: string
  private socket: Socket | undefined
  private count = 0
  private ended: PulsarFailure | undefined

  constructor({ maxPending, topic }: ProduceOptions) {
    this.maxPending = maxPending
    this.topic = topic
  }
  attach(socket: Socket): this {
    this.socket = socket
    return this
  }
  answered(frame: Frame): void {
    const waiting = this.pending.get(frame.context ?? "")
    if (waiting === undefined) return
    this.pending.delete(frame.context!)
    if (frame.result !== "ok" || frame.messageId === undefined)
      return waiting.reject(
        failureOf(new Error(frame.errorMsg ?? frame.result ?? "no answer"), `send to ${this.topic}`)
      )
    const id = decodeMessageId(Buffer.from(frame.messageId, "base64"))
    waiting.resolve({ id, duplicate: id.ledger < 0 })
  }
  end(cause: PulsarFailure): void {
    this.ended ??= cause
    for (const { reject } of this.pending.values()) reject(cause)
    this.pending.clear()
  }
  send({ eventTime, key, properties, sequenceId, value }: Outgoing): Promise<Receipt> {
    if (this.ended !== undefined) return Promise.reject(this.ended)
    // the interface would refuse it and accept the next one, which would break the order
    if (this.pending.size >= this.maxPending)
      return Promise.reject(failureOf(new Error("ProducerQueueIsFull"), `send to ${this.topic}`))
    const context = String(this.count)
    const frame = JSON.stringify({
      payload: bytesOf(value).toString("base64"),
      key,
      properties,
      ...(eventTime > 0 && { eventTime: new Date(eventTime).toISOString() }),
      context,
      ...(sequenceId !== undefined && { sequenceId })
    })
    // the interface would close the connection without saying which message was too large
    if (frame.length > mostFrame && Buffer.byteLength(frame) > mostFrame) {
      const cause = new Error(
        `the message takes a frame of ${frame.length} bytes, which exceeds maximum size ${mostFrame}`
      )
      return Promise.reject(failureOf(cause, `send to ${this.topic}`))
    }
    this.count++
    return new Promise((resolve, reject) => {
      this.pending.set(context, { resolve, reject })
      this.socket!.send(frame)
    })
  }
  async close(): Promise<void> {
    this.end(new PulsarFailure("other", false, "the producer was closed"))
    await this.socket?.close()
  }
}
const produce = async (connections: Connections, settings: ProduceOptions): Promise<TransportProducer> => {
  const { batching, initialSequenceId, maxPending, name, topic } = settings
  const query = {
    batchingEnabled: String(batching),
    // one more, so that this process refuses a message before the interface does
    maxPendingMessages: String(maxPending + 1),
    ...(batching && { batchingMaxPublishDelay: "1", batchingMaxMessages: "1000" }),
    ...(name !== undefined && { producerName: name }),
    ...(initialSequenceId !== undefined && { initialSequenceId: String(initialSequenceId) })
  }
  const producer = new WebSocketProducer(settings)
  const socket = await open(
    connections,
    `producer/${pathOf(topic)}`,
    query,
    (frame) => producer.answered(frame),
    (cause) => producer.end(cause)
  )
  return producer.attach(socket)
}

const read = async (connections: Connections, { from, topic }: ReadOptions): Promise<TransportReader> => {
  const start = typeof from === "string" ? from : Buffer.from(encodeMessageId(from)).toString("base64")
  const query = { messageId: start, receiverQueueSize: String(readAhead), readerName: `millrace-${randomUUID()}` }
  const arrivals = new ReceiveQueue()
  // the interface sends as many messages as its queue holds; each must be confirmed before it sends another one
  const taken = async ({ messageId }: Frame, from: Socket) => {
    await arrivals.hasRoom()
    if (from.isOpen()) from.send({ messageId })
  }
  const message = (frame: Frame, from: Socket) => {
    if (frame.messageId === undefined) return
    arrivals.push(receivedOf(frame))
    void taken(frame, from)
  }
  const socket = await open(connections, `reader/${pathOf(topic)}`, query, message, (cause) => arrivals.end(cause))
  return {
    next: (waitMs) => arrivals.next(waitMs),
    close: () => {
      arrivals.end()
      return socket.close()
    }
  }
}

/** The transport. It connects on first use. */
export const webSocket = (options: PulsarOptions, admin: Admin): Transport => {
  const connections: Connections = { options, admin, sockets: new Set(), batched: new Set() }
  return {
    consume: (settings) => consume(connections, settings),
    produce: (settings) => produce(connections, settings),
    read: (settings) => read(connections, settings),
    sendsSequenceIds: false,
    partitions: undefined,
    close: async () => void (await Promise.all([...connections.sockets].map((socket) => socket.close())))
  }
}
