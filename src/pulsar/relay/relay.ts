// The Pulsar target of the relay: messages of the outbox reach topics of their tenants, in order by key, each there once.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Semaphore from "effect/Semaphore"
import type * as Scope from "effect/Scope"
import { type Grouping, laneOf, type Lanes, type Mirrored, type Outbox } from "../../relay/outbox.ts"
import { type Halt, RelayError, type RelayTarget, type Shipment } from "../../relay/target.ts"
import { type Cluster, connect } from "../client/cluster.ts"
import type { Options } from "../client/options.ts"
import { Lane, type Setting } from "./lane.ts"

/** The name of the Pulsar target. */
export const pulsar = "pulsar"

/** How a relay runs. Everything has a default. */
export interface RelayOptions {
  /** Topics that go to Pulsar; segments of others are passed over. Default: all. */
  readonly accepts?: (topic: string) => boolean
  /** The name on Pulsar, without tenant and namespace, of a topic whose values go to several. Default: the topic's own. */
  readonly topicFor?: (topic: string, value: string) => string
  /** As for the relay to Kafka: how many parts of the streams there are, each had by one process. 1 at first. */
  readonly lanes?: number
  /**
   * Begins the names of producers, `<prefix>/<stream>#<generation>`. Two systems on one cluster must differ in it, or they wait for each
   * other. Default `millrace-relay`.
   */
  readonly prefix?: string
  /**
   * Topics, by their names on Pulsar without tenant and namespace, whose messages go in batches where many wait. A batch goes to the consumer
   * of its first key, so this is for topics without key-shared consumers. Default: none.
   */
  readonly batched?: ReadonlyArray<string>
  /**
   * How many partitions topics are to have, by their names as in `batched`. One that is to have several is waited for until somebody made it. Needs
   * the admin interface. Default: 1 each.
   */
  readonly partitions?: ReadonlyMap<string, number>
  /**
   * Whether a tenant, by name, is one whose messages are parked, for people to send later, where its topics take nothing and its stream has no room
   * for them to wait. Else they wait, and the stream halts. Default: none is.
   */
  readonly undeclared?: (tenant: string) => boolean
  /** Messages, and bytes, of one stream that may be under way or wait for a topic. Default 5,000 and 4 MiB. */
  readonly inFlight?: number
  readonly inFlightBytes?: number
  /** Segments of one stream that one reading takes at most. Default 64. */
  readonly segments?: number
  /** How long nothing is sent after the database last said that a lane is this process's, in milliseconds. Default 10,000. */
  readonly leaseMs?: number
}
/** The Pulsar target, and a way to wake it from within the process. */
export interface Target extends RelayTarget {
  /** Something was committed. Never waits. */
  readonly signal: () => void
}

/** How often a process looks which lanes are its own, and how often it looks for new streams, in milliseconds. */
const claimMs = 1_000
const discoverMs = 100

/** How long the lanes are this process's, by two clocks: one may stand still while the machine does, the other may be set. */
class Lease {
  private readonly ms: number
  private steady = -Infinity
  private wall = -Infinity
  constructor(ms: number) {
    this.ms = ms
  }
  /** From a moment before the database was asked. */
  readonly renew = (steady: number, wall: number): void => {
    this.steady = steady + this.ms
    this.wall = wall + this.ms
  }
  readonly holds = (): boolean => performance.now() < this.steady && Date.now() < this.wall
}

/** The lanes that this process has. */
class Share {
  private readonly setting: Setting
  private readonly lanes: Lanes
  private readonly lease: Lease
  private readonly running = new Map<number, Lane>()
  private grouping: Grouping | undefined
  private claimAt = 0
  private streams: ReadonlyArray<Mirrored> = []
  private discoverAt = 0

  constructor(setting: Setting, lanes: Lanes, lease: Lease) {
    this.setting = setting
    this.lanes = lanes
    this.lease = lease
  }
  readonly close = Effect.fnUntraced(function* (this: Share): Effect.fn.Return<void> {
    yield* Effect.forEach([...this.running.values()], (lane) => lane.close(), {
      concurrency: "unbounded",
      discard: true
    })
    this.running.clear()
  })

  /** Looks which lanes are this process's own, and lets go what falls to others. Names of producers fence them. */
  private readonly claim = Effect.fnUntraced(function* (this: Share): Effect.fn.Return<void, RelayError> {
    const now = performance.now()
    const wall = Date.now()
    // others may have had them meanwhile
    if (!this.lease.holds()) yield* this.close()
    const grouping = yield* this.lanes.grouping
    if (grouping.generation !== this.grouping?.generation) yield* this.close()
    this.grouping = grouping
    const { held, surplus } = yield* this.lanes.claim(grouping.lanes)
    const kept = held.slice(0, held.length - surplus)
    for (const [number, lane] of this.running) {
      if (kept.includes(number)) continue
      this.running.delete(number)
      yield* lane.close()
    }
    for (const lane of held.slice(kept.length)) yield* this.lanes.release(lane)
    this.lease.renew(now, wall)
    // where positions are may have changed with who has the lane
    if (kept.some((lane) => !this.running.has(lane))) this.discoverAt = 0
    for (const lane of kept) if (!this.running.has(lane)) this.running.set(lane, new Lane(this.setting))
    this.claimAt = now + claimMs
  })

