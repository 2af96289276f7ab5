// The bridge's port: what its loops need of the two systems that it joins. The adapters are Kafka and Pulsar.
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { BridgeRecord } from "./rules.ts"
import type { Place } from "./names.ts"

/** One of the two systems failed, or refused something. */
export class BridgeError extends Schema.TaggedError<BridgeError>()("BridgeError", {
  side: Schema.Literals(["kafka", "pulsar"]),
  operation: Schema.String,
  /**
   * `refused`: the topic is not there or may not be used, which is no matter of time; `tooLarge`: of what was sent; `fenced`: somebody else
   * has taken over; `busy`: somebody else has it; `lost`: records are gone that were not mirrored yet.
   */
  kind: Schema.Literals(["refused", "tooLarge", "fenced", "busy", "lost", "other"]),
  /** Which topic refused. */
  topic: Schema.optionalKey(Schema.String),
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.side}: ${this.operation} failed: ${this.reason}`
  }
}

/** A position of a consumer group, which a transaction writes. */
export interface Stored {
  readonly offset: number
  /** At most 4,096 bytes. */
  readonly metadata: string
}
/** Whose position. */
export interface Held {
  readonly group: string
  readonly topic: string
  readonly partition: number
}
/** A record and where it goes on Kafka. */
export interface Addressed {
  readonly topic: string
  readonly partition: number
  readonly record: BridgeRecord
}
/** The owner of a transactional id: whoever had it before can write nothing more. */
export interface KafkaWriter {
  readonly stored: (held: Held) => Effect.Effect<Stored | undefined, BridgeError>
  /** How many partitions a topic has. Fails with `refused` where there is none. */
  readonly partitions: (topic: string) => Effect.Effect<number, BridgeError>
  /** Where a partition ends, with what transactions under way hold back from readers. */
  readonly end: (topic: string, partition: number) => Effect.Effect<number, BridgeError>
  /** All of it in one transaction. After a failure nobody knows, and the writer is done with. Records of a partition keep their order. */
  readonly commit: (
    records: ReadonlyArray<Addressed>,
    positions: ReadonlyArray<Held & Stored>
  ) => Effect.Effect<void, BridgeError>
}
/** Kafka, beside its log. */
export interface KafkaEnd {
  /** Fails where no broker answers, or lets this client in. Asks once, over a connection of its own. */
  readonly answers: Effect.Effect<void, BridgeError>
  /** The cluster's id. */
  readonly cluster: Effect.Effect<string, BridgeError>
  /** The names of all topics but Kafka's own. */
  readonly topics: Effect.Effect<ReadonlyArray<string>, BridgeError>
  readonly take: (id: string) => Effect.Effect<KafkaWriter, BridgeError, Scope.Scope>
}

/** A message as Pulsar has it. Its key is empty where it has none. */
export interface Arrived {
  readonly place: Place
  /** Epoch milliseconds. */
  readonly publishTime: number
  readonly record: BridgeRecord
}
/** What became of a message that was sent: it is there now, it was there already, or it is never taken. */
export type Sent =
  | { readonly kind: "stored"; readonly place: Place }
  | { readonly kind: "duplicate" }
  | { readonly kind: "refused"; readonly reason: string }
/** A message to send. */
export interface Numbered {
  readonly record: BridgeRecord
  /** Ascending. The broker drops what is not above the last one that it has of this producer's name. */
  readonly sequenceId: number
}
/** The one producer of its name. */
export interface PulsarProducer {
  /** In this order. Answers when the broker has all of them; fails with the first that is lost on the way. */
  readonly send: (messages: ReadonlyArray<Numbered>) => Effect.Effect<ReadonlyArray<Sent>, BridgeError>
}
/** The one consumer of its subscription. Messages come in the order of the partition, and after a lost connection anew. */
export interface PulsarConsumer {
  /** Waits until there is one. Fails where the connection is lost. */
  readonly take: (max: number) => Effect.Effect<ReadonlyArray<Arrived>, BridgeError>
  /** They need not come again. May be lost. */
  readonly acknowledge: (messages: ReadonlyArray<Arrived>) => Effect.Effect<void, BridgeError>
}
/** Pulsar. Parts are topics that are not partitioned, and partitions of those that are, by their full names. */
export interface PulsarEnd {
  /** Fails where no broker answers, or lets this client in. Asks once, over a connection of its own. */
  readonly answers: Effect.Effect<void, BridgeError>
  /** The names of topics of a tenant and a namespace, or of all. Needs the admin interface. */
  readonly topics: (
    tenant: string | undefined,
    namespace: string | undefined
  ) => Effect.Effect<ReadonlyArray<string>, BridgeError>
  /** By partition. Where there is no such topic: its name, since the broker may make it. */
  readonly parts: (topic: string) => Effect.Effect<ReadonlyArray<string>, BridgeError>
  /** Fails with `refused` where the topic cannot be had, with `busy` where another producer has the name. */
  readonly produce: (
    part: string,
    name: string,
    batching: boolean
  ) => Effect.Effect<PulsarProducer, BridgeError, Scope.Scope>
  /** Shows every message after a place, or from the first on, up to the end. */
  readonly scan: (
    part: string,
    after: Place | undefined,
    show: (message: Arrived) => void
  ) => Effect.Effect<void, BridgeError>
  readonly consume: (
    part: string,
    subscription: string,
    start: "earliest" | "latest"
  ) => Effect.Effect<PulsarConsumer, BridgeError, Scope.Scope>
  /** The last message's place; undefined: there is none. Needs the admin interface. */
  readonly end: (part: string) => Effect.Effect<Place | undefined, BridgeError>
  /** What a subscription has not acknowledged, in entries of the topic; undefined: it cannot be told. */
  readonly backlog: (part: string, subscription: string) => Effect.Effect<number | undefined, BridgeError>
}
