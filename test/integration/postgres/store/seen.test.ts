// Ids of events that the log no longer has are deleted, and every event within the retention is judged as if none had been.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import { type DedupedSource, pruneSeen } from "../../../../src/postgres/store/seen.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import { SeenIds } from "../../../../src/runner/dedupe.ts"
import { databaseOn, server } from "../../../support/postgres.ts"
import { type Random, randomOf, seed } from "../../../support/random.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const test = (name: string, body: (sql: Sql) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(databaseOn(root), ({ sql }) => body(sql))), 60_000)

const at = { projection: "p", version: 1, topic: "t", partition: 0 }
const retentionMs = 600_000
const source = (withinMs: number): DedupedSource => ({
  projection: "p",
  declared: 1,
  topic: "t",
  retentionMs,
  withinMs
})
const prepare = (sql: Sql) =>
  query("prepare", () =>
    sql.unsafe(`insert into millrace.projection (name, version, declared, definition) values ('p', 1, 1, ''), ('p', 2, 1, ''), ('p', 3, 2, '');
      insert into millrace.progress (projection, version, topic, partition, mode, stream_time)
        select 'p', v, 't', 0, case v when 1 then 'live' else 'follower' end, 2000000 from generate_series(1, 3) v`)
  )
const rowsOf = (sql: Sql) =>
  Effect.map(
    query(
      "rows",
      () => sql<Array<{ version: number; chunk: number }>>`select version, chunk from millrace.seen order by 1, 2`
    ),
    (rows) => rows.map(({ chunk, version }) => `${version}:${chunk}`)
  )

test("rows are deleted by build, beyond the retention in both times, in bounded pieces", (sql) =>
  Effect.gen(function* () {
    yield* prepare(sql)
    // 0: old in both times; 1: stored just now; 2: its times are near the retention's end; 3: near an open dead letter; 4: near a decided one
    yield* query("seen", () =>
      sql.unsafe(`insert into millrace.seen (projection, version, topic, partition, chunk, min_time, max_time, ids, stored_at)
        select 'p', v, 't', 0, c.chunk, c.low, c.high, '', now() - c.age * interval '1 second'
        from generate_series(1, 3) v, (values (0, 1000, 2000, 601), (1, 1000, 2000, 599), (2, 1000, 1399000, 601), (3, 500000, 500500, 601), (4, 700000, 700500, 601))
          as c(chunk, low, high, age);
        insert into millrace.dead_letters (projection, version, topic, partition, position, status, error, message, attempts, headers, event_time)
        values ('p', 1, 't', 0, 1, 'parked', 'E', '', 1, '{}', to_timestamp(501)), ('p', 1, 't', 0, 2, 'discarded', 'E', '', 1, '{}', to_timestamp(700))`)
    )
    const all = [source(1_000)]
    assert.strictEqual(yield* pruneSeen(sql, all, 1), 1)
    assert.strictEqual(yield* pruneSeen(sql, all), 4)
    assert.strictEqual(yield* pruneSeen(sql, all), 0)
    // build 2 has no dead letters; build 3 is of another declared version
    assert.deepStrictEqual(yield* rowsOf(sql), [
      "1:1",
      "1:2",
      "1:3",
      "2:1",
      "2:2",
      ...[0, 1, 2, 3, 4].map((chunk) => `3:${chunk}`)
    ])
    // an open dead letter whose time is not known may be brought back with any
    yield* query("unknown", () => sql`update millrace.dead_letters set event_time = null`)
    yield* query("old", () => sql`update millrace.seen set stored_at = 'epoch', max_time = min_time where version = 1`)
    assert.strictEqual(yield* pruneSeen(sql, all), 0)
    yield* query("decide", () => sql`update millrace.dead_letters set status = 'retried'`)
    assert.strictEqual(yield* pruneSeen(sql, all), 3)
  }))

