// The bridge where one side refuses a record, or the source is not what it was: dead letters, and rules that halt. Processes and brokers live.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { join, once } from "../../../src/bridge/bridge.ts"
import type { PulsarSide } from "../../../src/bridge/pulsar-side.ts"
import { Bridge, type BridgeOptions } from "../../../src/bridge/rules.ts"
import {
  declare,
  eventually,
  full,
  messagesOf,
  bridgeTest as test,
  publish,
  recordOf,
  forgetProducers,
  removeGroup,
  removeRecords,
  removeTopic,
  unique
} from "../../support/bridge.ts"
import { recordsOf } from "../../support/relay-kafka.ts"
import { transports } from "../../support/pulsar.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka", "pulsar")

suite("bridge, refused", () => {
  test(
    "what Pulsar refuses goes to an error topic on Kafka with its reason, and the rest flows",
    Effect.fnUntraced(function* (ends) {
      const [name, topic] = [unique("bridge"), unique("refused")]
      yield* declare(ends.log, topic, 1)
      const options: BridgeOptions = {
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:persistent://{tenant}/bridge/${topic}` }]
      }
      yield* ends.log.append(
        topic,
        [
          recordOf("a", "1", { tenant: "public" }),
          recordOf("b", "2", { tenant: "nobody" }),
          recordOf("c", JSON.stringify("x".repeat(5_300_000)), { tenant: "public" }),
          recordOf("d", "4"),
          recordOf("e", "\ufffd", { tenant: "public" }),
          recordOf("f", "6", { tenant: "public", headers: { own: "h" } })
        ].filter(({ value }) => value !== "\ufffd")
      )
      const [status] = yield* once(yield* ends.bridge(options))
      assert.deepInclude(status, { mirrored: 2, dead: 3 })
      assert.deepStrictEqual(
        (yield* messagesOf(ends, full(topic))).map(({ value }) => value),
        ["1", "6"]
      )
      yield* once(yield* ends.bridge(options))
      const letters = yield* recordsOf(ends.kafkaOptions, ends.log, `${topic}.bridge-errors`)
      assert.deepStrictEqual(
        letters.map(({ headers, key }) => [key, headers["millrace-bridge-offset"]]),
        [
          ["b", "1"],
          ["c", "2"],
          ["d", "3"]
        ]
      )
      const reasons = letters.map(({ headers }) => headers["millrace-bridge-error"]!)
      assert.match(reasons[0]!, /create it first|not found|NotFound/)
      assert.match(reasons[1]!, /TooBig|large/)
      assert.match(reasons[2]!, /it has no tenant/)
      assert.strictEqual(letters[0]!.value, "2")
    })
  )

  test(
    "what Kafka refuses goes to an error topic on Pulsar with its reason, once, and the rest flows",
    Effect.fnUntraced(function* (ends) {
      const [name, topic] = [unique("bridge"), unique("refused")]
      yield* ends.log.declare([
        {
          name: topic,
          partitions: 1,
          compacted: false,
          retentionMs: undefined,
          kafka: { settings: { "max.message.bytes": "20000" } }
        }
      ])
      const options: BridgeOptions = {
        name,
        rules: [
          { name: "in", from: `pulsar:${full(topic)}`, to: `kafka:${topic}` },
          { name: "nowhere", from: `pulsar:${full(`${topic}-other`)}`, to: `kafka:${topic}-other` }
        ]
      }
      const values = Array.from({ length: 40 }, (_, i) =>
        i === 11 || i === 30 ? JSON.stringify("x".repeat(50_000)) : String(i)
      )
      yield* publish(
        ends,
        full(topic),
        values.map((value, i) => ({ key: `k${i}`, value }))
      )
      yield* publish(ends, full(`${topic}-other`), [{ key: "o", value: "1" }])
      yield* once(yield* ends.bridge(options))
      const found = yield* recordsOf(ends.kafkaOptions, ends.log, topic)
      assert.deepStrictEqual(
        found.map(({ value }) => value),
        values.filter((value) => value.length < 100)
      )
      yield* once(yield* ends.bridge(options))
      const letters = yield* messagesOf(ends, full(`${topic}.bridge-errors`))
      assert.deepStrictEqual(
        letters.map(({ key }) => key),
        ["k11", "k30"]
      )
      for (const { properties } of letters)
        assert.match(properties["millrace-bridge-error"]!, /larger than the topic takes/)
      const lost = yield* messagesOf(ends, full(`${topic}-other.bridge-errors`))
      assert.lengthOf(lost, 1)
      assert.match(lost[0]!.properties["millrace-bridge-error"]!, /no such topic/)
    })
  )

  test(
    "a topic that is made anew on Kafka is mirrored from its beginning, though its offsets begin again",
    Effect.fnUntraced(function* (ends) {
      const [name, topic] = [unique("bridge"), unique("anew")]
      const options: BridgeOptions = {
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }]
      }
      const append = (...values: ReadonlyArray<string>) =>
        ends.log.append(
          topic,
          values.map((value) => recordOf("a", value))
        )
      yield* declare(ends.log, topic, 1)
      yield* append("1", "2")
      yield* once(yield* ends.bridge(options))
      yield* Effect.promise(() => removeTopic(ends.kafkaOptions, topic))
      const works = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.map(Effect.exit(effect), ({ _tag }) => _tag === "Success")
      yield* eventually(works(declare(ends.log, topic, 1)))
      yield* eventually(works(append("3", "4", "5")))
      yield* once(yield* ends.bridge(options))
      assert.deepStrictEqual(
        (yield* messagesOf(ends, full(topic))).map(({ value }) => value),
        ["1", "2", "3", "4", "5"]
      )
    })
  )

  test(
    "what is gone from Kafka, or is another topic, halts its rule, and goes on where the rule says so",
    Effect.fnUntraced(function* (ends) {
      const [name, topic] = [unique("bridge"), unique("lost")]
      const options = (lost: "halt" | "continue"): BridgeOptions => ({
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}`, lost }]
      })
      yield* declare(ends.log, topic, 1)
      yield* ends.log.append(topic, [recordOf("a", "1"), recordOf("a", "2")])
      yield* once(yield* ends.bridge(options("halt")))
      yield* ends.log.append(
        topic,
        ["3", "4", "5"].map((value) => recordOf("a", value))
      )
      yield* Effect.promise(() => removeRecords(ends.kafkaOptions, topic, 3))
      const gone = yield* Effect.flip(once(yield* ends.bridge(options("halt"))))
      assert.match(gone.message, /retention deleted records.*lost: "continue"/)
      yield* once(yield* ends.bridge(options("continue")))
      assert.deepStrictEqual(
        (yield* messagesOf(ends, full(topic))).map(({ value }) => value),
        ["1", "2", "4", "5"]
      )
      const held = { group: `${name}/out`, topic, partition: 0 }
      const writer = yield* ends.kafka.openWriter(`${name}/out/${topic}/0`)
      yield* writer.commit([], [{ ...held, offset: 5, metadata: JSON.stringify({ topic: "another" }) }])
      const another = yield* Effect.flip(once(yield* ends.bridge(options("halt"))))
      assert.match(another.message, /deleted and made anew.*lost: "continue"/)
    })
  )

  for (const transport of transports)
    test(
      "a message of a predecessor that arrives while the name is free for a moment is there once",
      Effect.fnUntraced(function* (ends) {
        const [name, topic] = [unique("bridge"), unique("late")]
        yield* declare(ends.log, topic, 1)
        const values = Array.from({ length: 300 }, (_, i) => String(i))
        yield* ends.log.append(
          topic,
          values.map((value) => recordOf("a", value))
        )
        let late = 0
        const usurped: PulsarSide = {
          ...ends.pulsar,
          produce: Effect.fnUntraced(function* (part, producer, batching) {
            const there = yield* messagesOf(ends, part)
            if (batching && late++ === 0) {
              const sequenceId = there.length
              const properties = { ...there.at(-1)!.properties, "millrace-bridge-offset": String(sequenceId) }
              const message = { key: "a", value: String(sequenceId), properties, sequenceId }
              yield* publish(ends, part, [message], false, producer)
            }
            return yield* ends.pulsar.produce(part, producer, batching)
          })
        }
        const options = { name, rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }] }
        yield* once(yield* join(Bridge.make(options), { log: ends.log, kafka: ends.kafka, pulsar: usurped }))
        assert.isAbove(late, 0)
        assert.deepStrictEqual(
          (yield* messagesOf(ends, full(topic))).map(({ value }) => value),
          values
        )
      }),
      transport
    )

  test(
    "a position that Kafka forgot is found in what Pulsar has",
    Effect.fnUntraced(function* (ends) {
      const [name, topic] = [unique("bridge"), unique("forgotten")]
      const options: BridgeOptions = {
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }]
      }
      yield* declare(ends.log, topic, 1)
      const values = Array.from({ length: 300 }, (_, i) => String(i))
      yield* ends.log.append(
        topic,
        values.slice(0, 200).map((value) => recordOf("a", value))
      )
      yield* once(yield* ends.bridge(options))
      yield* Effect.promise(() => removeGroup(ends.kafkaOptions, `${name}/out`))
      // and the broker forgot what this producer sent
      yield* Effect.promise(() => forgetProducers(ends, full(topic)))
      yield* ends.log.append(
        topic,
        values.slice(200).map((value) => recordOf("a", value))
      )
      yield* once(yield* ends.bridge(options))
      assert.deepStrictEqual(
        (yield* messagesOf(ends, full(topic))).map(({ value }) => value),
        values
      )
    })
  )
})
