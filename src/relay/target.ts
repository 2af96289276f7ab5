// The relay-target port: where a relay publishes the outbox, stream by stream. Its adapters are the log on PostgreSQL, Kafka and Pulsar.
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** A stream of the outbox: a projection and a partition of its source. A new version of the projection continues its predecessor's stream. */
export interface OutboxStream {
  readonly projection: string
  readonly source: string
  readonly partition: number
}
/** A halted stream, and why. Other streams go on; every round tries a halted stream again, and continues it once the reason is gone. */
export interface StreamHalt extends OutboxStream {
  readonly reason: string
}
/** How many messages of a stream are not in the target yet. */
export interface StreamLag extends OutboxStream {
  readonly lag: number
}
/** The result of one round of a relay. */
export interface RelayRound {
  /** Messages that were published. */
  readonly messages: number
  /** The round ended at its limit: there is more to publish at once. */
  readonly more: boolean
  readonly halted: ReadonlyArray<StreamHalt>
  /** Streams that do not go on because the target fails in a way that may end by itself, such as a broker that is away. Absent: none. */
  readonly waiting?: ReadonlyArray<StreamHalt>
  /** How many attempts to connect or to send failed since the last round. They are repeated. Absent: none. */
  readonly failures?: number
}

/** The relay or its target failed. `retryable`: the same round may succeed later. */
export class RelayError extends Schema.TaggedError<RelayError>()("RelayError", {
  target: Schema.String,
  operation: Schema.Literals(["publish", "lag", "collect", "listen"]),
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `relay to ${this.target}: ${this.operation} failed: ${this.reason}`
  }
}

/** Where a relay publishes segments: topics of the log on PostgreSQL, of Kafka, or of Pulsar. */
export interface RelayTarget {
  /** The name that the position of each stream is kept under. */
  readonly name: string
  /**
   * Runs one round: publishes the messages after each stream's position and moves the position. Whatever fails, each message is in the
   * target once, in the order of its sequence. A round is limited in messages and bytes. A gap in the sequence halts the stream; nothing
   * is skipped. Several relays may run at once.
   */
  readonly publish: Effect.Effect<RelayRound, RelayError>
  /** Waits for a signal that something was committed since the last call. A signal may be late or lost, so the loop also polls. */
  readonly wait: Effect.Effect<void>
  /** Wakes `wait` from within this process: something was committed. Never waits. */
  readonly signal: () => void
  /** The lag of every stream, including those without any. */
  readonly lag: Effect.Effect<ReadonlyArray<StreamLag>, RelayError>
}
