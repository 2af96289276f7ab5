// The contract of the fan-out: how the consumers of a subscription share its messages, by type.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { type Consumer, FanOut } from "../../src/subscription/fanout.ts"
import type { It } from "./fanout.ts"
import {
  ascending,
  options,
  receiveAll,
  receiveAmong,
  sent,
  seqs,
  Topics,
  topicWith,
  upTo,
  within
} from "./fanout-support.ts"
import { until } from "../support/until.ts"

export const fanOutSharing = (it: It) => {
  it.effect(
    "exclusive: a second consumer, in the same or another process, is refused until the first one ends",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const another = yield* topics.another
      const topic = yield* topicWith()
      const scope = yield* Scope.make()
      yield* Scope.provide(fanOut.subscribe(options(topic, "exclusive")), scope)
      for (const from of [fanOut, another]) {
        const error = yield* Effect.flip(from.subscribe(options(topic, "exclusive")))
        assert.strictEqual(error._tag, "ConsumerBusy")
        assert.match(error.message, /is exclusive and already has a consumer/)
      }
      const error = yield* Effect.flip(Effect.scoped(another.subscribe(options(topic, "shared"))))
      assert.strictEqual(error._tag, "ConsumerBusy")
      yield* another.subscribe(options(topic, "exclusive", { name: "other" }))
      yield* Scope.close(scope, Exit.void)
      yield* another.subscribe(options(topic, "exclusive"))
    }, Effect.scoped)
  )

  it.effect(
    "the type of a subscription can change only while it has no consumer",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(4))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const shared = yield* fanOut.subscribe(options(topic, "shared"))
          yield* shared.acknowledge((yield* receiveAll(shared, 4)).slice(0, 2))
          const error = yield* Effect.flip(fanOut.subscribe(options(topic, "keyShared")))
          assert.strictEqual(error._tag, "ConsumerBusy")
          assert.match(error.message, /is shared/)
        })
      )
      const keyed = yield* (yield* topics.another).subscribe(options(topic, "keyShared"))
      assert.deepStrictEqual(seqs(yield* receiveAll(keyed, 2)), [3, 4])
    }, Effect.scoped)
  )

  it.effect(
    "failover: the next consumer takes over, including messages that were not acknowledged",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      yield* topics.publish(topic, sent(10))
      const scope = yield* Scope.make()
      const first = yield* Scope.provide(fanOut.subscribe(options(topic, "failover")), scope)
      const messages = yield* receiveAll(first, 10)
      yield* first.acknowledge(messages.slice(0, 6))
      const standby = [
        yield* fanOut.subscribe(options(topic, "failover")),
        yield* (yield* topics.another).subscribe(options(topic, "failover"))
      ]
      const received = [
        ...(yield* Effect.all(
          standby.map((consumer) => within(consumer, 300)),
          { concurrency: "unbounded" }
        ))
      ].flat()
      assert.deepStrictEqual(received, [])
      const taking = yield* Effect.forkChild(receiveAmong(standby, 4))
      yield* Scope.close(scope, Exit.void)
      const [a, b] = yield* Fiber.join(taking)
      assert.sameDeepMembers([seqs(a!), seqs(b!)], [[7, 8, 9, 10], []])
    }, Effect.scoped)
  )

  it.effect(
    "shared: each message goes to one consumer, and a slow consumer delays only its own messages",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith(3)
      yield* topics.publish(topic, sent(300, 1, 9, 3))
      const slow = yield* fanOut.subscribe(options(topic, "shared", { receiveQueue: 10 }))
      const quick = [
        yield* fanOut.subscribe(options(topic, "shared")),
        yield* (yield* topics.another).subscribe(options(topic, "shared"))
      ]
      const stuck = yield* receiveAll(slow, 10)
      const received: Array<number> = []
      const working = yield* Effect.forkChild(
        Effect.all(
          quick.map((consumer) =>
            Effect.forever(
              Effect.gen(function* () {
                const messages = yield* consumer.receive(7)
                received.push(...messages.map(({ seq }) => seq!))
                yield* consumer.acknowledge(messages)
              })
            )
          ),
          { concurrency: "unbounded" }
        )
      )
      yield* until(() => received.length >= 290)
      // and nothing comes twice
      yield* Effect.sleep(300)
      yield* Fiber.interrupt(working)
      assert.deepStrictEqual(ascending([...received, ...seqs(stuck)]), upTo(300))
      yield* slow.acknowledge(stuck)
    }, Effect.scoped)
  )

  it.effect(
    "keyShared: the messages of a key go to one consumer at a time and in order, also when redelivered",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const another = yield* topics.another
      const topic = yield* topicWith(2)
      // so many that whoever shares them out by key, by their hashes at random, gives many to each
      const keys = 101
      const total = 600
      const consumers = [
        yield* fanOut.subscribe(options(topic, "keyShared", { redeliveryDelayMs: 30 })),
        yield* fanOut.subscribe(options(topic, "keyShared", { redeliveryDelayMs: 30 })),
        yield* another.subscribe(options(topic, "keyShared", { redeliveryDelayMs: 30 }))
      ]
      const holders = new Map<string, { readonly consumer: number; count: number }>()
      const handled = new Map<string, Array<number>>()
      const busy = [0, 0, 0]
      let left = total
      let nacks = 0
      const work = Effect.fnUntraced(function* (consumer: Consumer, n: number) {
        while (left > 0) {
          const some = yield* Effect.timeoutOption(consumer.receive(5 + n), 500)
          if (some._tag === "None") continue
          const messages = some.value
          for (const { key } of messages) {
            const holder = holders.get(key) ?? { consumer: n, count: 0 }
            if (holder.count > 0) assert.strictEqual(holder.consumer, n, `${key} is with two consumers`)
            holders.set(key, { consumer: n, count: holder.count + 1 })
          }
          const failed = new Set<string>()
          for (const message of messages) {
            if (Math.random() < 0.3) yield* Effect.sleep(Math.random() * 5)
            const { key, seq } = message
            // where one failed, the later ones of its key are given back with it
            const ok = !failed.has(key) && Math.random() > 0.05
            const { count } = holders.get(key)!
            holders.set(key, { consumer: n, count: count - 1 })
            if (ok) {
              handled.set(key, [...(handled.get(key) ?? []), seq!])
              busy[n]! += 1
              left -= 1
              yield* consumer.acknowledge([message])
            } else {
              failed.add(key)
              nacks += 1
              yield* consumer.negativeAcknowledge([message])
            }
          }
        }
      })
      const workers = yield* Effect.forkChild(Effect.all(consumers.map(work), { concurrency: "unbounded" }))
      for (let from = 1; from <= total; from += 20) {
        yield* topics.publish(topic, sent(from + 19, from, keys, 2))
        yield* Effect.sleep(10)
      }
      yield* Effect.timeoutOrElse(Fiber.join(workers), {
        duration: "40 seconds",
        orElse: () => Effect.die(`${left} were left`)
      })
      for (const [key, numbers] of handled) assert.deepStrictEqual(numbers, ascending(numbers), key)
      assert.deepStrictEqual(ascending([...handled.values()].flat()), upTo(total))
      assert.isAbove(nacks, 5)
      assert.isAbove(Math.min(...busy), 20, `shares: ${busy}`)
    }, Effect.scoped)
  )

  it.effect(
    "keyShared: later messages of a key wait behind one that was negatively acknowledged",
    Effect.fnUntraced(function* () {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      const of = (...seqs: ReadonlyArray<number>) => seqs.map((seq) => ({ key: "same", seq }))
      yield* topics.publish(topic, of(1, 2))
      const consumers = [
        yield* fanOut.subscribe(options(topic, "keyShared", { redeliveryDelayMs: 500 })),
        yield* (yield* topics.another).subscribe(options(topic, "keyShared", { redeliveryDelayMs: 500 }))
      ]
      /** The adapter decides which consumer gets a key; it is one at a time. */
      const take = (count: number) => receiveAmong(consumers, count)
      const first = yield* take(2)
      assert.sameDeepMembers(first.map(seqs), [[1, 2], []])
      const holder = first[0]!.length > 0 ? 0 : 1
      yield* consumers[holder]!.negativeAcknowledge(first[holder]!)
      yield* topics.publish(topic, of(3, 4))
      const second = yield* take(2)
      // whoever has them now, the other one has nothing as long as they are not acknowledged
      const next = second[0]!.length > 0 ? 0 : 1
      assert.deepStrictEqual(seqs(second[next]!).slice(0, 2), [1, 2])
      assert.deepStrictEqual(second[1 - next], [])
      yield* consumers[next]!.acknowledge(second[next]!)
      const third = yield* take(2)
      assert.sameDeepMembers(third.map(seqs), [[3, 4], []])
    }, Effect.scoped)
  )
}