  /** One round of every lane. */
  readonly ship = Effect.fnUntraced(function* (this: Share): Effect.fn.Return<Shipment, RelayError> {
    if (performance.now() >= this.claimAt || !this.lease.holds()) yield* this.claim()
    if (this.running.size === 0) return { messages: 0, more: false, halted: [] }
    if (performance.now() >= this.discoverAt) {
      this.streams = yield* this.setting.outbox.streams(this.setting.target)
      this.discoverAt = performance.now() + discoverMs
    }
    const byLane = Map.groupBy(this.streams, (stream) => laneOf(stream, this.grouping!.lanes))
    const exits = yield* Effect.forEach(
      [...this.running],
      ([number, lane]) => Effect.exit(lane.round(byLane.get(number) ?? [])),
      { concurrency: "unbounded" }
    )
    const failed = exits.find(Exit.isFailure)
    if (failed !== undefined) return yield* Effect.failCause(failed.cause)
    const rounds = exits.filter(Exit.isSuccess).map(({ value }) => value)
    const halted: Array<Halt> = [...this.running.values()].flatMap((lane) => lane.halted)
    return {
      messages: rounds.reduce((sum, { messages }) => sum + messages, 0),
      more: rounds.some(({ more }) => more),
      halted
    }
  })
}

/** Channels that connect at once. */
const connecting = 16

const settingOf = (
  cluster: Cluster,
  outbox: Outbox["Service"],
  relay: RelayOptions,
  lease: Lease,
  moved: () => void
): Setting => {
  const { accepts = () => true, batched = [], inFlight = 5_000, prefix = "millrace-relay", segments = 64 } = relay
  const { inFlightBytes = 4 << 20, partitions = new Map(), topicFor, undeclared = () => false } = relay
  const turns = Semaphore.makeUnsafe(connecting)
  const inTurn = <A>(run: () => Promise<A>): Promise<A> =>
    Effect.runPromise(turns.withPermits(1)(Effect.tryPromise({ try: run, catch: (cause) => cause })))
  return {
    target: pulsar,
    cluster,
    outbox,
    prefix,
    accepts,
    topicFor,
    batched: new Set(batched),
    partitions,
    undeclared,
    inFlight,
    inFlightBytes,
    bounds: { segments, streamBytes: 2 << 20, bytes: 8 << 20 },
    topicPlace: (begin) => Effect.runPromise(outbox.topicPlace(pulsar, begin)),
    inTurn,
    holds: lease.holds,
    moved
  }
}

/**
 * The target that brings messages to `persistent://TENANT/NAMESPACE/TOPIC` of the cluster of `options`: the tenant is the record's, or the
 * configured one. The position is in the database, and may be behind what is in topics by what was under way; that is found in the topics'
 * ends before anything is sent. Several processes may run it, and lanes are shared among them. Connected, and listening, until
 * the scope closes.
 */
export const make = Effect.fnUntraced(function* (
  options: Options,
  outbox: Outbox["Service"],
  relay: RelayOptions = {}
): Effect.fn.Return<Target, RelayError, Scope.Scope> {
  const cluster = yield* connect(options).pipe(
    Effect.mapError(
      ({ cause, reason, retryable }) => new RelayError({ target: pulsar, operation: "ship", retryable, reason, cause })
    )
  )
  return yield* fromCluster(cluster, outbox, relay)
})

/** The same over connections that stay open as long. */
export const fromCluster = Effect.fnUntraced(function* (
  cluster: Cluster,
  outbox: Outbox["Service"],
  relay: RelayOptions = {}
): Effect.fn.Return<Target, RelayError, Scope.Scope> {
  const movements = yield* Queue.sliding<void>(1)
  const lease = new Lease(relay.leaseMs ?? 10_000)
  const setting = settingOf(cluster, outbox, relay, lease, () => void Queue.offerUnsafe(movements, undefined))
  const { signal, wait } = yield* outbox.signs(pulsar)
  const lanes = yield* outbox.lanes(pulsar, relay.lanes, (lane) => `${setting.prefix}/${lane}`)
  const own = yield* Effect.acquireRelease(
    Effect.sync(() => new Share(setting, lanes, lease)),
    (share) => share.close()
  )
  return {
    name: pulsar,
    // what was taken from streams must be written down
    ship: Effect.uninterruptible(Effect.suspend(() => own.ship())),
    wait: Effect.raceFirst(wait, Queue.take(movements)),
    lag: outbox.lag(pulsar),
    signal
  }
})
