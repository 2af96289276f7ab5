// The bridge's port to Pulsar: producers and consumers of partitions, and what a topic has.
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeError } from "./errors.ts"
import type { PulsarPosition } from "./pulsar-position.ts"
import type { BridgeRecord } from "./record.ts"

/** A message as Pulsar delivers it. Its record's key is empty if the message has none. */
export interface PulsarMessage {
  readonly position: PulsarPosition
  /** Epoch milliseconds. */
  readonly publishTime: number
  readonly record: BridgeRecord
}
/** What became of a message that was sent: the broker stored it, dropped it as a duplicate, or refuses it for good. */
export type SendResult =
  | { readonly kind: "stored"; readonly position: PulsarPosition }
  | { readonly kind: "duplicate" }
  | { readonly kind: "refused"; readonly reason: string }
/** A record to send, with the number by which the broker recognizes duplicates. */
export interface NumberedRecord {
  readonly record: BridgeRecord
  /** Ascending. The broker drops a message whose number is not above the last one that it has of the producer's name. */
  readonly sequenceId: number
}
/** A producer under a name that no other producer can use meanwhile. */
export interface PulsarProducer {
  /** Sends in this order. Returns a result for each once the broker has answered all; fails if the fate of one of them is unknown. */
  readonly send: (records: ReadonlyArray<NumberedRecord>) => Effect.Effect<ReadonlyArray<SendResult>, BridgeError>
}
/** The only consumer of a subscription. Messages come in the order of the partition, and again after a lost connection. */
export interface PulsarConsumer {
  /** Waits until there is a message. Fails if the connection is lost. */
  readonly take: (max: number) => Effect.Effect<ReadonlyArray<PulsarMessage>, BridgeError>
  /** Asks the broker not to deliver these again. An acknowledgement may get lost, so they may come again all the same. */
  readonly acknowledge: (messages: ReadonlyArray<PulsarMessage>) => Effect.Effect<void, BridgeError>
}

/**
 * What the bridge needs of Pulsar. On Pulsar each partition of a topic is a topic with a name of its own; `partition` is that name in full, or
 * the topic's own name if the topic is not partitioned.
 */
export interface PulsarSide {
  /** Succeeds if a broker answers and accepts this client. Asks once, over a connection of its own. */
  readonly ping: Effect.Effect<void, BridgeError>
  /** The names of the topics of a tenant and a namespace; undefined means of all. Needs the admin interface. */
  readonly topics: (
    tenant: string | undefined,
    namespace: string | undefined
  ) => Effect.Effect<ReadonlyArray<string>, BridgeError>
  /** A topic's partitions in order. Returns the topic's own name if it does not exist: the broker may create it on first use. */
  readonly partitionsOf: (topic: string) => Effect.Effect<ReadonlyArray<string>, BridgeError>
  /** Opens a producer. Fails with `refused` if the topic cannot be used, and with `busy` if another producer has the name. */
  readonly produce: (
    partition: string,
    name: string,
    batching: boolean
  ) => Effect.Effect<PulsarProducer, BridgeError, Scope.Scope>
  /** Calls `show` for every message after a position, or from the first one, up to the present end. */
  readonly scan: (
    partition: string,
    after: PulsarPosition | undefined,
    show: (message: PulsarMessage) => void
  ) => Effect.Effect<void, BridgeError>
  /** Subscribes exclusively. `start` says where a new subscription begins. */
  readonly consume: (
    partition: string,
    subscription: string,
    start: "earliest" | "latest"
  ) => Effect.Effect<PulsarConsumer, BridgeError, Scope.Scope>
  /** The position of the last message; undefined if there is no message. Needs the admin interface. */
  readonly lastPosition: (partition: string) => Effect.Effect<PulsarPosition | undefined, BridgeError>
  /** How many entries of the topic a subscription has not acknowledged; undefined if this cannot be found out. */
  readonly backlog: (partition: string, subscription: string) => Effect.Effect<number | undefined, BridgeError>
}
