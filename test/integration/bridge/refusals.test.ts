// The bridge when one side refuses records, or the source lost records or was created again: dead letters, and rules that halt.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { makeContext } from "../../../src/bridge/context.ts"
import { mirrorOnce } from "../../../src/bridge/bridge.ts"
import type { PulsarSide } from "../../../src/bridge/pulsar-side.ts"
import { Bridge, type BridgeOptions } from "../../../src/bridge/definition.ts"
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

suite("bridge, refused records and lost sources", () => {
  test(
    "records that Pulsar refuses go to an error topic on Kafka with the reason, and the others are mirrored",
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("refused")]
      yield* declare(sides.log, topic, 1)
      const options: BridgeOptions = {
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:persistent://{tenant}/bridge/${topic}` }]
      }
      yield* sides.log.append(
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
      const [status] = yield* mirrorOnce(yield* sides.bridge(options))
      assert.deepInclude(status, { mirrored: 2, dead: 3 })
      assert.deepStrictEqual(
        (yield* messagesOf(sides, full(topic))).map(({ value }) => value),
        ["1", "6"]
      )
      yield* mirrorOnce(yield* sides.bridge(options))
      const deadLetters = yield* recordsOf(sides.kafkaOptions, sides.log, `${topic}.bridge-errors`)
      assert.deepStrictEqual(
        deadLetters.map(({ headers, key }) => [key, headers["millrace-bridge-offset"]]),
        [
          ["b", "1"],
          ["c", "2"],
          ["d", "3"]
        ]
      )
      const reasons = deadLetters.map(({ headers }) => headers["millrace-bridge-error"]!)
      assert.match(reasons[0]!, /create it first|not found|NotFound/)
      assert.match(reasons[1]!, /TooBig|large/)
      assert.match(reasons[2]!, /the record has no tenant, which `to` \(.*\) needs/)
      assert.strictEqual(deadLetters[0]!.value, "2")
    })
  )

  test(
    "messages that Kafka refuses go to an error topic on Pulsar with the reason, once, and the others are mirrored",
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("refused")]
      yield* sides.log.declare([
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
      // Kafka refuses the long ones when those that are not text, which come after them, have dead letters already
      const [long, notText] = [JSON.stringify("x".repeat(50_000)), '"\udcff"']
      const values = Array.from({ length: 40 }, (_, i) =>
        i === 11 || i === 30 ? long : i === 15 || i === 33 ? notText : String(i)
      )
      yield* publish(
        sides,
        full(topic),
        values.map((value, i) => ({ key: `k${i}`, value }))
      )
      yield* publish(sides, full(`${topic}-other`), [{ key: "o", value: "1" }])
      yield* mirrorOnce(yield* sides.bridge(options))
      const found = yield* recordsOf(sides.kafkaOptions, sides.log, topic)
      assert.deepStrictEqual(
        found.map(({ value }) => value),
        values.filter((value) => value !== long && value !== notText)
      )
      yield* mirrorOnce(yield* sides.bridge(options))
      const deadLetters = yield* messagesOf(sides, full(`${topic}.bridge-errors`))
      assert.deepStrictEqual(deadLetters.map(({ key }) => key).toSorted(), ["k11", "k15", "k30", "k33"])
      const reasonOf = (key: string) => deadLetters.find((one) => one.key === key)!.properties["millrace-bridge-error"]!
      for (const key of ["k11", "k30"]) assert.match(reasonOf(key), /larger than the topic takes/)
      for (const key of ["k15", "k33"]) assert.match(reasonOf(key), /is not text in UTF-8/)
      const lost = yield* messagesOf(sides, full(`${topic}-other.bridge-errors`))
      assert.lengthOf(lost, 1)
      assert.match(lost[0]!.properties["millrace-bridge-error"]!, /the topic does not exist/)
    })
  )

  test(
    "a topic that was deleted on Kafka and created again is mirrored from its beginning, although its offsets begin at 0 again",
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("recreated")]
      const options: BridgeOptions = {
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }]
      }
      const append = (...values: ReadonlyArray<string>) =>
        sides.log.append(
          topic,
          values.map((value) => recordOf("a", value))
        )
      yield* declare(sides.log, topic, 1)
      yield* append("1", "2")
      yield* mirrorOnce(yield* sides.bridge(options))
      yield* Effect.promise(() => removeTopic(sides.kafkaOptions, topic))
      const works = <A, E>(effect: Effect.Effect<A, E>) =>
        Effect.map(Effect.exit(effect), ({ _tag }) => _tag === "Success")
      yield* eventually(works(declare(sides.log, topic, 1)))
      yield* eventually(works(append("3", "4", "5")))
      yield* mirrorOnce(yield* sides.bridge(options))
      assert.deepStrictEqual(
        (yield* messagesOf(sides, full(topic))).map(({ value }) => value),
        ["1", "2", "3", "4", "5"]
      )
    })
  )

  test(
    'a rule halts if Kafka deleted records or recreated the topic, and continues if it has `lost: "continue"`',
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("lost")]
      const options = (lost: "halt" | "continue"): BridgeOptions => ({
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}`, lost }]
      })
      yield* declare(sides.log, topic, 1)
      yield* sides.log.append(topic, [recordOf("a", "1"), recordOf("a", "2")])
      yield* mirrorOnce(yield* sides.bridge(options("halt")))
      yield* sides.log.append(
        topic,
        ["3", "4", "5"].map((value) => recordOf("a", value))
      )
      yield* Effect.promise(() => removeRecords(sides.kafkaOptions, topic, 3))
      const gone = yield* Effect.flip(mirrorOnce(yield* sides.bridge(options("halt"))))
      assert.match(gone.message, /retention deleted records.*lost: "continue"/)
      yield* mirrorOnce(yield* sides.bridge(options("continue")))
      assert.deepStrictEqual(
        (yield* messagesOf(sides, full(topic))).map(({ value }) => value),
        ["1", "2", "4", "5"]
      )
      const held = { group: `${name}/out`, topic, partition: 0 }
      const writer = yield* sides.kafka.openWriter(`${name}/out/${topic}/0`)
      yield* writer.commit([], [{ ...held, offset: 5, metadata: JSON.stringify({ topic: "another" }) }])
      const another = yield* Effect.flip(mirrorOnce(yield* sides.bridge(options("halt"))))
      assert.match(another.message, /was deleted and created again since it was mirrored\. .*lost: "continue"/)
    })
  )

  for (const transport of transports)
    test(
      "a message of an earlier process that arrives while the producer's name is free for a moment is stored once",
      Effect.fnUntraced(function* (sides) {
        const [name, topic] = [unique("bridge"), unique("late")]
        yield* declare(sides.log, topic, 1)
        const values = Array.from({ length: 300 }, (_, i) => String(i))
        yield* sides.log.append(
          topic,
          values.map((value) => recordOf("a", value))
        )
        let late = 0
        const usurped: PulsarSide = {
          ...sides.pulsar,
          produce: Effect.fnUntraced(function* (part, producer, batching) {
            const there = yield* messagesOf(sides, part)
            if (batching && late++ === 0) {
              const sequenceId = there.length
              const properties = { ...there.at(-1)!.properties, "millrace-bridge-offset": String(sequenceId) }
              const message = { key: "a", value: String(sequenceId), properties, sequenceId }
              yield* publish(sides, part, [message], false, producer)
            }
            return yield* sides.pulsar.produce(part, producer, batching)
          })
        }
        const options = { name, rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }] }
        yield* mirrorOnce(
          yield* makeContext(Bridge.make(options), { log: sides.log, kafka: sides.kafka, pulsar: usurped })
        )
        assert.isAbove(late, 0)
        assert.deepStrictEqual(
          (yield* messagesOf(sides, full(topic))).map(({ value }) => value),
          values
        )
      }),
      transport
    )

  test(
    "a position that Kafka forgot is found again in the messages on Pulsar",
    Effect.fnUntraced(function* (sides) {
      const [name, topic] = [unique("bridge"), unique("forgotten")]
      const options: BridgeOptions = {
        name,
        rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }]
      }
      yield* declare(sides.log, topic, 1)
      const values = Array.from({ length: 300 }, (_, i) => String(i))
      yield* sides.log.append(
        topic,
        values.slice(0, 200).map((value) => recordOf("a", value))
      )
      yield* mirrorOnce(yield* sides.bridge(options))
      yield* Effect.promise(() => removeGroup(sides.kafkaOptions, `${name}/out`))
      // and the broker forgets what this producer sent
      yield* Effect.promise(() => forgetProducers(sides, full(topic)))
      yield* sides.log.append(
        topic,
        values.slice(200).map((value) => recordOf("a", value))
      )
      yield* mirrorOnce(yield* sides.bridge(options))
      assert.deepStrictEqual(
        (yield* messagesOf(sides, full(topic))).map(({ value }) => value),
        values
      )
    })
  )
})
