// The bridge: finds the topics that its rules name, shares their partitions among processes, and runs a stream for each. It moves no record itself.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"
import { type Bridge, type BridgeRule, errorsSuffix } from "./rules.ts"
import type { BridgeError } from "./errors.ts"
import type { KafkaSide } from "./kafka-side.ts"
import type { PulsarSide } from "./pulsar-side.ts"
import { matchTopic } from "./topic-pattern.ts"
import { Availability } from "./availability.ts"
import { Board, type StreamStatus } from "./status.ts"
import { type BridgeContext, readFailure, shortName, type StreamError } from "./stream.ts"
import { type Inward, toKafka } from "./to-kafka.ts"
import { toPulsar } from "./to-pulsar.ts"

/** How often topics are looked for that are new, and where there is none yet. */
const discoverMs = 10_000
const soonMs = 1_000
/** A group that held so long has got over what it failed with. */
const soundMs = 10_000
/** Parts of Pulsar's topics are shared out in so many lots. */
const lots = 16

/** A topic that a rule names, and how many partitions it has. */
export interface Found {
  readonly rule: BridgeRule
  readonly topic: string
  readonly words: Readonly<Record<string, string>>
  /** By partition: of Pulsar's topics, their names. */
  readonly parts: ReadonlyArray<string>
}

/** Joins the two systems for a bridge. Fails where Kafka cannot be asked which cluster it is. */
export const join = Effect.fnUntraced(function* (
  bridge: Bridge,
  ends: Pick<BridgeContext, "log" | "kafka" | "pulsar">
): Effect.fn.Return<BridgeContext, BridgeError> {
  const id = yield* ends.kafka.clusterId
  return {
    ...ends,
    bridge,
    clusters: { kafka: `kafka:${id}`, pulsar: `pulsar:${bridge.pulsar}` },
    board: new Board(),
    presence: new Availability()
  }
})

const literal = (part: string | undefined) => (part === undefined || /[{}]/.test(part) ? undefined : part)
/** All topics where a rule's source is, as far as its name tells; none where its system is missing. */
export const topicsAround = (
  { kafka, pulsar }: { readonly kafka: KafkaSide | undefined; readonly pulsar: PulsarSide | undefined },
  { from, source }: BridgeRule
): Effect.Effect<ReadonlyArray<string>, BridgeError> => {
  const [, tenant, namespace] = /^pulsar:persistent:\/\/([^/]+)\/([^/]+)\//.exec(from) ?? []
  const all = source.side === "kafka" ? kafka?.topics : pulsar?.topics(literal(tenant), literal(namespace))
  return all ?? Effect.succeed([])
}
const listed = (joined: BridgeContext, rule: BridgeRule) =>
  rule.source.words.length === 0
    ? Effect.succeed([rule.source.literals[0]!])
    : Effect.map(topicsAround(joined, rule), (all) => all.filter((topic) => !topic.endsWith(errorsSuffix)))
/** None where there is no such topic (yet). */
const partitionsOf = ({ log }: BridgeContext, topic: string) =>
  log.bounds(topic).pipe(
    Effect.map((bounds) => bounds.map(({ partition }) => String(partition))),
    Effect.catch((error) => (error._tag === "UnknownTopic" ? Effect.succeed([]) : Effect.fail(readFailure(error))))
  )
/** The topics that a rule names now, by name. */
export const find = Effect.fnUntraced(function* (
  joined: BridgeContext,
  rule: BridgeRule
): Effect.fn.Return<ReadonlyArray<Found>, BridgeError> {
  const found: Array<Found> = []
  for (const topic of (yield* listed(joined, rule)).toSorted()) {
    const words = matchTopic(rule.source, topic)
    if (words === undefined) continue
    const parts =
      rule.source.side === "pulsar" ? yield* joined.pulsar.partitionsOf(topic) : yield* partitionsOf(joined, topic)
    if (parts.length > 0) found.push({ rule, topic, words, parts })
  }
  return found
})

/** The topic on Kafka whose offsets say how far parts of Pulsar are mirrored, and whose partitions share them out. It has no records. */
export const positionsTopic = ({ name }: Bridge): string => `${name}-positions`
const makePositions = ({ bridge, log }: BridgeContext) =>
  log
    .declare([{ name: positionsTopic(bridge), partitions: lots, compacted: false, retentionMs: undefined }])
    .pipe(Effect.mapError(readFailure))

const inwardOf = (
  { bridge }: BridgeContext,
  { parts, rule, topic, words }: Found,
  once: boolean
): ReadonlyArray<Inward> =>
  parts.map((part, partition) => {
    const lot = Number.parseInt(shortName(`${rule.name} ${part}`), 16) % lots
    const held = { group: `${bridge.name}/${rule.name}/${part}`, topic: positionsTopic(bridge), partition: lot }
    return { rule, topic, words, part, partition, held, once }
  })

