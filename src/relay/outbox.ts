// The outbox port: how relays to targets outside of the database read what commits published, and keep how far they came. It ships nothing.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StreamLag, RelayError, OutboxStream } from "./target.ts"

/** A stream's name, as it stands in the header `millrace-stream`. */
export const streamName = ({ partition, projection, source }: OutboxStream): string =>
  `${projection}/${source}/${partition}`
/** The lane of a stream. A projection's partitions go round. */
export const laneOf = ({ partition, projection, source }: OutboxStream, lanes: number): number => {
  let hash = 0x811c9dc5
  const text = `${projection}/${source}`
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return ((hash >>> 0) + partition) % lanes
}

/** How far a target has come in a stream. */
export interface OutboxPosition extends OutboxStream {
  /** The last message that it has; 0 for none. */
  readonly seq: number
  /** Of the claim that committed the message; undefined where nothing may be compared: at the start, or by a person's word. */
  readonly incarnation: string | undefined
}
/** A target's position as the database mirrors it. The target's own, where it keeps one, is the truth, and never behind this. */
export interface MirroredPosition extends OutboxPosition {
  /** A person says that this sequence is right where the target's own does not fit. The next `move` takes the word back. */
  readonly adopt: boolean
  /** Grows with the `move` that takes such a word back. */
  readonly generation: number
  readonly halted: string | undefined
}
/** What one commit published to one topic. */
export interface Segment {
  readonly firstSeq: number
  readonly messages: number
  readonly incarnation: string
  readonly topic: string
  /** Of all its messages; undefined where each goes by its key. */
  readonly partition: number | undefined
  /** UTF-8, as `meta` of the log's batches: a JSON array with one array a message. Empty where the topic is passed over. */
  readonly meta: Uint8Array
  /** UTF-8: one line of JSON a message, or an empty one for a deletion. Empty where the topic is passed over. */
  readonly vals: Uint8Array
}
/** What follows a place, and what the outbox has there. All of one moment. */
export interface FollowingSegments {
  readonly place: OutboxPosition
  /** Incarnation of the segment that ends at the place; undefined: none does. */
  readonly there: string | undefined
  /** In their order. The first need not begin at the place's next message: then something was deleted. */
  readonly segments: ReadonlyArray<Segment>
  /** There is more than was asked for. */
  readonly more: boolean
}
/** How far a stream is in one topic of a target that keeps no positions. */
export interface TopicPosition extends OutboxStream {
  readonly generation: number
  /** As the target names it. */
  readonly topic: string
  /** The stream's last message known to be there, and so all of its earlier ones for this topic; 0 for none. */
  readonly seq: number
  /** How many were sent, as the target counts. */
  readonly sent: number
  /** In the target's own notation: all of the stream that is beyond `seq` lies after it. Or `unopened`. */
  readonly place: string
}
/** The place of a stream in a topic that it was never connected to: nothing of it is there, and what is not beyond `seq` was parked. */
export const unopened = "-"
/** A message that the target does not take: for what it is, or where it goes. Its stream goes on without it. */
export interface ParkedMessage extends OutboxStream {
  readonly seq: number
  readonly incarnation: string
  readonly topic: string
  readonly key: string
  /** As in a segment, of this message alone. */
  readonly meta: string
  readonly val: string
  readonly reason: string
}
/** What is parked because its topics take nothing. */
export interface ParkRequest extends OutboxStream {
  readonly generation: number
  /** Each once, with the last sequence that is parked of it. */
  readonly topics: ReadonlyArray<Pick<TopicPosition, "topic" | "seq">>
  readonly parked: ReadonlyArray<ParkedMessage>
}
/** How much a reading takes. A bound in bytes may be passed by one segment. */
export interface ReadLimits {
  /** Of a stream. */
  readonly segments: number
  /** Of a stream. */
  readonly streamBytes: number
  /** Of all streams, which take turns. */
  readonly bytes: number
}

