// Effectively once: whoever handles a message commits, with its own rows, that it has. The port; the adapter is PostgreSQL.
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Message, SubscribeOptions } from "./fanout.ts"

/** What tells a message from all others of its subscription, wherever and however often it is delivered. */
export interface MessageIdentity {
  readonly topic: string
  readonly subscription: string
  readonly stream: string
  readonly incarnation: string
  readonly seq: number
}
/** By stream, incarnation and sequence; a foreign message, which has none, by its place. */
export const messageIdentity = (
  { name, topic }: Pick<SubscribeOptions, "topic" | "name">,
  { incarnation = "", partition, position, seq, stream }: Message
): MessageIdentity =>
  stream === undefined || seq === undefined
    ? { topic, subscription: name, stream: `#${partition}`, incarnation: "", seq: position }
    : { topic, subscription: name, stream, incarnation, seq }

/** The consumer's database failed, not the handler. The message was not handled, or `retryable` tells whether asking again may tell. */
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

/** Keeps which messages were handled, in transactions that the handler's own changes are part of. */
export interface Once<in out Tx> {
  /**
   * Runs `use` in a transaction, and commits what it did together with the message's mark: both or neither. Where the message has a mark
   * nothing is run, and the answer is `before`; where another consumer handles it at this moment this waits for what becomes of that.
   */
  readonly handle: <E, R>(
    message: MessageIdentity,
    use: (tx: Tx) => Effect.Effect<unknown, E, R>
  ) => Effect.Effect<"handled" | "before", E | OnceError, R>
  /** Forgets what a subscription handled, so that a replay handles it again. Nobody may consume it meanwhile. */
  readonly forget: (subscription: Pick<SubscribeOptions, "topic" | "name">) => Effect.Effect<void, OnceError>
}
