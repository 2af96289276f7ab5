// The Pulsar target of the relay: messages of the outbox reach topics of their tenants, in order by key, each there once.
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Semaphore from "effect/Semaphore"
import type * as Scope from "effect/Scope"
import { LaneLease, LaneShare } from "../../relay/lanes.ts"
import type { Outbox } from "../../relay/outbox.ts"
import { RelayError, type RelayTarget } from "../../relay/target.ts"
import { type Cluster, connect } from "../client/cluster.ts"
import type { PulsarOptions } from "../client/options.ts"
import { Lane, type Setting } from "./lane.ts"

/** The name of the Pulsar target. */
export const pulsar = "pulsar"

/** How a relay runs. Everything has a default. */
export interface PulsarRelayOptions {
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

/** Channels that connect at once. */
const connecting = 16

const settingOf = (
  cluster: Cluster,
  outbox: Outbox["Service"],
  relay: PulsarRelayOptions,
  lease: LaneLease,
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
    topicPosition: (begin) => Effect.runPromise(outbox.topicPosition(pulsar, begin)),
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

/** The same over connections that stay open as long. */
export const fromCluster = Effect.fnUntraced(function* (
  cluster: Cluster,
  outbox: Outbox["Service"],
  relay: PulsarRelayOptions = {}
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  const movements = yield* Queue.sliding<void>(1)
  const lease = new LaneLease(relay.leaseMs ?? 10_000)
  const setting = settingOf(cluster, outbox, relay, lease, () => void Queue.offerUnsafe(movements, undefined))
  const { signal, wait } = yield* outbox.signals(pulsar)
  const lanes = yield* outbox.lanes(pulsar, relay.lanes, (lane) => `${setting.prefix}/${lane}`)
  const share = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new LaneShare<Lane>({
          target: pulsar,
          outbox,
          lanes,
          lease,
          open: () => new Lane(setting),
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
    // what was taken from streams must be written down
    publish: Effect.uninterruptible(Effect.suspend(() => share.publish())),
    wait: Effect.raceFirst(wait, Queue.take(movements)),
    lag: outbox.lag(pulsar),
    signal
  }
})
