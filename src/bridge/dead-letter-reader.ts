// Reads the dead letters of bridges from their error topics on both sides.
import * as Effect from "effect/Effect"
import { type BridgeDeadLetter, parseDeadLetter } from "./dead-letter.ts"
import type { Bridge } from "./definition.ts"
import { candidateTopics } from "./discovery.ts"
import { type BridgeError, readFailure } from "./errors.ts"
import type { KafkaSide } from "./kafka-side.ts"
import type { PulsarSide } from "./pulsar-side.ts"
import { type BridgeRecord, fromLogRecord } from "./record.ts"
import { errorTopicOf, errorTopicSuffix } from "./rule.ts"
import { matchTopic } from "./topic-pattern.ts"
import type { Log } from "../log/log.ts"

/** The sides whose error topics are read. A side that is undefined is left out. */
export interface DeadLetterSources {
  readonly kafka: { readonly log: Log["Service"]; readonly side: KafkaSide } | undefined
  readonly pulsar:
    | { readonly side: PulsarSide; readonly tenant: string | undefined; readonly namespace: string | undefined }
    | undefined
}

/** The names of error topics: those of a bridge's rules, or without a bridge all with the usual suffix, on Pulsar in the given namespace. */
export const errorTopics = Effect.fnUntraced(function* (
  { kafka, pulsar }: DeadLetterSources,
  bridge: Bridge | undefined
): Effect.fn.Return<ReadonlyArray<string>, BridgeError> {
  const sides = { kafka: kafka?.side, pulsar: pulsar?.side }
  if (bridge === undefined) {
    const onKafka = kafka === undefined ? [] : yield* kafka.side.topics
    const onPulsar = pulsar === undefined ? [] : yield* pulsar.side.topics(pulsar.tenant, pulsar.namespace)
    return [...onKafka, ...onPulsar].filter((topic) => topic.endsWith(errorTopicSuffix)).toSorted()
  }
  const found = new Set<string>()
  for (const rule of bridge.rules) {
    const { errors, source } = rule
    if (sides[source.side] === undefined) continue
    if (errors !== undefined || source.words.length === 0) found.add(errorTopicOf(rule, source.literals[0]!))
    else
      for (const topic of yield* candidateTopics(sides, rule))
        if (topic.endsWith(errorTopicSuffix) && matchTopic(source, topic.slice(0, -errorTopicSuffix.length)))
          found.add(topic)
  }
  return [...found]
})

/** Calls `take` for each dead letter of an error topic, from the first to the last that is there now; for none if the topic does not exist. */
export const readDeadLetters = Effect.fnUntraced(function* (
  { kafka, pulsar }: DeadLetterSources,
  topic: string,
  take: (deadLetter: BridgeDeadLetter) => void
): Effect.fn.Return<void, BridgeError> {
  const side = topic.includes("://") ? "pulsar" : "kafka"
  const show = (record: BridgeRecord, failedAt: number) => {
    const deadLetter = parseDeadLetter(side, topic, record, failedAt)
    if (deadLetter !== undefined) take(deadLetter)
  }
  if (side === "kafka" && kafka !== undefined) yield* readTopic(kafka.log, topic, show)
  if (side === "kafka" || pulsar === undefined) return
  for (const partition of yield* pulsar.side.partitionsOf(topic))
    if ((yield* pulsar.side.lastPosition(partition)) !== undefined)
      yield* pulsar.side.scan(partition, undefined, ({ publishTime, record }) => show(record, publishTime))
})
const readTopic = (log: Log["Service"], topic: string, show: (record: BridgeRecord, appendedAt: number) => void) =>
  Effect.gen(function* () {
    for (const { end, partition, start } of yield* log.bounds(topic)) {
      for (let position = start; position < end;) {
        const { next, records } = yield* log.read(topic, partition, position)
        for (const record of records) show(fromLogRecord(record), record.appendedAt)
        position = next
      }
    }
  }).pipe(
    Effect.catchTag("UnknownTopic", () => Effect.void),
    Effect.mapError(readFailure)
  )
