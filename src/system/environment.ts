// Reads from environment variables where Kafka and Pulsar are and how to connect to them.
import * as Effect from "effect/Effect"
import { type KafkaOptions, optionsFrom as kafkaOptionsFrom } from "../kafka/protocol/options.ts"
import { type PulsarOptions, optionsFrom as pulsarOptionsFrom } from "../pulsar/client/options.ts"
import { InvalidEnvironment } from "./errors.ts"

const read = <A>(optionsFrom: (env: NodeJS.ProcessEnv) => A | undefined) =>
  Effect.try({
    try: () => optionsFrom(process.env),
    catch: (cause) => new InvalidEnvironment({ message: (cause as Error).message })
  })

/** How to connect to Kafka; undefined if `MILLRACE_KAFKA_BROKERS` is not set: the log is on PostgreSQL then. */
export const kafkaOptions: Effect.Effect<KafkaOptions | undefined, InvalidEnvironment> = read(kafkaOptionsFrom)
/** How to connect to Pulsar; undefined if `MILLRACE_PULSAR_URL` is not set: nothing is published to Pulsar then. */
export const pulsarOptions: Effect.Effect<PulsarOptions | undefined, InvalidEnvironment> = read(pulsarOptionsFrom)
