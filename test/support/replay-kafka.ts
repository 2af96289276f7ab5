// A log on a Kafka broker that other tests use, too, with names of topics and groups of its own.
import * as Effect from "effect/Effect"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import * as KafkaRelay from "../../src/kafka/relay/relay.ts"
import { Log } from "../../src/log/log.ts"
import * as PostgresOutbox from "../../src/postgres/relay/outbox.ts"
import type { ReplayLog } from "./replay.ts"

/** The log with other names of topics and groups: those that are given, after a prefix. */
export const prefixed = (log: Log["Service"], prefix: string): Log["Service"] =>
  Log.of({
    declare: (topics) => log.declare(topics.map((topic) => ({ ...topic, name: prefix + topic.name }))),
    append: (topic, records) => log.append(prefix + topic, records),
    bounds: (topic) => log.bounds(prefix + topic),
    ends: (topic) => log.ends(prefix + topic),
    identity: (topic) => log.identity(prefix + topic),
    read: (topic, ...rest) => log.read(prefix + topic, ...rest),
    open: (topic, ...rest) => log.open(prefix + topic, ...rest),
    assign: (topic, group, use, options) =>
      log.assign(prefix + topic, prefix + group, (assignment) => use({ ...assignment, topic }), options)
  })

let opened = 0
const ownPrefix = () => `replay-${process.pid}-${Date.now()}-${opened++}-`
const optionsOn = (brokers: ReadonlyArray<string>) => ({
  brokers,
  heartbeatMs: 200,
  sessionMs: 6_000,
  requestMs: 10_000
})
/** A log on Kafka with names of its own. */
export const kafkaLogOn = (brokers: ReadonlyArray<string>) =>
  Effect.map(KafkaLog.make(optionsOn(brokers)), (log) => prefixed(log, ownPrefix()))

/** A log on Kafka for one generated application, with names of its own, and a relay to Kafka. */
export const inKafka = (brokers: ReadonlyArray<string>): ReplayLog => {
  const topicPrefix = ownPrefix()
  return {
    topicPrefix,
    open: () =>
      Effect.map(KafkaLog.make(optionsOn(brokers)), (log) =>
        Log.of({
          ...log,
          assign: (topic, group, use, options) => log.assign(topic, topicPrefix + group, use, options)
        })
      ),
    relay: (sql) => KafkaRelay.make(optionsOn(brokers), PostgresOutbox.make(sql), { prefix: `${topicPrefix}relay` })
  }
}
