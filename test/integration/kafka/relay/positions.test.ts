// Where the relay to Kafka starts and goes on: positions on Kafka compared with the outbox, on a real broker and a real PostgreSQL.
import { afterAll, assert, beforeAll } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { query, transaction } from "../../../../src/postgres/client/client.ts"
import * as PostgresRelay from "../../../../src/postgres/relay/to-log.ts"
import { shared } from "../../../../stack/testing.ts"
import * as Embedded from "../../../support/outbox.ts"
import {
  another,
  collectPublished,
  commitEach,
  forgetSequence,
  positions,
  publish,
  renumber,
  upTo
} from "../../../support/outbox.ts"
import { server } from "../../../support/postgres.ts"
import {
  declare,
  intercept,
  lost,
  offsetsOf,
  requests,
  sequencesOf,
  shipAll,
  testsOn,
  withAdmin
} from "../../../support/relay-kafka.ts"
import { needing } from "../../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let services: { readonly root: string; readonly brokers: ReadonlyArray<string> } = { root: "", brokers: [] }
const test = testsOn(() => services)
const other = "00000000-0000-4000-8000-000000000002"

suite("positions of the relay to Kafka", () => {
  beforeAll(async () => {
    const root = await Effect.runPromise(Scope.provide(server, scope))
    const endpoints = await Effect.runPromise(Scope.provide(shared("kafka"), scope))
    services = { root, brokers: endpoints.MILLRACE_KAFKA_BROKERS!.split(",") }
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test(
    "halts if the database was restored to another state, also while it runs, and goes on from the position that a person sets",
    Effect.fnUntraced(function* ({ log, name: target, options, records, relay, sql }) {
      yield* declare(log, target, 3)
      for (const partition of [0, 1, 2]) {
        yield* publish(sql, { firstSeq: 1, messages: 3, partition, target })
        yield* publish(sql, { firstSeq: 4, messages: 3, partition, target })
      }
      const first = yield* Scope.make()
      const running = yield* Scope.provide(relay(), first)
      assert.strictEqual(yield* shipAll(running), 18)
      // 0: the same numbers mean other messages; 1: fewer messages; 2: fewer, and then more other messages than before
      yield* query("restore", () => sql`delete from millrace.outbox where first_seq = 4`)
      yield* query("restore", () => sql`update millrace.relay_position set seq = 3`)
      yield* publish(sql, { firstSeq: 4, messages: 3, target, incarnation: other })
      yield* publish(sql, { firstSeq: 7, messages: 1, target, incarnation: other })
      yield* publish(sql, { firstSeq: 4, messages: 5, partition: 2, target, incarnation: other })
      yield* publish(sql, { firstSeq: 9, messages: 1, partition: 2, target, incarnation: other })
      assert.strictEqual(yield* shipAll(running), 0)
      assert.strictEqual((yield* running.publish).halted.length, 3)
      yield* Scope.close(first, Exit.void)
      const again = yield* relay()
      assert.strictEqual(yield* shipAll(again), 0)
      const { halted } = yield* again.publish
      assert.strictEqual(halted.length, 3)
      assert.match(
        halted[0]!.reason,
        /message 6 was the last one published, but the outbox has another one there, or none/
      )
      assert.deepStrictEqual(
        (yield* offsetsOf(options, `${target}/p`, "events")).map(({ seq }) => seq),
        [6, 6, 6]
      )
      // as the reason advises: set the position that Kafka has, and go on there; lost answers change nothing
      let ends = 0
      yield* intercept(async (key, send) => {
        const answer = await send()
        if (key === requests.end && ends++ < 4) throw lost()
        return answer
      })
      yield* query(
        "adopt",
        () => sql`
        update millrace.relay_position set seq = 6, adopt = true where partition = 0`
      )
      while ((yield* positions(sql))[0]!.seq < 7) yield* Effect.exit(again.publish)
      assert.deepStrictEqual(sequencesOf(yield* records(target))["p/events/0"], upTo(7))
      const [row] = yield* query(
        "adopted",
        () => sql`select adopt, incarnation from millrace.relay_position where partition = 0`
      )
      assert.deepStrictEqual(row, { adopt: false, incarnation: other })
    })
  )

  test(
    "halts where numbers of a stream begin again with a collected outbox, also while it runs, and goes on when they are corrected",
    Effect.fnUntraced(function* ({ log, name: target, records, relay, sql }) {
      yield* declare(log, target, 1)
      yield* commitEach(sql, 5, { target })
      const running = yield* relay()
      assert.strictEqual(yield* shipAll(running), 5)
      assert.deepStrictEqual((yield* running.publish).halted, [])
      yield* collectPublished(sql, "kafka")
      yield* forgetSequence(sql)
      yield* commitEach(sql, 3, { target, incarnation: another })
      while ((yield* running.publish).halted.length === 0) yield* Effect.sleep(20)
      assert.match(
        (yield* running.publish).halted[0]!.reason,
        /^message 5 was the last one published, but projection p has committed 3/
      )
      assert.match((yield* positions(sql))[0]!.halted ?? "", /its numbers began again/)
      yield* renumber(sql, 5)
      while ((yield* positions(sql))[0]!.seq < 8) yield* running.publish
      assert.deepStrictEqual(sequencesOf(yield* records(target))["p/events/0"], upTo(8))
      assert.deepStrictEqual((yield* positions(sql))[0]!.halted, null)
    })
  )

  test(
    "halts if Kafka no longer has the offset, or has an older one",
    Effect.fnUntraced(function* ({ log, name: target, options, records, relay, sql }) {
      yield* declare(log, target, 2)
      yield* publish(sql, { firstSeq: 1, messages: 3, target })
      const first = yield* Scope.make()
      yield* shipAll(yield* Scope.provide(relay(), first))
      yield* Scope.close(first, Exit.void)
      yield* publish(sql, { firstSeq: 4, messages: 1, target })
      yield* withAdmin(options, (admin) => admin.deleteGroups([`${target}/p`]))
      const second = yield* Scope.make()
      const without = yield* Scope.provide(relay(), second)
      assert.strictEqual(yield* shipAll(without), 0)
      assert.match(
        (yield* without.publish).halted[0]!.reason,
        /message 3 was published, but Kafka has no offset of events\/0/
      )
      yield* Scope.close(second, Exit.void)
      yield* withAdmin(options, (admin) =>
        admin.setOffsets({ groupId: `${target}/p`, topic: "events", partitions: [{ partition: 0, offset: "2" }] })
      )
      const third = yield* relay()
      assert.strictEqual(yield* shipAll(third), 0)
      assert.match((yield* third.publish).halted[0]!.reason, /message 3 was published, but the group .* is at 2/)
      yield* query("adopt", () => sql`update millrace.relay_position set adopt = true`)
      while ((yield* positions(sql))[0]!.seq < 4) yield* third.publish
      assert.deepStrictEqual(sequencesOf(yield* records(target)), { "p/events/0": upTo(4) })
    })
  )

  test(
    "starts where the outbox starts if another relay published the rest, and deletes nothing that it still needs",
    Effect.fnUntraced(function* ({ log, name: target, records, relay, sql }) {
      yield* declare(log, target, 1)
      yield* Embedded.declare(sql, target, 1)
      for (let i = 0; i < 10; i++) yield* publish(sql, { firstSeq: 1 + i * 2, messages: 2, target })
      const embedded = yield* PostgresRelay.make(sql)
      while ((yield* embedded.publish).more);
      yield* query(
        "age",
        () => sql`update millrace.outbox set created_at = now() - interval '1 day' where first_seq < 10`
      )
      assert.strictEqual(yield* PostgresRelay.collect(sql, { retentionMs: 60_000 }), 5)
      const kafka = yield* relay()
      assert.strictEqual(yield* shipAll(kafka), 10)
      assert.deepStrictEqual(sequencesOf(yield* records(target))["p/events/0"], upTo(20).slice(10))
    })
  )

  test(
    "starts after the segments that are being deleted while it starts",
    Effect.fnUntraced(function* ({ outbox, sql }) {
      for (let i = 0; i < 4; i++) yield* publish(sql, { firstSeq: 1 + i * 2, messages: 2, target: "t" })
      yield* query(
        "shipped",
        () => sql`
        insert into millrace.relay_position (target, projection, source, partition, seq) values ('other', 'p', 'events', 0, 8)`
      )
      const beginning = yield* transaction(
        sql,
        Effect.fnUntraced(function* (tx) {
          // until it is committed no other transaction sees that they were deleted
          const [row] = yield* query(
            "collect",
            () => tx`select millrace.outbox_collect('{other}', -60000, 2) as deleted`
          )
          assert.deepStrictEqual(row, { deleted: 2 })
          const fiber = yield* Effect.forkDetach(outbox.streams("kafka"))
          const waiting = query(
            "waiting",
            () => sql`
            select 1 from pg_locks where locktype = 'advisory' and classid::bigint = 1820000000 and not granted`
          )
          while ((yield* waiting).length === 0 && fiber.pollUnsafe() === undefined) yield* Effect.sleep(5)
          return fiber
        })
      )
      const streams = yield* Fiber.join(beginning)
      assert.deepStrictEqual(
        streams.map(({ incarnation: of, seq }) => [seq, of]),
        [[4, undefined]]
      )
    })
  )

  test(
    "writes positions again before Kafka forgets them",
    Effect.fnUntraced(function* ({ log, name: target, relay, sql }) {
      yield* declare(log, target, 1)
      yield* publish(sql, { firstSeq: 1, messages: 1, target })
      let commits = 0
      yield* intercept((apiKey, send) => {
        if (apiKey === requests.commitOffsets) commits++
        return send()
      })
      yield* Effect.scoped(
        Effect.gen(function* () {
          const kafka = yield* relay({ refreshMs: 600_000 })
          yield* shipAll(kafka)
          assert.strictEqual(commits, 1)
          yield* kafka.publish
          assert.strictEqual(commits, 1)
        })
      )
      const kafka = yield* relay({ refreshMs: 100 })
      const enough = () => commits >= 3
      while (!enough()) yield* Effect.andThen(kafka.publish, Effect.sleep(20))
    })
  )
})
