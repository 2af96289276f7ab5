// The relay to the log on PostgreSQL, round by round: order, limits, halts, splitting by key, deletion.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { LogCleaner } from "../../../../src/log/cleaner.ts"
import { Log } from "../../../../src/log/log.ts"
import { partitionOf } from "../../../../src/model/partitioner.ts"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import * as PostgresLog from "../../../../src/postgres/log/log.ts"
import * as PostgresRelay from "../../../../src/postgres/relay/to-log.ts"
import * as Relay from "../../../../src/relay/relay.ts"
import {
  another,
  collectPublished,
  commitEach,
  commitSegment,
  declare,
  forgetSequence,
  incarnation,
  positions,
  publish,
  renumber,
  sequences,
  topicOf,
  upTo
} from "../../../support/outbox.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const test = (
  name: string,
  body: (sql: Sql, url: string) => Effect.Effect<void, unknown, Scope.Scope>,
  timeout?: number
) => it.live(name, () => Effect.scoped(Effect.flatMap(databaseOn(root), ({ sql, url }) => body(sql, url))), timeout)

describe("relay to the log on PostgreSQL", () => {
  test(
    "copies segments with stream and sequence numbers, in order, once",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 3)
      yield* declare(sql, "scores", 3)
      yield* publish(sql, { firstSeq: 1, messages: 3 })
      yield* publish(sql, { firstSeq: 4, messages: 2, target: "scores" })
      yield* publish(sql, { firstSeq: 6, messages: 1 })
      yield* publish(sql, { firstSeq: 1, messages: 4, partition: 2 })
      const target = yield* PostgresRelay.make(sql)
      assert.deepStrictEqual(
        (yield* target.lag).map(({ lag }) => lag),
        [6, 4]
      )
      assert.deepStrictEqual(yield* target.publish, { messages: 10, more: false, halted: [] })
      assert.deepStrictEqual(yield* target.publish, { messages: 0, more: false, halted: [] })
      assert.deepStrictEqual(
        (yield* target.lag).map(({ lag }) => lag),
        [0, 0]
      )
      assert.deepStrictEqual(sequences(yield* topicOf(sql, "alerts")), {
        "p/events/0": [1, 2, 3, 6],
        "p/events/2": [1, 2, 3, 4]
      })
      assert.deepStrictEqual(sequences(yield* topicOf(sql, "scores")), { "p/events/0": [4, 5] })
    })
  )

  test(
    "readers of the log get stream, sequence number and incarnation as headers, and are woken at once",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 1)
      const target = yield* PostgresRelay.make(sql)
      yield* Effect.gen(function* () {
        const log = yield* Log
        const reader = yield* log.open("alerts", 0, 0)
        const taken = yield* Effect.forkScoped(reader.take)
        yield* Effect.sleep(50)
        for (const firstSeq of [1, 3])
          yield* publish(sql, { firstSeq, messages: 2, targetPartition: firstSeq === 1 ? 0 : null })
        yield* target.publish
        const { records } = yield* Fiber.join(taken)
        const all = yield* log.read("alerts", 0, 0)
        assert.isAtLeast(records.length, 2)
        assert.deepStrictEqual(
          all.records.map(({ headers }) => headers),
          upTo(4).map((seq) => ({
            "millrace-stream": "p/events/0",
            "millrace-seq": String(seq),
            "millrace-incarnation": incarnation.slice(0, 8)
          }))
        )
      }).pipe(Effect.provide(PostgresLog.layer(sql, { pollMs: 600_000 })))
    })
  )

  test(
    "a compacted topic keeps stream, sequence number and incarnation of the records that it keeps",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 1)
      yield* query("compact", () => sql`update millrace.log_topic set compacted = true`)
      yield* publish(sql, { firstSeq: 1, messages: 20 })
      yield* (yield* PostgresRelay.make(sql)).publish
      yield* Effect.gen(function* () {
        yield* (yield* LogCleaner).clean({ dirtyShare: 0 })
        const { records } = yield* (yield* Log).read("alerts", 0, 0)
        assert.deepStrictEqual(
          records.map(({ headers }) => headers),
          upTo(20)
            .slice(-7)
            .map((seq) => ({
              "millrace-stream": "p/events/0",
              "millrace-seq": String(seq),
              "millrace-incarnation": incarnation.slice(0, 8)
            }))
        )
      }).pipe(Effect.provide(PostgresLog.layer(sql)))
    })
  )

  test(
    "limits each round in segments and bytes",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 2)
      for (let i = 0; i < 10; i++)
        for (const partition of [0, 1]) yield* publish(sql, { firstSeq: 1 + i * 10, messages: 10, partition })
      const target = yield* PostgresRelay.make(sql, { segments: 4, bytes: 1000 })
      const rounds = []
      for (let more = true; more;) {
        const round = yield* target.publish
        rounds.push(round.messages)
        more = round.more
      }
      assert.isAtLeast(rounds.length, 5)
      assert.isAtMost(Math.max(...rounds), 80)
      assert.deepStrictEqual(sequences(yield* topicOf(sql, "alerts")), {
        "p/events/0": upTo(100),
        "p/events/1": upTo(100)
      })
    })
  )

  test(
    "halts a stream at a gap and skips nothing; other streams continue",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 3)
      yield* publish(sql, { firstSeq: 1, messages: 3 })
      yield* publish(sql, { firstSeq: 5, messages: 3 })
      yield* publish(sql, { firstSeq: 2, messages: 1, partition: 1 })
      yield* publish(sql, { firstSeq: 1, messages: 1, partition: 2 })
      const target = yield* PostgresRelay.make(sql)
      const { halted, messages } = yield* target.publish
      assert.strictEqual(messages, 4)
      assert.deepStrictEqual(
        halted.map(({ partition }) => partition),
        [0, 1]
      )
      assert.match(
        halted[0]!.reason,
        /message 4 should be next, but the outbox goes on with 5: messages were deleted from it/
      )
      assert.match(
        halted[1]!.reason,
        /message 1 should be next, but the outbox goes on with 2: messages were deleted from it/
      )
      const [first, second, third] = yield* positions(sql)
      assert.deepStrictEqual([first!.seq, second!.seq, third!.seq], [3, 0, 1])
      assert.deepStrictEqual(
        [first!.halted, second!.halted, third!.halted],
        [halted[0]!.reason, halted[1]!.reason, null]
      )
      yield* publish(sql, { firstSeq: 4, messages: 1 })
      assert.strictEqual((yield* target.publish).messages, 4)
      assert.deepStrictEqual((yield* positions(sql))[0], { stream: "p/events/0", seq: 7, halted: null })
      assert.deepStrictEqual(sequences(yield* topicOf(sql, "alerts"))["p/events/0"], upTo(7))
    })
  )

  test(
    "halts if the outbox differs from the one that it published from",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 2)
      for (const partition of [0, 1]) yield* publish(sql, { firstSeq: 1, messages: 3, partition })
      const target = yield* PostgresRelay.make(sql)
      yield* target.publish
      yield* query("restore", () => sql`delete from millrace.outbox`)
      yield* publish(sql, { firstSeq: 1, messages: 3, incarnation: "00000000-0000-4000-8000-000000000002" })
      for (const partition of [0, 1]) yield* publish(sql, { firstSeq: 4, messages: 1, partition })
      const { halted, messages } = yield* target.publish
      assert.strictEqual(messages, 0)
      assert.strictEqual(halted.length, 2)
      assert.match(
        halted[0]!.reason,
        /message 3 was the last one published, but the outbox has another one there, or none/
      )
    })
  )

  for (const collected of [true, false])
    test(
      `halts where numbers of a stream begin again, ${collected ? "also with a collected outbox, and goes on when they are corrected" : "before the first message"}`,
      Effect.fnUntraced(function* (sql) {
        yield* declare(sql, "alerts", 2)
        yield* commitEach(sql, 5, {})
        const target = yield* PostgresRelay.make(sql)
        assert.strictEqual((yield* target.publish).messages, 5)
        // segments that were published and not collected yet are no reason to halt
        assert.deepStrictEqual((yield* (yield* PostgresRelay.make(sql)).publish).halted, [])
        if (collected) yield* collectPublished(sql, "embedded")
        yield* forgetSequence(sql)
        if (collected) yield* commitEach(sql, 3, { incarnation: another })
        const again = yield* PostgresRelay.make(sql)
        const { halted, messages } = yield* again.publish
        assert.strictEqual(messages, 0)
        assert.match(
          halted[0]!.reason,
          new RegExp(
            String.raw`^message 5 was the last one published, but projection p has committed ${collected ? 3 : 0}: its numbers began again`
          )
        )
        assert.strictEqual((yield* positions(sql))[0]!.halted, halted[0]!.reason)
        if (!collected) return
        yield* renumber(sql, 5)
        const after = yield* PostgresRelay.make(sql)
        const { halted: none, messages: more } = yield* after.publish
        assert.deepStrictEqual([none, more], [[], 3])
        assert.deepStrictEqual((yield* positions(sql))[0], { stream: "p/events/0", seq: 8, halted: null })
      })
    )
  test(
    "halts where two segments have a number in common",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 2)
      yield* commitSegment(sql, { firstSeq: 1, messages: 3 })
      yield* commitSegment(sql, { firstSeq: 4, messages: 2 })
      const target = yield* PostgresRelay.make(sql)
      yield* target.publish
      yield* collectPublished(sql, "embedded")
      // in one commit it is where the position is, and further in the next one
      yield* commitSegment(sql, { firstSeq: 1, messages: 5, incarnation: another })
      yield* commitSegment(sql, { firstSeq: 6, messages: 1, incarnation: another })
      const { halted, messages } = yield* target.publish
      assert.strictEqual(messages, 0)
      assert.match(halted[0]!.reason, /message 5 was the last one published, but the outbox has another one there/)
    })
  )

  test(
    "halts at a topic that does not exist, and continues once it does",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 2)
      yield* publish(sql, { firstSeq: 1, messages: 1 })
      yield* publish(sql, { firstSeq: 2, messages: 1, target: "later" })
      yield* publish(sql, { firstSeq: 3, messages: 1 })
      yield* publish(sql, { firstSeq: 1, messages: 1, partition: 5, targetPartition: 5 })
      yield* publish(sql, { firstSeq: 1, messages: 1, partition: 1 })
      const target = yield* PostgresRelay.make(sql)
      const { halted, messages } = yield* target.publish
      assert.strictEqual(messages, 2)
      assert.match(
        halted[0]!.reason,
        /the topic later does not exist; declare it in an application and run 'millrace migrate'/
      )
      assert.match(
        halted[1]!.reason,
        /alerts has 2 partitions, but message 1 is for partition 5: the topic was recreated with fewer partitions/
      )
      yield* declare(sql, "later", 1)
      assert.strictEqual((yield* target.publish).messages, 2)
      assert.deepStrictEqual(sequences(yield* topicOf(sql, "alerts"))["p/events/0"], [1, 3])
    })
  )

  test(
    "splits by key a segment whose messages go to several partitions",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 4)
      yield* publish(sql, { firstSeq: 1, messages: 2 })
      yield* publish(sql, { firstSeq: 3, messages: 50, targetPartition: null })
      yield* publish(sql, { firstSeq: 53, messages: 20, targetPartition: null })
      yield* publish(sql, { firstSeq: 73, messages: 2 })
      const target = yield* PostgresRelay.make(sql)
      for (let more = true; more;) more = (yield* target.publish).more
      const records = yield* topicOf(sql, "alerts")
      assert.deepStrictEqual(
        sequences(records)["p/events/0"]!.toSorted((a, b) => a - b),
        upTo(74)
      )
      for (const { key, partition, seq } of records) {
        if (seq > 2 && seq < 73) assert.strictEqual(partition, partitionOf(key!, 4))
      }
      for (const partition of [0, 1, 2, 3]) {
        const of = records.filter((record) => record.partition === partition).map(({ seq }) => seq)
        assert.deepStrictEqual(
          of,
          of.toSorted((a, b) => a - b)
        )
      }
    })
  )

  test(
    "deletes old segments that every target has, and keeps each stream's last segment",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 2)
      for (const firstSeq of [1, 2, 3, 4]) yield* publish(sql, { firstSeq, messages: 1 })
      yield* publish(sql, { firstSeq: 1, messages: 5, partition: 1 })
      const target = yield* PostgresRelay.make(sql)
      const left = query(
        "left",
        () => sql<Array<{ first_seq: number }>>`select first_seq from millrace.outbox order by partition, first_seq`
      )
      const seqs = Effect.map(left, (rows) => rows.map(({ first_seq }) => first_seq))
      assert.strictEqual(yield* PostgresRelay.collect(sql, { retentionMs: 0 }), 0)
      yield* target.publish
      yield* publish(sql, { firstSeq: 5, messages: 1 })
      assert.strictEqual(yield* PostgresRelay.collect(sql), 0)
      assert.strictEqual(yield* PostgresRelay.collect(sql, { retentionMs: 0, targets: ["embedded", "kafka"] }), 0)
      yield* query(
        "kafka",
        () => sql`
      insert into millrace.relay_position (target, projection, source, partition, seq) values ('kafka', 'p', 'events', 0, 2)`
      )
      assert.strictEqual(yield* PostgresRelay.collect(sql, { retentionMs: 0 }), 1)
      assert.deepStrictEqual(yield* seqs, [2, 3, 4, 5, 1])
      yield* query("kafka", () => sql`update millrace.relay_position set seq = 4 where target = 'kafka'`)
      assert.strictEqual(yield* PostgresRelay.collect(sql, { retentionMs: 0, limit: 1 }), 1)
      assert.strictEqual(yield* PostgresRelay.collect(sql, { retentionMs: 0 }), 1)
      assert.deepStrictEqual(yield* seqs, [4, 5, 1])
      assert.strictEqual((yield* target.publish).messages, 1)
    })
  )

  test(
    "is woken by a notification",
    Effect.fnUntraced(function* (sql) {
      yield* declare(sql, "alerts", 1)
      const target = yield* PostgresRelay.make(sql)
      yield* Effect.forkScoped(Relay.run(target, { pollMs: 600_000 }))
      yield* Effect.sleep(300)
      for (let seq = 1; seq <= 5; seq++) {
        yield* publish(sql, { firstSeq: seq, messages: 1 })
        yield* query("notify", () => sql`select pg_notify('millrace_outbox', '')`)
        while ((yield* topicOf(sql, "alerts")).length < seq) yield* Effect.sleep(2)
      }
    })
  )
})
