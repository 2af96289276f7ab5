// A stream to one client: sends messages at the client's pace, heartbeats with the position, and the reason why it ends.
import type { Limits } from "../http/limits.ts"
import type { Connection, StreamMessage } from "./connection.ts"
import type { RunningStream } from "./routes.ts"

/** What a client does after the end of a stream. */
export const resume = "connect again with the position, as Last-Event-ID or from"

/** A stream to one client. What is sent, and from where, is up to the class that extends it. */
export abstract class ClientStream implements RunningStream {
  protected readonly connection: Connection
  protected readonly limits: Limits
  #reason: string | undefined
  #isSignalled = false
  #wake: (() => void) | undefined
  /** The id that was sent last. */
  #sent: string | undefined

  constructor(connection: Connection, limits: Limits) {
    this.connection = connection
    this.limits = limits
    // the client may have disconnected while the stream was opened
    connection.onGone((reason) => this.#end(reason))
  }

  /** The id of the position that was reached. */
  protected abstract id(): string
  /** Takes what the stream needs. Returns what gives it back. */
  protected abstract begin(): () => void
  /** Sends what there is. Resolves to false if there was nothing: it is called again after `signal`. */
  protected abstract round(): Promise<boolean>

  protected get hasEnded(): boolean {
    return this.#reason !== undefined
  }
  /** There may be something to send. */
  protected readonly signal = (): void => {
    this.#isSignalled = true
    this.#wake?.()
  }

  async run(): Promise<string> {
    if (this.#reason !== undefined) return this.#reason
    const release = this.begin()
    const heartbeat = setInterval(() => this.#heartbeat(), this.limits.heartbeatMs)
    try {
      this.#sent = this.id()
      this.connection.position(this.#sent)
      while (this.#reason === undefined) {
        this.#isSignalled = false
        if (!(await this.round())) await this.#more()
      }
    } catch (error) {
      this.stop("internal_error", `the stream failed: ${String(error)}`, resume)
    } finally {
      clearInterval(heartbeat)
      release()
    }
    return this.#reason ?? "client_gone"
  }

  stop(reason: string, message: string, advice: string): void {
    if (this.#reason !== undefined) return
    this.#end(reason)
    this.connection.end({ reason, message, try: advice, position: this.id() })
  }

  /** Sends messages, and waits until the client has read enough of them. */
  protected async write(messages: ReadonlyArray<StreamMessage>): Promise<void> {
    const last = messages.at(-1)
    if (this.#reason !== undefined || last === undefined) return
    const { slowClientMs } = this.limits
    this.#sent = last.id
    if (this.connection.send(messages) || (await this.connection.drained(slowClientMs))) return
    this.stop("slow_client", `the client read nothing for ${slowClientMs} ms`, `read faster, or filter; ${resume}`)
  }

  #end(reason: string): void {
    this.#reason ??= reason
    this.signal()
  }
  /** A position is sent, too, where the stream has moved past what the client does not want. */
  #heartbeat(): void {
    if (this.#reason !== undefined) return
    const id = this.id()
    this.connection.heartbeat(id === this.#sent ? undefined : id)
    this.#sent = id
  }
  async #more(): Promise<void> {
    if (!this.#isSignalled) await new Promise<void>((wake) => (this.#wake = wake))
    this.#wake = undefined
  }
}
