// Signing in to Kafka: every mechanism, client certificates, and the one line that a user reads when it fails.
import { readFileSync } from "node:fs"
import { assert, it as vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Kafka, type KafkaConfig, logLevel } from "kafkajs"
import { secureKafka } from "../../../stack/testing.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import { owning } from "../../support/stack.ts"
import { range, record } from "../../contract/log-support.ts"

/** A node's secured listeners, and its credentials; certificates as PEM texts. */
const secured = Effect.map(secureKafka(), ({ security }) => {
  const text = (file: string) => readFileSync(file, "utf8")
  const certificates = { ca: text(security.ca), cert: text(security.cert), key: text(security.key) }
  return { ...security, certificates }
})
class Secured extends Context.Service<Secured, Effect.Success<typeof secured>>()("test/Secured") {}

/** The number of brokers that a plain client with this configuration sees, or the name of its error. */
const brokersSeen = (broker: string, config: Omit<KafkaConfig, "brokers">) =>
  Effect.promise(async () => {
    const kafka = new Kafka({ brokers: [broker], logLevel: logLevel.NOTHING, retry: { retries: 1 }, ...config })
    const admin = kafka.admin()
    try {
      await admin.connect()
      return (await admin.describeCluster()).brokers.length
    } catch (error) {
      return (error as Error).name
    } finally {
      await admin.disconnect()
    }
  })

let topics = 0
/** Appends and reads through a log with these options. */
const works = (options: KafkaLog.KafkaOptions) =>
  Effect.scoped(
    Effect.gen(function* () {
      const log = yield* KafkaLog.make(options)
      const name = `secured-${topics++}`
      yield* log.declare([{ name, partitions: 2, compacted: false, retentionMs: undefined }])
      yield* log.append(
        name,
        range(0, 10).map((i) => record({ partition: i % 2, value: `${i}` }))
      )
      const reader = yield* log.open(name, 1, 0)
      assert.deepStrictEqual(
        (yield* reader.take).records.map(({ value }) => Number(value)),
        [1, 3, 5, 7, 9]
      )
    })
  )
const refused = (options: KafkaLog.KafkaOptions) =>
  Effect.flip(Effect.scoped(KafkaLog.make({ connectMs: 3_000, ...options })))

const suite = await owning("kafka", "java", "maven", "openssl")
suite("signing in", () => {
  vitest.layer(Layer.effect(Secured, secured), { timeout: "90 seconds", excludeTestServices: true })(
    "Kafka's users and certificates",
    (it) => {
      for (const mechanism of ["plain", "scram-sha-256", "scram-sha-512"] as const) {
        it.effect(`signs in by ${mechanism}, and says when the password is wrong`, () =>
          Effect.gen(function* () {
            const { password, sasl, username } = yield* Secured
            const brokers = [sasl]
            yield* works({ brokers, sasl: { mechanism, username, password } })
            const error = yield* refused({ brokers, sasl: { mechanism, username, password: "wrong" } })
            assert.isFalse(error.retryable)
            assert.match(
              error.message,
              /^log: .*refused the user name or the password.*correct MILLRACE_KAFKA_USERNAME/
            )
            assert.notInclude(error.message, "\n")
          })
        )
      }
      it.effect("uses TLS with a client certificate", () =>
        Effect.gen(function* () {
          const { certificates, tls } = yield* Secured
          yield* works({ brokers: [tls], tls: certificates })
        })
      )
      it.effect("reports an authority that is not trusted, and a missing client certificate", () =>
        Effect.gen(function* () {
          const { certificates, tls } = yield* Secured
          const untrusted = yield* refused({ brokers: [tls], tls: true })
          assert.match(untrusted.message, /TLS with 127\.0\.0\.1:\d+ failed \(.+\): correct MILLRACE_KAFKA_TLS_CA/)
          assert.isFalse(untrusted.retryable)
          const nobody = yield* refused({ brokers: [tls], tls: { ca: certificates.ca } })
          assert.match(nobody.message, /MILLRACE_KAFKA_TLS|lost/)
          assert.notInclude(nobody.message, "\n")
        })
      )
      it.effect("each listener of the node accepts plain clients with its credentials, and no others", () =>
        Effect.gen(function* () {
          const { certificates, password, sasl, saslTls, tls, username } = yield* Secured
          for (const mechanism of ["plain", "scram-sha-256", "scram-sha-512"]) {
            const right = { mechanism, username, password } as NonNullable<KafkaConfig["sasl"]>
            const wrong = { mechanism, username, password: "no" } as NonNullable<KafkaConfig["sasl"]>
            assert.strictEqual(yield* brokersSeen(sasl, { sasl: right }), 1, mechanism)
            assert.strictEqual(yield* brokersSeen(saslTls, { sasl: right, ssl: { ca: certificates.ca } }), 1, mechanism)
            assert.notStrictEqual(yield* brokersSeen(sasl, { sasl: wrong }), 1, mechanism)
          }
          assert.strictEqual(yield* brokersSeen(tls, { ssl: certificates }), 1)
          assert.notStrictEqual(yield* brokersSeen(tls, { ssl: { ca: certificates.ca } }), 1)
          const plain = { mechanism: "plain", username, password } as const
          assert.notStrictEqual(yield* brokersSeen(saslTls, { sasl: plain }), 1)
        })
      )
    }
  )
})
