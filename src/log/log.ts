// The log port: a partitioned, ordered, durable log of records. Adapters are Kafka, PostgreSQL and memory; all pass one contract suite.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { KafkaTopic, Topic } from "../model/topic.ts"
import type { Envelope } from "./envelope.ts"

/** A place in a partition of a log, from 0. Positions may have holes where records were compacted away. */
export type Position = number

/** A record to append. Its partition is chosen by the writer (`partitionOf`), never by an adapter. */
export interface NewRecord extends Envelope {
  readonly partition: number
  readonly key: string | null
  /** JSON text on one line (no raw line feed); null deletes the key of a compacted topic. */
  readonly value: string | null
  /** Epoch milliseconds. */
  readonly eventTime: number
}
/** A record as it was read. */
export interface LogRecord extends NewRecord {
  readonly position: Position
  /** When the log took it, epoch milliseconds. */
  readonly appendedAt: number
}
/** Records of one partition, in order, and how far they reach. */
export interface Batch {
  readonly records: ReadonlyArray<LogRecord>
  /** Where the next batch begins; past the last record by holes and control records, so it moves even where no record is left. */
  readonly next: Position
  /** The partition's end when this was read: the position that its next record will get. */
  readonly end: Position
}
/** The first position that a partition still has, and the one that its next record will get. */
export interface PartitionBounds {
  readonly partition: number
  readonly start: Position
  readonly end: Position
}
/** Where an appended record came to lie. */
export interface LogPosition {
  readonly partition: number
  readonly position: Position
}
/** What a topic is to be, with everything decided. */
export interface TopicSpec {
  readonly name: string
  readonly partitions: number
  readonly compacted: boolean
  readonly retentionMs: number | undefined
  /** How it is made on Kafka; other logs pass it over. */
  readonly kafka?: KafkaTopic | undefined
}

/** The log failed. `retryable` tells whether the same call may succeed later. */
export class LogError extends Schema.TaggedError<LogError>()("LogError", {
  operation: Schema.Literals(["declare", "append", "bounds", "read", "assign", "clean"]),
  topic: Schema.String,
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `log: ${this.operation} on ${this.topic || "the log"} failed: ${this.reason}`
  }
}
/** No such topic, or no such partition of it: it was not declared, or by an older application. */
export class UnknownTopic extends Schema.TaggedError<UnknownTopic>()("UnknownTopic", {
  topic: Schema.String,
  reason: Schema.String,
  /** What to do, where that is not to declare it. */
  advice: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    const { advice = "declare it in an application and run 'millrace topics apply'", reason, topic } = this
    return `log: ${topic}: ${reason}; ${advice}`
  }
}
/** The position asked for is not there any more (retention went past it) or not there yet (the log was cut or made anew). */
export class OutOfRange extends Schema.TaggedError<OutOfRange>()("OutOfRange", {
  topic: Schema.String,
  partition: Schema.Int,
  position: Schema.Int,
  start: Schema.Int,
  end: Schema.Int
}) {
  override get message() {
    return (
      `log: ${this.topic}/${this.partition} has positions ${this.start} to ${this.end}, ${this.position} was asked for; ` +
      (this.position < this.start
        ? "retention deleted records that were not handled yet: restore them, or rebuild the projection"
        : "the log is shorter than what was handled of it: it was made anew or restored to an older state")
    )
  }
}
/** Everything that reading can fail with. */
export type ReadError = LogError | UnknownTopic | OutOfRange

/** Reads one partition forwards. Not for use by two fibers at once. */
export interface Reader {
  /** Waits until there is something, then returns at least one record or a moved `next`. Bounded by the reader's `maxBytes`. */
  readonly take: Effect.Effect<Batch, ReadError>
}
/** A partition that this member of a group has for now. */
export interface Assignment {
  readonly topic: string
  readonly partition: number
  /** Grows with every assignment of the partition, across members: an older one is refused by the store's claim. */
  readonly generation: number
  /** Reads from a position until the scope closes. */
  readonly open: (from: Position) => Effect.Effect<Reader, ReadError, Scope.Scope>
}
/** How much of a partition is read at once. */
export interface ReadOptions {
  /** Bytes of values at most, but at least one record. Default 1 MiB. */
  readonly maxBytes?: number
}

/** A partitioned log. */
export class Log extends Context.Service<
  Log,
  {
    /**
     * Makes the topics that are missing. One that is there with another number of partitions, or with another cleanup policy, is
     * refused, for a key's records would no longer be in one order.
     */
    readonly declare: (topics: ReadonlyArray<TopicSpec>) => Effect.Effect<void, LogError>
    /**
     * Appends durably and returns each record's place, in the order given. Records of one partition become visible in the order
     * of their positions, and all of one call's records of a partition at once. After a failure that is `retryable` they may be
     * there or not: a second append may double them, which a projection's `dedupe` undoes.
     */
    readonly append: (
      topic: string,
      records: ReadonlyArray<NewRecord>
    ) => Effect.Effect<ReadonlyArray<LogPosition>, LogError | UnknownTopic>
    /** Start and end of every partition, by partition. What was appended before the call is before `end`. */
    readonly bounds: (topic: string) => Effect.Effect<ReadonlyArray<PartitionBounds>, LogError | UnknownTopic>
    /** The ends alone, by partition: what is asked again and again costs half as much as `bounds` on Kafka. */
    readonly ends: (topic: string) => Effect.Effect<ReadonlyArray<Position>, LogError | UnknownTopic>
    /**
     * What tells a topic from every other one that ever had its name, asked anew with each call: one that was deleted and made anew has
     * another identity. Undefined where the log cannot tell.
     */
    readonly identity: (topic: string) => Effect.Effect<string | undefined, LogError | UnknownTopic>
    /** What is there from a position on, at once: no records where `position` is the end. */
    readonly read: (
      topic: string,
      partition: number,
      position: Position,
      options?: ReadOptions
    ) => Effect.Effect<Batch, ReadError>
    /** Follows one partition from a position on, outside any group. */
    readonly open: (
      topic: string,
      partition: number,
      position: Position,
      options?: ReadOptions
    ) => Effect.Effect<Reader, ReadError, Scope.Scope>
    /**
     * Takes part in a group: runs `use` for every partition that this member is given, interrupts it when the partition goes
     * elsewhere, and shares the partitions among the members. Ends with the first failure of a `use`; never by itself.
     */
    readonly assign: <E, R>(
      topic: string,
      group: string,
      use: (assignment: Assignment) => Effect.Effect<void, E, R>,
      options?: ReadOptions
    ) => Effect.Effect<never, E | LogError | UnknownTopic, R>
  }
>()("millrace/Log") {}

/** A topic's specification; `partitions` is for a topic that leaves its number to its projection. */
export const specOf = (topic: Topic.Any, partitions = 1): TopicSpec => ({
  name: topic.name,
  partitions: topic.partitions ?? partitions,
  compacted: topic.compacted === true,
  retentionMs: topic.retentionMs,
  kafka: topic.kafka
})

/**
 * What tells a record at a position from another that might stand there after the log was made anew: FNV-1a over position, key
 * and append time, 8 hex digits. It guards against mix-ups, not against attackers.
 */
export const fingerprintOf = (record: LogRecord): string => {
  const text = `${record.position}:${record.key ?? ""}:${record.appendedAt}`
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, "0")
}
