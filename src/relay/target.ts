// The relay-target port: where what commits published is brought, stream by stream. The adapters are the log on PostgreSQL, Kafka, Pulsar.
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** A stream of the outbox: a projection and a partition of its source. A promoted version goes on with the stream of the one before. */
export interface OutboxStream {
  readonly projection: string
  readonly source: string
  readonly partition: number
}
/** A stream that stands still, and why. Others flow; it is tried again with every round, and goes on once the reason is gone. */
export interface StreamHalt extends OutboxStream {
  readonly reason: string
}
/** Messages of a stream that the target does not have yet. */
export interface StreamLag extends OutboxStream {
  readonly lag: number
}
/** What one round brought to the target. */
export interface RelayRound {
  readonly messages: number
  /** The round ended at its bound: there is more to ship at once. */
  readonly more: boolean
  readonly halted: ReadonlyArray<StreamHalt>
}

/** The relay, or its target, failed. `retryable` tells whether the same round may succeed later. */
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

/** Where a relay brings segments: the embedded log's topics, Kafka, Pulsar. */
export interface RelayTarget {
  /** The name that the position of each stream is kept under. */
  readonly name: string
  /**
   * One round: takes what follows each stream's position to the target and moves the position, so that after any failure each
   * message is there once, in the order of its sequence. Bounded by count and bytes. A sequence that does not follow halts its
   * stream; nothing is skipped. Several relays may run at once.
   */
  readonly publish: Effect.Effect<RelayRound, RelayError>
  /** Waits for a sign that something was committed since the last call. May be late or missing: the loop also looks by itself. */
  readonly wait: Effect.Effect<void>
  /** Wakes `wait` from within this process: something was committed. Never waits. */
  readonly signal: () => void
  /** By stream, streams that lack nothing included. */
  readonly lag: Effect.Effect<ReadonlyArray<StreamLag>, RelayError>
}
