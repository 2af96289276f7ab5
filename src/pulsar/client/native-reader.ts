// Readers of the native client. They share one connection of their own, for looking blocks the process.
import { setTimeout as sleep } from "node:timers/promises"
import { readAhead } from "./receive-queue.ts"
import { failureOf } from "./errors.ts"
import { encodeMessageId } from "./message-id.ts"
import type * as Pulsar from "./native-types.ts"
import { away, awayMs, type Connection, receivedOf } from "./native-connection.ts"
import type { ReadOptions, Received, TransportReader } from "./transport.ts"

/** How often a reader that has nothing looks again, and how long such a look may block the process. */
const lookMs = 20
export const lookSeconds = 3
/**
 * It looks before it reads: a reading that ends without a message, by its time or by closing, ends the whole process (pulsar-client 1.18). And
 * it does not listen: what arrives before the client's object is made is dropped then, without a word.
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
  let awaySince: number | undefined
  const isThere = () => {
    const now = performance.now()
    // without a connection it would block
    if (reader.isConnected()) {
      awaySince = undefined
      return reader.hasNext()
    }
    awaySince ??= now
    if (now > awaySince + awayMs) throw away()
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
    /** Whether it is closed; else it will be, once the broker is back. */
    end: async (): Promise<boolean> => {
      state.ended = true
      return Promise.race([close(), sleep(patientMs, false, { ref: false })])
    }
  }
}
/** How long closing waits for a reading. */
const patientMs = 1_000

/** All readers of a transport. A client each would be threads and megabytes each. */
export class Readers {
  private readonly module: Pulsar.Module
  private readonly connect: () => Connection
  private connection: Connection | undefined
  private readonly live = new Set<Awaited<ReturnType<typeof read>>>()

  /** `connect` makes a connection that answers within `lookSeconds`. It is made with the first reader. */
  constructor(module: Pulsar.Module, connect: () => Connection) {
    this.module = module
    this.connect = connect
  }
  /** Rejects with the client's errors. */
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
  /** Ends every reader, and the connection unless one of them still reads: closed under a reading, the client ends the process. */
  async close(): Promise<void> {
    const ended = await Promise.all([...this.live].map((reader) => reader.end()))
    if (ended.every(Boolean)) await this.connection?.close()
  }
}
