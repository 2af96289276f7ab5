// The event-store port: appends the events of aggregates with optimistic concurrency, loads and reads their streams. Its adapters
// (PostgreSQL and memory) pass one contract suite.
import type { SubjectErased } from "../erasure/errors.ts"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { Envelope } from "../log/envelope.ts"
import type {
  AppendTooLarge,
  EventTimeRefused,
  BoundaryMoved,
  CommandReused,
  EventStoreError,
  InlineFailed,
  InlineMissing,
  InvalidCommandId,
  InvalidStream,
  StreamClosed,
  TimerGone,
  VersionConflict
} from "./errors.ts"

/**
 * What the stream must be for an append to pass. `"any"`: anything. `"noStream"`, and 0: it has no events. `"exists"`: it has some. A
 * number: it has exactly this version, which is the number of its events.
 */
export type Expected = "any" | "noStream" | "exists" | number

/** An aggregate's topic, as the store declares it. `partitions` is fixed when the topic is created. */
export interface AggregateSpec {
  /** The name of the aggregate. */
  readonly name: string
  /** The number of partitions of its topic. */
  readonly partitions: number
}
/** How many partitions the topic of an aggregate has unless it says otherwise. */
export const defaultPartitions = 16

/** An event to append. */
export interface NewEvent extends Envelope {
  /** Undefined: `<command id>/<index>`, where the index counts the command's events from 0. */
  readonly eventId: string | undefined
  /** The name of the event type. */
  readonly type: string
  /** JSON text of an object that has `type` among its fields. */
  readonly value: string
  /** Epoch milliseconds. Undefined: the time of the append. */
  readonly eventTime: number | undefined
  /** The field of the event that holds the time, for errors. */
  readonly timeField?: string
  /** What the event belongs to besides its stream, for consistency boundaries. */
  readonly tags?: ReadonlyArray<string>
  /** The people whom the event is about. */
  readonly subjects?: ReadonlyArray<string>
  /** The names of the fields that hold personal data of the only subject: the store seals them. */
  readonly personal?: ReadonlyArray<string>
  /** The names of its other personal fields, which have no value: they stay absent after an erasure. */
  readonly absent?: ReadonlyArray<string>
  /** What is stored instead of `value`: the same with its personal fields sealed by this key, which must not be destroyed by then. */
  readonly sealed?: { readonly value: string; readonly subject: string; readonly number: number }
}
/** An event as it is read. */
export interface RecordedEvent extends Envelope {
  /** The name of the aggregate. */
  readonly aggregate: string
  /** The id of the stream. */
  readonly stream: string
  /** From 1, without a gap in the stream. */
  readonly version: number
  /** The partition of the aggregate's topic that has the event. */
  readonly partition: number
  /** Its position in the partition. */
  readonly position: number
  /** The name of the event type. */
  readonly type: string
  /** JSON text of the event as it was written, in its schema version. */
  readonly value: string
  /** Epoch milliseconds. */
  readonly eventTime: number
  /** When the store appended it, by its own clock; epoch milliseconds. */
  readonly appendedAt: number
  /** The tags of the event, as `course:c1`. */
  readonly tags: ReadonlyArray<string>
}

/** Events of one command to append to one stream: all or none. */
export interface Append {
  /** The name of the aggregate. */
  readonly aggregate: string
  /** The stream's id: 1 to 1,000 characters. */
  readonly stream: string
  /** What the stream must be; otherwise the append fails with `VersionConflict`. */
  readonly expected: Expected
  /**
   * The id of the command that appended the last events that this command was decided on, if they may not be stored yet. `expected` is then
   * a number, and the append passes only if the stream's last event is of that command as well: else another process could have appended
   * as many other events. Fails with `VersionConflict`.
   */
  readonly follows?: string
  /** At least one. */
  readonly events: ReadonlyArray<NewEvent>
  /** Identifies what the command asked for: the same command id with another digest fails with `CommandReused`. */
  readonly digest?: string
  /** The timer that the append fires; it is deleted with the append. */
  readonly timer?: string
}
/** What an append did. */
export interface Appended {
  /** The versions of the command's first and last event. */
  readonly firstVersion: number
  /** The version of the command's last event, which is the stream's version then. */
  readonly version: number
  /** The partition of the aggregate's topic that has the stream. */
  readonly partition: number
  /** The position of the first event in the partition; the others follow it. */
  readonly position: number
  /**
   * Nothing was appended, because the command was answered before. Its events may be others than those given: `load` with the command id
   * returns the answer. If the command decided no events, `version` is the version it was decided on, and `firstVersion` the next.
   */
  readonly repeated: boolean
}
/** Why a command was rejected: the tag of the rejection, its fields as JSON, and its message. */
export interface RejectionAnswer {
  /** The rejection's `_tag`. */
  readonly tag: string
  /** The rejection's fields as JSON. */
  readonly fields: Readonly<Record<string, unknown>>
  /** The rejection's message. */
  readonly message?: string
}
/** What a command without events answered: the version it was decided on and, if it was rejected, why. */
export interface DecidedNothing {
  /** The version that the command was decided on. */
  readonly version: number
  /** Why it was rejected; undefined if it decided that nothing is to be done. */
  readonly rejection?: RejectionAnswer
}
/** What a command answered: the events it appended, of which there are none if it decided nothing. */
export interface Answer extends DecidedNothing {
  /** Of the first event; -1 if there is none. */
  readonly position: number
  /** The partition of the aggregate's topic that has the stream. */
  readonly partition: number
  /** The events that the command appended, in their order. */
  readonly events: ReadonlyArray<RecordedEvent>
}

