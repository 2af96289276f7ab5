// Applications that fail for the same reason again and again, keys that no index holds, and dead letters that are refused themselves.
import { randomBytes } from "node:crypto"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import { Log } from "../../../src/log/log.ts"
import { retryRecord } from "../../../src/dead-letter/retry-record.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { MemoryEngine } from "../../../src/runner/in-memory.ts"
import * as Runner from "../../../src/runner/runner.ts"
import { Store } from "../../../src/runner/store.ts"
import { halts, recordOf } from "../../support/engine.ts"
import { memoryEngine, parked, type MemoryEngine as Engine } from "../../support/memory-engine.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const Put = Event.make("put", { id: Schema.String, k: Schema.String, v: Schema.String })
const source = Topic.events("puts", { events: [Put], id: "id", key: "k" })
const table = ReadModel.table("rows", { columns: { k: Schema.String, v: Schema.String }, primaryKey: ["k", "v"] })
const owned = Window.tumbling("owned", {
  size: "1 day",
  key: { v: Schema.String },
  aggregate: { n: Agg.count },
  publish: "owned.v1"
})
const puts = (count: number, v: (i: number) => string = (i) => `v${i}`, k = (i: number) => `k${i}`) =>
  Array.from({ length: count }, (_, i) => Put.make({ id: `e${i}`, k: k(i), v: v(i) }))
const count = (sql: Sql) =>
  Effect.map(
    query("count", () => sql<Array<{ n: number }>>`select count(*) as n from p_v1.rows`),
    ([row]) => row!.n
  )
const live = (test: Effect.Effect<void, unknown, Scope.Scope>) => Effect.scoped(test)
/** Runs the projection until `holds`, with halted partitions tried again quickly. */
const runUntil = ({ log, store }: Engine, projection: Projection.Any, holds: Effect.Effect<boolean, unknown>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const waits = { waiting: { firstMs: 5, mostMs: 30 }, halted: { firstMs: 20, mostMs: 50 } }
      yield* Effect.forkScoped(Effect.provideService(Runner.run(projection), Runner.RetryWaits, waits))
      while (!(yield* holds)) yield* Effect.sleep(5)
    })
  ).pipe(Effect.provideService(Log, log), Effect.provideService(Store, store)) as Effect.Effect<void, unknown>
const isHalted = (sql: Sql) => Effect.map(halts(sql), (found) => found.size > 0)
const parkedCount = (sql: Sql) => Effect.map(parked(sql), (found) => found.length)

