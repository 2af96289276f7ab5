// The order of keys in a key-shared subscription on PostgreSQL, while messages are redelivered of which some were returned and some were not.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Log, LogError } from "../../../src/log/log.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import * as PostgresFanOut from "../../../src/postgres/subscription/fanout.ts"
import { slotOf } from "../../../src/postgres/subscription/prefetch.ts"
import { type Consumer, FanOut, type Message } from "../../../src/subscription/fanout.ts"
import { ascending, options, receiveAll, seqs, Topics, topicWith, upTo } from "../../contract/fanout-support.ts"
import { onFanOut } from "../../support/fanout.ts"
import { type Database, server } from "../../support/postgres.ts"

/** Two keys whose messages are leased together, and a third one whose messages are not. */
const [a, b, c] = (() => {
  const keys = Array.from({ length: 1_000 }, (_, i) => `k${i}`)
  const [first] = keys
  const slot = slotOf(first!)
  return [
    first!,
    keys.find((key) => key !== first && slotOf(key) === slot)!,
    keys.find((key) => slotOf(key) !== slot)!
  ] as const
})()

/** The messages that a consumer receives one at a time, each of which it acknowledges only at the end. */
const receiveSingly = Effect.fnUntraced(function* (consumer: Consumer, count: number) {
  const messages: Array<Message> = []
  while (messages.length < count) messages.push(...(yield* receiveAll(consumer, 1)))
  yield* consumer.acknowledge(messages)
  return messages
})
/** How many messages are leased to consumers, and how many wait for one. */
const leases = (sql: Sql) =>
  Effect.map(
    query("leases", () =>
      sql.unsafe<Array<{ readonly leased: number; readonly waiting: number }>>(
        `select coalesce(sum(upper(r) - lower(r)) filter (where consumer is not null), 0)::integer as leased,
          coalesce(sum(upper(r) - lower(r)) filter (where consumer is null), 0)::integer as waiting
        from millrace.subscription_lease, unnest(positions) as r`
      )
    ),
    ([row]) => row!
  )

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
type Body = (database: Database) => Effect.Effect<void, unknown, FanOut | Log | Topics | Scope.Scope>
const test = (name: string, body: Body) =>
  it.live(name, () => onFanOut(root, (database) => Effect.scoped(body(database))))

describe("redelivery of a key-shared subscription on PostgreSQL", () => {
  test(
    "keeps the order of a key between a returned message and later ones that were leased when their consumer ended",
    Effect.fnUntraced(function* ({ sql }) {
      const [fanOut, topics] = [yield* FanOut, yield* Topics]
      const topic = yield* topicWith()
      // the first ten messages are claimed at once, and the others of the same keys by a later claim
      const keys = [b, a, c, a, b, a, c, b, a, c]
      const publish = (from: number) =>
        topics.publish(
          topic,
          keys.map((key, i) => ({ key, seq: from + i }))
        )
      yield* publish(1)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const ended = yield* fanOut.subscribe(options(topic, "keyShared", { redeliveryDelayMs: 1 }))
          const messages = yield* receiveAll(ended, 10)
          yield* publish(11)
          assert.deepStrictEqual(seqs(yield* receiveAll(ended, 10)), upTo(20, 11))
          // the first message of `a`, behind one of `b` and before others of `a`
          yield* ended.negativeAcknowledge(messages.filter(({ seq }) => seq === 2))
        })
      )
      const next = yield* fanOut.subscribe(options(topic, "keyShared"))
      const [first] = yield* receiveAll(next, 1)
      const { leased } = yield* leases(sql)
      const messages = [first!, ...(yield* receiveSingly(next, 19))]
      for (const key of [a, b, c]) {
        const own = seqs(messages.filter((message) => message.key === key))
        assert.deepStrictEqual(own, ascending(own), key)
      }
      assert.deepStrictEqual(ascending(seqs(messages)), upTo(20))
      // one was asked for, and the order allows no fewer than the first claim's messages of `a` and `b`
      assert.strictEqual(leased, 7)
    })
  )

  test(
    "returns claimed messages that could not be read behind an earlier one of their key that is returned",
    Effect.fnUntraced(function* ({ sql }) {
      const [fanOut, log, topics] = [yield* FanOut, yield* Log, yield* Topics]
      const topic = yield* topicWith()
      let failures = 1
      const failing: Log["Service"] = {
        ...log,
        read: (...of) => {
          if (failures-- <= 0) return log.read(...of)
          return Effect.fail(new LogError({ operation: "read", topic, retryable: true, reason: "a test" }))
        }
      }
      const consumer = yield* Effect.flatMap(PostgresFanOut.make(sql, failing), ({ subscribe }) =>
        subscribe(options(topic, "keyShared"))
      )
      yield* topics.publish(
        topic,
        [b, a].map((key, i) => ({ key, seq: 1 + i }))
      )
      const [first, second] = yield* receiveAll(consumer, 2)
      // another consumer claims a third one of these keys, which has to wait for the first two
      const another = yield* fanOut.subscribe(options(topic, "keyShared"))
      yield* topics.publish(topic, [{ key: a, seq: 3 }])
      const claiming = yield* Effect.forkChild(another.receive(1))
      while ((yield* leases(sql)).waiting === 0) yield* Effect.sleep(10)
      yield* Fiber.interrupt(claiming)
      yield* consumer.acknowledge([first!])
      const error = yield* Effect.flip(consumer.receive(1))
      assert.match(error.message, /a test/)
      yield* consumer.negativeAcknowledge([second!])
      assert.deepStrictEqual(seqs(yield* receiveSingly(consumer, 2)), [2, 3])
    })
  )
})