/** What `remember` returns: the command's answer, and whether it had it before. */
export interface Remembered extends Answer {
  /** The command was answered before: nothing was stored. */
  readonly repeated: boolean
}

/** The tags of a boundary, with how often each had been appended to when the boundary was read. */
export interface Boundary {
  /** Each tag with its aggregate, and how many events with it had been appended. */
  readonly tags: ReadonlyArray<{ readonly aggregate: string; readonly tag: string; readonly version: number }>
}

/** How `load` reads. */
export interface LoadOptions {
  /** Begins after the snapshot of this shape, if there is one and `from` is undefined. */
  readonly shape?: string
  /** Asks, too, what this command answered before. */
  readonly commandId?: string
  /** The digest of that command: with another one, `load` fails with `CommandReused`. */
  readonly digest?: string
  /** The last version to return. A snapshot of a later version is ignored. */
  readonly upTo?: number
  /** The first version to return: the page after one that ended before it. */
  readonly from?: number
  /** How many events a page has at most. Default 2,000. A page has fewer, but at least one, where they are large. */
  readonly limit?: number
}
/** A page of a stream. */
export interface Loaded {
  /** The newest snapshot of the shape that was asked for: its version, and the state as JSON text. Undefined if there is none. */
  readonly snapshot?: { readonly version: number; readonly state: string }
  /** The stream's version; 0 if it has no events. There is another page while it is greater than the last event's version. */
  readonly version: number
  /** In the order of their versions. */
  readonly events: ReadonlyArray<RecordedEvent>
  /** What the command answered before; undefined if it did not. */
  readonly answered?: Answer
  /** Why the stream takes no more events. */
  readonly closed?: "archived"
}
/** How `read` reads. */
export interface ReadStreamOptions {
  /** The version to begin with. Default: 1, or the last version if `backwards`. */
  readonly from?: number
  /** Reads from the newest event to the oldest. Default false. */
  readonly backwards?: boolean
  /** How many events are read at most. Default: all. */
  readonly limit?: number
}
/** Which streams `list` returns. */
export interface ListOptions {
  /** `id`: by their ids, in the order of the bytes of UTF-8. `recent`: those that were appended to last, the newest first, without further pages. */
  readonly order: "id" | "recent"
  /** How many are returned at most. */
  readonly limit: number
  /** Only streams whose ids begin so. */
  readonly prefix?: string | undefined
  /** By id: only streams behind this id. */
  readonly after?: string | undefined
  /** Only streams of this tenant, which is that of their first event. */
  readonly tenant?: string | undefined
}
/** A stream that has events. */
export interface ListedStream {
  readonly id: string
  /** The number of its events. */
  readonly version: number
  /** When its last event was appended; epoch milliseconds. */
  readonly appendedAt: number
  /** The tenant of its first event. */
  readonly tenant: string | undefined
  /** Why it takes no more events. */
  readonly closed?: "archived"
}
/** A page of streams. Of a tenant's it may have fewer than asked for, and still not be the last. */
export interface ListedStreams {
  readonly streams: ReadonlyArray<ListedStream>
  /** The `after` of the next page; undefined: this is the last. */
  readonly next: string | undefined
}
/** How many streams `list` looks through at most for those of a tenant; of the order `recent`, how many of the last appends of each partition. */
export const listBounds = { examined: 2_000, recent: 200 } as const

