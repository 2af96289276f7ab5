// The bridge's port to Kafka: transactions that write records together with positions. Records are read through the log's port.
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeError } from "./errors.ts"
import type { BridgeRecord } from "./record.ts"

/** A partition as one consumer group sees it: what a position belongs to. */
export interface GroupPartition {
  readonly group: string
  readonly topic: string
  readonly partition: number
}
/** The position of a consumer group in a partition. */
export interface GroupPosition {
  readonly offset: number
  /** Text that is stored with the offset, 4,096 bytes at most. */
  readonly metadata: string
}
/** A record, and the partition on Kafka that it goes to. */
export interface AddressedRecord {
  readonly topic: string
  readonly partition: number
  readonly record: BridgeRecord
}

/** Writes to Kafka under a transactional id. Opening another writer with the same id fences this one: it can write nothing more. */
export interface KafkaWriter {
  /** The group's position; undefined if it has none. */
  readonly committedPosition: (of: GroupPartition) => Effect.Effect<GroupPosition | undefined, BridgeError>
  /** How many partitions a topic has. Fails with `refused` if the topic does not exist. */
  readonly partitionCount: (topic: string) => Effect.Effect<number, BridgeError>
  /** The offset after the last record of a partition, counting records of open transactions, which readers do not see yet. */
  readonly endOffset: (topic: string, partition: number) => Effect.Effect<number, BridgeError>
  /**
   * Writes all records and positions in one transaction. Records of one partition keep their order. After a failure it is unknown whether
   * they were written, and the writer cannot be used any more.
   */
  readonly commit: (
    records: ReadonlyArray<AddressedRecord>,
    positions: ReadonlyArray<GroupPartition & GroupPosition>
  ) => Effect.Effect<void, BridgeError>
}

/** What the bridge needs of Kafka beside its log. */
export interface KafkaSide {
  /** Succeeds if a broker answers and accepts this client. Asks once, over a connection of its own. */
  readonly ping: Effect.Effect<void, BridgeError>
  /** The id that the cluster gave itself. */
  readonly clusterId: Effect.Effect<string, BridgeError>
  /** The names of all topics except Kafka's internal ones. */
  readonly topics: Effect.Effect<ReadonlyArray<string>, BridgeError>
  /** Opens the writer of a transactional id, and fences the one that had the id before. */
  readonly openWriter: (id: string) => Effect.Effect<KafkaWriter, BridgeError, Scope.Scope>
}
