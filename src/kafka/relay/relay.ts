// The Kafka target of the relay: segments of the outbox become records, a transaction a round and lane, each there exactly once.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import { type Bounds, type Grouping, laneOf, type Lanes, type Mirrored, type Outbox } from "../../relay/outbox.ts"
import { type Halt, RelayError, type RelayTarget, type Shipment } from "../../relay/target.ts"
import { Client } from "../protocol/client.ts"
import { register } from "../protocol/compression.ts"
import { reasonOf } from "../protocol/errors.ts"
import type { Options } from "../protocol/options.ts"
import { Lane, type Setting } from "./lane.ts"
import { idOf } from "./position.ts"
import { TransactionalProducer } from "../protocol/transactional-producer.ts"

/** The name of the Kafka target. */
export const kafka = "kafka"

/** How a relay to Kafka runs. Everything has a default. */
export interface RelayOptions {
  /** Topics that go to Kafka; segments of others are passed over. Default: all. */
  readonly accepts?: (topic: string) => boolean
  /**
   * How many producers share the streams, of all processes together: each lane is had by one process. Kept in the database: given, it
   * holds for all processes from now on; else it stays as it is, 1 at first.
   */
  readonly lanes?: number
  /**
   * Begins the names of consumer groups, `<prefix>/<projection>`, and of transactional ids, `<prefix>/<lane>`. Two systems on one cluster
   * must differ in it, or they fence each other. Default `millrace-relay`.
   */
  readonly prefix?: string
  /** Segments of one stream that a transaction takes at most. Default 64. */
  readonly segments?: number
  /** Bytes of texts that a transaction takes of one stream, and of all. Default 2 MiB and 8 MiB; may be passed by one segment. */
  readonly streamBytes?: number
  readonly bytes?: number
  /** After that long an unchanged position is written again, in milliseconds: Kafka forgets it after 7 days. Default a day. */
  readonly refreshMs?: number
  /**
   * A lane that has nothing waiting begins its next transaction no sooner than so long after its last one, in milliseconds: each costs a
   * broker a marker a partition, whatever it holds. What comes after a pause goes at once. Default 50.
   */
  readonly paceMs?: number
}
/** The Kafka target, and a way to wake it from within the process. */
export interface Target extends RelayTarget {
  /** Something was committed. Never waits. */
  readonly signal: () => void
}

/** How often a process looks which lanes are its own, and how often it looks for new streams, in milliseconds. */
const claimMs = 1_000
const discoverMs = 100
/** A round goes on with lanes that have more for that long. */
const roundMs = 200
/** How long a lane rests after failures, one after another. */
const restMs = (failures: number) => Math.min(50 * 2 ** failures, 2_000)

interface Running {
  readonly lane: Lane
  /** When its last transactions were begun, and whether more was left for them than there was time. */
  begunAt: number
  more: boolean
  failures: number
  restUntil: number
}
const stale = (target: string) =>
  new RelayError({
    target,
    operation: "ship",
    retryable: true,
    reason: "the number of lanes was changed; beginning anew"
  })

/** The lanes that this process has. */
class Share {
  private readonly setting: Setting
  private readonly lanes: Lanes
  private readonly running = new Map<number, Running>()
  private grouping: Grouping | undefined
  private claimAt = 0
  private streams: ReadonlyArray<Mirrored> = []
  private discoverAt = 0

  constructor(setting: Setting, lanes: Lanes) {
    this.setting = setting
    this.lanes = lanes
  }
  close(): void {
    for (const { lane } of this.running.values()) lane.close()
    this.running.clear()
  }
  private drop(lane: number) {
    this.running.get(lane)?.lane.close()
    this.running.delete(lane)
  }

  /** Looks which lanes are this process's own, and lets go what falls to others. */
  private readonly claim = Effect.fnUntraced(function* (this: Share): Effect.fn.Return<void, RelayError> {
    const grouping = yield* this.lanes.grouping
    if (grouping.generation !== this.grouping?.generation) this.close()
    this.grouping = grouping
    const { held, surplus } = yield* this.lanes.claim(grouping.lanes)
    const kept = held.slice(0, held.length - surplus)
    for (const lane of this.running.keys()) if (!kept.includes(lane)) this.drop(lane)
    for (const lane of held.slice(kept.length)) yield* this.lanes.release(lane)
    if (kept.length > 0 && !grouping.fenced) yield* this.fence(grouping)
    for (const lane of kept) {
      if (this.running.has(lane)) continue
      const one = new Lane(this.setting, grouping.ids[lane]!, this.check(grouping.generation))
      this.running.set(lane, { lane: one, begunAt: -Infinity, more: false, failures: 0, restUntil: 0 })
    }
    this.claimAt = performance.now() + claimMs
  })
  private check(generation: number): Effect.Effect<void, RelayError> {
    return Effect.flatMap(this.lanes.grouping, (now) =>
      now.generation === generation && now.fenced ? Effect.void : Effect.fail(stale(this.setting.target))
    )
  }
  /** Takes every id over that any grouping used, so that nobody goes on with the one before. */
  private readonly fence = Effect.fnUntraced(function* (
    this: Share,
    { generation, ids }: Grouping
  ): Effect.fn.Return<void, RelayError> {
    this.close()
    const { kafka: options, target } = this.setting
    yield* Effect.forEach(
      ids,
      (id) =>
        Effect.tryPromise({
          try: async () => (await TransactionalProducer.take(options, id)).close(),
          catch: (cause) => {
            const [retryable, reason] = reasonOf(cause)
            return new RelayError({ target, operation: "ship", retryable, reason, cause })
          }
        }),
      { concurrency: 4, discard: true }
    )
    yield* this.lanes.fenced(generation)
  })

