// The store port: where a projection's rows, window state, position and outbox are committed together. The adapter is PostgreSQL.
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { LogRecord, Position } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import type { Table } from "../model/read-model.ts"
import type { Row } from "../model/recorder.ts"
import type { Window } from "../model/window.ts"

/** A partition of a projection's source, of one version. */
export interface ProjectionPartition {
  readonly projection: string
  readonly version: number
  readonly topic: string
  readonly partition: number
}
/** What a claimant holds: its fence, and the state that the last commit left. Each commit returns the next one. */
export interface Claim extends ProjectionPartition {
  readonly incarnation: string
  readonly commitNo: number
  readonly epoch: number
  /** The next position to handle. */
  readonly position: Position
  /** Of the record before `position`; undefined where none was handled. */
  readonly fingerprint: string | undefined
  /** The topic that `position` is of (`Log.identity`); undefined where no claimant could tell. */
  readonly identity: string | undefined
  /** Epoch milliseconds; undefined before the first event. */
  readonly streamTime: number | undefined
  readonly outboxSeq: number
  readonly mode: "live" | "follower" | "frozen"
  /** The chunk of handled ids that is being filled, and how many ids it has. */
  readonly seenChunk: number
  readonly seenFill: number
}

/** Changes to one table, folded to one a row. Values are in the order of `columns`; rows of other kinds hold keys first. */
export interface TableChange {
  readonly table: Table.Any
  readonly upserts: ReadonlyArray<Row>
  /** The key and the columns that change. */
  readonly updates: ReadonlyArray<Row>
  /** Keys. */
  readonly deletes: ReadonlyArray<Row>
}
/** One row's contributions of a batch. */
export interface WindowDelta {
  /** The row: key, `window_size` and `window_start` where its shape has them, and each aggregate's delta. */
  readonly row: Row
  /** Where the row's new state is published. */
  readonly key: string
  readonly partition: number
  readonly eventTime: number
  readonly tenant: string | undefined
  readonly traceparent: string | undefined
}
export interface WindowChange {
  readonly window: Window.Any
  readonly deltas: ReadonlyArray<WindowDelta>
}
/** Messages of a batch for one topic, packed as in the log's batches: `meta` a JSON array, `vals` one line a message. */
export interface Segment {
  readonly topic: string
  /** Of all its messages; undefined where they go to several. */
  readonly partition: number | undefined
  readonly messages: number
  readonly meta: string
  readonly vals: string
}
/** An event that a window was closed for. Times are epoch milliseconds. */
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
/** An event that could not be handled. */
export interface DeadLetter {
  readonly position: Position
  readonly status: "parked" | "skipped"
  readonly key: string | null
  readonly error: string
  readonly message: string
  readonly attempts: number
  readonly value: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly eventTime: number | undefined
  readonly traceId: string | undefined
  /** The record's envelope, from which it can be processed again. Undefined for a lookup topic's record, which cannot. */
  readonly envelope?: string
  /** The failure itself, for callers in the same process. Stores keep `error` and `message`. */
  readonly cause?: Cause.Cause<unknown>
}
/** What became of a dead letter that was handled again. */
export interface RetriedDeadLetter {
  /** The letter's position, and that of the record that asked for it. */
  readonly position: Position
  readonly by: Position
  /** How it failed once more; undefined where it did not. */
  readonly failed: Pick<DeadLetter, "error" | "message" | "attempts"> | undefined
}
/** Ids handled by a batch, packed 20 bytes each: 12 of a hash, 8 of the event time as a big-endian float8. */
export interface PackedIds {
  readonly minTime: number
  readonly maxTime: number
  readonly count: number
  readonly packed: Uint8Array
}
/** Everything that one batch commits. */
export interface Changes {
  /** Where the next batch begins. */
  readonly position: Position
  readonly fingerprint: string | undefined
  readonly streamTime: number | undefined
  /** Events handled, duplicates left out, and duplicates. */
  readonly events: number
  readonly duplicates: number
  readonly tables: ReadonlyArray<TableChange>
  readonly windows: ReadonlyArray<WindowChange>
  readonly segments: ReadonlyArray<Segment>
  readonly late: ReadonlyArray<LateEvent>
  readonly deadLetters: ReadonlyArray<DeadLetter>
  /** Dead letters of earlier commits that this one handles. */
  readonly retried?: ReadonlyArray<RetriedDeadLetter>
  readonly seen: PackedIds | undefined
}

