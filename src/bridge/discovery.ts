// Finds the topics that rules name, on either side, and keeps looking for new ones.
import * as Effect from "effect/Effect"
import * as SubscriptionRef from "effect/SubscriptionRef"
import type { BridgeContext } from "./context.ts"
import { type BridgeError, readFailure } from "./errors.ts"
import type { KafkaSide } from "./kafka-side.ts"
import type { PulsarSide } from "./pulsar-side.ts"
import { type CheckedRule, errorTopicSuffix } from "./rule.ts"
import { matchTopic } from "./topic-pattern.ts"

/** How often new topics are looked for. */
const discoverMs = 10_000
/** The same as long as there is no topic at all. */
const discoverFirstMs = 1_000

/** A topic that a rule mirrors. */
export interface SourceTopic {
  readonly rule: CheckedRule
  readonly topic: string
  /** What the words of the rule's `from` stand for in the topic's name. */
  readonly words: Readonly<Record<string, string>>
  /** In order; on Pulsar their names in full, on Kafka their numbers. */
  readonly partitions: ReadonlyArray<string>
}

const withoutWords = (part: string | undefined) => (part === undefined || /[{}]/.test(part) ? undefined : part)
/** All topics among which a rule's sources are: those of Kafka, or of the tenant and namespace on Pulsar. None if that side is undefined. */
export const candidateTopics = (
  { kafka, pulsar }: { readonly kafka: KafkaSide | undefined; readonly pulsar: PulsarSide | undefined },
  { from, source }: CheckedRule
): Effect.Effect<ReadonlyArray<string>, BridgeError> => {
  const [, tenant, namespace] = /^pulsar:persistent:\/\/([^/]+)\/([^/]+)\//.exec(from) ?? []
  const all = source.side === "kafka" ? kafka?.topics : pulsar?.topics(withoutWords(tenant), withoutWords(namespace))
  return all ?? Effect.succeed([])
}
const topicsOf = (context: BridgeContext, rule: CheckedRule) =>
  rule.source.words.length === 0
    ? Effect.succeed([rule.source.literals[0]!])
    : Effect.map(candidateTopics(context, rule), (all) => all.filter((topic) => !topic.endsWith(errorTopicSuffix)))
/** Empty if the topic does not exist (yet). */
const kafkaPartitions = ({ log }: BridgeContext, topic: string) =>
  log.bounds(topic).pipe(
    Effect.map((bounds) => bounds.map(({ partition }) => String(partition))),
    Effect.catch((error) => (error._tag === "UnknownTopic" ? Effect.succeed([]) : Effect.fail(readFailure(error))))
  )
/** The topics that a rule mirrors now, ordered by name. */
export const findTopics = Effect.fnUntraced(function* (
  context: BridgeContext,
  rule: CheckedRule
): Effect.fn.Return<ReadonlyArray<SourceTopic>, BridgeError> {
  const found: Array<SourceTopic> = []
  for (const topic of (yield* topicsOf(context, rule)).toSorted()) {
    const words = matchTopic(rule.source, topic)
    if (words === undefined) continue
    const isOnPulsar = rule.source.side === "pulsar"
    const partitions = yield* isOnPulsar ? context.pulsar.partitionsOf(topic) : kafkaPartitions(context, topic)
    if (partitions.length > 0) found.push({ rule, topic, words, partitions })
  }
  return found
})

/** Topics that are known now, and every change of them. */
export type SourceTopics = SubscriptionRef.SubscriptionRef<ReadonlyArray<SourceTopic>>

/** Looks for topics again and again. If a rule's topics cannot be found out, those found before are kept. */
export const watchTopics = Effect.fnUntraced(function* (
  context: BridgeContext,
  rules: ReadonlyArray<CheckedRule>,
  topics: SourceTopics
): Effect.fn.Return<never> {
  const known = new Map<string, ReadonlyArray<SourceTopic>>()
  const lookFor = (rule: CheckedRule) =>
    findTopics(context, rule).pipe(
      Effect.map((found) => {
        known.set(rule.name, found)
        context.status.clearFailure(rule.name)
      }),
      Effect.catch((error) => reportFailure(context, rule.name, error))
    )
  while (true) {
    yield* Effect.forEach(rules, lookFor, { discard: true })
    const found = [...known.values()].flat()
    yield* SubscriptionRef.set(topics, found)
    yield* context.availability.sleep(found.length === 0 ? discoverFirstMs : discoverMs)
  }
})

/** Records what keeps a rule or a group from working, and logs it if it is new. */
export const reportFailure = (
  { availability, status }: BridgeContext,
  name: string,
  { message }: { readonly message: string }
): Effect.Effect<void> =>
  // an unavailable side has been logged once, for everything
  status.reportFailure(name, message) && availability.unavailable.length === 0
    ? Effect.logWarning(`bridge: ${name}: ${message}; trying again`)
    : Effect.void
