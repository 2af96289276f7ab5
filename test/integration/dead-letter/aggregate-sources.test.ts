// Dead letters of projections of aggregates: their retry and discard records are in the aggregate's topic, and in no event stream.
import { randomUUID } from "node:crypto"
import { expect, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Schema } from "effect"
import { Agg, Projection, ReadModel, Window } from "../../../src/index.ts"
import { query, type Sql, transaction } from "../../../src/postgres/client/client.ts"
import { publish } from "../../../src/postgres/events/events.ts"
import { createBuild } from "../../../src/postgres/store/builds.ts"
import * as StoredDeadLetters from "../../../src/postgres/store/dead-letters.ts"
import { moveLifecycle, noteLifecycles } from "../../../src/postgres/store/lifecycles.ts"
import { freeze } from "../../../src/postgres/store/promotion.ts"
import { appendRetryRecords, discardProjections } from "../../../src/system/dead-letters/projections.ts"
import { Account } from "../../support/accounts.ts"
import { append, inlineProcess, type InlineProcess, moved, movesOf } from "../../support/inline.ts"
import { databaseOn, server } from "../../support/postgres.ts"

class Root extends Context.Service<Root, string>()("test/Root") {}

/** The amounts for which the handler of `watch` fails: always, or the first time only. */
const fails = { for: new Set<number>(), once: new Set<number>() }
const watched = ReadModel.table("watched", {
  columns: { account_id: Schema.String, amounts: Schema.String },
  primaryKey: ["account_id"]
})
/** Writes the amounts of each account in their order, and fails for some. */
const watch = Projection.make({
  name: "watch",
  version: 1,
  source: Account,
  writes: [watched],
  failure: { order: "key" },
  handle: (event, out) => {
    if (event.type !== "account.moved") return
    const { account_id, amount } = event
    if (fails.for.has(amount) || fails.once.delete(amount)) throw new TypeError(`cannot handle ${amount}`)
    out.modify(watched, { account_id }, (row) => ({ account_id, amounts: `${row?.amounts ?? ""} ${amount}`.trim() }))
  }
})
const counted = Window.global("counted", { key: { account_id: Schema.String }, aggregate: { events: Agg.count } })
/** Another projection of the aggregate, whose rows appends write. */
const count = Projection.make({
  name: "count",
  version: 1,
  source: Account,
  writes: [counted],
  handle: ({ account_id }, out) => out.add(counted, { account_id, events: 1 })
})

const rows = <A extends object>(sql: Sql, text: string) => query("read", () => sql.unsafe<Array<A>>(text))
const settled = Effect.fnUntraced(function* (sql: Sql, version = 1) {
  for (;;) {
    const behind = yield* rows(
      sql,
      `select from millrace.log_head h join millrace.log_topic t using (topic_id) join millrace.progress g on (g.topic, g.partition) = (t.name, h.partition)
        where g.version = ${version} and g.next_position < h.next_position`
    )
    if (behind.length === 0) return
    yield* Effect.sleep(20)
  }
})
/** Runs the projections until everything is processed. */
const handled = Effect.fnUntraced(function* (process: InlineProcess) {
  const stop = yield* process.run
  yield* settled(process.sql)
  yield* stop
})
const amountsOf = (sql: Sql, version = 1) =>
  Effect.map(rows<{ account_id: string; amounts: string }>(sql, `select * from watch_v${version}.watched`), (found) =>
    Object.fromEntries(found.map(({ account_id, amounts }) => [account_id, amounts]))
  )
const decided = (sql: Sql, version = 1) =>
  Effect.map(
    rows<StoredDeadLetters.StoredDeadLetter>(
      sql,
      `select * from millrace.dead_letters where version = ${version} order by partition, position`
    ),
    (found) => found.map(({ error, position, status }) => `${position} ${status} ${error}`)
  )
const retry = Effect.fnUntraced(function* ({ sql }: InlineProcess) {
  const found = yield* query("read", () => StoredDeadLetters.retryable(sql, { statuses: ["parked"], limit: 100 }))
  return yield* appendRetryRecords(sql, noLog, found, "tester")
})
const discard = Effect.fnUntraced(function* ({ sql }: InlineProcess, amount: number) {
  const found = yield* query("read", () => StoredDeadLetters.list(sql, { statuses: ["parked"], limit: 100 }, true))
  const some = found.filter(({ value }) => value?.includes(`"amount":${amount}`))
  return yield* discardProjections({ sql, openLog: Effect.succeed(noLog) }, some, "tester")
})
// the log is not asked: it may be on Kafka, and the events are in the database
const noLog = new Proxy({}, { get: () => () => Effect.die("the log was asked") }) as never