/** A snapshot of a stream's state, to store. */
export interface NewSnapshot {
  /** Identifies the form of the state: a snapshot of another shape is ignored. */
  readonly shape: string
  /** The version of the stream that the state is of. */
  readonly version: number
  /** JSON text. */
  readonly state: string
  /** The people whose personal data the state may have: an erasure deletes the snapshot. */
  readonly subjects: ReadonlyArray<string>
  /** Whether the state may have personal data of the subjects: the store seals it. */
  readonly personal?: boolean
}

/** Every error of an append. */
export type AppendError =
  | VersionConflict
  | StreamClosed
  | SubjectErased
  | CommandReused
  | TimerGone
  | InlineFailed
  | InlineMissing
  | AppendTooLarge
  | EventTimeRefused
  | InvalidStream
  | InvalidCommandId
  | EventStoreError

/** Every error of a load. */
export type LoadError = CommandReused | InvalidStream | InvalidCommandId | EventStoreError

/** The events of aggregates, in streams. A stream that was never appended to is empty. */
export class EventStore extends Context.Service<
  EventStore,
  {
    /**
     * Creates the aggregates' topics that do not exist. Fails if one exists with another number of partitions, or as an ordinary topic.
     */
    readonly declare: (aggregates: ReadonlyArray<AggregateSpec>) => Effect.Effect<void, EventStoreError>
    /**
     * Appends a command's events if the stream is as expected. The same command id appends once: again, it gets the answer of the first
     * time. So after a lost reply the same call may simply be made again, and `append` does so for failures of the connection. Appends of
     * one stream that are made one after another without waiting keep their order.
     */
    readonly append: (append: Append, commandId: string) => Effect.Effect<Appended, AppendError>
    /**
     * Appends to several streams, all or nothing, if each is as expected and no event was appended with a tag of the boundary since that
     * was read. A stream may be named once.
     */
    readonly appendAll: (
      appends: ReadonlyArray<Append>,
      commandId: string,
      boundary?: Boundary
    ) => Effect.Effect<ReadonlyArray<Appended>, AppendError | BoundaryMoved>
    /** Reads a page of a stream with one statement: its snapshot, the events after it, and what the command answered before. */
    readonly load: (aggregate: string, stream: string, options?: LoadOptions) => Effect.Effect<Loaded, LoadError>
    /** The events of a stream, forwards or backwards, read in pages. */
    readonly read: (
      aggregate: string,
      stream: string,
      options?: ReadStreamOptions
    ) => Stream.Stream<RecordedEvent, InvalidStream | EventStoreError>
    /**
     * The events of an aggregate that have one of the tags (and one of the types, if given), those of each tag in the order of their
     * appends; and the boundary that `appendAll` takes, which covers events of all types.
     */
    readonly readBoundary: (
      aggregate: string,
      query: { readonly tags: ReadonlyArray<string>; readonly types?: ReadonlyArray<string> }
    ) => Effect.Effect<{ readonly events: ReadonlyArray<RecordedEvent>; readonly boundary: Boundary }, EventStoreError>
    /**
     * Stores what a command answered that appended nothing, for 7 days, unless it was answered before. Returns what its answer is. If `expected`
     * is a version, the answer is stored only while the stream has this version; otherwise `remember` fails with `VersionConflict`, as an append
     * does. So all copies of a command get the same answer. Default: `"any"`.
     */
    readonly remember: (
      aggregate: string,
      stream: string,
      commandId: string,
      digest: string,
      answer: DecidedNothing,
      expected?: Expected
    ) => Effect.Effect<Remembered, LoadError | VersionConflict>
    /** Stores a snapshot, unless there is one of the same shape and a later version. */
    readonly saveSnapshot: (
      aggregate: string,
      stream: string,
      snapshot: NewSnapshot
    ) => Effect.Effect<void, InvalidStream | EventStoreError>
    /** The streams of an aggregate that have events. It looks through a bounded number of them, however many there are. */
    readonly list: (aggregate: string, options: ListOptions) => Effect.Effect<ListedStreams, EventStoreError>
    /** Closes a stream: later appends fail with `StreamClosed`. Its events stay, and repeated commands still get their answers. */
    readonly archive: (aggregate: string, stream: string) => Effect.Effect<void, InvalidStream | EventStoreError>
  }
>()("millrace/EventStore") {}