/** Processes random events twice: with every id, and with a store whose ids are deleted now and then. */
const compare = Effect.fnUntraced(function* (sql: Sql, random: Random, withinMs: number) {
  yield* query("clear", () => sql.unsafe("truncate millrace.seen, millrace.dead_letters"))
  const store = PostgresStore.make(sql)
  const kept: Array<Uint8Array> = []
  let streamTime = 10_000_000
  let [all, pruned] = [new SeenIds(withinMs, undefined), new SeenIds(withinMs, undefined)]
  let newest = -Infinity
  let deleted = 0
  const parked: Array<{ readonly id: string; readonly time: number; readonly position: number }> = []
  for (let batch = 0; batch < 120; batch++) {
    if (random.chance(0.4)) streamTime += random.int(0, retentionMs)
    const events = Array.from({ length: random.int(1, 2) }, () => ({
      id: `e${random.int(0, 2)}`,
      // some of them at the very edge
      time: streamTime - random.pick([0, retentionMs, random.int(0, retentionMs)])
    }))
    // a dead letter is processed whenever it is retried, however old it is then
    const again = parked.length > 0 && random.chance(0.3) ? parked.splice(random.int(0, parked.length - 1), 1) : []
    const both = [...events, ...again]
    const ranges = {
      all: all.missing(both.map(({ time }) => time)),
      pruned: pruned.missing(both.map(({ time }) => time))
    }
    all.load(ranges.all, kept)
    pruned.load(ranges.pruned, yield* store.seenIds(at, ranges.pruned))
    for (const { id, time } of both)
      assert.strictEqual(
        pruned.test("t", id, time),
        all.test("t", id, time),
        `${id} at ${time}, stream time ${streamTime}`
      )
    const packed = all.packed()
    pruned.packed()
    if (packed !== undefined) {
      kept.push(packed.packed)
      newest = Math.max(newest, packed.maxTime)
      // what is stored is what the log had long ago
      yield* query(
        "store",
        () => sql`insert into millrace.seen (projection, version, topic, partition, chunk, min_time, max_time, ids, stored_at)
          values ('p', 1, 't', 0, ${batch}, ${packed.minTime}, ${packed.maxTime}, ${Buffer.from(packed.packed)}, 'epoch')`
      )
    }
    all.onCommitted()
    pruned.onCommitted()
    for (const { position } of again)
      yield* query(
        "retried",
        () => sql`update millrace.dead_letters set status = 'retried' where position = ${position}`
      )
    if (random.chance(0.3)) {
      const one = { id: `e${random.int(0, 2)}`, time: streamTime - random.int(0, retentionMs), position: batch }
      parked.push(one)
      yield* query(
        "park",
        () => sql`insert into millrace.dead_letters (projection, version, topic, partition, position, status, error, message, attempts, headers, event_time)
          values ('p', 1, 't', 0, ${batch}, 'parked', 'E', '', 1, '{}', to_timestamp(${one.time}::float8 / 1000))`
      )
    }
    yield* query("move", () => sql`update millrace.progress set stream_time = ${streamTime} where version = 1`)
    if (random.chance(0.7)) deleted += yield* pruneSeen(sql, [source(withinMs)])
    // another process claims the partition
    if (random.chance(0.4)) {
      const [row] = yield* query(
        "newest",
        () => sql<Array<{ newest: number | null }>>`select max(max_time) as newest from millrace.seen`
      )
      all = new SeenIds(withinMs, newest === -Infinity ? undefined : newest)
      pruned = new SeenIds(withinMs, row!.newest ?? undefined)
    }
  }
  return deleted
})
test("an event within the retention, or retried, is judged as if no id had been deleted", (sql) =>
  Effect.gen(function* () {
    yield* prepare(sql)
    const random = randomOf(seed)
    let deleted = 0
    for (const withinMs of [0, 60_000, 200_000, 600_000]) deleted += yield* compare(sql, random, withinMs)
    assert.isAbove(deleted, 10)
  }))
