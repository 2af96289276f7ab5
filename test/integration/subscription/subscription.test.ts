// Subscriptions as users write them, over the fan-out on PostgreSQL: decoding, handlers, order of keys, dead letters.
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { FanOut, FanOutError } from "../../../src/subscription/fanout.ts"
import { Subscription } from "../../../src/subscription/subscription.ts"
import { Topic } from "../../../src/model/topic.ts"
import { ascending, receiveJust, sent, topicWith, Topics, upTo } from "../../contract/fanout-support.ts"
import { fanOutOn } from "../../support/fanout.ts"
import { database } from "../../support/postgres.ts"
import { until } from "../../support/until.ts"

const layer = Layer.unwrap(Effect.map(database, ({ sql }) => fanOutOn(sql)))
const numbers = (name: string) => Topic.records(name, { key: "key", value: { key: Schema.String, seq: Schema.Int } })
const strict = (name: string) =>
  Topic.records(name, { key: "key", value: { key: Schema.Literals(["k1", "k3"]), seq: Schema.Int } })
/** The dead letters of the subscription `s`; the first one creates their topic. */
const lettersOf = Effect.fnUntraced(function* (topic: string) {
  const dead = { topic: `${topic}.s.dlq`, name: "dead", type: "exclusive", from: "earliest" } as const
  return yield* Effect.retry((yield* FanOut).subscribe(dead), {
    while: ({ _tag }) => _tag === "UnknownTopic",
    schedule: Schedule.spaced("20 millis")
  })
})

