// The bridge: divides the partitions of all source topics among the processes of a bridge, and runs a stream for each of its own.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { BridgeContext } from "./context.ts"
import type { Bridge } from "./definition.ts"
import { findTopics, reportFailure, type SourceTopic, type SourceTopics, watchTopics } from "./discovery.ts"
import { readFailure } from "./errors.ts"
import { shortName } from "./position-metadata.ts"
import type { StreamError } from "./sessions.ts"
import type { StreamStatus } from "./status.ts"
import { type PulsarSource, toKafka } from "./to-kafka.ts"
import { toPulsar } from "./to-pulsar.ts"

/** How long a group waits before it tries again. */
const retryGroupMs = 1_000
/** A group that has worked this long has recovered from its last failure. */
const recoveredMs = 10_000
/** The partitions of the positions topic. Each partition on Pulsar belongs to one of them, and so to the process that has it. */
const positionPartitions = 16

/**
 * The topic on Kafka whose group offsets are the positions of streams from Pulsar. Its partitions also decide which process mirrors which
 * partitions on Pulsar. It has no records.
 */
export const positionsTopic = ({ name }: Bridge): string => `${name}-positions`
const createPositionsTopic = ({ bridge, log }: BridgeContext) =>
  log
    .declare([
      { name: positionsTopic(bridge), partitions: positionPartitions, compacted: false, retentionMs: undefined }
    ])
    .pipe(Effect.mapError(readFailure))

const pulsarSourcesOf = (
  { bridge }: BridgeContext,
  { partitions, rule, topic, words }: SourceTopic,
  once: boolean
): ReadonlyArray<PulsarSource> =>
  partitions.map((partitionName, partition) => ({
    rule,
    topic,
    words,
    partitionName,
    partition,
    positionOf: {
      group: `${bridge.name}/${rule.name}/${partitionName}`,
      topic: positionsTopic(bridge),
      partition: Number.parseInt(shortName(`${rule.name} ${partitionName}`), 16) % positionPartitions
    },
    once
  }))

/** For what is asked once: a topic that was just created has no leader yet, and a broker may be unavailable for a moment. */
const retrying = <A, E extends { readonly retryable: boolean }>(ask: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.retry(ask, { times: 50, schedule: Schedule.spaced(200), while: ({ retryable }) => retryable })

/**
 * Mirrors what is there now, then returns what became of it. Do not run it beside another process of the same bridge: they would fence each
 * other.
 */
export const mirrorOnce = Effect.fnUntraced(function* (
  context: BridgeContext
): Effect.fn.Return<ReadonlyArray<StreamStatus>, StreamError> {
  const { bridge, log, status } = context
  if (bridge.rules.some(({ source }) => source.side === "pulsar")) yield* retrying(createPositionsTopic(context))
  // all ends are read before anything is mirrored, so that what one rule writes does not keep another one going
  const streams: Array<Effect.Effect<void, StreamError>> = []
  for (const rule of bridge.rules) {
    for (const found of yield* retrying(findTopics(context, rule))) {
      const { topic, words } = found
      if (rule.source.side === "pulsar")
        streams.push(...pulsarSourcesOf(context, found, true).map((source) => toKafka(context, source)))
      else
        for (const { end, partition } of yield* retrying(Effect.mapError(log.bounds(topic), readFailure))) {
          const open = (from: number) => log.open(topic, partition, from)
          streams.push(toPulsar(context, { rule, topic, words, partition, open, until: end }))
        }
    }
  }
  yield* Effect.all(streams, { concurrency: 16, discard: true })
  return status.statuses
})

/** Something that runs for a topic or for one of its partitions, with a name of its own. */
interface Task<E> {
  readonly name: string
  readonly run: Effect.Effect<unknown, E>
}
/** Starts the tasks of topics as topics appear, each once. Fails if one of them fails. */
const runTasks = <E>(
  topics: SourceTopics,
  tasksOf: (found: SourceTopic) => ReadonlyArray<Task<E>>
): Effect.Effect<never, E> =>
  Effect.suspend(() => {
    const running = new Set<string>()
    return SubscriptionRef.changes(topics).pipe(
      Stream.map((all) => all.flatMap(tasksOf).filter(({ name }) => !running.has(name))),
      Stream.tap((fresh) => Effect.sync(() => fresh.forEach(({ name }) => running.add(name)))),
      Stream.flatMap((fresh) => Stream.fromIterable(fresh)),
      Stream.mapEffect(({ run }) => run, { concurrency: "unbounded", unordered: true }),
      Stream.runDrain,
      Effect.andThen(Effect.never)
    )
  })

/** Joins a group again whenever that fails, because brokers may be unavailable for long. */
const forever = <E extends { readonly message: string }>(
  context: BridgeContext,
  name: string,
  group: Effect.Effect<never, E>
): Effect.Effect<never> => {
  const recovered = Effect.sync(() => context.status.clearFailure(name)).pipe(
    Effect.delay(recoveredMs),
    Effect.andThen(Effect.never)
  )
  return Effect.raceFirst(group, recovered).pipe(
    Effect.catch((error) =>
      Effect.andThen(reportFailure(context, name, error), context.availability.sleep(retryGroupMs))
    ),
    Effect.forever
  )
}

/**
 * Mirrors until interrupted, whatever becomes unavailable meanwhile. The processes of one bridge divide the partitions of Kafka's topics as members
 * of groups, and those of Pulsar's topics by the partitions of the positions topic. A process that is cut off is fenced, by transactional ids,
 * producer names and exclusive subscriptions.
 */
export const mirror = Effect.fnUntraced(function* (context: BridgeContext): Effect.fn.Return<never> {
  const { availability, bridge, kafka, log, pulsar } = context
  const kafkaRules = bridge.rules.filter(({ source }) => source.side === "kafka")
  const pulsarRules = bridge.rules.filter(({ source }) => source.side === "pulsar")
  const kafkaTopics = yield* SubscriptionRef.make<ReadonlyArray<SourceTopic>>([])
  const pulsarTopics = yield* SubscriptionRef.make<ReadonlyArray<SourceTopic>>([])
  const fromKafka = runTasks(kafkaTopics, ({ rule, topic, words }) => {
    const members = log.assign(topic, `${bridge.name}/${rule.name}/${topic}/members`, ({ open, partition }) =>
      toPulsar(context, { rule, topic, words, partition, open, until: undefined })
    )
    const name = `${rule.name} ${topic}`
    return [{ name, run: forever(context, name, members) }]
  })
  const fromPulsar = Effect.andThen(
    createPositionsTopic(context),
    log.assign(positionsTopic(bridge), `${bridge.name}/members`, ({ partition }) =>
      runTasks(pulsarTopics, (found) =>
        pulsarSourcesOf(context, found, false)
          .filter(({ positionOf }) => positionOf.partition === partition)
          .map((source) => ({ name: `${source.rule.name} ${source.partitionName}`, run: toKafka(context, source) }))
      )
    )
  )
  return yield* Effect.raceAllFirst([
    availability.watch("kafka", kafka.ping),
    availability.watch("pulsar", pulsar.ping),
    ...(kafkaRules.length === 0 ? [] : [watchTopics(context, kafkaRules, kafkaTopics), fromKafka]),
    ...(pulsarRules.length === 0
      ? []
      : [watchTopics(context, pulsarRules, pulsarTopics), forever(context, "Pulsar's topics", fromPulsar)])
  ])
})
