// The outbox port: what relays to Kafka and Pulsar read from the database and note there: segments, positions, halts, dead letters, lanes.
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StreamLag, RelayError, OutboxStream } from "./target.ts"

/** A stream's name, as in the header `millrace-stream`: `<projection>/<source>/<partition>`. */
export const streamName = ({ partition, projection, source }: OutboxStream): string =>
  `${projection}/${source}/${partition}`
/** The lane of a stream, from 0. Consecutive partitions of a projection are in consecutive lanes. */
export const laneOf = ({ partition, projection, source }: OutboxStream, lanes: number): number => {
  let hash = 0x811c9dc5
  const text = `${projection}/${source}`
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return ((hash >>> 0) + partition) % lanes
}

/** A target's position in a stream. */
export interface OutboxPosition extends OutboxStream {
  /** The sequence number of the last message that the target has; 0 if it has none. */
  readonly seq: number
  /** The incarnation that committed that message. Undefined if it must not be compared: at the start, or after a person set the position. */
  readonly incarnation: string | undefined
}
/** A target's position as the database has it. If the target keeps a position of its own, that one counts; it is never behind this one. */
export interface MirroredPosition extends OutboxPosition {
  /** A person decided that this position holds although the target's own differs. The next `move` resets it. */
  readonly adopt: boolean
  /** Grows with each `move` that resets `adopt`. */
  readonly generation: number
  /** Why the stream is halted; undefined if it is not. */
  readonly halted: string | undefined
  /** The sequence number of the last message that the live build committed; undefined if no build is live. Read together with `seq`. */
  readonly committed: number | undefined
}
/**
 * Why a stream whose position is beyond everything that was committed must halt: its numbers began again. Segments behind the position that were
 * published, and not collected yet, are usual; these would never be published, and nobody would know. Undefined if it need not halt.
 */
export const overtaken = ({
  committed,
  incarnation,
  projection,
  seq
}: Pick<MirroredPosition, "committed" | "incarnation" | "projection" | "seq">): string | undefined =>
  // without an incarnation a person set the position, who may know what the target has from before the database was restored
  incarnation === undefined || committed === undefined || committed >= seq
    ? undefined
    : `message ${seq} was the last one published, but projection ${projection} has committed ${committed}: its numbers began again, and messages ` +
      `up to ${seq} would never be published. Stop the processes that run it, and correct outbox_seq in millrace.progress and first_seq of these messages in millrace.outbox`
/** What one batch published to one topic. */
export interface Segment {
  readonly firstSeq: number
  readonly messages: number
  readonly incarnation: string
  readonly topic: string
  /** The partition of all its messages; undefined if each message's key decides. */
  readonly partition: number | undefined
  /** UTF-8, as `meta` of the log's batches: a JSON array with one array for each message. Empty if the topic is skipped. */
  readonly meta: Uint8Array
  /** UTF-8: one line of JSON for each message, an empty line for a deletion. Empty if the topic is skipped. */
  readonly vals: Uint8Array
}
/** The segments after a position, and what the outbox has at the position. All of it is read in one statement. */
export interface FollowingSegments {
  readonly place: OutboxPosition
  /** The incarnation of the segment that ends at the position; undefined if no segment does. */
  readonly there: string | undefined
  /** In order. If the first does not begin with the position's next message, segments were deleted. */
  readonly segments: ReadonlyArray<Segment>
  /** The outbox has more segments than were requested. */
  readonly more: boolean
}
/** A stream's position in one topic of a target that keeps no positions of its own. */
export interface TopicPosition extends OutboxStream {
  readonly generation: number
  /** The target's name for it. */
  readonly topic: string
  /** The last message of the stream that is known to be in the topic, with all earlier ones for the topic; 0 if there is none. */
  readonly seq: number
  /** How many messages were sent to the topic, as the target counts them. */
  readonly sent: number
  /** A position in the topic, in the target's notation: messages of the stream after `seq` are behind it. Or `unopened`. */
  readonly place: string
}
/** The `place` of a topic that the stream never connected to: the topic has no message of it, and those up to `seq` were parked. */
export const unopened = "-"
/** A dead letter of a relay: a message that the target rejects, or whose topic it does not have. The stream continues without it. */
export interface ParkedMessage extends OutboxStream {
  readonly seq: number
  readonly incarnation: string
  readonly topic: string
  readonly key: string
  /** As in a segment, for this message alone. */
  readonly meta: string
  readonly val: string
  readonly reason: string
}
/** Messages to park because their topics accept nothing. */
export interface ParkRequest extends OutboxStream {
  readonly generation: number
  /** Each topic once, with the last sequence number that is parked for it. */
  readonly topics: ReadonlyArray<Pick<TopicPosition, "topic" | "seq">>
  readonly parked: ReadonlyArray<ParkedMessage>
}
/** How much one read returns. One segment may exceed a limit in bytes. */
export interface ReadLimits {
  /** For each stream. */
  readonly segments: number
  /** For each stream. */
  readonly streamBytes: number
  /** For all streams together, which take turns. */
  readonly bytes: number
}

