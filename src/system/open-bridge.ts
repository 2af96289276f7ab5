// Opens a bridge between the Kafka and the Pulsar that the environment names.
import * as Effect from "effect/Effect"
import { makeContext } from "../bridge/context.ts"
import type { DeadLetterSources } from "../bridge/dead-letter-reader.ts"
import type { PulsarSide } from "../bridge/pulsar-side.ts"
import type { Bridge } from "../bridge/definition.ts"
import * as KafkaBridge from "../kafka/bridge-side.ts"
import * as KafkaLog from "../kafka/log/log.ts"
import * as PulsarBridge from "../pulsar/bridge-side.ts"
import { defaults } from "../pulsar/client/options.ts"
import { kafkaOptions, pulsarOptions } from "./environment.ts"
import { InvalidEnvironment } from "./errors.ts"

/** Fails if the environment does not name the system. */
const required = <A>(name: string, options: Effect.Effect<A | undefined, InvalidEnvironment>) =>
  Effect.flatMap(options, (given) =>
    given === undefined
      ? Effect.fail(
          new InvalidEnvironment({
            message: `${name} is not set`,
            try: "a bridge needs MILLRACE_KAFKA_BROKERS and MILLRACE_PULSAR_URL"
          })
        )
      : Effect.succeed(given)
  )
/** What a bridge is opened with: how to connect to Kafka, and Pulsar's client. */
export interface PreparedBridge {
  readonly kafka: KafkaLog.KafkaOptions
  readonly pulsar: PulsarSide
}
/** Reads how to connect to both systems and loads Pulsar's client. Fails with `InvalidEnvironment` if one of the systems is not configured. */
export const prepareBridge = Effect.gen(function* () {
  const kafka = yield* required("MILLRACE_KAFKA_BROKERS", kafkaOptions)
  const pulsar = yield* required("MILLRACE_PULSAR_URL", pulsarOptions)
  return { kafka, pulsar: yield* PulsarBridge.make(pulsar) } satisfies PreparedBridge
})

/** The sides that the environment names, connected until the scope closes. A side that is not named is undefined. */
export const openSides = Effect.gen(function* () {
  const [kafka, pulsar] = [yield* kafkaOptions, yield* pulsarOptions]
  const { namespace = defaults.namespace, tenant = defaults.tenant } = pulsar ?? {}
  return {
    kafka: kafka && { log: yield* KafkaLog.make(kafka), side: KafkaBridge.make(kafka) },
    pulsar: pulsar && { side: yield* PulsarBridge.make(pulsar), tenant, namespace }
  } satisfies DeadLetterSources
})

/** Connects a bridge. Fails if Kafka cannot be reached, because the id of its cluster is written to mirrored records. Pulsar is connected when it is used. */
export const openBridge = Effect.fnUntraced(function* (rules: Bridge, { kafka, pulsar }: PreparedBridge) {
  // joining is tried for ever: if the process gave up and joined again, the group would also wait for its former member
  const log = yield* KafkaLog.make({ ...kafka, joinMs: Infinity })
  return yield* makeContext(rules, { log, kafka: KafkaBridge.make(kafka), pulsar })
})
