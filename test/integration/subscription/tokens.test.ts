// Subscriptions that start at a position token, over the fan-out on PostgreSQL.
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Log } from "../../../src/log/log.ts"
import { positionToken } from "../../../src/log/position-token.ts"
import { Topic } from "../../../src/model/topic.ts"
import { query } from "../../../src/postgres/client/client.ts"
import * as PostgresFanOut from "../../../src/postgres/subscription/fanout.ts"
import { FanOut } from "../../../src/subscription/fanout.ts"
import { Subscription } from "../../../src/subscription/subscription.ts"
import { ascending, receiveJust, sent, seqs, topicWith, Topics } from "../../contract/fanout-support.ts"
import { fanOutOn } from "../../support/fanout.ts"
import { database, type Database } from "../../support/postgres.ts"
import * as Context from "effect/Context"

class Tables extends Context.Service<Tables, Database>()("test/Tables") {}
const layer = Layer.unwrap(
  Effect.map(database, (own) => Layer.merge(fanOutOn(own.sql), Layer.succeed(Tables, Tables.of(own))))
)
/** Publishes messages to a partition one after another, and returns the token of the last one. */
const publish = Effect.fnUntraced(function* (topic: string, from: number, to: number, partition = 0) {
  const { publish: send } = yield* Topics
  yield* send(
    topic,
    sent(to, from).map(({ key, seq }) => ({ key, seq, partition }))
  )
  const bounds = yield* (yield* Log).bounds(topic)
  // what comes next has another time
  yield* Effect.sleep(20)
  return positionToken([{ topic, partition, position: bounds[partition]!.end }])
})
const taken = Effect.fnUntraced(function* (topic: string, name: string, token: string, count: number) {
  const consumer = yield* (yield* FanOut).subscribe({ topic, name, type: "exclusive", from: { token } })
  const messages = yield* receiveJust(consumer, count)
  yield* consumer.acknowledge(messages)
  return ascending(seqs(messages))
}, Effect.scoped)

vitest.layer(layer, { timeout: "60 seconds", excludeTestServices: true })("A token", (it) => {
  it.effect(
    "starts a new subscription, and moves one, at what follows the write",
    Effect.fnUntraced(function* () {
      const topic = yield* topicWith(2)
      yield* publish(topic, 1, 2, 1)
      const token = yield* publish(topic, 3, 4, 0)
      yield* publish(topic, 5, 6, 1)
      yield* publish(topic, 7, 8, 0)
      assert.deepStrictEqual(yield* taken(topic, "new", token, 4), [5, 6, 7, 8])
      const fanOut = yield* FanOut
      yield* fanOut.seek({ topic, name: "new", type: "exclusive" }, { token })
      assert.deepStrictEqual(yield* taken(topic, "new", token, 4), [5, 6, 7, 8])
      const numbers = Topic.records(topic, { key: "key", value: { key: Schema.String, seq: Schema.Int } })
      const subscription = Subscription.make({ topic: numbers, name: "code", type: "shared", from: { token } })
      const received = yield* Subscription.stream(subscription).pipe(Stream.take(4), Stream.runCollect)
      assert.deepStrictEqual(ascending(received.map(({ value }) => value.seq)), [5, 6, 7, 8])
    }, Effect.scoped)
  )

  it.effect(
    "does not matter to a subscription that exists, even if its positions are no longer there or not of this system",
    Effect.fnUntraced(function* () {
      const topic = yield* topicWith()
      const token = yield* publish(topic, 1, 2)
      yield* publish(topic, 3, 4)
      assert.deepStrictEqual(yield* taken(topic, "known", token, 2), [3, 4])
      yield* publish(topic, 5, 6)
      const foreign = positionToken([{ topic: "elsewhere", partition: 3, position: 1e9 }])
      assert.deepStrictEqual(yield* taken(topic, "known", foreign, 2), [5, 6])
    })
  )

  it.effect(
    "starts at the first message that there is if retention deleted what it names",
    Effect.fnUntraced(function* () {
      const topic = yield* topicWith()
      const token = yield* publish(topic, 1, 2)
      yield* publish(topic, 3, 4)
      yield* publish(topic, 5, 6)
      const { sql } = yield* Tables
      // as retention does
      yield* query(
        "delete",
        () => sql`with t as (select topic_id from millrace.log_topic where name = ${topic}),
          deleted as (delete from millrace.log_batch b using t where b.topic_id = t.topic_id and b.next_position <= 4)
          update millrace.log_head h set start_position = 4 from t where h.topic_id = t.topic_id`
      )
      assert.deepStrictEqual(yield* taken(topic, "late", token, 2), [5, 6])
    })
  )

  it.effect(
    "of a topic that another one is derived from starts at what was published since the write",
    Effect.fnUntraced(function* () {
      const [source, derived] = [yield* topicWith(), yield* topicWith(2)]
      yield* publish(derived, 1, 2, 1)
      const token = yield* publish(source, 1, 1)
      yield* publish(derived, 3, 4, 1)
      const { sql } = yield* Tables
      const fanOut = yield* PostgresFanOut.make(sql, yield* Log, {
        derivedFrom: (topic) => Effect.succeed(new Set(topic === derived ? [source] : []))
      })
      const own = taken(derived, "own", token, 2).pipe(Effect.provideService(FanOut, fanOut))
      assert.deepStrictEqual(yield* own, [3, 4])
    }, Effect.scoped)
  )

  it.effect(
    "for another topic, or that cannot be read, is refused by subscribe and seek, and no subscription is created",
    Effect.fnUntraced(function* () {
      const [one, other] = [yield* topicWith(), yield* topicWith()]
      const token = yield* publish(one, 1, 1)
      const fanOut = yield* FanOut
      const options = { topic: other, name: "refused", type: "exclusive" } as const
      const asked = (at: string) => [
        Effect.flip(Effect.scoped(fanOut.subscribe({ ...options, from: { token: at } }))),
        Effect.flip(fanOut.seek(options, { token: at }))
      ]
      for (const refused of asked(token)) {
        const error = yield* refused
        assert.include(error.message, `the token is for "${one}", and ${other} starts at a token for itself. try: read`)
        assert.isFalse(error._tag === "FanOutError" && error.retryable)
      }
      for (const refused of asked("p1.W1"))
        assert.include((yield* refused).message, "use the `token` of an answer to events or commands, as it was")
      const { sql } = yield* Tables
      const rows = yield* query("look", () => sql`select from millrace.subscription where name = 'refused'`)
      assert.lengthOf(rows, 0)
    })
  )
})
