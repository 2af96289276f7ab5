// The Kafka target of the relay: segments of the outbox become records, a transaction a round and lane, each there exactly once.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { LaneLease, LaneShare } from "../../relay/lanes.ts"
import type { ReadLimits, Outbox } from "../../relay/outbox.ts"
import { RelayError, type RelayTarget } from "../../relay/target.ts"
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

/** A round of the relay goes on with lanes that have more for that long, in milliseconds. */
const roundMs = 200

const failed = (cause: unknown): RelayError => {
  const [retryable, reason] = reasonOf(cause)
  return new RelayError({ target: kafka, operation: "publish", retryable, reason, cause })
}
/** Takes transactional ids over, so that no producer that used one can write any more. */
const takeOver =
  (options: Options) =>
  (ids: ReadonlyArray<string>): Effect.Effect<void, RelayError> =>
    Effect.forEach(
      ids,
      (id) =>
        Effect.tryPromise({ try: async () => (await TransactionalProducer.take(options, id)).close(), catch: failed }),
      { concurrency: 4, discard: true }
    )

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
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  register()
  yield* Effect.tryPromise({
    try: async () => {
      const client = new Client(options)
      await client.hello().finally(() => client.close())
    },
    catch: failed
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
  const setting: Setting = { target: kafka, prefix, kafka: options, outbox, accepts, bounds, refreshMs }
  const share = yield* Effect.acquireRelease(
    Effect.sync(
      () =>
        new LaneShare<Lane>({
          target: kafka,
          outbox,
          lanes,
          // transactional ids fence a process that lost a lane without knowing
          lease: new LaneLease(Infinity),
          open: (lane, grouping, isCurrent) => new Lane(setting, grouping.ids[lane]!, isCurrent),
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
    // a transaction that was begun is worth its end
    publish: Effect.uninterruptible(Effect.suspend(() => share.publish())),
    wait,
    lag: outbox.lag(kafka),
    signal
  }
})
