// What a stream needs of the connection to its client, whether that is of server-sent events or a WebSocket.
import type { EventEmitter } from "node:events"

/** A message of a stream: a record or a change. */
export interface StreamMessage {
  /** The stream's position after the message, to resume from. */
  readonly id: string
  readonly event: string
  /** JSON text. */
  readonly data: string
}
/** Why a server ends a stream. */
export interface EndOfStream {
  /** A stable code, such as `slow_client`. */
  readonly reason: string
  readonly message: string
  readonly try: string
  /** The id of the stream's position: a client that has everything before this message resumes from it. */
  readonly position?: string
}
/** The connection to a client that a stream is sent to. */
export interface Connection {
  /** Whether the client has disconnected, or was disconnected. */
  readonly isGone: boolean
  /** Calls `listener` with a stable code, once, when the client has disconnected, or was for what it sent. */
  readonly onGone: (listener: (reason: string) => void) => void
  /** Sends a position without a message: the stream's first one, and those that it reached without messages. */
  readonly position: (id: string) => void
  /** Sends messages. Returns false if the client has not read yet what was sent before: then `drained` comes before the next ones. */
  readonly send: (messages: ReadonlyArray<StreamMessage>) => boolean
  /** Resolves to true when the client has read enough or is gone, and to false after `ms`. */
  readonly drained: (ms: number) => Promise<boolean>
  /** Lets proxies and the client know that the connection is alive. `id`: a position to send with it. */
  readonly heartbeat: (id: string | undefined) => void
  /** Sends the reason, and closes the connection, after a second by force. */
  readonly end: (end: EndOfStream) => void
}

/** How long a client may take to read the end of a stream. Milliseconds. */
export const endMs = 1_000

/** Resolves to true when `source` emits `drain` or `close`, and to false after `ms`. */
export const drainedOf = (source: EventEmitter, ms: number): Promise<boolean> =>
  new Promise((done) => {
    const settle = (value: boolean) => () => {
      clearTimeout(timer)
      source.off("drain", read).off("close", read)
      done(value)
    }
    const read = settle(true)
    const timer = setTimeout(settle(false), ms)
    source.once("drain", read).once("close", read)
  })
