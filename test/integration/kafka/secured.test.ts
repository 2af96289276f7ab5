// Signing in to Kafka: every mechanism, client certificates, and the one line that a user reads when it fails.
import { assert, it as vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import { secured } from "../../support/kafka-secured.ts"
import { owning } from "../../support/stack.ts"
import { range, record } from "../../contract/log-support.ts"

const password = `p"w${process.pid}`.replace('"', "-")
class Secured extends Context.Service<Secured, Effect.Success<ReturnType<typeof secured>>>()("test/Secured") {}

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
  vitest.layer(Layer.effect(Secured, secured(password)), { timeout: "90 seconds", excludeTestServices: true })(
    "Kafka's users and certificates",
    (it) => {
      for (const mechanism of ["plain", "scram-sha-256", "scram-sha-512"] as const) {
        it.effect(`signs in by ${mechanism}, and says when the password is wrong`, () =>
          Effect.gen(function* () {
            const brokers = [(yield* Secured).sasl]
            yield* works({ brokers, sasl: { mechanism, username: "user", password } })
            const error = yield* refused({ brokers, sasl: { mechanism, username: "user", password: "wrong" } })
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
    }
  )
})
