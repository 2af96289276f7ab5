// Dead letters of bridges: records that a bridge could not mirror, as the error topics on both sides have them.
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { makeContext } from "../../bridge/context.ts"
import type { BridgeDeadLetter } from "../../bridge/dead-letter.ts"
import { readDeadLetters, errorTopics } from "../../bridge/dead-letter-reader.ts"
import { BridgeDeadLetterSender } from "../../bridge/dead-letter-sender.ts"
import type { Bridge } from "../../bridge/definition.ts"
import type { Sql } from "../../postgres/client/client.ts"
import { localName } from "../../pulsar/client/topic-names.ts"
import { loadRulesIfAny } from "../bridge-rules.ts"
import { BridgeRulesError, InvalidEnvironment } from "../errors.ts"
import { openSides } from "../open-bridge.ts"
import { type DeadLettersContext, type DeadLetterSource, iso, type ListedDeadLetter, traceOf } from "./source.ts"
import { topicDeadLetters, type TopicsOfKind } from "./topics.ts"

const describe = (deadLetter: BridgeDeadLetter): Omit<ListedDeadLetter, "id" | "status" | "key"> => {
  const { bridge, errors, failedAt, offset, partition, reason, record, rule, side, topic } = deadLetter
  const { eventTime, headers, key, value } = record
  const origin = { kind: "bridge", bridge, rule, from: side, topic, partition, offset, errors_topic: errors }
  const content = { key, error: "Refused", message: reason, attempts: 1, value, headers, ...traceOf(headers) }
  const times = { event_time: iso(eventTime), failed_at: iso(failedAt) }
  return {
    failedIn: `bridge ${bridge}/${rule}`,
    record: `${side}:${localName(topic)}/${partition}@${offset}`,
    error: `Refused: ${reason}`,
    attempts: 1,
    failedAt,
    details: { ...origin, ...content, ...times }
  }
}
const originOf = ({ bridge, offset, rule, stream }: BridgeDeadLetter) =>
  createHash("sha256")
    .update(JSON.stringify([bridge, rule, stream, offset]))
    .digest("hex")
    .slice(0, 16)

/** The error topics, and what sends their dead letters by the bridge's rules. */
export interface ErrorTopics extends Pick<TopicsOfKind<BridgeDeadLetter>, "names" | "each" | "openSender"> {}
/** The dead letters of error topics. */
export const bridgeDeadLetters = (sql: Sql, topics: ErrorTopics): DeadLetterSource =>
  topicDeadLetters<BridgeDeadLetter>(sql, { ...topics, originOf, describe, keyOf: ({ record: { key } }) => key })

/** Loads the rules. If they come from one of the usual files, the error says how to do without them. */
const rulesFrom = (file: string | undefined) =>
  Effect.mapError(loadRulesIfAny(file), (error) =>
    file === undefined
      ? new BridgeRulesError({
          message: error.message,
          try: "fix it, or leave out the dead letters of bridges: --kind projection,subscription,relay"
        })
      : error
  )

/**
 * Opens the dead letters of bridges on the sides that the environment names.
 *
 * With rules they are read from the error topics of the rules. Without rules they are read from all topics whose names end like those of error topics,
 * but only if `isAskedFor`, because others may run bridges on the same systems. Undefined if there is nothing to read and they are not asked for.
 * A retry needs the rules and both sides.
 */
export const openBridgeDeadLetters = Effect.fnUntraced(function* (
  { bridgeRules, sql }: DeadLettersContext,
  isAskedFor: boolean
): Effect.fn.Return<DeadLetterSource | undefined, Error, Scope.Scope> {
  const rules = yield* rulesFrom(bridgeRules)
  if (rules === undefined && !isAskedFor) return undefined
  const sides = yield* openSides
  return bridgeDeadLetters(sql, {
    names: errorTopics(sides, rules),
    each: (topic, take) => readDeadLetters(sides, topic, take),
    openSender: senderFor(rules, sides)
  })
})

const senderFor = Effect.fnUntraced(function* (
  rules: Bridge | undefined,
  { kafka, pulsar }: Effect.Success<typeof openSides>
) {
  if (rules === undefined)
    return yield* new BridgeRulesError({
      message: "the bridge's rules say where its dead letters go, and there are no rules here",
      try: "--rules FILE, the file that millrace bridge is given"
    })
  if (kafka === undefined || pulsar === undefined) {
    const name = kafka === undefined ? "MILLRACE_KAFKA_BROKERS" : "MILLRACE_PULSAR_URL"
    return yield* new InvalidEnvironment({
      message: `a bridge's dead letters go to its other side: ${name} is not set`
    })
  }
  return new BridgeDeadLetterSender(
    yield* makeContext(rules, { log: kafka.log, kafka: kafka.side, pulsar: pulsar.side })
  )
})