/** For what is asked once: a topic that was made just now has no leader yet, and brokers may be away for a moment. */
const patiently = <A, E extends { readonly retryable: boolean }>(ask: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.retry(ask, { times: 50, schedule: Schedule.spaced(200), while: ({ retryable }) => retryable })

/** Mirrors what is there now, and ends. Not beside another process of the same bridge, which would be fenced for that time. */
export const once = Effect.fnUntraced(function* (
  joined: BridgeContext
): Effect.fn.Return<ReadonlyArray<StreamStatus>, StreamError> {
  const { board, bridge, log } = joined
  if (bridge.rules.some(({ source }) => source.side === "pulsar")) yield* patiently(makePositions(joined))
  // all ends are captured first: what the rules themselves bring is not mirrored onwards for ever
  const streams: Array<Effect.Effect<void, StreamError>> = []
  for (const rule of bridge.rules) {
    for (const found of yield* patiently(find(joined, rule))) {
      const { topic, words } = found
      if (rule.source.side === "pulsar")
        streams.push(...inwardOf(joined, found, true).map((inward) => toKafka(joined, inward)))
      else
        for (const { end, partition } of yield* patiently(Effect.mapError(log.bounds(topic), readFailure))) {
          const open = (from: number) => log.open(topic, partition, from)
          streams.push(toPulsar(joined, { rule, topic, words, partition, open, until: end }))
        }
    }
  }
  yield* Effect.all(streams, { concurrency: 16, discard: true })
  return board.statuses
})

type Topics = SubscriptionRef.SubscriptionRef<ReadonlyArray<Found>>

/** Looks for what rules name, over and over. What a rule named stays while it cannot be asked. */
const look = Effect.fnUntraced(function* (
  joined: BridgeContext,
  rules: ReadonlyArray<BridgeRule>,
  topics: Topics
): Effect.fn.Return<never> {
  const known = new Map<string, ReadonlyArray<Found>>()
  const asking = (rule: BridgeRule) =>
    find(joined, rule).pipe(
      Effect.map((found) => {
        known.set(rule.name, found)
        joined.board.over(rule.name)
      }),
      Effect.catch((error) => trouble(joined, rule.name, error))
    )
  while (true) {
    yield* Effect.forEach(rules, asking, { discard: true })
    const found = [...known.values()].flat()
    yield* SubscriptionRef.set(topics, found)
    yield* joined.presence.rest(found.length === 0 ? soonMs : discoverMs)
  }
})
/** What runs for a topic, or for a part of one, by a name of its own. */
interface Unit<E> {
  readonly name: string
  readonly run: Effect.Effect<unknown, E>
}
/** Runs what is new among topics until one of these fails. */
const runEach = <E>(topics: Topics, units: (found: Found) => ReadonlyArray<Unit<E>>): Effect.Effect<never, E> =>
  Effect.suspend(() => {
    const running = new Set<string>()
    return SubscriptionRef.changes(topics).pipe(
      Stream.map((all) => all.flatMap(units).filter(({ name }) => !running.has(name))),
      Stream.tap((fresh) => Effect.sync(() => fresh.forEach(({ name }) => running.add(name)))),
      Stream.flatMap((fresh) => Stream.fromIterable(fresh)),
      Stream.mapEffect(({ run }) => run, { concurrency: "unbounded", unordered: true }),
      Stream.runDrain,
      Effect.andThen(Effect.never)
    )
  })

/** Notes what keeps a rule, or a group, from its work. */
const trouble = ({ board, presence }: BridgeContext, name: string, { message }: { readonly message: string }) =>
  // that a system is away was said once, for all of them
  board.trouble(name, message) && presence.away.length === 0
    ? Effect.logWarning(`bridge: ${name}: ${message}; trying again`)
    : Effect.void
/** A group's end is a passing thing: brokers may be away for long. */
const again = <E extends { readonly message: string }>(
  joined: BridgeContext,
  name: string,
  effect: Effect.Effect<never, E>
): Effect.Effect<never> => {
  const sound = Effect.sync(() => joined.board.over(name)).pipe(Effect.delay(soundMs), Effect.andThen(Effect.never))
  return Effect.raceFirst(effect, sound).pipe(
    Effect.catch((error) => Effect.andThen(trouble(joined, name, error), joined.presence.rest(soonMs))),
    Effect.forever
  )
}

/**
 * Mirrors until interrupted, whatever goes away meanwhile. Processes of one bridge share the partitions of Kafka's topics as members of groups,
 * and the parts of Pulsar's in lots; who is cut off is fenced by transactional ids, producer names and exclusive subscriptions.
 */
export const run = Effect.fnUntraced(function* (joined: BridgeContext): Effect.fn.Return<never> {
  const { bridge, kafka, log, presence, pulsar } = joined
  const outward = bridge.rules.filter(({ source }) => source.side === "kafka")
  const inward = bridge.rules.filter(({ source }) => source.side === "pulsar")
  const [onKafka, onPulsar] = [
    yield* SubscriptionRef.make<ReadonlyArray<Found>>([]),
    yield* SubscriptionRef.make<ReadonlyArray<Found>>([])
  ]
  const fromKafka = runEach(onKafka, ({ rule, topic, words }) => {
    const members = log.assign(topic, `${bridge.name}/${rule.name}/${topic}/members`, ({ open, partition }) =>
      toPulsar(joined, { rule, topic, words, partition, open, until: undefined })
    )
    const name = `${rule.name} ${topic}`
    return [{ name, run: again(joined, name, members) }]
  })
  const fromPulsar = Effect.andThen(
    makePositions(joined),
    log.assign(positionsTopic(bridge), `${bridge.name}/members`, ({ partition }) =>
      runEach(onPulsar, (found) =>
        inwardOf(joined, found, false)
          .filter(({ held }) => held.partition === partition)
          .map((one) => ({ name: `${one.rule.name} ${one.part}`, run: toKafka(joined, one) }))
      )
    )
  )
  return yield* Effect.raceAllFirst([
    presence.watch("kafka", kafka.ping),
    presence.watch("pulsar", pulsar.ping),
    ...(outward.length === 0 ? [] : [look(joined, outward, onKafka), fromKafka]),
    ...(inward.length === 0 ? [] : [look(joined, inward, onPulsar), again(joined, "Pulsar's topics", fromPulsar)])
  ])
})