  /** One round of every lane. */
  readonly ship = Effect.fnUntraced(function* (this: Share): Effect.fn.Return<Shipment, RelayError> {
    // a first look, or one after a failure; others can wait until the round is over
    if (this.claimAt === 0 || this.running.size === 0) yield* this.claim()
    if (this.discoverAt === 0) yield* this.discover()
    const now = performance.now()
    const byLane = Map.groupBy(this.streams, (stream) => laneOf(stream, this.grouping!.lanes))
    const ready = [...this.running].filter(([, { restUntil }]) => restUntil <= now)
    const exits = yield* Effect.forEach(
      ready,
      ([number, one]) => Effect.exit(this.work(one, byLane.get(number) ?? [])),
      { concurrency: "unbounded" }
    )
    const halted: Array<Halt> = []
    for (const { lane } of this.running.values()) halted.push(...lane.halted)
    const done = exits.filter(Exit.isSuccess)
    if (done.length === 0 && exits.length > 0) yield* exits[0]!
    const begun = now >= this.discoverAt && (yield* this.discover())
    if (this.claimAt > 0 && now >= this.claimAt) yield* this.claim()
    return {
      messages: done.reduce((sum, { value }) => sum + value.messages, 0),
      more: begun || done.some(({ value }) => value.more),
      halted
    }
  })
  /** Looks for streams. Whether there are new ones. */
  private readonly discover = Effect.fnUntraced(function* (this: Share): Effect.fn.Return<boolean, RelayError> {
    const before = this.streams.length
    this.streams = yield* this.setting.outbox.streams(this.setting.target)
    this.discoverAt = performance.now() + discoverMs
    return this.streams.length > before
  })
  private readonly work = Effect.fnUntraced(function* (this: Share, one: Running, streams: ReadonlyArray<Mirrored>) {
    const early = one.begunAt + this.setting.paceMs - performance.now()
    if (!one.more && early > 0) yield* Effect.sleep(early)
    one.begunAt = performance.now()
    const until = one.begunAt + roundMs
    let messages = 0
    let more = true
    while (more && performance.now() < until) {
      const round = yield* one.lane.round(streams).pipe(Effect.tapError((error) => this.failed(one, error)))
      messages += round.messages
      more = round.more
      one.failures = 0
    }
    one.more = more
    return { messages, more }
  })
  private failed(one: Running, error: RelayError) {
    one.restUntil = performance.now() + restMs(one.failures++)
    // whoever was fenced goes on only with the claim in its hand; a changed grouping is read at once too
    this.claimAt = 0
    // the loop tells of a failure of all
    return this.running.size > 1 && error.retryable ? Effect.logWarning(`${error.message}; trying again`) : Effect.void
  }
}

/**
 * The target that brings segments to topics of the brokers of `options`. A transaction has all records of a round and the positions of
 * their streams, as offsets of the group `<prefix>/<projection>`; the position there is the truth, and the database's follows.
 * Several processes may run it, and lanes are shared among them. Connected, and listening, until the scope closes. Fails in one line
 * where no broker answers or the user is refused.
 */
export const make = Effect.fnUntraced(function* (
  options: Options,
  outbox: Outbox["Service"],
  relay: RelayOptions = {}
): Effect.fn.Return<Target, RelayError, Scope.Scope> {
  register()
  yield* Effect.tryPromise({
    try: async () => {
      const client = new Client(options)
      await client.hello().finally(() => client.close())
    },
    catch: (cause) => {
      const [retryable, reason] = reasonOf(cause)
      return new RelayError({ target: kafka, operation: "ship", retryable, reason, cause })
    }
  })
  const {
    accepts = () => true,
    bytes = 8 << 20,
    prefix = "millrace-relay",
    refreshMs = 86_400_000,
    paceMs = 50
  } = relay
  const { segments = 64, streamBytes = 2 << 20 } = relay
  const bounds: Bounds = { segments, streamBytes, bytes }
  const { signal, wait } = yield* outbox.signs(kafka)
  const lanes = yield* outbox.lanes(kafka, relay.lanes, (lane) => idOf(prefix, lane))
  const own = yield* Effect.acquireRelease(
    Effect.sync(
      () => new Share({ target: kafka, prefix, kafka: options, outbox, accepts, bounds, refreshMs, paceMs }, lanes)
    ),
    (one) => Effect.sync(() => one.close())
  )
  return {
    name: kafka,
    // a transaction that was begun is worth its end
    ship: Effect.uninterruptible(Effect.suspend(() => own.ship())),
    wait,
    lag: outbox.lag(kafka),
    signal
  }
})