vitest.layer(layer, { timeout: "60 seconds", excludeTestServices: true })("Subscription", (it) => {
  it.effect(
    "`stream` has decoded values, and acknowledged messages are not delivered again",
    Effect.fnUntraced(function* () {
      const topic = yield* topicWith(2)
      yield* (yield* Topics).publish(topic, sent(10, 1, 4, 2))
      const subscription = Subscription.make({ topic: numbers(topic), name: "s", type: "shared", from: "earliest" })
      const take = (count: number) =>
        Subscription.stream(subscription).pipe(
          Stream.take(count),
          Stream.mapEffect(({ acknowledge, message, value }) =>
            Effect.as(acknowledge, [value.key, value.seq, message.seq] as const)
          ),
          Stream.runCollect
        )
      const first = yield* take(6)
      const second = yield* take(4)
      const all = [...first, ...second]
      assert.deepStrictEqual(ascending(all.map(([, seq]) => seq)), upTo(10))
      assert.isTrue(all.every(([key, seq, streamSeq]) => key === `k${seq % 4}` && streamSeq === seq))
    }, Effect.scoped)
  )

  it.effect(
    "a message that cannot be decoded goes to the dead-letter topic",
    Effect.fnUntraced(function* () {
      const topic = yield* topicWith()
      yield* (yield* Topics).publish(topic, sent(8))
      const subscription = Subscription.make({ topic: strict(topic), name: "s", type: "exclusive", from: "earliest" })
      const handled: Array<number> = []
      const running = yield* Effect.forkChild(
        Subscription.run(subscription, ({ seq }) => Effect.sync(() => handled.push(seq)))
      )
      const letters = yield* receiveJust(yield* lettersOf(topic), 4)
      yield* until(() => handled.length >= 4)
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(handled, [1, 3, 5, 7])
      assert.deepStrictEqual(
        letters.map(({ seq }) => seq),
        [2, 4, 6, 8]
      )
      assert.match(letters[0]!.properties["millrace-reason"]!, /cannot be decoded.*"k1" \| "k3"/s)
    }, Effect.scoped)
  )

  it.effect(
    "a message whose handler fails or dies is redelivered, and finally goes to the dead-letter topic",
    Effect.fnUntraced(function* () {
      const topic = yield* topicWith()
      yield* (yield* Topics).publish(topic, sent(6))
      const subscription = Subscription.make({
        topic: numbers(topic),
        name: "s",
        type: "shared",
        from: "earliest",
        maxRedeliveries: 2,
        redeliveryDelayMs: 50
      })
      const tries = new Map<number, number>()
      const running = yield* Effect.forkChild(
        Subscription.run(subscription, ({ seq }) =>
          Effect.gen(function* () {
            tries.set(seq, (tries.get(seq) ?? 0) + 1)
            if (seq === 2) return yield* Effect.fail("no")
            if (seq === 4 && tries.get(4) === 1) throw new Error("a bug")
          })
        )
      )
      const letters = yield* receiveJust(yield* lettersOf(topic), 1)
      yield* until(() => tries.size === 6 && tries.get(4) === 2)
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(
        [...tries].toSorted(([a], [b]) => a - b),
        [
          [1, 1],
          [2, 3],
          [3, 1],
          [4, 2],
          [5, 1],
          [6, 1]
        ]
      )
      assert.deepStrictEqual(
        letters.map(({ seq }) => seq),
        [2]
      )
    }, Effect.scoped)
  )

  it.effect(
    "subscribing is retried while the fan-out is unavailable",
    Effect.fnUntraced(function* () {
      const fanOut = yield* FanOut
      const topic = yield* topicWith()
      yield* (yield* Topics).publish(topic, sent(3))
      const subscription = Subscription.make({ topic: numbers(topic), name: "s", type: "exclusive", from: "earliest" })
      let refused = 0
      const away = (retryable: boolean) =>
        new FanOutError({ operation: "subscribe", retryable, reason: "away", cause: undefined })
      const late = FanOut.of({
        ...fanOut,
        subscribe: (options) => Effect.suspend(() => (refused++ < 2 ? away(true) : fanOut.subscribe(options)))
      })
      const taken = yield* Subscription.stream(subscription).pipe(
        Stream.take(3),
        Stream.runCollect,
        Effect.provideService(FanOut, late)
      )
      assert.deepStrictEqual([taken.length, refused], [3, 3])
      // what waiting does not mend is told
      const never = FanOut.of({ ...fanOut, subscribe: () => away(false) })
      const failure = yield* Effect.flip(
        Stream.runDrain(Subscription.stream(subscription)).pipe(Effect.provideService(FanOut, never))
      )
      assert.strictEqual(failure._tag, "FanOutError")
    }, Effect.scoped)
  )

  it.effect(
    "keyShared: the messages of a key are handled in order, also when some fail, and keys in parallel",
    Effect.fnUntraced(function* () {
      const topics = yield* Topics
      const topic = yield* topicWith(2)
      const subscription = Subscription.make({
        topic: numbers(topic),
        name: "s",
        type: "keyShared",
        from: "earliest",
        maxRedeliveries: 3,
        redeliveryDelayMs: 30
      })
      const total = 400
      const poison = 42
      const handled = new Map<string, Array<number>>()
      const failed = new Map<number, number>()
      const busy = new Set<string>()
      let most = 0
      const handle = ({ key, seq }: { key: string; seq: number }) =>
        Effect.gen(function* () {
          assert.isFalse(busy.has(key), `two messages of ${key} at once`)
          busy.add(key)
          most = Math.max(most, busy.size)
          yield* Effect.ensuring(
            Effect.sleep(Math.random() * 4),
            Effect.sync(() => busy.delete(key))
          )
          if (seq === poison || (Math.random() < 0.1 && (failed.get(seq) ?? 0) < 3)) {
            failed.set(seq, (failed.get(seq) ?? 0) + 1)
            return yield* Effect.fail("not now")
          }
          handled.set(key, [...(handled.get(key) ?? []), seq])
        })
      const another = Layer.succeed(FanOut, yield* topics.another)
      const running = yield* Effect.forkChild(
        Effect.all(
          [
            Subscription.run(subscription, handle),
            Subscription.run(subscription, handle).pipe(Effect.provide(another))
          ],
          { concurrency: "unbounded" }
        )
      )
      for (let from = 1; from <= total; from += 40) {
        yield* topics.publish(topic, sent(from + 39, from, 13, 2))
        yield* Effect.sleep(30)
      }
      const from = performance.now()
      while ([...handled.values()].flat().length < total - 1 && performance.now() - from < 40_000)
        yield* Effect.sleep(50)
      yield* Fiber.interrupt(running)
      for (const [key, seqs] of handled) assert.deepStrictEqual(seqs, ascending(seqs), key)
      assert.deepStrictEqual(
        ascending([...handled.values()].flat()),
        upTo(total).filter((seq) => seq !== poison)
      )
      assert.strictEqual(failed.get(poison), 4)
      assert.isAbove(most, 2)
    }, Effect.scoped)
  )
})
