// The relay's Pulsar target: publishes the outbox to topics of each tenant, each message once and in order by key.
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Semaphore from "effect/Semaphore"
import type * as Scope from "effect/Scope"
import { LaneLease, LaneShare } from "../../relay/lanes.ts"
import type { Outbox } from "../../relay/outbox.ts"
import { RelayError, type RelayRound, type RelayTarget } from "../../relay/target.ts"
import { type Cluster, connect } from "../client/cluster.ts"
import type { PulsarOptions } from "../client/options.ts"
import { type LaneSettings, PulsarLane } from "./lane.ts"

/** The target's name in the database. */
export const pulsar = "pulsar"

/** How a relay runs. Everything has a default. */
export interface PulsarRelayOptions {
  /** Whether a topic goes to Pulsar; segments of other topics are skipped. Default: all do. */
  readonly accepts?: (topic: string) => boolean
  /** The local name on Pulsar (without tenant and namespace) of a topic whose messages are divided by their values. Default: the topic's own name. */
  readonly topicFor?: (topic: string, value: string) => string
  /** How many lanes the streams are divided into, each run by one process. It holds for all processes from now on. Default: as it is, 1 at first. */
  readonly lanes?: number
  /**
   * The start of producers' names, `<prefix>/<stream>#<generation>`. Two systems on one cluster need different prefixes, or they wait for each
   * other. Default `millrace-relay`.
   */
  readonly prefix?: string
  /**
   * Local names of topics whose messages are sent in batches when many wait. A batch goes to the consumer of its first key, so this is for topics
   * without key-shared consumers. Default: none.
   */
  readonly batched?: ReadonlyArray<string>
  /**
   * How many partitions topics are declared with, by local name. The relay waits until a topic with several partitions was created. Needs the admin
   * interface. Default: 1 each.
   */
  readonly partitions?: ReadonlyMap<string, number>
  /**
   * Whether a tenant is not declared. If Pulsar refuses its topics, its messages are parked as dead letters once its stream has no room for them to
   * wait. Messages of other tenants wait, and their stream halts. Default: every tenant is declared.
   */
  readonly undeclared?: (tenant: string) => boolean
  /** How many messages and bytes of one stream may be in flight or wait for a topic. Default 5,000 and 4 MiB. */
  readonly inFlight?: number
  readonly inFlightBytes?: number
  /** How many segments of one stream are read at once. Default 64. */
  readonly segments?: number
  /** How long this process may send after the database last confirmed its lanes, in milliseconds. Default 10,000. */
  readonly leaseMs?: number
}

/** How many channels may connect at once. */
const maxConnecting = 16

const settingsOf = (
  cluster: Cluster,
  outbox: Outbox["Service"],
  relay: PulsarRelayOptions,
  lease: LaneLease,
  { failed, moved }: Pick<LaneSettings, "failed" | "moved">
): LaneSettings => {
  const { accepts = () => true, batched = [], inFlight = 5_000, prefix = "millrace-relay", segments = 64 } = relay
  const { inFlightBytes = 4 << 20, partitions = new Map(), topicFor, undeclared = () => false } = relay
  const turns = Semaphore.makeUnsafe(maxConnecting)
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
    topicPosition: (begin) => Effect.runPromise(outbox.topicPosition(pulsar, begin)),
    inTurn,
    holds: lease.holds,
    failed,
    moved
  }
}

/**
 * The target that publishes to `persistent://TENANT/NAMESPACE/TOPIC` on a cluster: the tenant is the record's, or that of the options. Positions are in
 * the database. They may be behind the topics by what was in flight, so the end of each topic is read before anything is sent. Several processes may
 * run it and share its lanes. It stays connected until the scope closes.
 */
export const make = Effect.fnUntraced(function* (
  options: PulsarOptions,
  outbox: Outbox["Service"],
  relay: PulsarRelayOptions = {}
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  const cluster = yield* connect(options).pipe(
    Effect.mapError(
      ({ cause, message: reason, retryable }) =>
        new RelayError({ target: pulsar, operation: "publish", retryable, reason, cause })
    )
  )
  return yield* fromCluster(cluster, outbox, relay)
})

/** The same on a cluster that stays connected as long as the target is used. */
export const fromCluster = Effect.fnUntraced(function* (
  cluster: Cluster,
  outbox: Outbox["Service"],
  relay: PulsarRelayOptions = {}
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  const movements = yield* Queue.sliding<void>(1)
  const lease = new LaneLease(relay.leaseMs ?? 10_000)
  let failures = 0
  const settings = settingsOf(cluster, outbox, relay, lease, {
    failed: () => void failures++,
    moved: () => void Queue.offerUnsafe(movements, undefined)
  })
  /** The round with the failures since the last one. */
  const withFailures = (round: RelayRound): RelayRound => {
    const since = failures
    failures = 0
    return since === 0 ? round : { ...round, failures: since }
  }
  const { signal, wait } = yield* outbox.signals(pulsar)
  const lanes = yield* outbox.lanes(pulsar, relay.lanes, (lane) => `${settings.prefix}/${lane}`)
  const share = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new LaneShare<PulsarLane>({
          target: pulsar,
          outbox,
          lanes,
          lease,
          open: () => new PulsarLane(settings),
          close: (lane) => lane.close(),
          // producers are named after streams, so that a changed grouping uses the same names
          takeOver: undefined,
          usesPositions: true,
          // what a round starts goes on between rounds
          roundMs: 0,
          paceMs: 0
        })
    ),
    (one) => one.close()
  )
  return {
    name: pulsar,
    // what was taken from streams must be recorded
    publish: Effect.uninterruptible(Effect.suspend(() => Effect.map(share.publish(), withFailures))),
    wait: Effect.raceFirst(wait, Queue.take(movements)),
    lag: outbox.lag(pulsar),
    signal
  }
})
