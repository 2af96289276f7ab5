// Readers of the native client. They share a connection of their own, because checking for a message blocks the process.
import { setTimeout as sleep } from "node:timers/promises"
import { readAhead } from "./receive-queue.ts"
import { failureOf } from "./errors.ts"
import { encodeMessageId } from "./message-id.ts"
import type * as Pulsar from "./native-types.ts"
import { connectionLost, giveUpAfterMs, type Connection, receivedOf } from "./native-connection.ts"
import type { ReadOptions, Received, TransportReader } from "./transport.ts"

/** How often a reader without messages checks again, and how long a check may block the process. */
const lookMs = 20
export const lookSeconds = 3
/**
 * Opens a reader. It checks for a message before it reads, because a read that ends without a message, by a timeout or by closing, crashes the process
 * (pulsar-client 1.18). It uses no listener, because the client silently drops what arrives before its reader object exists.
 */
const read = async (module: Pulsar.Module, client: Pulsar.Client, { from, topic }: ReadOptions) => {
  const start =
    from === "earliest"
      ? module.MessageId.earliest()
      : from === "latest"
        ? module.MessageId.latest()
        : module.MessageId.deserialize(Buffer.from(encodeMessageId(from)))
  const reader = await client.createReader({ topic, startMessageId: start, receiverQueueSize: readAhead })
  let reading: Promise<unknown> = Promise.resolve()
  const state = { ended: false }
  let lostSince: number | undefined
  const isThere = () => {
    const now = performance.now()
    // `hasNext` blocks without a connection
    if (reader.isConnected()) {
      lostSince = undefined
      return reader.hasNext()
    }
    lostSince ??= now
    if (now > lostSince + giveUpAfterMs) throw connectionLost()
    return false
  }
  const next = async (waitMs: number): Promise<Received | undefined> => {
    const until = performance.now() + waitMs
    while (!state.ended && !isThere()) {
      if (performance.now() > until) return undefined
      await new Promise((resolve) => setTimeout(resolve, lookMs))
    }
    if (state.ended) return undefined
    const message = reader.readNext()
    reading = message.catch(() => undefined)
    return receivedOf(await message)
  }
  const close = async () => {
    await reading
    await reader.close().catch(() => undefined)
    return true
  }
  return {
    next: (waitMs: number) =>
      next(waitMs).catch((cause: unknown) => {
        throw failureOf(cause, `read ${topic}`)
      }),
    /** Resolves with whether the reader is closed. If not, it closes once the broker is back. */
    end: async (): Promise<boolean> => {
      state.ended = true
      return Promise.race([close(), sleep(patientMs, false, { ref: false })])
    }
  }
}
/** How long closing waits for a read under way. */
const patientMs = 1_000

/** All readers of a transport. With a client each, every reader would cost threads and megabytes. */
export class Readers {
  private readonly module: Pulsar.Module
  private readonly connect: () => Connection
  private connection: Connection | undefined
  private readonly live = new Set<Awaited<ReturnType<typeof read>>>()

  /** `connect` opens a connection that answers within `lookSeconds`. It is called for the first reader. */
  constructor(module: Pulsar.Module, connect: () => Connection) {
    this.module = module
    this.connect = connect
  }
  /** Opens a reader. Rejects with the native client's own error. */
  async open(settings: ReadOptions): Promise<TransportReader> {
    this.connection ??= this.connect()
    const reader = await read(this.module, this.connection.client, settings)
    this.live.add(reader)
    return {
      next: reader.next,
      close: async () => {
        if (await reader.end()) this.live.delete(reader)
      }
    }
  }
  /** Closes every reader, and the connection unless a read is still under way: closing the client then would crash the process. */
  async close(): Promise<void> {
    const ended = await Promise.all([...this.live].map((reader) => reader.end()))
    if (ended.every(Boolean)) await this.connection?.close()
  }
}
