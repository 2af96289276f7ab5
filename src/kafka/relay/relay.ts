// The relay's Kafka target: publishes the outbox's segments as records, each exactly once, with one transaction for each lane and round.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { LaneLease, LaneShare } from "../../relay/lanes.ts"
import type { ReadLimits, Outbox } from "../../relay/outbox.ts"
import { RelayError, type RelayTarget } from "../../relay/target.ts"
import { Client, failureOf, type KafkaOptions, register, TransactionalProducer } from "../protocol/protocol.ts"
import { BufferPool } from "./buffer-pool.ts"
import { KafkaLane, type LaneSettings } from "./lane.ts"
import { idOf } from "./position.ts"

/** The name of the Kafka target. */
export const kafka = "kafka"

/** How a relay to Kafka runs. Everything has a default. */
export interface KafkaRelayOptions {
  /** Which topics go to Kafka; segments of others are skipped. Default: all. */
  readonly accepts?: (topic: string) => boolean
  /**
   * How many lanes share the streams, for all processes together: each lane belongs to one process at a time. Stored in the database: a
   * number given here counts for all processes from now on; without one it stays as it is, 1 at first.
   */
  readonly lanes?: number
  /**
   * The start of the names of consumer groups, `<prefix>/<projection>`, and of transactional ids, `<prefix>/<lane>`. Two systems on one
   * cluster need different prefixes, or they fence each other. Default `millrace-relay`.
   */
  readonly prefix?: string
  /** How many segments of one stream a transaction takes at most. Default 64. */
  readonly segments?: number
  /** How many bytes of texts a transaction takes of one stream; one segment may exceed it. Default 2 MiB. */
  readonly streamBytes?: number
  /** How many bytes of texts a transaction takes of all streams; one segment may exceed it. Default 8 MiB. */
  readonly bytes?: number
  /** How often an unchanged position is written again, in milliseconds, because Kafka forgets it after 7 days. Default a day. */
  readonly refreshMs?: number
  /**
   * The least time between the starts of two transactions of a lane that has nothing waiting, in milliseconds: each transaction costs the
   * brokers a marker in every partition. Messages that come after a pause are published at once. Default 50.
   */
  readonly paceMs?: number
}

/** How long a round goes on with lanes that have more messages, in milliseconds. */
const roundMs = 200

const relayError = (cause: unknown): RelayError => {
  const { message, retryable } = failureOf(cause)
  return new RelayError({ target: kafka, operation: "publish", retryable, reason: message, cause })
}
/** Takes transactional ids over, so that producers that used them can no longer write. */
const takeOver =
  (options: KafkaOptions) =>
  (ids: ReadonlyArray<string>): Effect.Effect<void, RelayError> =>
    Effect.forEach(
      ids,
      (id) =>
        Effect.tryPromise({
          try: async () => (await TransactionalProducer.take(options, id)).close(),
          catch: relayError
        }),
      { concurrency: 4, discard: true }
    )

/**
 * The relay target that publishes segments to topics of the brokers of `options`. A transaction has all records of a round and the positions
 * of their streams, as offsets of the group `<prefix>/<projection>`. These offsets decide where a stream goes on; the database's positions
 * follow them. Several processes may run the target and share its lanes. Connected, and listening, until the scope closes. Fails in one line
 * if no broker answers or the user is refused.
 */
export const make = Effect.fnUntraced(function* (
  options: KafkaOptions,
  outbox: Outbox["Service"],
  relay: KafkaRelayOptions = {}
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  register()
  yield* Effect.tryPromise({
    try: async () => {
      const client = new Client(options)
      await client.hello().finally(() => client.close())
    },
    catch: relayError
  })
  const {
    accepts = () => true,
    bytes = 8 << 20,
    prefix = "millrace-relay",
    refreshMs = 86_400_000,
    paceMs = 50
  } = relay
  const { segments = 64, streamBytes = 2 << 20 } = relay
  const bounds: ReadLimits = { segments, streamBytes, bytes }
  const { signal, wait } = yield* outbox.signals(kafka)
  const lanes = yield* outbox.lanes(kafka, relay.lanes, (lane) => idOf(prefix, lane))
  // about what a transaction takes
  const pool = new BufferPool(bytes * 2)
  const settings: LaneSettings = { target: kafka, prefix, kafka: options, outbox, accepts, bounds, pool, refreshMs }
  const share = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new LaneShare<KafkaLane>({
          target: kafka,
          outbox,
          lanes,
          // transactional ids fence a process that lost a lane without noticing
          lease: new LaneLease(Infinity),
          open: (lane, grouping, isCurrent) => new KafkaLane(settings, grouping.ids[lane]!, isCurrent),
          close: (lane) => Effect.sync(() => lane.close()),
          takeOver: takeOver(options),
          usesPositions: false,
          roundMs,
          paceMs
        })
    ),
    (one) => one.close()
  )
  return {
    name: kafka,
    // a transaction that was started is finished
    publish: Effect.uninterruptible(Effect.suspend(() => share.publish())),
    wait,
    lag: outbox.lag(kafka),
    signal
  }
})
