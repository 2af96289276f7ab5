// A chain of three projections on PostgreSQL, with its relay: nothing late in catch-up, an upgrade, followers, and who sees time marks.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Application, Projection, Subscription } from "../../../src/index.ts"
import { isTimeMark } from "../../../src/log/time-mark.ts"
import { query, type Sql, transaction } from "../../../src/postgres/client/client.ts"
import { createBuild } from "../../../src/postgres/store/builds.ts"
import { flip, freeze } from "../../../src/postgres/store/promotion.ts"
import { drained } from "../../support/drained.ts"
import * as PostgresFanOut from "../../../src/postgres/subscription/fanout.ts"
import { Log } from "../../../src/log/log.ts"
import chain, { byHub, expectedRows, first, scans, scansOf, second, third } from "../../support/chain.config.ts"
import { append, engine, type Engine, recordOf, relay, run } from "../../support/engine.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const test = (title: string, body: () => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body()), 60_000)

const given = scansOf(600, 30)
const rowsOf = (sql: Sql, window: string) =>
  Effect.map(
    query(
      "rows",
      () =>
        sql<Array<{ text: string }>>`
          select hub || ' ' || to_char(window_start at time zone 'UTC', 'YYYY-MM-DD') || ' ' || n as text from ${sql(window)}`
    ),
    (rows) => rows.map(({ text }) => text).toSorted()
  )
const late = (sql: Sql) => query("late events", () => sql`select projection, position from millrace.late_events`)
const progress = (sql: Sql, projection: string) =>
  query(
    "progress",
    () => sql`select stream_time, stream_times, announced, next_position from millrace.progress
      where projection = ${projection} order by topic, partition`
  )
/** Waits until the last projection's windows hold what they must, or fails with what they hold. */
const whole = Effect.fnUntraced(function* (sql: Sql, expected: ReadonlyArray<string>, withinMs = 15_000) {
  const began = Date.now()
  while (Date.now() - began < withinMs) {
    if (String(yield* rowsOf(sql, "kind_days")) === String(expected)) break
    yield* Effect.sleep(20)
  }
  assert.deepStrictEqual(yield* late(sql), [] as never)
  assert.deepStrictEqual(yield* rowsOf(sql, "hub_days"), expected)
  assert.deepStrictEqual(yield* rowsOf(sql, "kind_days"), expected)
})
/** Waits until all partitions of a projection have this stream time. */
const reached = Effect.fnUntraced(function* (sql: Sql, projection: string, time: number) {
  const began = Date.now()
  for (;;) {
    const rows = yield* progress(sql, projection)
    if (rows.every((row) => row["stream_time"] === time)) return
    if (Date.now() - began > 15_000)
      assert.deepStrictEqual(
        rows.map((row) => row["stream_time"]),
        rows.map(() => time)
      )
    yield* Effect.sleep(20)
  }
})
const appendTo = (on: Engine, partition: number) =>
  on.log.append(
    scans.name,
    given.map((scan) => recordOf(scans, scan, 4)).filter((record) => record.partition === partition)
  )
/** The least of the greatest times of the source's partitions. */
const slowest = Math.min(
  ...[...Map.groupBy(given, (scan) => recordOf(scans, scan, 4).partition).values()].map((some) => some.at(-1)!.at)
)