/** The store failed. `retryable` tells whether the same call may succeed later. */
export class StoreError extends Schema.TaggedError<StoreError>()("StoreError", {
  operation: Schema.String,
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `store: ${this.operation} failed: ${this.reason}`
  }
}
/** Someone else claimed the partition since. What was computed must be dropped; nothing of it was committed. */
export class Fenced extends Schema.TaggedError<Fenced>()("Fenced", {
  projection: Schema.String,
  topic: Schema.String,
  partition: Schema.Int
}) {
  override get message() {
    return `${this.projection} ${this.topic}/${this.partition}: another process has claimed the partition since`
  }
}
/** PostgreSQL refuses the data of the batch (SQLSTATE classes 21, 22, 23, 54). Nothing of it was committed; a part of it may pass. */
export class Unstorable extends Schema.TaggedError<Unstorable>()("Unstorable", {
  code: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `PostgreSQL refuses it: ${this.reason} (SQLSTATE ${this.code})`
  }
}
/** What is in the database does not fit what is to run on it. Nothing goes on until someone mends it. */
export class Mismatch extends Schema.TaggedError<Mismatch>()("Mismatch", {
  what: Schema.String,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.what}: ${this.reason}`
  }
}

/** Where projections are committed. */
export class Store extends Context.Service<
  Store,
  {
    /**
     * Makes a projection's tables, views and progress rows where they are missing. Refuses a definition that changed without its version.
     * A partition that is new to the projection begins at `startOf`, where nothing is said at 0.
     */
    readonly prepare: (
      projections: ReadonlyArray<Projection.Any>,
      partitionsOf: (topic: string) => number,
      startOf?: (topic: string, partition: number) => Position
    ) => Effect.Effect<void, StoreError | Mismatch>
    /**
     * Takes a partition over: from now on every commit of an earlier claimant is fenced. An older generation is refused. The first
     * `identity` that is given is kept, and returned from then on.
     */
    readonly claim: (
      projection: Projection.Any,
      topic: string,
      partition: number,
      generation: number,
      identity?: string
    ) => Effect.Effect<Claim, StoreError | Fenced | Mismatch>
    /**
     * Commits rows, window state, position, ids and outbox in one statement, or nothing of it. A lost reply is resolved by asking
     * what became of it, never by sending again unasked.
     */
    readonly commit: (
      projection: Projection.Any,
      claim: Claim,
      changes: Changes
    ) => Effect.Effect<Claim, StoreError | Fenced | Unstorable>
    /** The rows with these keys, by `keyText` of the key's columns; rows that are not there are missing. `Unstorable`: a key is none. */
    readonly readRows: (
      projection: Projection.Any,
      target: Table.Any | Window.Any,
      keys: ReadonlyArray<Row>
    ) => Effect.Effect<ReadonlyArray<Row>, StoreError | Unstorable>
    /** Chunks of handled ids whose times touch one of the ranges, packed as in `PackedIds`. */
    readonly seenIds: (
      place: ProjectionPartition,
      ranges: ReadonlyArray<{ readonly from: number; readonly to: number }>
    ) => Effect.Effect<ReadonlyArray<Uint8Array>, StoreError>
    /**
     * The dead letter at a position, if it is open (neither retried nor discarded), and up to `behind` more of its key that are, in order.
     * `ordered`: none where an earlier one of the key is open.
     */
    readonly deadLetters: (
      place: ProjectionPartition,
      position: Position,
      options: { readonly ordered: boolean; readonly behind: number }
    ) => Effect.Effect<ReadonlyArray<LogRecord>, StoreError>
    /** Those of the keys that have a parked dead letter. */
    readonly parkedKeys: (
      place: ProjectionPartition,
      keys: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<string>, StoreError>
    /** Keeps a record that could not be read, outside any batch: one of a lookup's topic. Doing it twice does nothing. */
    readonly park: (place: ProjectionPartition, letter: DeadLetter) => Effect.Effect<void, StoreError>
    /** Writes down why a partition stands still, for `status`. Claiming it clears that. */
    readonly halt: (place: ProjectionPartition, reason: string) => Effect.Effect<void, StoreError>
  }
>()("millrace/Store") {}
