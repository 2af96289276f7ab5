// Effectively once: the port by which a handler's transaction also records that the message was handled. Its adapter is PostgreSQL.
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Message, SubscribeOptions } from "./fanout.ts"

/** Identifies a message of a subscription, wherever and however often it is delivered. */
export interface MessageIdentity {
  /** The topic of the message. */
  readonly topic: string
  /** The name of the subscription. */
  readonly subscription: string
  /** The outbox stream that has the message, or `#` and the partition if no relay published it. */
  readonly stream: string
  /** The incarnation in which the sequence number counts. */
  readonly incarnation: string
  /** The sequence number in the stream, or the position if no relay published it. */
  readonly seq: number
}
/** The identity of a message: stream, incarnation and sequence number; partition and position if no relay published it. */
export const messageIdentity = (
  { name, topic }: Pick<SubscribeOptions, "topic" | "name">,
  { incarnation = "", partition, position, seq, stream }: Message
): MessageIdentity =>
  stream === undefined || seq === undefined
    ? { topic, subscription: name, stream: `#${partition}`, incarnation: "", seq: position }
    : { topic, subscription: name, stream, incarnation, seq }

/**
 * The consumer's database failed, not the handler. Whether the message was handled may be unknown; `handle` finds out when it is called
 * again, which may succeed if the error is `retryable`.
 */
export class OnceError extends Schema.TaggedError<OnceError>()("OnceError", {
  operation: Schema.String,
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `effectively once: ${this.operation} failed: ${this.reason}`
  }
}

/** Records which messages were handled, in the transaction that has the handler's own changes. */
export interface Once<in out Tx> {
  /**
   * Runs `use` in a transaction, and commits its changes together with a mark of the message: both or neither. If the message has a mark
   * already, `use` is not run and the result is `before`. While another consumer handles the same message, this waits for its outcome.
   */
  readonly handle: <E, R>(
    message: MessageIdentity,
    use: (tx: Tx) => Effect.Effect<unknown, E, R>
  ) => Effect.Effect<"handled" | "before", E | OnceError, R>
  /** Deletes a subscription's marks, so that a replay handles its messages again. It must have no consumer meanwhile. */
  readonly forget: (subscription: Pick<SubscribeOptions, "topic" | "name">) => Effect.Effect<void, OnceError>
}
