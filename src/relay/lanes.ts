// Shares a relay's lanes among processes: claims lanes, runs those of this process side by side, and rests one that failed.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { type LaneGrouping, laneOf, type RelayLanes, type MirroredPosition, type Outbox } from "./outbox.ts"
import { type StreamHalt, RelayError, type RelayRound } from "./target.ts"

/** What one round of a lane did. */
export interface LaneRound {
  /** Messages that reached the target since the round before. */
  readonly messages: number
  /** The round ended at its limit: there is more to publish at once. */
  readonly more: boolean
}
/** A lane that this process runs. Its rounds run one after another. */
export interface RelayLane {
  readonly halted: ReadonlyArray<StreamHalt>
  /** As in `RelayRound`. */
  readonly waiting?: ReadonlyArray<StreamHalt>
  /** One round over the lane's streams. After a failure the lane must be able to run another round. */
  readonly round: (streams: ReadonlyArray<MirroredPosition>) => Effect.Effect<LaneRound, RelayError>
}

/**
 * How long this process may use its lanes without hearing from the database. It is measured by two clocks, because one may stop while the
 * machine is suspended and the other may be set. Before the first renewal the lease does not hold.
 */
export class LaneLease {
  private readonly ms: number
  private steady = -Infinity
  private wall = -Infinity
  /** A lease over `ms` milliseconds; with `Infinity` it holds from its first renewal on. */
  constructor(ms: number) {
    this.ms = ms
  }
  /** Renews the lease, counted from a moment before the database was asked: `performance.now()` and `Date.now()` of then. */
  readonly renew = (steady: number, wall: number): void => {
    this.steady = steady + this.ms
    this.wall = wall + this.ms
  }
  readonly holds = (): boolean => performance.now() < this.steady && Date.now() < this.wall
}

/** What a target's lanes have in common, and how the target opens and closes one. Times are in milliseconds. */
export interface LaneOptions<L extends RelayLane> {
  readonly target: string
  readonly outbox: Outbox["Service"]
  readonly lanes: RelayLanes
  /** After it lapsed, all lanes are closed before any is claimed again. */
  readonly lease: LaneLease
  /** Opens a lane of a grouping. `isCurrent` fails with a retryable error as soon as the grouping has changed. */
  readonly open: (lane: number, grouping: LaneGrouping, isCurrent: Effect.Effect<void, RelayError>) => L
  /** Ends what the lane has under way. */
  readonly close: (lane: L) => Effect.Effect<void>
  /**
   * Takes over every producer id that any grouping used, so that no producer of an earlier grouping can write. Undefined where ids need no
   * fencing after a change of the number of lanes.
   */
  readonly takeOver: ((ids: ReadonlyArray<string>) => Effect.Effect<void, RelayError>) | undefined
  /**
   * Whether lanes start streams at the positions that `round` is given, which are then read before a round where they are due. Else lanes
   * read positions themselves, and new streams are looked for after a round.
   */
  readonly usesPositions: boolean
  /** While a lane has more, it runs rounds for so long before others get a turn. With 0 it runs one. */
  readonly roundMs: number
  /** A lane without more starts its next rounds no sooner than so long after it started its last. */
  readonly paceMs: number
}

/** How often a process looks which lanes it has, and how often while it has none. */
const claimMs = 1_000
const claimFirstMs = 100
/** How often a process looks for new streams. */
const discoverMs = 100
/** How long a lane rests after so many failures in a row. */
const restMs = (failures: number) => Math.min(50 * 2 ** failures, 2_000)

interface Running<L> {
  readonly lane: L
  startedAt: number
  more: boolean
  failures: number
  restUntil: number
}

/** The lanes of a target that this process has. */
export class LaneShare<L extends RelayLane> {
  private readonly options: LaneOptions<L>
  private readonly running = new Map<number, Running<L>>()
  private grouping: LaneGrouping | undefined
  private claimAt = 0
  private streams: ReadonlyArray<MirroredPosition> = []
  private discoverAt = 0

  constructor(options: LaneOptions<L>) {
    this.options = options
  }

  /** Closes all lanes. */
  readonly close = Effect.fnUntraced(function* (this: LaneShare<L>): Effect.fn.Return<void> {
    const lanes = [...this.running.values()].map(({ lane }) => lane)
    yield* Effect.forEach(lanes, this.options.close, { concurrency: "unbounded", discard: true })
    this.running.clear()
  })

