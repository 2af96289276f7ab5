// A Kafka node of a test file's own, to stop and to configure, and logs on it.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Service, kafka } from "../../stack/testing.ts"
import type { KafkaOptions } from "../../stack/kafka.ts"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import { Log } from "../../src/log/log.ts"

/** The node of a test file. */
export class Node extends Context.Service<Node, Service>()("test/Node") {}

/** The addresses of the node's brokers. */
export const brokers = Effect.map(Effect.service(Node), ({ endpoints }) => endpoints.MILLRACE_KAFKA_BROKERS!.split(","))

/** A node, and a log on it. */
export const nodeWithLog = (options: Partial<KafkaLog.KafkaOptions> = {}, node: KafkaOptions = {}) => {
  const log = Layer.effect(
    Log,
    Effect.flatMap(brokers, (list) => KafkaLog.make({ brokers: list, ...options }))
  )
  return Layer.provideMerge(log, Layer.effect(Node, kafka(node)))
}
