// The store port: a projection's rows, window state, position and outbox, committed together. PostgreSQL is its adapter; another is in memory.
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { LogRecord, Position } from "../log/log.ts"
import type { CommandChanges } from "./commands.ts"
import type { JournalEntry, LookupStore } from "./lookup-store.ts"
import { StoreError } from "./store-error.ts"
import type { SubjectKeys } from "../erasure/subject-keys.ts"
import type { RetryOwner } from "../dead-letter/retry-record.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Row } from "../model/recorder.ts"
import type { Window } from "../model/window.ts"

export { StoreError } from "./store-error.ts"

/** One partition of a source, as one build of a projection processes it. */
export interface ProjectionPartition {
  readonly projection: string
  /** The number of the build. */
  readonly version: number
  readonly topic: string
  readonly partition: number
}
/**
 * Events of a partition that failed one after another for the same reason, with none between that succeeded. Retries of dead letters do not
 * count, nor do events that are parked behind another one.
 */
export interface FailureStreak {
  /** The error's name, and its message without the values in it: see `failureShape`. */
  readonly reason: string
  readonly count: number
  /** The position of the first of these events, and its error. */
  readonly first: Position
  readonly message: string
  /** How many events failed one after another for any reason. */
  readonly total: number
}
/**
 * The greatest time that each stream has announced in one partition of a derived topic, whole epoch milliseconds: by `<projection>/<source>`,
 * then by the partition of the source. Null for a stream that has announced nothing.
 */
export type StreamTimes = Readonly<Record<string, ReadonlyArray<number | null>>>
/** What a stream has announced to all partitions of a derived topic that another projection reads. */
export interface AnnouncedTime {
  /** The stream time of the projection's partition, epoch milliseconds; null if none was announced to all partitions. */
  readonly time: number | null
  /** How far the event time of a message has been before that of its event, in milliseconds: time marks are so much earlier. */
  readonly shift: number
}
/** The same by topic. */
export type AnnouncedTimes = Readonly<Record<string, AnnouncedTime>>

/** A process's exclusive right to a partition, with the state that the last commit left. Each commit returns the next claim. */
export interface Claim extends ProjectionPartition {
  /** The fencing token: a commit with another one has no effect. */
  readonly incarnation: string
  readonly commitNo: number
  readonly epoch: number
  /** The next position to process. */
  readonly position: Position
  /** Of the record before `position`, see `fingerprintOf`; undefined if none was processed. */
  readonly fingerprint: string | undefined
  /** The identity of the topic that `position` belongs to (`Log.identity`); undefined if the log has no identities. */
  readonly identity: string | undefined
  /** The partition's stream time, whole epoch milliseconds; undefined before the first event. */
  readonly streamTime: number | undefined
  /** What the streams of the topic have announced here, if it is a derived one; undefined if none has announced anything. */
  readonly streamTimes: StreamTimes | undefined
  /** What this partition's stream has announced; undefined if nothing. */
  readonly announced: AnnouncedTimes | undefined
  /** The sequence number of the last message in the partition's outbox stream. */
  readonly outboxSeq: number
  readonly mode: "live" | "follower" | "frozen"
  /**
   * How many messages the build's handlers have published here, or would have while it followed, by topic; dead letters in their topics count, the
   * messages of windows do not. Undefined if that is not known, because the build began before it was counted.
   */
  readonly published?: Readonly<Record<string, number>> | undefined
  /** The chunk of seen ids that is being filled, and how many ids it has. */
  readonly seenChunk: number
  readonly seenFill: number
  /** The greatest event time of the ids that were stored when the partition was claimed; undefined if there are none. */
  readonly newestSeen: number | undefined
  /** How the last events failed; undefined if the last one succeeded. */
  readonly failing?: FailureStreak | undefined
  /** Whether any event of the partition has been processed without failing. */
  readonly hasSucceeded: boolean
  /** What events see of lookups while the build follows: what the live one saw, or the values of today. */
  readonly lookups: "asSeen" | "today"
  /** The number of the journal of lookups that the build reads and writes. */
  readonly journal: number
  /** The database of the store, by which retry records are recognized; undefined in memory, where all count. */
  readonly owner?: RetryOwner | undefined
}