  /** Claims this process's share of the lanes, opens those that are new to it, and releases those that fall to other processes. */
  private readonly claim = Effect.fnUntraced(function* (this: LaneShare<L>): Effect.fn.Return<void, RelayError> {
    const { lanes, lease, open, takeOver } = this.options
    const now = performance.now()
    const wall = Date.now()
    // another process may have had the lanes in the meantime
    if (!lease.holds()) yield* this.close()
    const grouping = yield* lanes.grouping
    if (grouping.generation !== this.grouping?.generation) yield* this.close()
    this.grouping = grouping
    const { held, surplus } = yield* lanes.claim(grouping.lanes)
    const kept = held.slice(0, held.length - surplus)
    for (const [number, { lane }] of this.running) {
      if (kept.includes(number)) continue
      this.running.delete(number)
      yield* this.options.close(lane)
    }
    for (const lane of held.slice(kept.length)) yield* lanes.release(lane)
    if (takeOver !== undefined && kept.length > 0 && !grouping.fenced) {
      yield* this.close()
      yield* takeOver(grouping.ids)
      yield* lanes.fenced(grouping.generation)
    }
    lease.renew(now, wall)
    for (const number of kept) {
      if (this.running.has(number)) continue
      const lane = open(number, grouping, this.isCurrent(grouping.generation))
      this.running.set(number, { lane, startedAt: -Infinity, more: false, failures: 0, restUntil: 0 })
      // the process that had the lane before may have moved positions
      this.discoverAt = 0
    }
    this.claimAt = performance.now() + (kept.length > 0 ? claimMs : claimFirstMs)
  })
  private isCurrent(generation: number): Effect.Effect<void, RelayError> {
    const { lanes, target } = this.options
    const reason = "the number of lanes was changed; starting again"
    return Effect.flatMap(lanes.grouping, (now) =>
      now.generation === generation && now.fenced
        ? Effect.void
        : Effect.fail(new RelayError({ target, operation: "publish", retryable: true, reason }))
    )
  }

  /** Reads the target's streams, and returns whether there are new ones. */
  private readonly discover = Effect.fnUntraced(function* (this: LaneShare<L>): Effect.fn.Return<boolean, RelayError> {
    const before = this.streams.length
    this.streams = yield* this.options.outbox.streams(this.options.target)
    this.discoverAt = performance.now() + discoverMs
    return this.streams.length > before
  })

  /**
   * Runs a round of every lane that does not rest. Fails where all of them failed; where only some did, these rest and the failure is
   * logged.
   */
  readonly publish = Effect.fnUntraced(function* (this: LaneShare<L>): Effect.fn.Return<RelayRound, RelayError> {
    const { lease, usesPositions } = this.options
    const now = performance.now()
    // the first claim, or one after a failure; other claims can wait until the round is over
    if (this.claimAt === 0 || !lease.holds() || (this.running.size === 0 && now >= this.claimAt)) yield* this.claim()
    if (this.running.size === 0) return { messages: 0, more: false, halted: [] }
    if (this.discoverAt === 0 || (usesPositions && now >= this.discoverAt)) yield* this.discover()
    const byLane = Map.groupBy(this.streams, (stream) => laneOf(stream, this.grouping!.lanes))
    const ready = [...this.running].filter(([, { restUntil }]) => restUntil <= now)
    const exits = yield* Effect.forEach(
      ready,
      ([number, one]) => Effect.exit(this.runRounds(one, byLane.get(number) ?? [])),
      { concurrency: "unbounded" }
    )
    const halted: Array<StreamHalt> = [...this.running.values()].flatMap(({ lane }) => lane.halted)
    const waiting = [...this.running.values()].flatMap(({ lane }) => lane.waiting ?? [])
    const rounds = exits.filter(Exit.isSuccess).map(({ value }) => value)
    const failure = exits.find(Exit.hasDies) ?? (rounds.length === 0 ? exits[0] : undefined)
    if (failure !== undefined) yield* failure
    const isNew = performance.now() >= this.discoverAt && (yield* this.discover())
    if (this.claimAt > 0 && performance.now() >= this.claimAt) yield* this.claim()
    return {
      messages: rounds.reduce((sum, { messages }) => sum + messages, 0),
      more: isNew || rounds.some(({ more }) => more),
      halted,
      ...(waiting.length > 0 && { waiting })
    }
  })
  private readonly runRounds = Effect.fnUntraced(function* (
    this: LaneShare<L>,
    one: Running<L>,
    streams: ReadonlyArray<MirroredPosition>
  ): Effect.fn.Return<LaneRound, RelayError> {
    const { paceMs, roundMs } = this.options
    const early = one.startedAt + paceMs - performance.now()
    if (!one.more && early > 0) yield* Effect.sleep(early)
    one.startedAt = performance.now()
    const until = one.startedAt + roundMs
    let messages = 0
    do {
      const round = yield* one.lane.round(streams).pipe(Effect.tapError((error) => this.failed(one, error)))
      messages += round.messages
      one.more = round.more
      one.failures = 0
    } while (one.more && performance.now() < until)
    return { messages, more: one.more }
  })
  private failed(one: Running<L>, error: RelayError): Effect.Effect<void> {
    one.restUntil = performance.now() + restMs(one.failures++)
    // a lane that was fenced, or whose grouping changed, runs again only after a new claim
    this.claimAt = 0
    if (this.running.size === 1) return Effect.void // the loop reports it
    return error.retryable ? Effect.logWarning(`${error.message}; trying again`) : Effect.logError(error.message)
  }
}
