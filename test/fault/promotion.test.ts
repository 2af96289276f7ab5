// Promotions there and back again under traffic, while promoters die at every step and runners are restarted: each event is published once, in order,
// and both builds have the same rows.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { randomUUID } from "node:crypto"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Application, Event, Projection, ReadModel, Topic, Window } from "../../src/index.ts"
import { Log } from "../../src/log/log.ts"
import { buildOf } from "../../src/model/build.ts"
import { connect, query, transaction } from "../../src/postgres/client/client.ts"
import { createBuild } from "../../src/postgres/store/builds.ts"
import { flip, freeze, thaw } from "../../src/postgres/store/promotion.ts"
import { drained } from "../support/drained.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import * as Runner from "../../src/runner/runner.ts"
import { Store } from "../../src/runner/store.ts"
import { append, type Engine, engine, relay } from "../support/engine.ts"
import { server } from "../support/postgres.ts"
import { isLong } from "../support/size.ts"
import { assertCaught } from "./commits.ts"
import * as Without from "./promotions.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const partitions = 4
const moved = Event.make("moved", { id: Schema.String, k: Schema.String, n: Schema.Finite, at: Schema.Int })
const source = Topic.events("moves", { events: [moved], id: "id", key: "k", eventTime: "at", partitions })
const out = Topic.records("out", { value: { id: Schema.String, k: Schema.String }, id: "id", key: "k", partitions })
const seen = ReadModel.table("seen", { columns: { id: Schema.String, k: Schema.String }, primaryKey: ["id"] })
const sums = Window.tumbling("sums", {
  size: "1 hour",
  key: { k: Schema.String },
  aggregate: { n: Agg.count, sum: Agg.sum }
})
const all = Window.global("all_counts", { key: { k: Schema.String }, aggregate: { n: Agg.count }, shared: true })
const projection = Projection.make({
  name: "p",
  version: 1,
  source,
  dedupe: { within: "1 hour" },
  writes: [seen, sums, all, out],
  handle: ({ id, k, n }, to) => {
    to.upsert(seen, { id, k })
    to.add(sums, { k, n: 1, sum: n })
    to.add(all, { k, n: 1 })
    to.publish(out, { id, k })
  }
})
const application = Application.make({ name: "promotions", projections: [Projection.async(projection)] })
const builds = [projection, buildOf(projection, 2)]

/** A system with two builds, which do not run yet, and a relay. */
const twoBuilds = Effect.fnUntraced(function* (removed: ReadonlyArray<Without.RemovedProtection> = []) {
  const on = yield* engine(root, application, { max: 16 })
  yield* Without.removeFrom(on.sql, removed)
  yield* transaction(on.sql, (tx) => createBuild(tx, projection, { partitionsOf: () => partitions, startOf: () => 0 }))
  yield* relay(on)
  const store = PostgresStore.make(Without.commitsWithout(on.sql, removed))
  const isHeld = !removed.includes(Without.noBound)
  return { ...on, store: isHeld ? store : { ...store, bound: () => Effect.succeed(Infinity) } }
})
const runBuild = ({ log, store }: Engine, build: Projection.Any) =>
  Runner.run(build as typeof projection).pipe(Effect.provideService(Log, log), Effect.provideService(Store, store))
let fed = 0
const eventsOf = (count: number) =>
  Array.from({ length: count }, () => {
    const n = fed++
    return { type: "moved", id: String(n), k: `k${n % 17}`, n: 1, at: 1_000 + n }
  })
const feed = (on: Engine, count: number) => append(on, source as never, eventsOf(count))

const until = Effect.fnUntraced(function* ({ sql }: Engine, what: string, condition: string, withinMs = 20_000) {
  for (const end = Date.now() + withinMs; ; yield* Effect.sleep("20 millis")) {
    const [row] = yield* query("look", () => sql.unsafe<Array<{ ok: boolean }>>(`select (${condition}) as ok`))
    if (row!.ok) return
    assert.isBelow(Date.now(), end, `never: ${what}`)
  }
})
const at = (build: number, count: number) =>
  `(select sum(next_position) from millrace.progress where version = ${build}) = ${count}`