/** A batch's changes to one table: one for each row that it changes. */
export interface TableChange {
  readonly table: Table.Any
  readonly upserts: ReadonlyArray<Row>
  /** Each has the key and the columns that change. Nothing is written if there is no such row. */
  readonly updates: ReadonlyArray<Row>
  /** The keys of rows to delete. */
  readonly deletes: ReadonlyArray<Row>
}
/** What a batch contributes to one row of a window. */
export interface WindowDelta {
  /**
   * The key, `window_size` and `window_start` unless the window is global, and for each aggregate the value to merge: a delta that its
   * `sql` kind adds, or the row's new value if the window has a fold.
   */
  readonly row: Row
  /** The key and the partition under which the row's new state is published. */
  readonly key: string
  readonly partition: number
  readonly eventTime: number
  readonly tenant: string | undefined
  readonly traceparent: string | undefined
  /** The text of the header `millrace-time`, if the message needs it. */
  readonly sentTime?: string | undefined
}
export interface WindowChange {
  readonly window: Window.Any
  readonly deltas: ReadonlyArray<WindowDelta>
  /** Nothing of it is published, although the window has a topic: see `Changes.muted`. The deltas have no key and partition then. */
  readonly isMuted?: true
}
/** A batch's messages for one topic, packed as in the log's batches: `meta` is a JSON array, `vals` has one line for each message. */
export interface Segment {
  readonly topic: string
  /** The partition of all messages; undefined if they go to several. */
  readonly partition: number | undefined
  readonly messages: number
  readonly meta: string
  readonly vals: string
}
/** An event that came too late for a window. Times are epoch milliseconds. */
export interface LateEvent {
  readonly position: Position
  readonly window: string
  readonly size: string
  readonly start: number
  readonly key: Row
  readonly contribution: Row
  readonly eventTime: number
  readonly streamTime: number
  readonly traceId: string | undefined
}
/** An event that could not be processed. */
export interface DeadLetter {
  readonly position: Position
  /** `discarded` only of a build that follows: the live one's dead letter was discarded before discards were records of the log. */
  readonly status: "parked" | "skipped" | "discarded"
  readonly key: string | null
  readonly error: string
  readonly message: string
  /** The place in the application's code where the error comes from; undefined if there is none. It is stored, and not published. */
  readonly thrownAt?: string | undefined
  readonly attempts: number
  readonly value: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly eventTime: number | undefined
  /** The stream time at its position, by which a retry is judged; undefined where there is none to judge by, as for lookup topics. */
  readonly streamTime?: number | undefined
  readonly traceId: string | undefined
  /** The record's envelope, from which it can be processed again. Undefined for a lookup topic's record, which cannot. */
  readonly envelope?: string
  /** The failure itself, for callers in the same process. Stores keep `error` and `message`. */
  readonly cause?: Cause.Cause<unknown>
}
/** An open dead letter, to process it again. */
export interface OpenDeadLetter {
  /** Its record; `appendedAt` is not known and 0. */
  readonly record: LogRecord
  /** `DeadLetter.streamTime`; undefined if it was stored before stream times were kept. */
  readonly streamTime: number | undefined
}
/** The result of a dead letter's retry. */
export interface RetriedDeadLetter {
  /** The dead letter's position, and that of the retry record. */
  readonly position: Position
  readonly by: Position
  /** How it failed once more; undefined if it succeeded. */
  readonly failed: Pick<DeadLetter, "error" | "message" | "thrownAt" | "attempts"> | undefined
}
/** What a person decided about the live build's dead letter of a record, where the log has no record of the decision. */
export interface LiveDecision {
  readonly position: Position
  /** It was discarded before discards were records of the log. */
  readonly discarded: boolean
  /** The live build parked it behind another dead letter of its key. */
  readonly behind: boolean
  /** The build that asks has an earlier dead letter of its key that was discarded in this way. */
  readonly followsDiscarded: boolean
}
/** The ids of a batch's events, 20 bytes each: 12 of a hash, and 8 of the event time as a big-endian float8. */
export interface PackedIds {
  readonly minTime: number
  readonly maxTime: number
  readonly count: number
  readonly packed: Uint8Array
}
/** Everything that one commit writes. */
export interface Changes {
  /** The position at which the next batch begins. */
  readonly position: Position
  readonly fingerprint: string | undefined
  readonly streamTime: number | undefined
  /** How many events were processed, and how many were duplicates, which `events` does not count. */
  readonly events: number
  readonly duplicates: number
  readonly tables: ReadonlyArray<TableChange>
  readonly windows: ReadonlyArray<WindowChange>
  readonly segments: ReadonlyArray<Segment>
  /**
   * Set if the changes were made for a follower: how many messages by handlers, and of dead letters, they leave out, by topic. They can be
   * committed only while the partition follows: a live one refuses them, and the batch is processed again with its messages.
   */
  readonly muted?: Readonly<Record<string, number>> | undefined
  /** Time marks, which follow all other messages of the commit. */
  readonly marks?: ReadonlyArray<Segment>
  /** Undefined: as before. */
  readonly streamTimes?: StreamTimes | undefined
  /** Undefined: as before. */
  readonly announced?: AnnouncedTimes | undefined
  readonly late: ReadonlyArray<LateEvent>
  readonly deadLetters: ReadonlyArray<DeadLetter>
  /** Dead letters of earlier commits that this one retries. */
  readonly retried?: ReadonlyArray<RetriedDeadLetter>
  /** The positions of dead letters of earlier commits that this one discards. Those that are not open any more stay as they are. */
  readonly discarded?: ReadonlyArray<Position>
  readonly seen: PackedIds | undefined
  /** What the journal of lookups gets. */
  readonly lookups?: ReadonlyArray<JournalEntry>
  /** Commands for aggregates, and timers that are set or cancelled. A follower has none. */
  readonly commands?: CommandChanges | undefined
  /** How the last events failed, up to the end of the batch; undefined if the last one succeeded. */
  readonly failing?: FailureStreak | undefined
}

