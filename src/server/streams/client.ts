// Sends the records of a topic to one client, at the client's pace, so that a slow client uses no memory, and ends the stream with a reason.
import type { LogRecord, Position, ReadError } from "../../log/log.ts"
import type { Connection, StreamMessage } from "../connection/connection.ts"
import { ClientStream, resume } from "../connection/client-stream.ts"
import type { Limits } from "../http/limits.ts"
import { streamId, type StreamPositions } from "./position.ts"
import type { RecordRange, Tail } from "./tail.ts"
import { envelopeOf } from "./record-json.ts"
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
  /** Whether messages have the whole record, and not its value alone. */
  readonly isWhole: boolean
  /** Reads records that the tail no longer has. */
  readonly read: (partition: number, position: Position) => Promise<RecordRange | ReadError>
  readonly limits: Limits
}

/** About how many characters are written at once. */
const chunk = 64 * 1024
/** The pause before the next read after a failed one. */
const patienceMs = 1_000

/** Sends the records of a topic to one client. */
export class Follower extends ClientStream {
  readonly #follow: Follow
  #tail: Tail | undefined

  constructor(follow: Follow) {
    super(follow.connection, follow.limits)
    this.#follow = follow
  }

  protected id(): string {
    return streamId(this.#follow.vector)
  }
  protected begin(): () => void {
    const { release, tail } = this.#follow.use()
    this.#tail = tail
    const unlisten = tail.listen(this.signal)
    return () => {
      unlisten()
      release()
    }
  }

  /** Sends what is new in every partition. Resolves to false if there was nothing. */
  protected async round(): Promise<boolean> {
    const { vector } = this.#follow
    const tail = this.#tail!
    if (tail.failure !== undefined) {
      this.#failed(tail.failure)
      return true
    }
    let moved = false
    for (let partition = 0; partition < vector.length && !this.hasEnded; partition++) {
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
    const { event, isWhole, vector, wants } = this.#follow
    let messages: Array<StreamMessage> = []
    let size = 0
    for (const record of records) {
      vector[partition] = record.position + 1
      if (!wants(record)) continue
      const data = isWhole ? envelopeOf(record, this.#waiting()) : dataOf(record)
      messages.push({ id: streamId(vector), event: record.value === null ? "delete" : event, data })
      size += data.length + 100
      if (size < chunk) continue
      await this.write(messages)
      messages = []
      size = 0
      if (this.hasEnded) return
    }
    vector[partition] = next
    await this.write(messages)
  }

  /** How many positions of the topic the stream has not reached yet. */
  #waiting(): number {
    const tail = this.#tail!
    return this.#follow.vector.reduce((sum, position, i) => sum + Math.max(0, tail.end(i) - position), 0)
  }

  #failed(error: ReadError): void {
    if (error._tag === "OutOfRange") this.stop("position_gone", error.message, "connect again with from=earliest")
    else this.stop("log_unavailable", error.message, resume)
  }
}