describe("a chain of three projections", () => {
  test("loses nothing if its source's partitions come one after the other, and nobody but projections sees its time marks", () =>
    Effect.gen(function* () {
      const on = yield* engine(root, chain)
      const { log, sql } = on
      yield* relay(on)
      yield* run(on)
      for (const partition of [2, 0, 3, 1]) {
        yield* appendTo(on, partition)
        const done = given.filter((scan) => recordOf(scans, scan, 4).partition === partition).length
        let position = 0
        while (position < done) {
          position = Number((yield* progress(sql, "first"))[partition]!["next_position"])
          yield* Effect.sleep(20)
        }
      }
      yield* whole(sql, expectedRows(given))
      yield* reached(sql, "third", slowest)

      const records = yield* Effect.forEach([0, 1, 2], (partition) =>
        Effect.map(log.read(byHub.name, partition, 0, { maxBytes: 1 << 24 }), (batch) => batch.records)
      )
      const marks = records.flat().filter(isTimeMark)
      assert.isAbove(marks.length, 3)
      const messages = records.flat().length - marks.length
      assert.strictEqual(messages, given.filter(({ kind }) => kind !== "dropped").length)
      const fanOut = PostgresFanOut.layer(sql).pipe(Layer.provide(Layer.succeed(Log, log)))
      const all = Subscription.make({ topic: byHub, name: "all", type: "exclusive", from: "earliest" })
      const received = yield* Subscription.stream(all).pipe(
        Stream.tap(({ acknowledge }) => acknowledge),
        Stream.map(({ value }) => value.id),
        Stream.take(messages),
        Stream.runCollect,
        Effect.provide(fanOut)
      )
      assert.strictEqual(new Set(received).size, messages)
      const [dead] = yield* query("dead letters", () => sql`select count(*) as n from millrace.dead_letters`)
      assert.strictEqual(Number(dead!["n"]), 0)
    }))

  test("goes on where rows of an older release have no times of streams, and announces once more after a claim", () =>
    Effect.gen(function* () {
      const on = yield* engine(root, chain)
      const { sql } = on
      yield* relay(on)
      const stop = yield* run(on)
      yield* append(on, scans, given.slice(0, 300))
      yield* whole(sql, expectedRows(given.slice(0, 300)))
      yield* stop
      yield* query("forget", () => sql`update millrace.progress set stream_times = null, announced = null`)
      const before = (yield* progress(sql, "second")).map((row) => Number(row["stream_time"] ?? 0))
      yield* run(on)
      // a quiet source announces what it had announced before
      yield* Effect.gen(function* () {
        while ((yield* progress(sql, "third")).some((row) => row["stream_times"] === null)) yield* Effect.sleep(20)
      })
      yield* append(on, scans, given.slice(300))
      yield* whole(sql, expectedRows(given))
      yield* reached(sql, "third", slowest)
      for (const [i, row] of (yield* progress(sql, "second")).entries())
        assert.isAtLeast(Number(row["stream_time"]), before[i]!)
    }))

  test("has followers that announce nothing", () =>
    Effect.gen(function* () {
      const next = { ...first, version: 2 } as Projection.Any
      const application = Application.make({ name: "chain", projections: [first, second, third].map(Projection.async) })
      const on = yield* engine(root, application)
      yield* on.store.prepare([next], () => 4)
      const both = { ...application, projections: [...application.projections, Projection.async(next as never)] }
      yield* relay(on)
      yield* run({ ...on, application: both as never })
      yield* append(on, scans, given)
      yield* whole(on.sql, expectedRows(given))
      yield* reached(on.sql, "third", slowest)
      const readFollowers = query(
        "followers",
        () => on.sql`select next_position, announced, outbox_seq from millrace.progress where mode = 'follower'`
      )
      let followers = yield* readFollowers
      for (; followers.every((row) => row["next_position"] === 0); followers = yield* readFollowers)
        yield* Effect.sleep(20)
      for (const row of followers) assert.deepStrictEqual([row["announced"], Number(row["outbox_seq"])], [null, 0])
    }))

  test("goes on when a follower is promoted while the source is quiet: it announces times by itself, from where the build before stopped", () =>
    Effect.gen(function* () {
      const on = yield* engine(root, chain)
      const { sql } = on
      const next = yield* transaction(sql, (tx) => createBuild(tx, first, { partitionsOf: () => 4, startOf: () => 0 }))
      const both = { ...chain, projections: [...chain.projections, Projection.async(next)] }
      yield* relay(on)
      yield* run({ ...on, application: both as never })
      yield* append(on, scans, given.slice(0, 300))
      yield* whole(sql, expectedRows(given.slice(0, 300)))
      const promotion = { projection: "first", live: 1, follower: 2, token: randomUUID() }
      const end = Date.now() + 15_000
      const isReady = Effect.gen(function* () {
        const [row] = yield* query(
          "announced times",
          () =>
            sql`select bool_and(announced is not null) as ok from millrace.progress where projection = 'first' and version = 1`
        )
        return row!["ok"] === true && (yield* drained(sql, promotion)).isDrained
      })
      for (; !(yield* isReady); yield* Effect.sleep(20)) assert.isBelow(Date.now(), end, "both builds are there")
      yield* freeze(sql, promotion, 10_000)
      yield* flip(sql, promotion)
      const sequences = Effect.map(
        query(
          "sequences",
          () => sql`select outbox_seq, announced is null as lost from millrace.progress
          where projection = 'first' and version = 2 order by partition`
        ),
        (rows) => rows.map((row) => (row["lost"] === true ? 0 : Number(row["outbox_seq"])))
      )
      const before = yield* sequences
      assert.isAbove(Math.min(...before), 0)
      for (; !(yield* sequences).every((seq, i) => seq > before[i]!); yield* Effect.sleep(20))
        assert.isBelow(Date.now(), end, "the promoted build announces its time")
      yield* append(on, scans, given.slice(300))
      yield* whole(sql, expectedRows(given))
      yield* reached(sql, "third", slowest)
    }))
})