describe("events that fail one after another for the same reason", () => {
  /** `poison`: which events fail. */
  const projectionOf = (poison: (v: string) => boolean, failure: Projection.Any["failure"] = {}): Projection.Any =>
    Projection.make({
      name: "p",
      version: 1,
      source,
      writes: [table],
      failure,
      handle: ({ id, k, v }, out) => {
        if (poison(v)) throw new Error(`no price for ${id}`)
        out.upsert(table, { k, v })
      }
    })
  it.live("halt the partition with the first cause, and those after it are not parked", () =>
    live(
      Effect.gen(function* () {
        const projection = projectionOf((v) => v >= "v5", { haltAfter: 3 })
        const engine = yield* memoryEngine(root, projection, [source])
        const { append, handle, sql } = engine
        yield* append(source, puts(10))
        yield* handle
        const [reason] = [...(yield* halts(sql)).values()]
        assert.match(
          reason!,
          /^p stopped at puts\/0 position 8: 3 events failed one after another, for the same reason, the first at position 5: Error: no price for e5\. Later events wait/
        )
        assert.deepStrictEqual([yield* parkedCount(sql), yield* count(sql)], [3, 5])
        // the count survives a restart
        yield* handle
        assert.deepStrictEqual([yield* parkedCount(sql), (yield* halts(sql)).size], [3, 1])
        // with the cause gone the rest is processed; what was parked can be retried
        const fixed = projectionOf(() => false, { haltAfter: 3 })
        yield* runUntil(
          engine,
          fixed,
          Effect.map(count(sql), (n) => n === 7)
        )
        assert.deepStrictEqual([(yield* halts(sql)).size, yield* parkedCount(sql)], [0, 3])
        yield* engine.log.append("puts", [retryRecord(recordOf(source, puts(6)[5]!, 1), "p", 5)])
        yield* runUntil(
          engine,
          fixed,
          Effect.map(count(sql), (n) => n === 8)
        )
      })
    )
  )
  it.live("halt it by default after 1,000, and never with `Infinity`", () =>
    live(
      Effect.gen(function* () {
        const projection = projectionOf(() => true)
        const { append, handle, sql } = yield* memoryEngine(root, projection, [source])
        yield* append(source, puts(1_100))
        yield* handle
        assert.deepStrictEqual([yield* parkedCount(sql), (yield* halts(sql)).size], [1_000, 1])
        const endless = projectionOf(() => true, { haltAfter: Infinity })
        const other = yield* memoryEngine(root, endless, [source])
        yield* other.append(source, puts(1_100))
        yield* other.handle
        assert.deepStrictEqual([yield* parkedCount(other.sql), (yield* halts(other.sql)).size], [1_100, 0])
      })
    )
  )
  it.live("go on by themselves once the cause is gone, and call the handler for one event at a time until then", () =>
    live(
      Effect.gen(function* () {
        let isBroken = true
        let calls = 0
        const projection = projectionOf(() => (calls++, isBroken), { haltAfter: 3 })
        const engine = yield* memoryEngine(root, projection, [source])
        const { append, sql } = engine
        yield* append(source, puts(20))
        yield* runUntil(engine, projection, isHalted(sql))
        calls = 0
        let claims = 0
        const claimed = query("read", () => sql<Array<{ epoch: number }>>`select epoch from millrace.progress`)
        const before = (yield* claimed)[0]!.epoch
        yield* runUntil(
          engine,
          projection,
          Effect.map(claimed, ([row]) => (claims = row!.epoch - before) > 3)
        )
        assert.isAbove(calls, 1)
        assert.isAtMost(calls, claims)
        isBroken = false
        yield* runUntil(
          engine,
          projection,
          Effect.map(count(sql), (n) => n === 17)
        )
        assert.deepStrictEqual([(yield* halts(sql)).size, yield* parkedCount(sql)], [0, 3])
      })
    )
  )
  it.live("are counted alike whether the handler throws, the event cannot be read, or PostgreSQL refuses it", () =>
    live(
      Effect.gen(function* () {
        const lacking = Projection.make({
          name: "p",
          version: 1,
          source,
          writes: [owned],
          failure: { haltAfter: 4 },
          handle: ({ v }, out) => out.add(owned, { v, n: 1 })
        }) as Projection.Any
        const first = yield* memoryEngine(root, lacking, [source])
        yield* first.append(source, puts(50))
        yield* first.handle
        assert.deepStrictEqual([yield* parkedCount(first.sql), (yield* halts(first.sql)).size], [4, 1])
        assert.match([...(yield* halts(first.sql)).values()][0]!, /no column of the row's key holds the event's key/)

        const projection = projectionOf(() => false, { haltAfter: 4 })
        const second = yield* memoryEngine(root, projection, [source])
        yield* query("refuse", () => second.sql.unsafe("alter table p_v1.rows add check (v < 'v')"))
        yield* second.append(source, puts(50))
        yield* second.handle
        assert.deepStrictEqual([yield* parkedCount(second.sql), (yield* halts(second.sql)).size], [4, 1])

        const third = yield* memoryEngine(root, projection, [source])
        yield* third.append(
          source,
          puts(50).map((event) => Object.assign(event, { v: 5 }))
        )
        yield* third.handle
        assert.deepStrictEqual([yield* parkedCount(third.sql), (yield* halts(third.sql)).size], [4, 1])
      })
    )
  )
  it.live("halt the test kit's engine, too", () =>
    live(
      Effect.gen(function* () {
        const engine = new MemoryEngine<never, Error, never>(projectionOf(() => true, { haltAfter: 3 }) as never)
        const error = yield* Effect.flip(engine.process(puts(10) as never))
        assert.match(String(error), /3 events failed one after another/)
        assert.lengthOf(engine.deadLetters(), 3)
        const good = new MemoryEngine<never, Error, never>(projectionOf((v) => v !== "v3", { haltAfter: 3 }) as never)
        yield* good.process(puts(7) as never)
        assert.lengthOf(good.deadLetters(), 6)
      })
    )
  )
})