/** How a target's streams are parted, and whose ids were used for that. */
export interface LaneGrouping {
  /** Grows with every change of `lanes`. */
  readonly generation: number
  readonly lanes: number
  /** Ids of all lanes that ever were, by lane. */
  readonly ids: ReadonlyArray<string>
  /** Every id was taken over since the change, so that no producer of another grouping can write. */
  readonly fenced: boolean
}
/** Which lanes this process has. */
export interface LaneClaims {
  /** Ascending. */
  readonly held: ReadonlyArray<number>
  /** How many of them fall to others, once they are let go. */
  readonly surplus: number
}
/**
 * A share in a target's lanes. A lane is had by one process at most, as far as the database can tell: a process that was cut off may
 * go on with it unknowingly, so a target must be able to fence it.
 */
export interface RelayLanes {
  readonly grouping: Effect.Effect<LaneGrouping, RelayError>
  /** Says that every id was taken over after the grouping of this generation had been read. */
  readonly fenced: (generation: number) => Effect.Effect<void, RelayError>
  /** Takes free lanes below `lanes` up to this process's share, and tells what the server says that it has. */
  readonly claim: (lanes: number) => Effect.Effect<LaneClaims, RelayError>
  /** Lets a lane go. Nothing of it may run any more. */
  readonly release: (lane: number) => Effect.Effect<void, RelayError>
}
/** Signs that something was committed. May come late, too often, or be lost. */
export interface CommitSignals {
  /** Waits for a sign since the last call. */
  readonly wait: Effect.Effect<void>
  /** Gives one from within the process. Never waits. */
  readonly signal: () => void
}

/** The outbox, for targets by name. Every failure is a `RelayError` of the target. */
export class Outbox extends Context.Service<
  Outbox,
  {
    /**
     * The target's streams. Such as have segments and no position begin: where the outbox does if other targets had what is missing
     * before, else at 0. What follows a position that was begun is kept until the position has passed it.
     */
    readonly streams: (target: string) => Effect.Effect<ReadonlyArray<MirroredPosition>, RelayError>
    /** What follows places, in their order; texts of topics in `pass` are left out and count nothing. */
    readonly read: (
      target: string,
      places: ReadonlyArray<OutboxPosition>,
      bounds: ReadLimits,
      pass: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<FollowingSegments>, RelayError>
    /** Moves mirrored positions, never backwards, and takes halts back. */
    readonly move: (target: string, places: ReadonlyArray<OutboxPosition>) => Effect.Effect<void, RelayError>
    /**
     * Where a stream is in a topic; one that is not known yet begins, and is written down, as `begin` says. Of what was begun at once, one stays.
     * One that is `unopened` takes over from `begin` what it has sent and its place.
     */
    readonly topicPlace: (target: string, begin: TopicPosition) => Effect.Effect<TopicPosition, RelayError>
    /** Moves places in topics, never backwards, and keeps what was parked. To be called before the `move` that passes them. */
    readonly keep: (
      target: string,
      places: ReadonlyArray<TopicPosition>,
      parked: ReadonlyArray<ParkedMessage>
    ) => Effect.Effect<void, RelayError>
    /**
     * Keeps what is parked of topics that are, or now become, `unopened` up to a sequence: all of the stream for the topic up to there. Which topics:
     * nothing is kept of those that the stream was connected to.
     */
    readonly park: (target: string, parking: ParkRequest) => Effect.Effect<ReadonlyArray<string>, RelayError>
    /** Writes down, for people, why streams stand still, or that they go on. */
    readonly halt: (
      target: string,
      halts: ReadonlyArray<OutboxStream & { readonly reason: string | undefined }>
    ) => Effect.Effect<void, RelayError>
    readonly lag: (target: string) => Effect.Effect<ReadonlyArray<StreamLag>, RelayError>
    /** Listens until the scope closes. */
    readonly signs: (target: string) => Effect.Effect<CommitSignals, RelayError, Scope.Scope>
    /**
     * Joins those who share the target's lanes, until the scope closes. With `lanes` it is their number from now on, for all; else it
     * stays as it is, 1 at first. `idOf` names the producer of a lane.
     */
    readonly lanes: (
      target: string,
      lanes: number | undefined,
      idOf: (lane: number) => string
    ) => Effect.Effect<RelayLanes, RelayError, Scope.Scope>
  }
>()("millrace/Outbox") {}
