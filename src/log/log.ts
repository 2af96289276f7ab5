// The log port: a partitioned, ordered, durable log of records. Its adapters (Kafka, PostgreSQL, memory) pass one contract suite.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type { KafkaTopic, Topic } from "../model/topic.ts"
import type { Envelope } from "./envelope.ts"

/** A position in a partition, from 0 (Kafka's offset). Positions of records that were compacted away are missing. */
export type Position = number

/** A record to append. The writer chooses its partition (see `partitionOf`), never an adapter. */
export interface NewRecord extends Envelope {
  readonly partition: number
  readonly key: string | null
  /** JSON text on one line (no raw line feed); null deletes the key of a compacted topic. */
  readonly value: string | null
  /** Epoch milliseconds. */
  readonly eventTime: number
}
/** A record as it is read. */
export interface LogRecord extends NewRecord {
  readonly position: Position
  /**
   * When the log stored it, epoch milliseconds; not above 0 if that is not known (see `appendTimeOf`). On a Kafka topic with
   * `message.timestamp.type=CreateTime` it is the time that the producer gave.
   */
  readonly appendedAt: number
  /** Whether `appendedAt` is a time that the producer gave. */
  readonly isTimeOfProducer?: true
}
/** When the log stored a record, epoch milliseconds; undefined for a record of Kafka's that has no timestamp. */
export const appendTimeOf = ({ appendedAt }: Pick<LogRecord, "appendedAt">): number | undefined =>
  appendedAt > 0 ? appendedAt : undefined
/** The same by the log's own clock; undefined, too, if the producer gave the time. */
export const brokerTimeOf = (record: Pick<LogRecord, "appendedAt" | "isTimeOfProducer">): number | undefined =>
  record.isTimeOfProducer === true ? undefined : appendTimeOf(record)
/** Records of one partition, in order, and where the next batch begins. */
export interface Batch {
  readonly records: ReadonlyArray<LogRecord>
  /** Where the next batch begins. Missing positions and Kafka's control records are behind it, so it may move though `records` is empty. */
  readonly next: Position
  /** The partition's end at the time of the read: the position that its next record will get. */
  readonly end: Position
}
/** The first position that a partition still has (`start`), and the position that its next record will get (`end`). */
export interface PartitionBounds {
  readonly partition: number
  readonly start: Position
  readonly end: Position
}
/** Where a record is: its partition and its position there. */
export interface LogPosition {
  readonly partition: number
  readonly position: Position
}
/** A topic to declare, with all defaults filled in. */
export interface TopicSpec {
  readonly name: string
  readonly partitions: number
  readonly compacted: boolean
  readonly retentionMs: number | undefined
  /** Whether it has the events of an aggregate, which only the event store appends to, and which are kept forever. Default: false. */
  readonly isAggregate?: boolean
  /** Settings for Kafka; other logs ignore them. */
  readonly kafka?: KafkaTopic | undefined
}

/** The log failed. `retryable`: the same call may succeed later. */
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
/** The topic, or the partition of it, does not exist: it was not declared, or an older version of the application declared it. */
export class UnknownTopic extends Schema.TaggedError<UnknownTopic>()("UnknownTopic", {
  topic: Schema.String,
  reason: Schema.String,
  /** What to do. Default: declare the topic. */
  advice: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    const { advice = "declare it in an application and run 'millrace topics apply'", reason, topic } = this
    return `log: ${topic}: ${reason}; ${advice}`
  }
}
/** What a person can do about a position that has lost its meaning. */
export const startOver =
  "To process the topic from its start: stop the processes, increase the projection's version (or rename the projection), run millrace retire for this one, and only then start them"
/** The position does not exist any more (retention deleted it) or not yet (the topic was truncated or recreated). */
export class OutOfRange extends Schema.TaggedError<OutOfRange>()("OutOfRange", {
  topic: Schema.String,
  partition: Schema.Int,
  position: Schema.Int,
  start: Schema.Int,
  end: Schema.Int
}) {
  override get message() {
    return (
      `log: ${this.topic}/${this.partition} has positions ${this.start} to ${this.end}, but position ${this.position} was requested: ` +
      (this.position < this.start
        ? `retention deleted records before they were processed; restore them, or start over with those that are left. ${startOver}`
        : "the partition is shorter than what was already processed of it; it was recreated, or restored to an older state")
    )
  }
}
/** Every error of a read. */
export type ReadError = LogError | UnknownTopic | OutOfRange

