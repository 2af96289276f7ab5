// The contract of the fan-out: one suite, which every adapter of the port passes.
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { FanOut, type Message } from "../../src/subscription/fanout.ts"
import { fanOutSharing } from "./fanout-sharing.ts"
import { options, receiveAll, receiveJust, sent, seqs, Topics, topicWith, upTo, within } from "./fanout-support.ts"

const live = { timeout: "60 seconds", excludeTestServices: true } as const
export type It = Parameters<Parameters<ReturnType<typeof vitest.layer<FanOut | Topics, unknown>>>[1]>[0]

/** Runs the suite for an adapter. */
export const fanOutContract = <E>(name: string, layer: Layer.Layer<FanOut | Topics, E>) =>
  vitest.layer(layer, live)(`FanOut (${name})`, (it) => {
    receiving(it as It)
    redelivering(it as It)
    fanOutSharing(it as It)
  })

const receiving = (it: It) => {
  it.effect(
    "a new subscription starts after the latest message, or at the earliest",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith(2)
      yield* topics.publish(topic, sent(10, 1, 4, 2))
      const latest = yield* fanOut.subscribe({ topic, name: "new", type: "exclusive" })
      const earliest = yield* fanOut.subscribe({ topic, name: "old", type: "exclusive", from: "earliest" })
      yield* topics.publish(topic, sent(12, 11, 4, 2))
      assert.sameMembers(seqs(yield* receiveAll(latest, 2)), [11, 12])
      assert.sameMembers(seqs(yield* receiveAll(earliest, 12)), upTo(12))
      assert.deepStrictEqual(yield* within(latest, 300), [])
    }, Effect.scoped)
  )

  it.effect(
    "a new subscription can start at a time, or at positions",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith(2)
      yield* topics.publish(topic, sent(10, 1, 4, 2))
      const all = yield* receiveAll(yield* fanOut.subscribe(options(topic, "exclusive", { name: "all" })), 10)
      yield* Effect.sleep(20)
      const time = Date.now()
      yield* topics.publish(topic, sent(16, 11, 4, 2))
      const later = yield* fanOut.subscribe(options(topic, "exclusive", { name: "later", from: { time } }))
      assert.sameMembers(seqs(yield* receiveJust(later, 6)), upTo(16, 11))
      const future = { time: time + 3_600_000 }
      const none = yield* fanOut.subscribe(options(topic, "exclusive", { name: "none", from: future }))
      assert.deepStrictEqual(yield* within(none, 300), [])
      // a message is a place; the partition that none is given for begins at its first
      const place = all.find(({ seq }) => seq === 5)!
      const placed = yield* fanOut.subscribe(options(topic, "exclusive", { name: "placed", from: { places: [place] } }))
      const odd = [5, 7, 9, 11, 13, 15]
      assert.sameMembers(seqs(yield* receiveJust(placed, 14)), [...odd, 2, 4, 6, 8, 10, 12, 14, 16])
    }, Effect.scoped)
  )

  it.effect(
    "a subscription without a consumer can be moved",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(8))
      const subscription = options(topic, "shared")
      const take = Effect.fnUntraced(function* (count: number) {
        const consumer = yield* fanOut.subscribe(subscription)
        const messages = yield* receiveJust(consumer, count)
        // some stay unacknowledged
        yield* consumer.acknowledge(messages.filter(({ seq }) => seq! % 2 === 1))
        const error = yield* Effect.flip((yield* topics.another).seek(subscription, "earliest"))
        assert.strictEqual(error._tag, "ConsumerBusy")
        return messages
      }, Effect.scoped)
      const first = yield* take(8)
      assert.deepStrictEqual(seqs(first), upTo(8))
      yield* fanOut.seek(subscription, { places: [first[5]!] })
      assert.deepStrictEqual(seqs(yield* take(3)), [6, 7, 8])
      yield* fanOut.seek(subscription, "earliest")
      assert.deepStrictEqual(seqs(yield* take(8)), upTo(8))
      yield* fanOut.seek(subscription, "latest")
      assert.deepStrictEqual(seqs(yield* take(0)), [])
      yield* topics.publish(topic, sent(9, 9))
      // one that is not there is made
      yield* fanOut.seek({ ...subscription, name: "new" }, "earliest")
      const made = yield* fanOut.subscribe({ topic, name: "new", type: "shared" })
      assert.deepStrictEqual(seqs(yield* receiveJust(made, 9)), upTo(9))
      const error = yield* Effect.flip(fanOut.seek({ ...subscription, topic: "nowhere" }, "earliest"))
      assert.strictEqual(error._tag, "UnknownTopic")
    }, Effect.scoped)
  )

  it.effect(
    "a message has its topic, position, key, value, event time, properties, stream and sequence",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(1))
      const consumer = yield* fanOut.subscribe(options(topic, "shared"))
      const [message] = yield* consumer.receive(10)
      const { eventTime, incarnation, key, partition, properties, redeliveries, seq, stream, value } = message!
      assert.strictEqual(incarnation, "0123abcd")
      assert.deepStrictEqual(
        { eventTime, key, partition, redeliveries, seq, stream, topic: message!.topic, value: JSON.parse(value) },
        {
          eventTime: 1_001,
          key: "k1",
          partition: 0,
          redeliveries: 0,
          seq: 1,
          stream: "s",
          topic,
          value: { seq: 1, key: "k1" }
        }
      )
      assert.strictEqual(properties["event_id"], "e1")
      assert.strictEqual(properties["trace_id"], "0af7651916cd43dd8448eb211c80319c")
      assert.strictEqual(properties["millrace-seq"], "1")
    }, Effect.scoped)
  )

  it.effect(
    "`receive` waits until something is published",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      const consumer = yield* fanOut.subscribe(options(topic, "exclusive"))
      const waits: Array<number> = []
      for (const seq of upTo(7)) {
        const receiving = yield* Effect.forkChild(consumer.receive(10))
        yield* Effect.sleep(50)
        const from = performance.now()
        yield* topics.publish(topic, sent(seq, seq))
        assert.deepStrictEqual(seqs(yield* Fiber.join(receiving)), [seq])
        waits.push(performance.now() - from)
      }
      // most of them: a machine may stand still for a moment, and one that polls is late time and again
      assert.isBelow(waits.toSorted((a, b) => a - b)[3]!, 500, `${waits}`)
    }, Effect.scoped)
  )

  it.effect(
    "after a restart acknowledged messages are not delivered again; the others are, in order",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(20))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const consumer = yield* fanOut.subscribe(options(topic, "exclusive"))
          const messages = yield* receiveAll(consumer, 15)
          yield* consumer.acknowledge(messages.filter(({ seq }) => seq! % 5 !== 0))
        })
      )
      const again = yield* (yield* topics.another).subscribe(options(topic, "exclusive"))
      const messages = yield* receiveAll(again, 8)
      assert.deepStrictEqual(seqs(messages), [5, 10, 15, 16, 17, 18, 19, 20])
      yield* again.acknowledge(messages)
      assert.deepStrictEqual(yield* within(again, 300), [])
    }, Effect.scoped)
  )

  it.effect(
    "a consumer holds at most `receiveQueue` unacknowledged messages",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith(2)
      yield* topics.publish(topic, sent(20, 1, 4, 2))
      const consumer = yield* fanOut.subscribe(options(topic, "shared", { receiveQueue: 5 }))
      const first = yield* receiveJust(consumer, 5)
      assert.strictEqual(first.length, 5)
      const next = yield* Effect.forkChild(receiveJust(consumer, 3))
      yield* consumer.acknowledge(first.slice(0, 3))
      assert.strictEqual((yield* Fiber.join(next)).length, 3)
    }, Effect.scoped)
  )

  it.effect(
    "subscribing to an unknown topic fails with `UnknownTopic`",
    Effect.fnUntraced(function* () {
      const error = yield* Effect.flip((yield* FanOut).subscribe(options("nowhere", "shared")))
      assert.strictEqual(error._tag, "UnknownTopic")
      assert.match(error.message, /nowhere/)
    }, Effect.scoped)
  )

  it.effect(
    "after `unsubscribe` a subscription of the same name starts as a new one",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(3))
      const take = Effect.fnUntraced(function* (count: number) {
        const consumer = yield* fanOut.subscribe(options(topic, "exclusive"))
        const messages = yield* receiveJust(consumer, count)
        yield* consumer.acknowledge(messages)
        return seqs(messages)
      }, Effect.scoped)
      assert.deepStrictEqual(yield* take(3), [1, 2, 3])
      assert.deepStrictEqual(yield* take(0), [])
      yield* fanOut.unsubscribe(topic, "sub")
      assert.deepStrictEqual(yield* take(3), [1, 2, 3])
    }, Effect.scoped)
  )
}