interface Batch {
  readonly partition: number
  readonly vals: string
  readonly stream: string
  readonly first_seq: number
  readonly records: number
}
/** Asserts that the events from `first` on were published once each and in order, without a gap in any stream, and that all rows are right. */
const assertExact = Effect.fnUntraced(function* (on: Engine, first: number) {
  const { sql } = on
  const count = fed - first
  for (const build of [1, 2])
    yield* until(on, `build ${build} has all events`, `(select count(*) from p_v${build}.seen) = ${count}`)
  yield* until(
    on,
    "all messages are published",
    `(select sum(r.seq) from millrace.relay_position r) = (select sum(outbox_seq) from millrace.progress where mode <> 'follower')`
  )
  const batches = yield* query(
    "published",
    () => sql<Array<Batch>>`select b.partition, b.vals, b.stream, b.first_seq, b.records from millrace.log_batch b
      join millrace.log_topic t using (topic_id) where t.name = 'out' order by b.partition, b.base_position`
  )
  const published = batches.flatMap(({ vals }) =>
    vals.split("\n").map((val) => JSON.parse(val) as { id: string; k: string })
  )
  assert.strictEqual(new Set(published.map(({ id }) => id)).size, count, "every event is published")
  assert.strictEqual(published.length, count, "none is published twice")
  const last = new Map<string, number>()
  for (const { id, k } of published) {
    assert.isAbove(Number(id), last.get(k) ?? -1, "the events of a key are published in order")
    last.set(k, Number(id))
  }
  const next = new Map<string, number>()
  for (const { first_seq: firstSeq, records, stream } of batches) {
    assert.strictEqual(firstSeq, next.get(stream) ?? 1, "a stream has no gap")
    next.set(stream, firstSeq + records)
  }
  const [rows] = yield* query(
    "rows",
    () => sql<Array<Record<string, number>>>`select
      (select count(*) from (select * from p_v1.sums except select * from p_v2.sums) x) as sums,
      (select count(*) from (select * from p_v1.seen except select * from p_v2.seen) x) as seen,
      (select sum(n)::int8 from p_v1.sums) as counted,
      (select sum(n)::int8 from millrace_shared.all_counts) as shared,
      (select count(*) from millrace.relay_position where halted is not null) as relays,
      (select count(*) from millrace.progress where halted is not null) as halted,
      (select count(*) from millrace.dead_letters) as dead`
  )
  assert.deepStrictEqual(
    { ...rows },
    { sums: 0, seen: 0, counted: count, shared: count, relays: 0, halted: 0, dead: 0 }
  )
})
/** Freezes, drains and switches. Fails if it takes longer than some seconds. */
const promoted = Effect.fnUntraced(function* (on: Engine, live: number, follower: number) {
  const promotion = { projection: "p", live, follower, token: randomUUID() }
  assert.isDefined(yield* freeze(on.sql, promotion, 10_000))
  for (const end = Date.now() + 8_000; !(yield* drained(on.sql, promotion)).isDrained; yield* Effect.sleep("5 millis"))
    assert.isBelow(Date.now(), end, "the follower drains")
  return yield* flip(on.sql, promotion)
})

describe("a follower that runs", () => {
  const behindStopped = (removed: ReadonlyArray<Without.RemovedProtection> = []) =>
    Effect.scoped(
      Effect.gen(function* () {
        const on = yield* twoBuilds(removed)
        const first = fed
        const old = yield* Effect.forkScoped(runBuild(on, builds[0]!))
        yield* Effect.forkScoped(runBuild(on, builds[1]!))
        yield* feed(on, 40)
        yield* until(on, "both are there", `${at(1, 40)} and ${at(2, 40)}`)
        yield* Fiber.interrupt(old)
        yield* feed(on, 30)
        yield* Effect.sleep("300 millis")
        yield* until(on, "the follower waits", at(2, 40), 0)
        assert.strictEqual(yield* promoted(on, 1, 2), "now")
        yield* until(on, "the promoted build goes on", at(2, 70))
        yield* Effect.forkScoped(runBuild(on, builds[0]!))
        yield* assertExact(on, first)
      })
    )
  it.live(
    "goes no further than a live build that stopped, and goes on there once it was promoted, with every event published once",
    () => behindStopped()
  )
  it.live("caught: neither its runner nor its commits are held back", () =>
    Effect.map(Effect.exit(behindStopped([Without.noBound])), assertCaught)
  )

  it.live(
    "is promoted after its runner and that of the frozen build were restarted, and a freeze that nobody ends is over by itself",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const on = yield* twoBuilds()
          const first = fed
          const start = () => Effect.forEach(builds, (build) => Effect.forkScoped(runBuild(on, build)))
          const before = yield* start()
          yield* feed(on, 40)
          yield* until(on, "the live build is there", at(1, 40))
          yield* freeze(on.sql, { projection: "p", live: 1, token: randomUUID() }, 1_000)
          yield* feed(on, 20)
          yield* Effect.forEach(before, Fiber.interrupt)
          yield* start()
          yield* Effect.sleep("200 millis")
          yield* until(on, "the live build is frozen", at(1, 40), 0)
          // its promoter has died
          yield* until(on, "both go on", `${at(1, 60)} and ${at(2, 60)}`)
          assert.strictEqual(yield* promoted(on, 1, 2), "now")
          yield* feed(on, 20)
          yield* until(on, "both go on after the switch", `${at(1, 80)} and ${at(2, 80)}`)
          assert.strictEqual(yield* promoted(on, 2, 1), "now")
          yield* feed(on, 20)
          yield* assertExact(on, first)
        })
      )
  )
})

