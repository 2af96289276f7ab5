// The bridge between a real Kafka and a real Pulsar without faults: what arrives, where and in which form. Faults are in fault.test.ts.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { mirrorOnce } from "../../../src/bridge/bridge.ts"
import type { BridgeOptions } from "../../../src/bridge/definition.ts"
import {
  declare,
  full,
  messagesOf,
  partitioned,
  bridgeTest as test,
  publish,
  recordOf,
  tenant,
  unique
} from "../../support/bridge.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { transports } from "../../support/pulsar.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka", "pulsar")

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

suite("bridge", () => {
  for (const transport of transports) {
    test(
      "from Kafka to Pulsar each record arrives once, with key, event time, headers and trace",
      Effect.fnUntraced(function* (sides) {
        const [name, topic] = [unique("bridge"), unique("alerts")]
        yield* declare(sides.log, topic, 2)
        const records = Array.from({ length: 500 }, (_, i) =>
          recordOf(`k${i % 7}`, JSON.stringify({ i }), {
            partition: i % 2,
            eventTime: 1_357_000_000_000 + i,
            eventId: `e${i}`,
            tenant: "acme",
            traceparent,
            schemaVersion: 3,
            headers: { colour: "rot ü" }
          })
        )
        yield* sides.log.append(topic, records)
        const options = { name, rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }] }
        const first = yield* mirrorOnce(yield* sides.bridge(options))
        assert.strictEqual(
          first.reduce((sum, { mirrored }) => sum + mirrored, 0),
          500
        )
        yield* mirrorOnce(yield* sides.bridge(options))
        const found = yield* messagesOf(sides, full(topic))
        assert.deepStrictEqual(
          found.map(({ value }) => JSON.parse(value).i).toSorted((a, b) => a - b),
          records.map((_, i) => i)
        )
        const one = found.find(({ value }) => value === '{"i":7}')!
        assert.strictEqual(one.key, "k0")
        assert.strictEqual(one.eventTime, 1_357_000_000_007)
        assert.deepInclude(one.properties, {
          event_id: "e7",
          tenant: "acme",
          traceparent,
          trace_id: traceparent.slice(3, 35),
          schema_version: "3",
          colour: "rot ü",
          "millrace-bridge-offset": "3"
        })
      }),
      transport
    )
    test(
      "from Pulsar to Kafka each message arrives once, in the order of its key, batched or not",
      Effect.fnUntraced(function* (sides) {
        const [name, topic] = [unique("bridge"), unique("orders")]
        const source = full(topic)
        yield* partitioned(sides, source, 2)
        yield* declare(sides.log, topic, 3)
        const of = (partition: number, from: number, count: number) =>
          Array.from({ length: count }, (_, i) => ({
            key: `k${partition}${(from + i) % 5}`,
            value: JSON.stringify({ i: from + i }),
            eventTime: 1_357_000_000_000 + from + i,
            properties: { event_id: `e${partition}-${from + i}`, tenant: "acme", traceparent, colour: "rot ü" }
          }))
        yield* publish(sides, `${source}-partition-0`, of(0, 0, 300), true)
        yield* publish(sides, `${source}-partition-1`, of(1, 0, 300))
        const options = { name, rules: [{ name: "in", from: `pulsar:${source}`, to: `kafka:${topic}` }] }
        yield* mirrorOnce(yield* sides.bridge(options))
        yield* publish(sides, `${source}-partition-0`, of(0, 300, 50), true)
        const second = yield* mirrorOnce(yield* sides.bridge(options))
        assert.strictEqual(
          second.reduce((sum, { mirrored }) => sum + mirrored, 0),
          50
        )
        yield* mirrorOnce(yield* sides.bridge(options))
        const found = yield* recordsOf(sides.kafkaOptions, sides.log, topic)
        for (const [key, some] of Map.groupBy(found, ({ key }) => key!)) {
          const [partition, rest] = [Number(key[1]), Number(key[2])]
          const all = Array.from({ length: partition === 0 ? 350 : 300 }, (_, i) => i).filter((i) => i % 5 === rest)
          assert.deepStrictEqual(
            some.map(({ value }) => JSON.parse(value!).i),
            all,
            key
          )
        }
        assert.lengthOf(found, 650)
        const one = found.find(({ eventId }) => eventId === "e1-7")!
        assert.deepInclude(one, { eventTime: 1_357_000_000_007, tenant: "acme", traceparent })
        assert.deepInclude(one.headers, { colour: "rot ü", "millrace-bridge-stream": `${source}-partition-1` })
      }),
      transport
    )
  }

  test(
    "rules in both directions do not mirror a record back to where it came from",
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("mirror")]
      yield* declare(sides.log, topic, 1)
      const options: BridgeOptions = {
        name,
        rules: [
          { name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` },
          { name: "back", from: `pulsar:${full(topic)}`, to: `kafka:${topic}` }
        ]
      }
      yield* sides.log.append(
        topic,
        Array.from({ length: 20 }, (_, i) => recordOf(`k${i}`, `{"kafka":${i}}`))
      )
      yield* publish(
        sides,
        full(topic),
        Array.from({ length: 20 }, (_, i) => ({ key: `k${i}`, value: `{"pulsar":${i}}` }))
      )
      for (let round = 0; round < 4; round++) yield* mirrorOnce(yield* sides.bridge(options))
      const onKafka = yield* recordsOf(sides.kafkaOptions, sides.log, topic)
      const onPulsar = yield* messagesOf(sides, full(topic))
      assert.lengthOf(onKafka, 40)
      assert.lengthOf(onPulsar, 40)
      const texts = onKafka.map(({ value }) => value!)
      assert.deepStrictEqual(texts.toSorted(), onPulsar.map(({ value }) => value).toSorted())
      assert.lengthOf([...new Set(texts)], 40)
    })
  )

  test(
    "deletions, filters, headers, tenants and patterns of topic names work as the rules say",
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("tenants")]
      const [one, two] = [unique("acme"), unique("umbra")]
      yield* tenant(sides, one)
      yield* tenant(sides, two)
      yield* declare(sides.log, `${topic}.a`, 1)
      yield* declare(sides.log, `${topic}.b`, 1)
      const options: BridgeOptions = {
        name,
        rules: [
          {
            name: "out",
            from: `kafka:${topic}.{kind}`,
            to: `pulsar:persistent://{tenant}/bridge/${topic}.{kind}`,
            tenants: { acme: one, umbra: two },
            where: { header: "secret", not: true },
            headers: { drop: ["inner"], rename: { colour: "color" } }
          },
          {
            name: "back",
            from: `pulsar:persistent://{tenant}/bridge/${topic}.{kind}`,
            to: `kafka:${topic}.{tenant}.{kind}`,
            tenants: { A: one, U: two }
          }
        ]
      }
      const headers = { inner: "1", colour: "red" }
      yield* sides.log.append(`${topic}.a`, [
        recordOf("k", "1", { tenant: "acme", headers }),
        recordOf("k", null, { tenant: "acme" }),
        recordOf("k", "2", { tenant: "umbra", headers: { secret: "s" } }),
        recordOf("k", "3", { tenant: "umbra" })
      ])
      yield* sides.log.append(`${topic}.b`, [recordOf(null, "4", { tenant: "umbra" })])
      const statuses = yield* mirrorOnce(yield* sides.bridge(options))
      const status = statuses.find(({ source }) => source === `${topic}.a`)!
      assert.deepInclude(status, { mirrored: 3, filtered: 1, dead: 0 })
      const acme = yield* messagesOf(sides, `persistent://${one}/bridge/${topic}.a`)
      assert.deepStrictEqual(
        acme.map(({ key, value }) => [key, value]),
        [
          ["k", "1"],
          ["k", ""]
        ]
      )
      assert.deepInclude(acme[0]!.properties, { color: "red", tenant: "acme" })
      assert.notProperty(acme[0]!.properties, "inner")
      assert.deepStrictEqual(
        (yield* messagesOf(sides, `persistent://${two}/bridge/${topic}.a`)).map(({ value }) => value),
        ["3"]
      )
      assert.deepStrictEqual(
        (yield* messagesOf(sides, `persistent://${two}/bridge/${topic}.b`)).map(({ key, value }) => [key, value]),
        [["", "4"]]
      )
      // a message on Pulsar is mirrored to Kafka under the tenant's name there
      yield* declare(sides.log, `${topic}.A.a`, 1)
      yield* publish(sides, `persistent://${one}/bridge/${topic}.a`, [
        { key: "x", value: "" },
        { key: "x", value: "5" }
      ])
      yield* mirrorOnce(yield* sides.bridge(options))
      const home = yield* recordsOf(sides.kafkaOptions, sides.log, `${topic}.A.a`)
      assert.deepStrictEqual(
        home.map(({ key, tenant, value }) => [key, value, tenant]),
        [
          ["x", null, "A"],
          ["x", "5", "A"]
        ]
      )
    })
  )
})
