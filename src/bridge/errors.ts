// The error of both sides of a bridge. Its kind says what the bridge does about it: try again, halt, or write a dead letter.
import * as Schema from "effect/Schema"
import type { ReadError } from "../log/log.ts"

/**
 * One side failed, or refused something. The adapters translate the errors of their clients to this one.
 *
 * - `refused`: the topic does not exist or may not be used. Waiting does not help; the records that need it become dead letters.
 * - `tooLarge`: a record, or records sent together, exceed a limit of the topic. They are sent in smaller batches, and a record that is too
 *   large by itself becomes a dead letter.
 * - `fenced`: another process took over. A new session begins.
 * - `busy`: another process holds the subscription or the producer's name. A new session begins.
 * - `lost`: records are gone that were not mirrored yet. The stream halts until a person decides.
 * - `other`: tried again if `retryable`; otherwise the stream halts.
 */
export class BridgeError extends Schema.TaggedError<BridgeError>()("BridgeError", {
  side: Schema.Literals(["kafka", "pulsar"]),
  operation: Schema.String,
  kind: Schema.Literals(["refused", "tooLarge", "fenced", "busy", "lost", "other"]),
  /** The topic that the operation was about. */
  topic: Schema.optionalKey(Schema.String),
  /** Whether the same operation may succeed later without a person's help. */
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.side}: ${this.operation} failed: ${this.reason}`
  }
}

/** A failed read of Kafka's log as the bridge's error. */
export const readFailure = (error: ReadError): BridgeError =>
  new BridgeError({
    side: "kafka",
    operation: "read",
    kind: error._tag === "OutOfRange" ? "lost" : error._tag === "UnknownTopic" ? "refused" : "other",
    topic: error.topic,
    retryable: error._tag === "LogError" && error.retryable,
    reason: error.message,
    cause: error
  })
/** The error of a stream whose records are gone, or whose source is not the one that was mirrored: it halts until a person decides. */
export const recordsLost = (side: BridgeError["side"], topic: string, reason: string): BridgeError =>
  new BridgeError({
    side,
    operation: "resume",
    kind: "lost",
    topic,
    retryable: false,
    reason: `${reason}. To continue with the records that are left, set \`lost: "continue"\` in the rule`
  })
