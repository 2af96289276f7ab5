// Reads from environment variables where Kafka and Pulsar are and how to connect to them, and what counts as healthy.
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { type KafkaOptions, optionsFrom as kafkaOptionsFrom } from "../kafka/protocol/options.ts"
import { type PulsarOptions, optionsFrom as pulsarOptionsFrom } from "../pulsar/client/options.ts"
import { InvalidEnvironment } from "./errors.ts"
import { defaultMaxAgeMs } from "./status.ts"
import { maskSecrets } from "../text/secrets.ts"

const read = <A>(optionsFrom: (env: NodeJS.ProcessEnv) => A | undefined) =>
  Effect.try({
    try: () => optionsFrom(process.env),
    catch: (cause) => new InvalidEnvironment({ message: maskSecrets((cause as Error).message) })
  })

/** How to connect to Kafka; undefined if `MILLRACE_KAFKA_BROKERS` is not set: the log is on PostgreSQL then. */
export const kafkaOptions: Effect.Effect<KafkaOptions | undefined, InvalidEnvironment> = read(kafkaOptionsFrom)
/** How to connect to Pulsar; undefined if `MILLRACE_PULSAR_URL` is not set: nothing is published to Pulsar then. */
export const pulsarOptions: Effect.Effect<PulsarOptions | undefined, InvalidEnvironment> = read(pulsarOptionsFrom)

/** The milliseconds of a duration such as `2 minutes`. Fails if the text is none, or not above 0. `name`: where it was given. */
export const parseMaxAge = (text: string, name: string): Effect.Effect<number, InvalidEnvironment> => {
  const ms = Option.match(Duration.fromInput(text as Duration.Input), { onNone: () => NaN, onSome: Duration.toMillis })
  return ms > 0 && Number.isFinite(ms)
    ? Effect.succeed(ms)
    : Effect.fail(
        new InvalidEnvironment({
          message: `${name} is '${text}'; it must be a duration above 0`,
          try: `${name.startsWith("--") ? `${name} ` : `${name}=`}"2 minutes"`
        })
      )
}
/** How long a record or a message may wait before the system is not healthy, in milliseconds: `MILLRACE_HEALTH_MAX_AGE`, by default a minute. */
export const healthMaxAgeMs: Effect.Effect<number, InvalidEnvironment> = Effect.suspend(() => {
  const text = process.env["MILLRACE_HEALTH_MAX_AGE"] ?? ""
  return text === "" ? Effect.succeed(defaultMaxAgeMs) : parseMaxAge(text, "MILLRACE_HEALTH_MAX_AGE")
})

/**
 * The key that encrypts stored keys of personal data: `MILLRACE_KEY_ENCRYPTION_KEY`, 32 bytes as 64 hex digits or as base64. Undefined if it is not
 * set: then everyone who has the database has the keys.
 */
export const keyEncryptionKey: Effect.Effect<Uint8Array | undefined, InvalidEnvironment> = Effect.suspend(() => {
  const text = process.env["MILLRACE_KEY_ENCRYPTION_KEY"] ?? ""
  if (text === "") return Effect.undefined
  const key = /^[0-9a-f]{64}$/i.test(text) ? Buffer.from(text, "hex") : Buffer.from(text, "base64")
  if (key.length === 32) return Effect.succeed(new Uint8Array(key))
  return Effect.fail(
    new InvalidEnvironment({
      message: `MILLRACE_KEY_ENCRYPTION_KEY has ${key.length} bytes; it must be 32 bytes, as 64 hex digits or as base64`,
      try: "openssl rand -hex 32"
    })
  )
})
