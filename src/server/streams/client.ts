// One client of an HTTP stream: sends records at the client's pace, so that a slow client uses no memory, and ends the stream with a reason.
import type { ServerResponse } from "node:http"
import type { LogRecord, Position, ReadError } from "../../log/log.ts"
import { commentFrame, endFrame, streamId, recordFrame, type StreamPositions } from "./sse.ts"
import type { Limits } from "../http/limits.ts"
import type { RecordRange, Tail } from "./tail.ts"

/** What one client receives, and from where. */
export interface Follow {
  readonly response: ServerResponse
  readonly tail: Tail
  /** The position to start at; it moves with the records that are sent. */
  readonly vector: StreamPositions
  /** The event name of records. */
  readonly event: string
  readonly wants: (record: LogRecord) => boolean
  /** Reads records that the tail no longer has. */
  readonly read: (partition: number, position: Position) => Promise<RecordRange | ReadError>
  readonly limits: Limits
}

/** About how many characters are written at once. */
const chunk = 64 * 1024
/** The pause before the next read after a failed one. */
const patienceMs = 1_000

/** Sends the records of a topic to one client. */
export class Follower {
  readonly #follow: Follow
  #reason: string | undefined
  #signalled = false
  #wake: (() => void) | undefined

  constructor(follow: Follow) {
    this.#follow = follow
    // the client may have disconnected while the stream was opened
    if (follow.response.destroyed) this.#end("client_gone")
    else follow.response.once("close", () => this.#end("client_gone"))
  }

  /** Sends until the client or the server ends the stream, and resolves to the reason. Never rejects. */
  async run(): Promise<string> {
    const { limits, response, tail, vector } = this.#follow
    const unlisten = tail.listen(() => this.#signal())
    const heartbeat = setInterval(() => {
      if (!response.writableNeedDrain && this.#reason === undefined) response.write(commentFrame("heartbeat"))
    }, limits.heartbeatMs)
    response.write(`retry: 1000\n${commentFrame(`from ${streamId(vector)}`)}`)
    try {
      while (this.#reason === undefined) {
        if (!(await this.#round())) await this.#more()
      }
    } catch (error) {
      this.stop(
        "internal_error",
        `the stream failed: ${String(error)}`,
        "connect again with Last-Event-ID to continue where the stream ended"
      )
    } finally {
      clearInterval(heartbeat)
      unlisten()
    }
    return this.#reason ?? "client_gone"
  }

  /** Sends the client the reason, and ends the stream. */
  stop(reason: string, message: string, advice: string): void {
    if (this.#reason !== undefined) return
    this.#end(reason)
    const { response } = this.#follow
    response.end(endFrame(reason, message, advice))
    // a client that does not read would keep the connection open
    const force = setTimeout(() => response.destroy(), 1_000)
    response.once("close", () => clearTimeout(force))
  }

  #end(reason: string): void {
    this.#reason ??= reason
    this.#signal()
  }

  #signal(): void {
    this.#signalled = true
    this.#wake?.()
  }

  async #more(): Promise<void> {
    if (!this.#signalled) await new Promise<void>((wake) => (this.#wake = wake))
    this.#wake = undefined
  }

  /** Sends what is new in every partition. Resolves to false if there was nothing. */
  async #round(): Promise<boolean> {
    const { tail, vector } = this.#follow
    this.#signalled = false
    if (tail.failure !== undefined) {
      this.#failed(tail.failure)
      return true
    }
    let moved = false
    for (let partition = 0; partition < vector.length && this.#reason === undefined; partition++) {
      const position = vector[partition]!
      if (position >= tail.end(partition)) continue
      const found = tail.recent(partition, position) ?? (await this.#follow.read(partition, position))
      if ("_tag" in found) {
        if (found._tag !== "LogError" || !found.retryable) this.#failed(found)
        else await new Promise((done) => setTimeout(done, patienceMs))
        return true
      }
      moved ||= found.next > position
      await this.#send(partition, found)
    }
    return moved
  }

  async #send(partition: number, { next, records }: RecordRange): Promise<void> {
    const { event, vector, wants } = this.#follow
    let text = ""
    for (const record of records) {
      vector[partition] = record.position + 1
      if (!wants(record)) continue
      text += recordFrame(streamId(vector), event, record)
      if (text.length < chunk) continue
      await this.#write(text)
      text = ""
      if (this.#reason !== undefined) return
    }
    vector[partition] = next
    if (text !== "") await this.#write(text)
  }

  async #write(text: string): Promise<void> {
    const { limits, response } = this.#follow
    if (this.#reason !== undefined || response.write(text)) return
    const drained = await new Promise<boolean>((done) => {
      const settle = (value: boolean) => () => {
        clearTimeout(timer)
        response.off("drain", onDrain).off("close", onClose)
        done(value)
      }
      const onDrain = settle(true)
      const onClose = settle(true)
      const timer = setTimeout(settle(false), limits.slowClientMs)
      response.once("drain", onDrain).once("close", onClose)
    })
    if (drained) return
    const message = `the client read nothing for ${limits.slowClientMs} ms`
    this.stop(
      "slow_client",
      message,
      "read faster, filter by tenant or entity_id, and connect again with Last-Event-ID"
    )
  }

  #failed(error: ReadError): void {
    if (error._tag === "OutOfRange") this.stop("position_gone", error.message, "connect again with from=earliest")
    else this.stop("log_unavailable", error.message, "connect again with Last-Event-ID")
  }
}
