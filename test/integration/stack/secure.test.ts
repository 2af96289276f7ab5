// A Kafka node whose listeners require passwords and certificates: each accepts clients that have them, and no others.
import { readFileSync } from "node:fs"
import * as Effect from "effect/Effect"
import { assert, it } from "@effect/vitest"
import { KafkaJs } from "../../../src/kafka/protocol/kafkajs.ts"
import { secureKafka } from "../../../stack/testing.ts"
import { owning } from "../../support/stack.ts"

/** The number of brokers that a client with this configuration sees, or the name of its error. */
const brokersSeen = (broker: string, config: Omit<KafkaJs.KafkaConfig, "brokers">) =>
  Effect.promise(async () => {
    const kafka = new KafkaJs.Kafka({
      brokers: [broker],
      logLevel: KafkaJs.logLevel.NOTHING,
      retry: { retries: 1 },
      ...config
    })
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

const suite = await owning("kafka", "java", "maven", "openssl")

suite("a secure kafka", () => {
  it.live(
    "accepts clients with the password or the certificate, and no others",
    Effect.fnUntraced(function* () {
      const { security } = yield* secureKafka()
      const { ca, cert, key, password, sasl, saslTls, tls, username } = security
      const pem = (file: string) => readFileSync(file, "utf8")
      for (const mechanism of ["plain", "scram-sha-256", "scram-sha-512"]) {
        const right = { mechanism, username, password } as NonNullable<KafkaJs.KafkaConfig["sasl"]>
        const wrong = { mechanism, username, password: "no" } as NonNullable<KafkaJs.KafkaConfig["sasl"]>
        assert.strictEqual(yield* brokersSeen(sasl, { sasl: right }), 1, mechanism)
        assert.strictEqual(yield* brokersSeen(saslTls, { sasl: right, ssl: { ca: pem(ca) } }), 1, mechanism)
        assert.notStrictEqual(yield* brokersSeen(sasl, { sasl: wrong }), 1, mechanism)
      }
      const ours = { ca: pem(ca), cert: pem(cert), key: pem(key) }
      assert.strictEqual(yield* brokersSeen(tls, { ssl: ours }), 1)
      assert.notStrictEqual(yield* brokersSeen(tls, { ssl: { ca: pem(ca) } }), 1)
      assert.notStrictEqual(yield* brokersSeen(saslTls, { sasl: { mechanism: "plain", username, password } }), 1)
    }),
    300_000
  )
})