layer(Layer.effect(Root, server), { excludeTestServices: true, timeout: "60 seconds" })(
  "dead letters of aggregate sources",
  (it) => {
    const started = Effect.gen(function* () {
      fails.for = new Set([13])
      const on = yield* databaseOn(yield* Effect.service(Root))
      const process = yield* inlineProcess(on, [Projection.async(watch), Projection.inline(count)])
      return { ...process, on }
    })

    it.effect("a retry brings back what waits behind the event too, and a replay does the same", () =>
      Effect.gen(function* () {
        const process = yield* started
        yield* append(process, movesOf("a", [1, 13, 2]))
        yield* handled(process)
        expect(yield* amountsOf(process.sql)).toEqual({ a: "1" })
        fails.for.clear()
        // that of the key's first dead letter is for those behind it, too
        expect(yield* retry(process)).toBe(1)
        yield* append(process, movesOf("a", [3]))
        yield* handled(process)
        expect(yield* amountsOf(process.sql)).toEqual({ a: "1 13 2 3" })
        expect(yield* decided(process.sql)).toEqual(["1 retried TypeError", "2 retried EarlierParked"])
        const next = yield* transaction(process.sql, (tx) =>
          createBuild(tx, watch, { partitionsOf: () => 4, startOf: () => 0 })
        )
        fails.once.add(13)
        const stop = yield* process.runBuild(next)
        yield* settled(process.sql, 2)
        yield* stop
        expect(yield* decided(process.sql, 2)).toEqual(yield* decided(process.sql))
        expect(yield* amountsOf(process.sql, 2)).toEqual({ a: "1 13 2 3" })
      })
    )
    it.effect(
      "an event that is discarded stays out in the first run as in a replay, and the next one is processed",
      () =>
        Effect.gen(function* () {
          const process = yield* started
          yield* append(process, movesOf("a", [1, 13]))
          yield* append(process, movesOf("b", [13, 4]))
          yield* handled(process)
          expect(yield* discard(process, 13)).toBe(2)
          expect(yield* discard(process, 4)).toBe(1)
          yield* append(process, movesOf("a", [2]))
          yield* append(process, movesOf("b", [5]))
          yield* handled(process)
          expect(yield* amountsOf(process.sql)).toEqual({ a: "1 2", b: "5" })
          const next = yield* transaction(process.sql, (tx) =>
            createBuild(tx, watch, { partitionsOf: () => 4, startOf: () => 0 })
          )
          const stop = yield* process.runBuild(next)
          yield* settled(process.sql, 2)
          yield* stop
          expect(yield* amountsOf(process.sql, 2)).toEqual(yield* amountsOf(process.sql))
          expect(yield* decided(process.sql, 2)).toEqual(yield* decided(process.sql))
        })
    )
    it.effect(
      "event versions, loads, boundaries and sequences of the outbox have no gap, and inline builds move over the records",
      () =>
        Effect.gen(function* () {
          const process = yield* started
          yield* publish(process.sql, ["account"], ["kafka"])
          const tags = ["owner:x"]
          const tagged = [1, 13, 2].map((amount) => Object.assign(moved("a", amount), { tags }))
          yield* append(process, { aggregate: "account", stream: "a", expected: 0, events: tagged })
          yield* handled(process)
          const before = yield* process.store.readBoundary("account", { tags: ["owner:x"] })
          const { version } = yield* process.store.load("account", "a")
          expect(yield* discard(process, 13)).toBe(1)
          expect(yield* retry(process)).toBe(1)
          expect(yield* process.store.readBoundary("account", { tags: ["owner:x"] })).toEqual(before)
          expect((yield* process.store.load("account", "a")).version).toBe(version)
          // nothing is appended behind them, so the position of an inline build is the end
          const open = yield* rows(
            process.sql,
            `select from millrace.progress g join millrace.log_topic t on t.name = g.topic join millrace.log_head h using (topic_id, partition)
            where g.projection = 'count' and g.next_position <> h.next_position`
          )
          expect(open).toHaveLength(0)
          expect(yield* append(process, movesOf("a", [7], version))).toMatchObject({ firstVersion: 4, position: 5 })
          yield* handled(process)
          const { events } = yield* process.store.load("account", "a")
          expect(events.map((event) => [event.version, event.position])).toEqual([
            [1, 0],
            [2, 1],
            [3, 2],
            [4, 5]
          ])
          expect(yield* rows(process.sql, "select account_id, events::int4 from counted")).toEqual([
            { account_id: "a", events: 4 }
          ])
          const segments = yield* rows<{ first: number; messages: number; meta: string }>(
            process.sql,
            "select first_seq::int4 as first, messages, meta from millrace.outbox where projection = 'account' order by first_seq"
          )
          expect(segments.map(({ first, messages }) => [first, messages])).toEqual([
            [1, 3],
            [4, 1],
            [5, 1],
            [6, 1]
          ])
          expect(segments[1]!.meta).toContain('"millrace-version":"2"')
          expect(segments[1]!.meta).toContain('"millrace-decision":"discard"')
        })
    )
    it.effect("a projection becomes inline once its dead letters are decided, and its rows are right after that", () =>
      Effect.gen(function* () {
        const process = yield* started
        yield* append(process, movesOf("a", [1, 13, 2]))
        yield* handled(process)
        yield* noteLifecycles(process.sql, [Projection.inline(watch), Projection.inline(count)] as never)
        const move = moveLifecycle(process.sql, { name: "watch", build: 1 }, 1_000)
        expect(yield* move).toBe("dead letters")
        fails.for.clear()
        yield* retry(process)
        yield* handled(process)
        expect(yield* move).toBe("done")
        const inline = yield* inlineProcess(process.on, [Projection.inline(watch), Projection.inline(count)])
        yield* append(inline, movesOf("a", [3]))
        expect(yield* amountsOf(process.sql)).toEqual({ a: "1 13 2 3" })
      })
    )
    it.effect("a decision waits while a promotion has frozen an inline build", () =>
      Effect.gen(function* () {
        const process = yield* started
        yield* append(process, movesOf("a", [1, 13]))
        yield* handled(process)
        const token = randomUUID()
        yield* transaction(process.sql, (tx) => createBuild(tx, count, { partitionsOf: () => 4, startOf: () => 0 }))
        yield* freeze(process.sql, { projection: "count", live: 1, token }, 400)
        const since = Date.now()
        expect(yield* discard(process, 13)).toBe(1)
        expect(Date.now() - since).toBeGreaterThanOrEqual(300)
        const modes = yield* rows(
          process.sql,
          "select distinct mode from millrace.progress where projection = 'count' and version = 1 and inline and next_position > 0"
        )
        expect(modes).toEqual([{ mode: "live" }])
      })
    )
  }
)