/**
 * Another process has claimed the partition, or (`isPromoted`) the partition went live and what was computed for it as a follower has no
 * messages, or (`isReplaced`) a promotion made another build the live one, or (`isInline`) appends write the build's rows. Nothing was
 * committed, and what was computed must be dropped.
 */
export class Fenced extends Schema.TaggedError<Fenced>()("Fenced", {
  projection: Schema.String,
  topic: Schema.String,
  partition: Schema.Int,
  isPromoted: Schema.optionalKey(Schema.Boolean),
  isReplaced: Schema.optionalKey(Schema.Boolean),
  isInline: Schema.optionalKey(Schema.Boolean)
}) {
  override get message() {
    const what = this.isPromoted
      ? "the partition went live; its batch is processed again with its messages"
      : this.isReplaced
        ? "the build is no longer live: a promotion put another one in its place, which it follows from now on"
        : this.isInline
          ? "the projection is inline: appends write its rows"
          : "another process has claimed the partition"
    return `${this.projection} ${this.topic}/${this.partition}: ${what}`
  }
}
/**
 * PostgreSQL refuses a batch's data: by a type, a constraint, a limit or a user's trigger. Nothing was committed; parts of the batch may
 * pass. With `mayPass` the server lacked time or memory: fewer events may pass, and a single one later.
 */
export class Unstorable extends Schema.TaggedError<Unstorable>()("Unstorable", {
  code: Schema.String,
  reason: Schema.String,
  mayPass: Schema.optionalKey(Schema.Boolean)
}) {
  override get message() {
    return `PostgreSQL refuses the values: ${this.reason}${this.code === "" ? "" : ` (SQLSTATE ${this.code})`}`
  }
}
/**
 * The database or the log does not match what is to run, or an event stops its partition. The partition is halted and tried again from time
 * to time. `retry` limits that: `never` until the process is restarted, `proven` only once the record before the position is known again.
 */
