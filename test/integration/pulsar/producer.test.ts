// Publishing to Pulsar with a name and numbers of one's own, over both transports: what is sent again is there once, in order.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { shared } from "../../../stack/testing.ts"
import { type Cluster, connect } from "../../../src/pulsar/client/cluster.ts"
import { fromCluster } from "../../../src/pulsar/subscription/fanout.ts"
import { topicName } from "../../../src/pulsar/client/options.ts"
import * as Producer from "../../../src/pulsar/client/named-producer.ts"
import { upTo } from "../../contract/fanout-support.ts"
import { makeNamespace, optionsOf, type TransportName } from "../../support/pulsar.ts"
import { messagesOf } from "../../support/relay-pulsar.ts"
import { needing, overTransports, testOver, testOverTransports } from "../../support/stack.ts"

const numbered = (from: number, to: number): ReadonlyArray<Producer.Numbered> =>
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
suite("publishing to pulsar", () => {
  overTransports((transport) => {
    it.live("an overlap that is sent again is there once, and the rest in order, batched after it", () =>
      Effect.gen(function* () {
        const { cluster, topic } = yield* clusterAnd(transport)
        const open = (initialSequenceId: number) => Producer.open(cluster, { topic, name: "s#1", initialSequenceId })
        yield* Effect.scoped(
          Effect.gen(function* () {
            const first = yield* open(0)
            const receipts = yield* first.send(numbered(1, 500))
            assert.isTrue(receipts.every(({ duplicate }) => !duplicate))
          })
        )
        const again = yield* open(300)
        const receipts = yield* again.send(numbered(301, 700))
        assert.deepStrictEqual(
          receipts.map(({ duplicate }) => duplicate),
          upTo(400).map((i) => i <= 200)
        )
        yield* again.setBatching(true)
        const batched = yield* again.send(numbered(701, 2_000))
        assert.isFalse(batched.some(({ duplicate }) => duplicate))
        assert.deepStrictEqual(yield* readAll(cluster, topic), upTo(2_000))
      }).pipe(Effect.scoped)
    )

    it.live("a name has one connection, and an error that says so", () =>
      Effect.gen(function* () {
        const { cluster, topic } = yield* clusterAnd(transport)
        const open = Producer.open(cluster, { topic, name: "s#1", initialSequenceId: -1, patienceMs: 200 })
        const busy = yield* Effect.scoped(Effect.andThen(open, Effect.flip(open)))
        assert.strictEqual(busy.kind, "busy")
        assert.match(busy.message, /stop the other one first/)
        yield* Producer.open(cluster, { topic, name: "s#1", initialSequenceId: -1 })
      }).pipe(Effect.scoped)
    )

    it.live("numbers that do not ascend are refused before they are sent", () =>
      Effect.gen(function* () {
        const { cluster, topic } = yield* clusterAnd(transport)
        const producer = yield* Producer.open(cluster, { topic, name: "s#1", initialSequenceId: 5 })
        const error = yield* Effect.flip(producer.send(numbered(5, 6)))
        assert.match(error.message, /sequence id 5 follows 5/)
        assert.deepStrictEqual(yield* readAll(cluster, topic), [])
      }).pipe(Effect.scoped)
    )

    it.live("the last message of a stream is found, from where one is known to be", () =>
      Effect.gen(function* () {
        const { cluster, topic } = yield* clusterAnd(transport)
        const seqOf = (options: { readonly stream?: string; readonly after?: never }) =>
          Effect.map(Producer.last(cluster, { topic, ...options }), (found) => Number(found?.value))
        assert.isUndefined(yield* Producer.last(cluster, { topic, stream: "odd" }))
        const producer = yield* Producer.open(cluster, { topic, name: "s#1", initialSequenceId: -1 })
        const receipts = yield* producer.send(numbered(1, 99))
        assert.strictEqual(yield* seqOf({}), 99)
        assert.strictEqual(yield* seqOf({ stream: "even" }), 98)
        const after = receipts[49]!.id
        assert.strictEqual(Number((yield* Producer.last(cluster, { topic, stream: "odd", after }))?.value), 99)
        const none = yield* Producer.last(cluster, { topic, stream: "odd", after: receipts.at(-1)!.id })
        assert.isUndefined(none)
        yield* producer.setBatching(true)
        yield* producer.send(numbered(100, 300))
        assert.strictEqual(yield* seqOf({ stream: "odd" }), 299)
      }).pipe(Effect.scoped)
    )
  })

  testOverTransports("over %s a keyShared subscription says once that batches break the order of keys", (transport) =>
    Effect.gen(function* () {
      const said: Array<unknown> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => void said.push([logLevel, message]))
      for (const type of ["keyShared", "shared"] as const) {
        const { cluster, topic } = yield* clusterAnd(transport)
        const producer = yield* Producer.open(cluster, { topic, name: "s#1", initialSequenceId: -1 })
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
        yield* producer.send(numbered(1, 20))
        yield* receive(20)
        assert.deepStrictEqual(said, [])
        yield* producer.setBatching(true)
        yield* producer.send(numbered(21, 120))
        yield* producer.send(numbered(121, 220))
        yield* receive(200)
        if (type === "shared") break
        assert.strictEqual(said.length, 1)
        assert.match(JSON.stringify(said.splice(0)), /"Warn".*has batches of several messages/)
      }
      assert.deepStrictEqual(said, [])
    }).pipe(Effect.scoped)
  )

  testOver("native")("the broker drops a batch whole whose first message it has: why an overlap is not batched", () =>
    Effect.gen(function* () {
      const { cluster, topic } = yield* clusterAnd("native")
      yield* Effect.scoped(
        Effect.flatMap(Producer.open(cluster, { topic, name: "s#1", initialSequenceId: 0 }), (producer) =>
          producer.send(numbered(1, 10))
        )
      )
      const again = yield* Producer.open(cluster, { topic, name: "s#1", initialSequenceId: 5 })
      yield* again.setBatching(true)
      yield* again.send(numbered(6, 15))
      assert.notDeepEqual(yield* readAll(cluster, topic), upTo(15))
    }).pipe(Effect.scoped)
  )
})
