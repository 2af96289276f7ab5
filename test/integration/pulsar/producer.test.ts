// Publishing to Pulsar under a name and with sequence ids, over both transports: a message that is sent again is there once, in order.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { shared } from "../../../stack/testing.ts"
import { type Cluster, connect } from "../../../src/pulsar/client/cluster.ts"
import { fromCluster } from "../../../src/pulsar/subscription/fanout.ts"
import { type MessageId, messageIdText } from "../../../src/pulsar/client/message-id.ts"
import { topicName } from "../../../src/pulsar/client/topic-names.ts"
import { readToEnd } from "../../../src/pulsar/client/read-to-end.ts"
import { upTo } from "../../contract/fanout-support.ts"
import {
  makeNamespace,
  type NumberedMessage,
  openProducer,
  optionsOf,
  sendAll,
  type TransportName
} from "../../support/pulsar.ts"
import { messagesOf } from "../../support/relay-pulsar.ts"
import { needing, overTransports, testOver, testOverTransports } from "../../support/stack.ts"

const numbered = (from: number, to: number): ReadonlyArray<NumberedMessage> =>
  Array.from({ length: to - from + 1 }, (_, i) => {
    const seq = from + i
    const properties = { "millrace-stream": seq % 2 === 0 ? "even" : "odd", "millrace-seq": String(seq) }
    return { key: `k${seq % 7}`, value: String(seq), eventTime: 1_000 + seq, properties, sequenceId: seq }
  })
const readAll = (cluster: Cluster, topic: string) =>
  Effect.promise(async () => {
    const found = await messagesOf(cluster, topicName(cluster.options, topic))
    return found.map(({ value }) => Number(value))
  })

let made = 0
const clusterAnd = Effect.fnUntraced(function* (transport: TransportName) {
  const options = optionsOf(transport, yield* shared("pulsar"))
  yield* Effect.promise(() => makeNamespace(options))
  const cluster = yield* connect(options)
  const topic = `p${process.pid}-${made++}`
  yield* Effect.promise(() => cluster.admin!.create(topicName(options, topic)))
  return { cluster, topic }
})