/** Reads one partition forwards. One fiber at a time may use it. */
export interface Reader {
  /** Waits until there is something to read, then returns at least one record or a higher `next`. At most the reader's `maxBytes`. */
  readonly take: Effect.Effect<Batch, ReadError>
}
/** A partition that is assigned to this member of a group for now. */
export interface Assignment {
  readonly topic: string
  readonly partition: number
  /** Grows with every assignment of the partition, across members. The store's claim refuses an older generation. */
  readonly generation: number
  /** Opens a reader at a position, until the scope closes. `options` replaces that of `assign`. */
  readonly open: (from: Position, options?: ReadOptions) => Effect.Effect<Reader, ReadError, Scope.Scope>
}
/** How much one read returns. */
export interface ReadOptions {
  /** Bytes of values, at most; a larger record is returned by itself. A function is called at each read. Default 1 MiB. */
  readonly maxBytes?: number | (() => number)
}

/** A partitioned log. */
export class Log extends Context.Service<
  Log,
  {
    /**
     * Creates the topics that do not exist. Fails if a topic exists with another number of partitions, since records of one key would no
     * longer be in one order, or with another cleanup policy.
     */
    readonly declare: (topics: ReadonlyArray<TopicSpec>) => Effect.Effect<void, LogError>
    /**
     * Appends durably and returns the position of each record, in the order given. Records of a partition become visible in the order of
     * their positions, and those of one call at once. After a `retryable` failure the records may or may not be stored: appending them
     * again may store duplicates, which a projection's `dedupe` ignores.
     */
    readonly append: (
      topic: string,
      records: ReadonlyArray<NewRecord>
    ) => Effect.Effect<ReadonlyArray<LogPosition>, LogError | UnknownTopic>
    /** Start and end of every partition, in their order. Records that were appended before the call are before `end`. */
    readonly bounds: (topic: string) => Effect.Effect<ReadonlyArray<PartitionBounds>, LogError | UnknownTopic>
    /** The ends alone, in the order of partitions. On Kafka this costs half as much as `bounds`. */
    readonly ends: (topic: string) => Effect.Effect<ReadonlyArray<Position>, LogError | UnknownTopic>
    /**
     * Identifies the topic among all that ever had its name: a recreated topic has another identity. Reads it with each call. Undefined if
     * the log has no such identity.
     */
    readonly identity: (topic: string) => Effect.Effect<string | undefined, LogError | UnknownTopic>
    /** Reads from a position without waiting: no records if `position` is the end. */
    readonly read: (
      topic: string,
      partition: number,
      position: Position,
      options?: ReadOptions
    ) => Effect.Effect<Batch, ReadError>
    /** Opens a reader of one partition at a position, outside of any group. */
    readonly open: (
      topic: string,
      partition: number,
      position: Position,
      options?: ReadOptions
    ) => Effect.Effect<Reader, ReadError, Scope.Scope>
    /**
     * Joins a group, whose members share the topic's partitions: runs `use` for each partition that is assigned to this member, and
     * interrupts it when the partition is assigned to another one. Runs until a `use` fails, and fails with that failure.
     */
    readonly assign: <E, R>(
      topic: string,
      group: string,
      use: (assignment: Assignment) => Effect.Effect<void, E, R>,
      options?: ReadOptions
    ) => Effect.Effect<never, E | LogError | UnknownTopic, R>
  }
>()("millrace/Log") {}

/** The specification of a topic. `partitions` (default 1) applies to a topic that does not declare a number. */
export const specOf = (topic: Topic.Any, partitions = 1): TopicSpec => ({
  name: topic.name,
  partitions: topic.partitions ?? partitions,
  compacted: topic.compacted === true,
  retentionMs: topic.retentionMs,
  kafka: topic.kafka
})

/**
 * Distinguishes a record from another one at the same position of a recreated topic: FNV-1a over position, key and append time, 8 hex
 * digits. Guards against mistakes, not against attackers.
 */
export const fingerprintOf = (record: LogRecord): string => {
  const text = `${record.position}:${record.key ?? ""}:${record.appendedAt}`
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, "0")
}