/** How a target's streams are divided into lanes, and the producer ids that were ever used. */
export interface LaneGrouping {
  /** Grows with every change of `lanes`. */
  readonly generation: number
  readonly lanes: number
  /** Producer ids of all lanes that ever existed, by lane. */
  readonly ids: ReadonlyArray<string>
  /** Every producer id was taken over since the last change, so no producer of an earlier grouping can write. */
  readonly fenced: boolean
}
/** The lanes that this process holds. */
export interface LaneClaims {
  /** Ascending. */
  readonly held: ReadonlyArray<number>
  /** How many of them belong to other processes and have to be released. */
  readonly surplus: number
}
/**
 * A process's share of a target's lanes. The database gives a lane to one process at a time. A process that lost its connection may
 * continue unknowingly, so the target has to fence it.
 */
export interface RelayLanes {
  readonly grouping: Effect.Effect<LaneGrouping, RelayError>
  /** Notes that every producer id was taken over since the grouping of this generation was read. */
  readonly fenced: (generation: number) => Effect.Effect<void, RelayError>
  /** Claims free lanes (numbers below `lanes`) up to this process's share, and returns what it holds according to the server. */
  readonly claim: (lanes: number) => Effect.Effect<LaneClaims, RelayError>
  /** Releases a lane. Everything that ran in it must have ended. */
  readonly release: (lane: number) => Effect.Effect<void, RelayError>
}
/** Signals that something was committed. They may be late, too many, or lost. */
export interface CommitSignals {
  /** Waits for a signal since the last call. */
  readonly wait: Effect.Effect<void>
  /** Signals from within the process, without waiting. */
  readonly signal: () => void
}

/** The outbox, by name of the target. Every failure is a `RelayError` of that target. */
export class Outbox extends Context.Service<
  Outbox,
  {
    /**
     * The target's streams. A stream with segments and without a position starts: at the beginning of the outbox if other targets had what
     * is missing before it, else at 0. The outbox keeps what follows a position until the position has moved past it.
     */
    readonly streams: (target: string) => Effect.Effect<ReadonlyArray<MirroredPosition>, RelayError>
    /** The segments after positions, in the order of `positions`. Segments of topics in `skip` come without texts and count nothing. */
    readonly read: (
      target: string,
      positions: ReadonlyArray<OutboxPosition>,
      limits: ReadLimits,
      skip: ReadonlyArray<string>
    ) => Effect.Effect<ReadonlyArray<FollowingSegments>, RelayError>
    /** Moves positions, never backwards, and clears halts. */
    readonly move: (target: string, positions: ReadonlyArray<OutboxPosition>) => Effect.Effect<void, RelayError>
    /**
     * A stream's position in a topic. If there is none it is stored as `begin`; of several processes that store one at once, the first wins.
     * An `unopened` position takes `sent` and `place` from `begin`.
     */
    readonly topicPosition: (target: string, begin: TopicPosition) => Effect.Effect<TopicPosition, RelayError>
    /** Moves positions in topics, never backwards, and stores dead letters. Is called before the `move` past them. */
    readonly keep: (
      target: string,
      positions: ReadonlyArray<TopicPosition>,
      parked: ReadonlyArray<ParkedMessage>
    ) => Effect.Effect<void, RelayError>
    /**
     * Parks all messages of the stream for topics that are `unopened`, or become it, up to a sequence number. Returns the topics that were
     * parked: topics that the stream once connected to are left out.
     */
    readonly park: (target: string, parking: ParkRequest) => Effect.Effect<ReadonlyArray<string>, RelayError>
    /** Notes for people why streams are halted, or (`reason` undefined) that they continue. */
    readonly halt: (
      target: string,
      halts: ReadonlyArray<OutboxStream & { readonly reason: string | undefined }>
    ) => Effect.Effect<void, RelayError>
    /** The lag of every stream of the target. */
    readonly lag: (target: string) => Effect.Effect<ReadonlyArray<StreamLag>, RelayError>
    /** Listens for commits until the scope closes. */
    readonly signals: (target: string) => Effect.Effect<CommitSignals, RelayError, Scope.Scope>
    /**
     * Joins the processes that share the target's lanes, until the scope closes. `lanes` changes the number of lanes for all of them; undefined
     * keeps it (at first 1). `idOf` names the producer of a lane.
     */
    readonly lanes: (
      target: string,
      lanes: number | undefined,
      idOf: (lane: number) => string
    ) => Effect.Effect<RelayLanes, RelayError, Scope.Scope>
  }
>()("millrace/Outbox") {}