const suite = await needing("pulsar")
suite("publishing to Pulsar", () => {
  overTransports((transport) => {
    it.live(
      "a message that is sent again is dropped, and the rest is in order, also in batches after the overlap",
      () =>
        Effect.gen(function* () {
          const { cluster, topic } = yield* clusterAnd(transport)
          yield* Effect.scoped(
            Effect.gen(function* () {
              const first = yield* openProducer(cluster, topic, { initialSequenceId: 0 })
              const receipts = yield* sendAll(first, numbered(1, 500))
              assert.isTrue(receipts.every(({ duplicate }) => !duplicate))
            })
          )
          yield* Effect.scoped(
            Effect.gen(function* () {
              const again = yield* openProducer(cluster, topic, { initialSequenceId: 300 })
              const receipts = yield* sendAll(again, numbered(301, 700))
              assert.deepStrictEqual(
                receipts.map(({ duplicate }) => duplicate),
                upTo(400).map((i) => i <= 200)
              )
            })
          )
          const batching = yield* openProducer(cluster, topic, { initialSequenceId: 700, batching: true })
          const batched = yield* sendAll(batching, numbered(701, 2_000))
          assert.isFalse(batched.some(({ duplicate }) => duplicate))
          assert.deepStrictEqual(yield* readAll(cluster, topic), upTo(2_000))
        }).pipe(Effect.scoped)
    )

    it.live("a second producer with the same name is refused as busy until the first one is closed", () =>
      Effect.gen(function* () {
        const { cluster, topic } = yield* clusterAnd(transport)
        const open = openProducer(cluster, topic, { patienceMs: 200 })
        const busy = yield* Effect.scoped(Effect.andThen(open, Effect.flip(open)))
        assert.strictEqual(busy.kind, "busy")
        assert.match(busy.message, /stop the other one first/)
        yield* openProducer(cluster, topic)
      }).pipe(Effect.scoped)
    )

    it.live("a topic is read from a message to its end, in batches and without", () =>
      Effect.gen(function* () {
        const { cluster, topic } = yield* clusterAnd(transport)
        const readAfter = (after?: MessageId) =>
          Effect.promise(async () => {
            const found: Array<number> = []
            const name = topicName(cluster.options, topic)
            const end = await readToEnd(cluster, name, after, ({ value }) => found.push(Number(value)))
            return { end, found }
          })
        assert.deepStrictEqual(yield* readAfter(), { end: undefined, found: [] })
        const ids = yield* Effect.scoped(
          Effect.gen(function* () {
            const producer = yield* openProducer(cluster, topic, { initialSequenceId: 0 })
            return (yield* sendAll(producer, numbered(1, 99))).map(({ id }) => id)
          })
        )
        assert.deepStrictEqual((yield* readAfter()).found, upTo(99))
        assert.deepStrictEqual((yield* readAfter(ids[49])).found, upTo(99, 51))
        assert.deepStrictEqual((yield* readAfter(ids.at(-1))).found, [])
        const batching = yield* openProducer(cluster, topic, { initialSequenceId: 99, batching: true })
        const last = (yield* sendAll(batching, numbered(100, 300))).at(-1)!.id
        const { end, found } = yield* readAfter(ids[49])
        assert.deepStrictEqual(found, upTo(300, 51))
        assert.strictEqual(messageIdText(end!), messageIdText(last))
        assert.deepStrictEqual((yield* readAfter(last)).found, [])
      }).pipe(Effect.scoped)
    )
  })

  testOverTransports("over %s a keyShared subscription warns once that batches break the order of keys", (transport) =>
    Effect.gen(function* () {
      const said: Array<unknown> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => void said.push([logLevel, message]))
      for (const type of ["keyShared", "shared"] as const) {
        const { cluster, topic } = yield* clusterAnd(transport)
        const sendSome = (messages: ReadonlyArray<NumberedMessage>, batching: boolean) =>
          Effect.scoped(
            Effect.flatMap(
              openProducer(cluster, topic, { initialSequenceId: messages[0]!.sequenceId - 1, batching }),
              (producer) => sendAll(producer, messages)
            )
          )
        const consumer = yield* fromCluster(cluster).subscribe({ topic, name: "s", type, from: "earliest" })
        const receive = Effect.fnUntraced(
          function* (count: number) {
            for (let got = 0; got < count;) {
              const some = yield* consumer.receive(100)
              yield* consumer.acknowledge(some)
              got += some.length
            }
          },
          Effect.provide(Logger.layer([logger]))
        )
        yield* sendSome(numbered(1, 20), false)
        yield* receive(20)
        assert.deepStrictEqual(said, [])
        yield* sendSome(numbered(21, 120), true)
        yield* sendSome(numbered(121, 220), true)
        yield* receive(200)
        if (type === "shared") break
        assert.strictEqual(said.length, 1)
        assert.match(JSON.stringify(said.splice(0)), /"Warn".*has batches of several messages/)
      }
      assert.deepStrictEqual(said, [])
    }).pipe(Effect.scoped)
  )

  testOver("native")(
    "the broker drops a whole batch if it has the batch's first message, so an overlap must not be batched",
    () =>
      Effect.gen(function* () {
        const { cluster, topic } = yield* clusterAnd("native")
        const sendOnce = (from: number, to: number, batching: boolean) =>
          Effect.scoped(
            Effect.flatMap(openProducer(cluster, topic, { initialSequenceId: from - 1, batching }), (producer) =>
              sendAll(producer, numbered(from, to))
            )
          )
        yield* sendOnce(1, 10, false)
        yield* sendOnce(6, 15, true)
        assert.notDeepEqual(yield* readAll(cluster, topic), upTo(15))
      }).pipe(Effect.scoped)
  )
})