const pick = <A>(list: ReadonlyArray<A>): A => list[Math.floor(Math.random() * list.length)]!
const deaths = ["frozen", "drained", "locking", "killed", "sent"] as const

/** Promotes the build that is not live, over a connection of its own, and dies at some step in most cases. Returns whether it switched. */
const attempt = Effect.fnUntraced(function* (on: Engine, name: string) {
  const { sql, url } = on
  const [row] = yield* query("live", () => sql<Array<{ version: number }>>`select version from millrace.live`)
  const promotion = { projection: "p", live: row!.version, follower: 3 - row!.version, token: randomUUID() }
  const own = yield* connect(url, { max: 1, applicationName: name })
  const end = query(
    "end",
    () =>
      sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = ${name} and datname = current_database()`
  )
  const death = Math.random() < 0.6 ? pick(deaths) : undefined
  for (
    const limit = Date.now() + 5_000;
    (yield* drained(sql, promotion)).behind > 200;
    yield* Effect.sleep("20 millis")
  )
    if (Date.now() > limit) return false
  if ((yield* freeze(own, promotion, 800)) === undefined) return false
  if (death === "frozen") return false
  for (const limit = Date.now() + 600; !(yield* drained(own, promotion)).isDrained; yield* Effect.sleep("5 millis"))
    if (Date.now() > limit) return (yield* thaw(own, promotion), false)
  if (death === "drained") return false
  if (death === undefined) {
    const result = yield* flip(own, promotion)
    assert.deepStrictEqual([result, yield* flip(sql, promotion)], ["now", "before"])
    return true
  }
  if (death === "sent") return (yield* flip(own, promotion), true)
  const flipping = Effect.forkChild(Effect.exit(flip(own, promotion)))
  if (death === "killed") {
    const fiber = yield* flipping
    yield* end
    return Exit.isSuccess(yield* Fiber.join(fiber))
  }
  // it waits for a row that another session has locked, and is ended meanwhile
  return yield* transaction(sql, (tx) =>
    Effect.gen(function* () {
      yield* query(
        "lock",
        () => tx`select from millrace.progress where version = ${promotion.follower} and partition = 2 for update`
      )
      const fiber = yield* flipping
      yield* Effect.sleep("60 millis")
      yield* end
      return Exit.isSuccess(yield* Fiber.join(fiber))
    })
  )
})

/** Runs promoters for so many seconds, and on until one has switched, for half a minute at most. Returns how often they switched. */
const stressed = Effect.fnUntraced(function* (seconds: number, promoters: number) {
  const on = yield* twoBuilds()
  const first = fed
  const restarted = (build: Projection.Any) =>
    Effect.forever(
      Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(runBuild(on, build))
        yield* Effect.sleep(1_500 + Math.random() * 4_000)
        yield* Fiber.interrupt(fiber)
      })
    )
  for (const build of builds) yield* Effect.forkScoped(restarted(build))
  const feeding = yield* Effect.forkScoped(
    Effect.forever(
      Effect.andThen(
        Effect.suspend(() => Effect.uninterruptible(feed(on, 20))),
        Effect.sleep("30 millis")
      )
    )
  )
  const began = Date.now()
  let switches = 0
  const isOver = () => Date.now() > began + (switches > 0 ? seconds : seconds + 30) * 1_000
  const promoter = Effect.fnUntraced(function* (name: string) {
    while (!isOver()) {
      // a lost connection, or a refusal, ends the attempt
      const exit = yield* Effect.exit(Effect.scoped(attempt(on, name)))
      if (Exit.isSuccess(exit) && exit.value) switches++
      if (Exit.isFailure(exit) && Cause.hasDies(exit.cause)) yield* exit
      yield* Effect.sleep(Math.random() * 300)
    }
  })
  yield* Effect.forEach(
    Array.from({ length: promoters }, (_, i) => `promoter ${i}`),
    promoter,
    { concurrency: promoters }
  )
  yield* Fiber.interrupt(feeding)
  yield* assertExact(on, first)
  const [row] = yield* query(
    "promotions",
    () => on.sql<Array<{ n: number }>>`select count(*) as n from millrace.promotion`
  )
  assert.isAtLeast(row!.n, switches)
  return row!.n
})

describe("under traffic", () => {
  const seconds = isLong ? 40 : 3
  for (const promoters of [1, 3])
    it.live(
      `${promoters === 1 ? "a promoter that dies" : "promoters that die"} at any step, and runners that are restarted, lose and double nothing`,
      () =>
        Effect.scoped(
          Effect.gen(function* () {
            const began = fed
            const switches = yield* stressed(seconds, promoters)
            yield* Effect.logInfo(`${switches} switches, ${fed - began} events`)
            assert.isAtLeast(switches, 1)
          })
        ),
      120_000
    )
})