const redelivering = (it: It) => {
  it.effect(
    "a negatively acknowledged message is redelivered later, with its count, stream and sequence",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(3))
      const consumer = yield* fanOut.subscribe(options(topic, "shared", { redeliveryDelayMs: 400 }))
      const messages = yield* receiveAll(consumer, 3)
      const from = performance.now()
      yield* consumer.negativeAcknowledge([messages[1]!])
      yield* consumer.acknowledge([messages[0]!, messages[2]!])
      const [again] = yield* consumer.receive(10)
      assert.isAtLeast(performance.now() - from, 350)
      assert.deepStrictEqual({ ...again, redeliveries: 0 }, messages[1]!)
      assert.strictEqual(again!.redeliveries, 1)
      yield* consumer.acknowledge([again!])
      assert.deepStrictEqual(yield* within(consumer, 700), [])
    }, Effect.scoped)
  )

  it.effect(
    "the delay of redeliveries grows up to its limit",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(1))
      const delays = { redeliveryDelayMs: 150, maxRedeliveryDelayMs: 450 }
      const consumer = yield* fanOut.subscribe(options(topic, "shared", delays))
      let [message] = yield* consumer.receive(1)
      for (const least of [150, 300, 450, 450]) {
        const from = performance.now()
        yield* consumer.negativeAcknowledge([message!])
        ;[message] = yield* consumer.receive(1)
        assert.isAtLeast(performance.now() - from, least - 50)
      }
      assert.strictEqual(message!.redeliveries, 4)
    }, Effect.scoped)
  )

  it.effect(
    "after its last redelivery a message goes to the dead-letter topic once",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(4))
      const scope = yield* Scope.make()
      const subscription = options(topic, "shared", { maxRedeliveries: 2, redeliveryDelayMs: 50 })
      const consumer = yield* Scope.provide(fanOut.subscribe(subscription), scope)
      const deliveries: Array<Message> = []
      while (deliveries.length < 6) {
        const messages = yield* consumer.receive(10)
        deliveries.push(...messages)
        yield* consumer.negativeAcknowledge(messages.filter(({ seq }) => seq === 2))
        yield* consumer.acknowledge(messages.filter(({ seq }) => seq !== 2))
      }
      assert.deepStrictEqual(
        deliveries.filter(({ seq }) => seq === 2).map(({ redeliveries }) => redeliveries),
        [0, 1, 2]
      )
      // the first letter makes its topic
      const dead = yield* fanOut
        .subscribe(options(`${topic}.sub.dlq`, "exclusive"))
        .pipe(Effect.retry({ while: ({ _tag }) => _tag === "UnknownTopic", schedule: Schedule.spaced("20 millis") }))
      const [letter] = yield* receiveAll(dead, 1)
      assert.deepStrictEqual(yield* within(consumer, 300), [])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* within(yield* fanOut.subscribe(subscription), 300), [])
      assert.deepStrictEqual(yield* within(dead, 100), [])
      const { key, properties, seq, stream, value } = letter!
      assert.deepStrictEqual([key, stream, seq, JSON.parse(value)], ["k2", "s", 2, { seq: 2, key: "k2" }])
      assert.strictEqual(properties["millrace-topic"], topic)
      assert.strictEqual(properties["millrace-subscription"], "sub")
      assert.match(properties["millrace-reason"]!, /redelivered 2 times/)
    }, Effect.scoped)
  )

  it.effect(
    "`deadLetter` moves a message to the dead-letter topic at once",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.declare(`${topic}-dead`, 1)
      yield* topics.publish(topic, sent(3))
      const scope = yield* Scope.make()
      const subscription = options(topic, "shared", { deadLetterTopic: `${topic}-dead` })
      const consumer = yield* Scope.provide(fanOut.subscribe(subscription), scope)
      const messages = yield* receiveAll(consumer, 3)
      yield* consumer.deadLetter(messages.slice(0, 2), "no such colour")
      yield* consumer.acknowledge(messages.slice(2))
      const dead = yield* fanOut.subscribe(options(`${topic}-dead`, "exclusive"))
      const letters = yield* receiveJust(dead, 2)
      assert.deepStrictEqual(seqs(letters), [1, 2])
      assert.strictEqual(letters[0]!.properties["millrace-reason"], "no such colour")
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* within(yield* fanOut.subscribe(subscription), 300), [])
    }, Effect.scoped)
  )

  it.effect(
    "the messages of a consumer that acknowledges nothing for too long are redelivered",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(6))
      const another = yield* topics.another
      const from = performance.now()
      const stuck = yield* fanOut.subscribe(options(topic, "shared", { ackTimeoutMs: 1_000 }))
      assert.strictEqual((yield* receiveAll(stuck, 6)).length, 6)
      const other = yield* another.subscribe(options(topic, "shared"))
      const messages = yield* receiveAll(other, 6)
      assert.isAtLeast(performance.now() - from, 950)
      assert.sameMembers(seqs(messages), upTo(6))
      assert.isTrue(messages.every(({ redeliveries }) => redeliveries >= 1))
    }, Effect.scoped)
  )

  it.effect(
    "the messages of a closed consumer go to the next one, without counting as redelivered",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(3))
      const scope = yield* Scope.make()
      const first = yield* Scope.provide(fanOut.subscribe(options(topic, "shared")), scope)
      assert.strictEqual((yield* receiveAll(first, 3)).length, 3)
      const second = yield* (yield* topics.another).subscribe(options(topic, "shared"))
      const receiving = yield* Effect.forkChild(receiveAll(second, 3))
      yield* Scope.close(scope, Exit.void)
      const messages = yield* Fiber.join(receiving)
      assert.deepStrictEqual(
        messages.map(({ redeliveries, seq }) => [seq, redeliveries]),
        [
          [1, 0],
          [2, 0],
          [3, 0]
        ]
      )
    }, Effect.scoped)
  )
}