export class Mismatch extends Schema.TaggedError<Mismatch>()("Mismatch", {
  what: Schema.String,
  reason: Schema.String,
  retry: Schema.optionalKey(Schema.Literals(["never", "proven"])),
  /** What differs from the definition that a build was created with, by part; `option` is missing where a whole part was added or removed. */
  changes: Schema.optionalKey(
    Schema.Array(Schema.Struct({ part: Schema.String, option: Schema.optional(Schema.String), text: Schema.String }))
  ),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.what}: ${this.reason}`
  }
}

/** Where projections commit their batches. */
export class Store extends Context.Service<
  Store,
  {
    /**
     * Creates the builds, tables, views and progress rows of projections that are missing. Returns the builds to run, see `buildOf`: all of
     * these declarations that are not retired. Fails with `Mismatch` if a definition changed and its version did not. A partition that is new to a
     * projection begins at `startOf`, by default at 0.
     */
    readonly prepare: (
      projections: ReadonlyArray<Projection.Any>,
      partitionsOf: (topic: string) => number,
      startOf?: (topic: string, partition: number) => Position
    ) => Effect.Effect<ReadonlyArray<Projection.Any>, StoreError | Mismatch>
    /**
     * Claims a partition: from now on every commit under an earlier claim is fenced. An older generation than the last one is refused.
     * The first `identity` that is given is stored and returned by all later claims.
     */
    readonly claim: (
      projection: Projection.Any,
      topic: string,
      partition: number,
      generation: number,
      identity?: string
    ) => Effect.Effect<Claim, StoreError | Fenced | Mismatch>
    /**
     * Commits rows, window state, position, seen ids and outbox in one statement, or nothing. After a lost reply it asks whether the
     * statement was committed before it sends it again.
     */
    readonly commit: (
      projection: Projection.Any,
      claim: Claim,
      changes: Changes
    ) => Effect.Effect<Claim, StoreError | Fenced | Unstorable>
    /**
     * How far the partition of a follower may go: the position of the live build, which may have moved on since, or where an investigation build stops. Commits beyond the live build are refused, so
     * that the live build never has to skip or repeat a record when it is replaced. Fails with `Fenced` if another process has claimed
     * the partition, or if it is no longer that of a follower (`isPromoted`), and with `Mismatch` if there is no live build.
     */
    readonly bound: (claim: Claim) => Effect.Effect<Position, StoreError | Fenced | Mismatch>
    /**
     * The rows with these keys, in any order and as their columns hold them (`fromRow` decodes them); keys without a row are left out.
     * `Unstorable`: a value cannot be one of its key column.
     */
    readonly readRows: (
      projection: Projection.Any,
      target: Table.Any | Window.Any,
      keys: ReadonlyArray<Row>
    ) => Effect.Effect<ReadonlyArray<Row>, StoreError | Unstorable>
    /** The chunks of seen ids whose times overlap one of the ranges (ends included), packed as in `PackedIds`. */
    readonly seenIds: (
      at: ProjectionPartition,
      ranges: ReadonlyArray<{ readonly from: number; readonly to: number }>
    ) => Effect.Effect<ReadonlyArray<Uint8Array>, StoreError>
    /**
     * The dead letter at a position, if that is open: neither retried, nor discarded by a record that is processed. With `ordered`, also those
     * of up to `behind` later open ones of its key, in order; and nothing if an earlier one of the key is open.
     */
    readonly deadLetters: (
      at: ProjectionPartition,
      position: Position,
      options: { readonly ordered: boolean; readonly behind: number }
    ) => Effect.Effect<ReadonlyArray<OpenDeadLetter>, StoreError>
    /** Which of the keys have a parked dead letter, or one whose discard record is not processed yet. */
    readonly parkedKeys: (
      at: ProjectionPartition,
      keys: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<string>, StoreError>
    /** Decisions about the live build's dead letters at positions from `first` to `last`, for a build that follows it. */
    readonly liveDecisions: (
      at: ProjectionPartition,
      first: Position,
      last: Position
    ) => Effect.Effect<ReadonlyArray<LiveDecision>, StoreError>
    /**
     * Stores a dead letter outside any batch: an unreadable record of a lookup topic. A second call for one record does nothing. `Unstorable`: it
     * is refused for what is in it.
     */
    readonly park: (at: ProjectionPartition, deadLetter: DeadLetter) => Effect.Effect<void, StoreError | Unstorable>
    /** Stores why a partition is halted, for `status`, or (undefined) that it is neither halted nor waiting. The next commit does that, too. */
    readonly halt: (at: ProjectionPartition, reason: string | undefined) => Effect.Effect<void, StoreError>
    /** Whether a build was retired, cancelled or deleted, so that nothing is to process its partitions any more. */
    readonly isGone: (build: Pick<ProjectionPartition, "projection" | "version">) => Effect.Effect<boolean, StoreError>
    /** Stores why a partition is being tried again without a person's help, or (undefined) that it is not. The next commit clears it. */
    readonly waiting: (at: ProjectionPartition, reason: string | undefined) => Effect.Effect<void, StoreError>
    /** The versions of lookup values, and the journal of which of them batches saw. */
    readonly lookups: LookupStore
    /** The keys of personal fields, by which events are decrypted. */
    readonly subjectKeys: Pick<SubjectKeys["Service"], "forValues">
  }
>()("millrace/Store") {}
