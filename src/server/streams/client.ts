// One client of a stream: it reads on at the client's pace, so that a slow one costs no memory, and ends it with a reason. It parses no requests.
import type { ServerResponse } from "node:http"
import type { LogRecord, Position, ReadError } from "../../log/log.ts"
import { commentFrame, endFrame, idOf, recordFrame, type Vector } from "./sse.ts"
import type { Limits } from "../http/limits.ts"
import type { Stretch, Tail } from "./tail.ts"

/** What a client follows. */
export interface Follow {
  readonly response: ServerResponse
  readonly tail: Tail
  /** Where to begin; moves along. */
  readonly vector: Vector
  /** The name of a record's event. */
  readonly event: string
  readonly wants: (record: LogRecord) => boolean
  /** Reads what the tail no longer has. */
  readonly read: (partition: number, position: Position) => Promise<Stretch | ReadError>
  readonly limits: Limits
}

/** Characters that are written at once, about. */
const chunk = 64 * 1024
/** Pause before the log is asked again after it failed. */
const patienceMs = 1_000

/** Follows a topic for one client. */
export class Follower {
  readonly #follow: Follow
  #reason: string | undefined
  #signalled = false
  #wake: (() => void) | undefined

  constructor(follow: Follow) {
    this.#follow = follow
    follow.response.once("close", () => this.#end("client_gone"))
  }

  /** Runs until the client or the server ends it, and resolves to the reason. Never rejects. */
  async run(): Promise<string> {
    const { limits, response, tail, vector } = this.#follow
    const unlisten = tail.listen(() => this.#signal())
    const heartbeat = setInterval(() => {
      if (!response.writableNeedDrain && this.#reason === undefined) response.write(commentFrame("heartbeat"))
    }, limits.heartbeatMs)
    response.write(`retry: 1000\n${commentFrame(`from ${idOf(vector)}`)}`)
    try {
      while (this.#reason === undefined) {
        if (!(await this.#round())) await this.#more()
      }
    } catch (error) {
      this.stop(
        "internal_error",
        `the stream failed: ${String(error)}`,
        "connect again; Last-Event-ID goes on where this ended"
      )
    } finally {
      clearInterval(heartbeat)
      unlisten()
    }
    return this.#reason ?? "client_gone"
  }

  /** Tells the client why, and ends the stream. */
  stop(reason: string, message: string, advice: string): void {
    if (this.#reason !== undefined) return
    this.#end(reason)
    const { response } = this.#follow
    response.end(endFrame(reason, message, advice))
    // a client that does not read would keep the connection
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

  /** Sends what there is in every partition. False where there was nothing. */
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

  async #send(partition: number, { next, records }: Stretch): Promise<void> {
    const { event, vector, wants } = this.#follow
    let text = ""
    for (const record of records) {
      vector[partition] = record.position + 1
      if (!wants(record)) continue
      text += recordFrame(idOf(vector), event, record)
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
    const message = `nothing was read for ${limits.slowClientMs} ms`
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
