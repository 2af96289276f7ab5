// Sends the records of a topic to one client, at the client's pace, so that a slow client uses no memory, and ends the stream with a reason.
import type { LogRecord, Position, ReadError } from "../../log/log.ts"
import type { Connection, StreamMessage } from "../connection/connection.ts"
import type { RunningStream } from "../connection/routes.ts"
import type { Limits } from "../http/limits.ts"
import { streamId, type StreamPositions } from "./position.ts"
import type { RecordRange, Tail } from "./tail.ts"
import { dataOf } from "./values.ts"

/** What one client receives, and from where. */
export interface Follow {
  readonly connection: Connection
  /** Takes the tail of the topic, and what gives it back. */
  readonly use: () => { readonly tail: Tail; readonly release: () => void }
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
const resume = "connect again with the position, as Last-Event-ID or from"

/** Sends the records of a topic to one client. */
export class Follower implements RunningStream {
  readonly #follow: Follow
  #reason: string | undefined
  #signalled = false
  #wake: (() => void) | undefined
  /** The id that was sent last. */
  #sent: string

  constructor(follow: Follow) {
    this.#follow = follow
    this.#sent = streamId(follow.vector)
    // the client may have disconnected while the stream was opened
    follow.connection.onGone((reason) => this.#end(reason))
  }

  async run(): Promise<string> {
    const { connection, limits, use } = this.#follow
    if (this.#reason !== undefined) return this.#reason
    const { release, tail } = use()
    const unlisten = tail.listen(() => this.#signal())
    const heartbeat = setInterval(() => this.#heartbeat(), limits.heartbeatMs)
    try {
      connection.position(this.#sent)
      while (this.#reason === undefined) {
        if (!(await this.#round(tail))) await this.#more()
      }
    } catch (error) {
      this.stop("internal_error", `the stream failed: ${String(error)}`, resume)
    } finally {
      clearInterval(heartbeat)
      unlisten()
      release()
    }
    return this.#reason ?? "client_gone"
  }

  stop(reason: string, message: string, advice: string): void {
    if (this.#reason !== undefined) return
    this.#end(reason)
    this.#follow.connection.end({ reason, message, try: advice, position: streamId(this.#follow.vector) })
  }

  #end(reason: string): void {
    this.#reason ??= reason
    this.#signal()
  }

  #signal(): void {
    this.#signalled = true
    this.#wake?.()
  }

  /** A position is sent, too, where the stream has moved past records that the client does not want. */
  #heartbeat(): void {
    if (this.#reason !== undefined) return
    const id = streamId(this.#follow.vector)
    this.#follow.connection.heartbeat(id === this.#sent ? undefined : id)
    this.#sent = id
  }

  async #more(): Promise<void> {
    if (!this.#signalled) await new Promise<void>((wake) => (this.#wake = wake))
    this.#wake = undefined
  }

  /** Sends what is new in every partition. Resolves to false if there was nothing. */
  async #round(tail: Tail): Promise<boolean> {
    const { vector } = this.#follow
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
    let messages: Array<StreamMessage> = []
    let size = 0
    for (const record of records) {
      vector[partition] = record.position + 1
      if (!wants(record)) continue
      const data = dataOf(record)
      messages.push({ id: streamId(vector), event: record.value === null ? "delete" : event, data })
      size += data.length + 100
      if (size < chunk) continue
      await this.#write(messages)
      messages = []
      size = 0
      if (this.#reason !== undefined) return
    }
    vector[partition] = next
    await this.#write(messages)
  }

  async #write(messages: ReadonlyArray<StreamMessage>): Promise<void> {
    const last = messages.at(-1)
    if (this.#reason !== undefined || last === undefined) return
    const { connection, limits } = this.#follow
    this.#sent = last.id
    if (connection.send(messages) || (await connection.drained(limits.slowClientMs))) return
    const message = `the client read nothing for ${limits.slowClientMs} ms`
    this.stop("slow_client", message, `read faster, or filter; ${resume}`)
  }

  #failed(error: ReadError): void {
    if (error._tag === "OutOfRange") this.stop("position_gone", error.message, "connect again with from=earliest")
    else this.stop("log_unavailable", error.message, resume)
  }
}