describe("a key that is longer than an index can hold", () => {
  const projection: Projection.Any = Projection.make({
    name: "p",
    version: 1,
    source,
    writes: [table],
    handle: ({ k, v }, out) => out.upsert(table, { k, v })
  })
  it.live("parks its event, among 12 partitions that share statements", () =>
    live(
      Effect.gen(function* () {
        const { append, handle, sql } = yield* memoryEngine(root, projection, [source], { partitions: 12 })
        const long = (i: number) => (i % 6 === 0 ? `BAD${randomBytes(3000).toString("base64")}` : `good${i}`)
        yield* append(
          source,
          puts(600, long, (i) => `k${i % 48}`)
        )
        yield* handle
        assert.deepStrictEqual([yield* count(sql), yield* parkedCount(sql), (yield* halts(sql)).size], [500, 100, 0])
        assert.deepStrictEqual(new Set((yield* parked(sql)).map(([, error]) => error)), new Set(["KeyTooLong"]))
      })
    )
  )
  it.live("is the same for the test kit and for PostgreSQL, whether it can be compressed or not", () =>
    live(
      Effect.gen(function* () {
        // two columns count 32 bytes, and the key of the event 1
        const longest = 2_696 - 32 - 1
        const values = [
          "a".repeat(longest),
          "a".repeat(longest + 1),
          randomBytes(longest).toString("hex").slice(0, longest),
          "é".repeat(longest / 2 - 1),
          "é".repeat(longest / 2 + 1),
          "a".repeat(1_000_000)
        ]
        const events = puts(
          values.length,
          (i) => values[i]!,
          () => "k"
        )
        const { append, handle, sql } = yield* memoryEngine(root, projection, [source])
        yield* append(source, events)
        yield* handle
        const engine = new MemoryEngine<never, Error, never>(projection as never)
        yield* engine.process(events as never)
        assert.deepStrictEqual(
          (yield* parked(sql)).map(([position]) => position),
          [1, 4, 5]
        )
        assert.deepStrictEqual(
          engine.deadLetters().map(({ position }) => position),
          [1, 4, 5]
        )
        assert.deepStrictEqual([...(yield* halts(sql))], [])
        assert.throws(() => engine.seed(table as never, [{ k: "k", v: "a".repeat(2_700) }]), /54000/)
      })
    )
  )
})

describe("a dead letter that is refused itself", () => {
  const failing: Projection.Any = Projection.make({
    name: "p",
    version: 1,
    source,
    writes: [table],
    handle: ({ k, v }, out) => {
      if (v === "v1") throw new Error("grün \u0000")
      out.upsert(table, { k, v })
    }
  })
  for (const [what, condition] of [
    ["for its value", "new.value is not null"],
    ["for characters of its message", "new.message ~ '[^ -~]'"],
    ["for its key", "new.key is not null"]
  ] as const) {
    it.live(`${what} is kept without it, and nothing halts`, () =>
      live(
        Effect.gen(function* () {
          const { append, handle, sql } = yield* memoryEngine(root, failing, [source])
          yield* query("refuse", () =>
            sql.unsafe(`create function refuse() returns trigger language plpgsql as $$
              begin if ${condition} then raise exception 'no' using errcode = '22P05'; end if; return new; end $$;
              create trigger refuse before insert on millrace.dead_letters for each row execute function refuse()`)
          )
          yield* append(source, puts(4))
          yield* handle
          assert.deepStrictEqual([yield* count(sql), (yield* halts(sql)).size], [3, 0])
          const [letter, ...more] = yield* parked(sql)
          assert.deepStrictEqual([letter![0], more], [1, []])
        })
      )
    )
  }
  it.live("in every form halts the partition alone, and goes on by itself", () =>
    live(
      Effect.gen(function* () {
        const engine = yield* memoryEngine(root, failing, [source])
        const { append, sql } = engine
        yield* query("refuse", () => sql.unsafe("alter table millrace.dead_letters add constraint none check (false)"))
        yield* append(source, puts(4))
        yield* runUntil(engine, failing, isHalted(sql))
        yield* query("allow", () => sql.unsafe("alter table millrace.dead_letters drop constraint none"))
        yield* runUntil(
          engine,
          failing,
          Effect.map(count(sql), (n) => n === 3)
        )
        assert.deepStrictEqual([yield* parkedCount(sql), (yield* halts(sql)).size], [1, 0])
      })
    )
  )
})
