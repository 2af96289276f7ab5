// The worker of timers: each command once whatever workers do and whose backends are terminated, in order, and none that fails stops another one.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { EventStore } from "../../../src/aggregate/event-store.ts"
import { Timers } from "../../../src/aggregate/timers.ts"
import { runTimers, type TimerWorkerOptions } from "../../../src/aggregate/timer-worker.ts"
import { Aggregate, Event } from "../../../src/index.ts"
import { connect, query, type Sql, transaction } from "../../../src/postgres/client/client.ts"
import * as PostgresEvents from "../../../src/postgres/events/events.ts"
import { discardTimers, listTimers, retryTimers } from "../../../src/postgres/events/timer-decisions.ts"
import * as PostgresTimers from "../../../src/postgres/events/timers.ts"
import { type Database, databaseOn, server } from "../../support/postgres.ts"
import { isLong } from "../../support/size.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const id = { case_id: Schema.String }
const Opened = Event.make("opened", id)
const Acknowledged = Event.make("acknowledged", id)
const Escalated = Event.make("escalated", { ...id, n: Schema.Int })
class NotOpen extends Schema.TaggedError<NotOpen>()("NotOpen", {}) {}
const Case = Aggregate.make({
  name: "case",
  id: "case_id",
  events: [Opened, Acknowledged, Escalated],
  commands: { open: id, acknowledge: id, escalate: { ...id, n: Schema.Int }, look: id },
  state: Schema.Literals(["none", "open", "acknowledged"]),
  initial: "none",
  evolve: {
    opened: () => "open",
    acknowledged: () => "acknowledged",
    escalated: (state) => state
  },
  decide: {
    open: (_, { case_id }) => Opened.make({ case_id }),
    acknowledge: (_, { case_id }) => Acknowledged.make({ case_id }),
    escalate: (state, { case_id, n }) => {
      if (case_id.startsWith("broken")) throw new Error("no rule for this case")
      return state === "open" ? Escalated.make({ case_id, n }) : new NotOpen()
    },
    look: () => []
  }
})
const typesOf = (stream: string) =>
  Effect.gen(function* () {
    const events = yield* Stream.runCollect((yield* EventStore).read(Case.name, stream))
    return events.map(({ type, value }) => (type === "escalated" ? (JSON.parse(value) as { n: number }).n : type))
  })
/** A command as a commit stores it. `line`: it is sent at once, in the order of `n`. */
const timerRows = (
  sql: Sql,
  list: ReadonlyArray<{ stream: string; n: number; inMs?: number; line?: string; aggregate?: string; type?: string }>
) =>
  Effect.promise(() =>
    sql.unsafe(
      `insert into millrace.timer (timer_id, projection, topic, partition, position, number, key, name, slot, line, due, next_try, aggregate, stream,
        command, correlation_id, causation_id)
      select gen_random_uuid(), 'p', 't', 0, n, 0, stream, case when line is null then 'escalate' end,
        case when line is null then gen_random_uuid() end, case when line is not null then md5(line)::uuid end,
        now() + ms * interval '1 ms', now() + ms * interval '1 ms', aggregate, stream, command, 'c', 'e'
      from json_to_recordset($1::text::json) as r(stream text, n int, ms int, line text, aggregate text, command text)`,
      [
        JSON.stringify(
          list.map(({ aggregate = Case.name, inMs = 0, line, n, stream, type = "escalate" }) => ({
            stream,
            n,
            ms: inMs,
            line,
            aggregate,
            command: JSON.stringify({ type, case_id: stream, n })
          }))
        )
      ]
    )
  )
const left = (sql: Sql) =>
  Effect.map(
    Effect.promise(() => sql<Array<{ n: number }>>`select count(*)::int8 as n from millrace.timer`),
    ([row]) => row!.n
  )
const gone = Effect.fnUntraced(function* (sql: Sql, most = 0) {
  while ((yield* left(sql)) > most) yield* Effect.sleep(20)
})
/** A process's worker with a pool of its own. */
const worker = Effect.fnUntraced(function* (
  { url }: Database,
  options: Partial<TimerWorkerOptions> = {},
  leaseMs?: number
) {
  const sql = yield* connect(url, { max: 3 })
  const run = runTimers({ aggregates: [Case], pollMs: 250, ...options }).pipe(
    Effect.provideService(EventStore, PostgresEvents.make(sql).store),
    Effect.provideService(Timers, PostgresTimers.make(sql, leaseMs))
  )
  return yield* Effect.forkScoped(run)
})
const opened = Effect.fnUntraced(function* (max = 4) {
  const database = yield* databaseOn(root, max)
  const { store } = PostgresEvents.make(database.sql)
  yield* store.declare([Case])
  return { database, store, sql: database.sql }
})
const withStore = <A, E>(store: EventStore["Service"], effect: Effect.Effect<A, E, EventStore>) =>
  Effect.provideService(effect, EventStore, store)

const count = isLong ? 2_000 : 150
it.live(
  `${count} timers, six workers and terminated backends: none fires twice, none is missing, and none fires after an acknowledgement`,
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { database, sql, store } = yield* opened(8)
        const cases = Array.from({ length: count }, (_, i) => `case-${i}`)
        yield* withStore(
          store,
          Effect.forEach(cases, (stream) => Aggregate.execute(Case, stream, { type: "open" }), { concurrency: 64 })
        )
        yield* timerRows(
          sql,
          cases.map((stream, i) => ({ stream, n: i, inMs: (i * 7_919) % 1_500 }))
        )
        let outcomes = 0
        const settled = () => Effect.sync(() => void outcomes++)
        for (let i = 0; i < 6; i++) yield* worker(database, { settled }, 1_000)
        let killed = 0
        const killer = yield* Effect.gen(function* () {
          const admin = yield* connect(database.url, { max: 1 })
          while (true) {
            const rows = yield* Effect.promise(
              () => admin`select pg_terminate_backend(pid) from (select pid from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() order by random() limit 2) x`
            )
            killed += rows.length
            yield* Effect.sleep(60)
          }
        }).pipe(Effect.forkScoped)
        const acknowledged = cases.filter((_, i) => i % 3 === 0)
        yield* withStore(
          store,
          Effect.forEach(acknowledged, (stream) => Aggregate.execute(Case, stream, { type: "acknowledge" }), {
            concurrency: 4
          })
        )
        while ((yield* Effect.exit(left(sql))).pipe((exit) => !Exit.isSuccess(exit) || exit.value > 0))
          yield* Effect.sleep(100)
        yield* Fiber.interrupt(killer)
        assert.isAbove(killed, 10)
        const wrong: Array<string> = []
        for (const stream of cases) {
          const types = yield* withStore(store, typesOf(stream))
          const fired = types.filter((type) => typeof type === "number").length
          const at = types.indexOf("acknowledged")
          const isRight = at < 0 ? fired === 1 : fired <= 1 && !types.slice(at).some((type) => typeof type === "number")
          if (!isRight) wrong.push(`${stream}: ${types.join(" ")}`)
        }
        assert.deepStrictEqual(wrong, [])
        assert.isAtLeast(outcomes, count)
      })
    ),
  120_000
)

it.live(
  "a command is refused if its timer was cancelled after the claim, and a conflict leaves the timer where it is",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql, store } = yield* opened()
        const timer = "00000000-0000-8000-a000-000000000001"
        const error = yield* Effect.flip(
          withStore(store, Aggregate.execute(Case, "a", { type: "open" }, { commandId: timer, timer }))
        )
        assert.strictEqual(error._tag, "TimerGone")
        assert.deepStrictEqual(yield* withStore(store, typesOf("a")), [])
        // others of the same batch are appended
        const both = yield* Effect.all(
          [
            Effect.exit(withStore(store, Aggregate.execute(Case, "a", { type: "open" }, { commandId: timer, timer }))),
            Effect.exit(withStore(store, Aggregate.execute(Case, "b", { type: "open" })))
          ],
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          both.map((exit) => exit._tag),
          ["Failure", "Success"]
        )
        yield* timerRows(sql, [{ stream: "b", n: 1, inMs: 60_000 }])
        const [row] = yield* Effect.promise(() => sql<Array<{ timer_id: string }>>`select timer_id from millrace.timer`)
        const conflict = yield* Effect.flip(
          withStore(
            store,
            Aggregate.execute(Case, "b", { type: "acknowledge" }, { commandId: "x", timer: row!.timer_id, expected: 7 })
          )
        )
        assert.strictEqual(conflict._tag, "VersionConflict")
        assert.strictEqual(yield* left(sql), 1)
        yield* withStore(
          store,
          Aggregate.execute(Case, "b", { type: "acknowledge" }, { commandId: "y", timer: row!.timer_id })
        )
        assert.strictEqual(yield* left(sql), 0)
      })
    )
)

it.live(
  "commands of a line are executed in their order, those of others beside them, and answers without events end them",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { database, sql, store } = yield* opened()
        yield* withStore(
          store,
          Effect.forEach(["a", "b"], (stream) => Aggregate.execute(Case, stream, { type: "open" }))
        )
        const numbers = Array.from({ length: 120 }, (_, i) => i)
        yield* timerRows(
          sql,
          // stored in no order: the positions decide
          numbers.toReversed().flatMap((n) => [
            { stream: "a", n, line: "a" },
            { stream: "b", n, line: "b" }
          ])
        )
        yield* timerRows(sql, [
          { stream: "nobody", n: 1, line: "c" },
          { stream: "a", n: 0, line: "d", type: "look" }
        ])
        for (let i = 0; i < 3; i++) yield* worker(database)
        yield* gone(sql)
        assert.deepStrictEqual(yield* withStore(store, typesOf("a")), ["opened", ...numbers])
        assert.deepStrictEqual(yield* withStore(store, typesOf("b")), ["opened", ...numbers])
        assert.deepStrictEqual(yield* withStore(store, typesOf("nobody")), [])
      })
    )
)

it.live("what fails is tried again later with its reason, keeps its line waiting, and stops no other command", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { database, sql, store } = yield* opened()
      yield* withStore(store, Aggregate.execute(Case, "a", { type: "open" }))
      yield* timerRows(sql, [
        { stream: "broken", n: 1, line: "x" },
        { stream: "broken", n: 2, line: "x" },
        { stream: "s", n: 1, line: "y", aggregate: "order" },
        { stream: "a", n: 3, line: "z" },
        { stream: "a", n: 4, inMs: 300 }
      ])
      yield* worker(database)
      yield* gone(sql, 3)
      while (true) {
        const [row] = yield* Effect.promise(
          () =>
            sql<
              Array<{ n: number }>
            >`select min(attempts) as n from millrace.timer where (stream, position) <> ('broken', 2)`
        )
        if (row!.n >= 1) break
        yield* Effect.sleep(20)
      }
      const rows = yield* Effect.promise(
        () =>
          sql`select stream, position, failed, next_try > now() as waits, failing_since is not null as since from millrace.timer order by 1, 2`
      )
      assert.deepStrictEqual(
        Array.from(rows, ({ failed, position, since, stream, waits }) => ({ stream, position, failed, waits, since })),
        [
          {
            stream: "broken",
            position: 1,
            failed: 'case "broken": command escalate: `decide` failed: no rule for this case',
            waits: true,
            since: true
          },
          { stream: "broken", position: 2, failed: null, waits: true, since: false },
          {
            stream: "s",
            position: 1,
            failed:
              "command sent of order is not valid: the application has no aggregate order; add it to `aggregates` of Application.make",
            waits: true,
            since: true
          }
        ]
      )
      assert.deepStrictEqual(yield* withStore(store, typesOf("a")), ["opened", 3, 4])
    })
  )
)

it.live(
  "two processes never claim the same command: one that another transaction is claiming is skipped, and not waited for",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql } = yield* opened()
        yield* timerRows(
          sql,
          Array.from({ length: 6 }, (_, n) => ({ stream: `s${n}`, n, inMs: n - 1_000 }))
        )
        const timers = PostgresTimers.make(sql)
        const streams = (list: ReadonlyArray<{ readonly stream: string }>) =>
          list.map(({ stream }) => stream).toSorted()
        // another process's claim of three, whose transaction has not ended
        const claimed = yield* transaction(
          sql,
          Effect.fnUntraced(function* (tx) {
            yield* query("claim", () => tx.unsafe(PostgresTimers.claimText(10_000), [3]))
            return yield* Effect.timeoutOption(timers.claim(3), "3 seconds")
          })
        )
        assert.deepStrictEqual(streams(claimed._tag === "Some" ? claimed.value : []), ["s3", "s4", "s5"])
        // all have a lease
        assert.deepStrictEqual(yield* timers.claim(10), [])
      })
    )
)

it.live("a person lists what waits and fails, has it tried at once, and discards it", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { database, sql, store } = yield* opened()
      yield* withStore(store, Aggregate.execute(Case, "a", { type: "open" }))
      yield* timerRows(sql, [
        { stream: "s", n: 1, line: "y", aggregate: "order" },
        { stream: "s", n: 2, line: "y", aggregate: "order" },
        { stream: "a", n: 3, inMs: 3_600_000 }
      ])
      const all = { ids: [], projection: undefined, aggregate: undefined, failing: false }
      yield* worker(database)
      const failing = listTimers(sql, { ...all, failing: true }, 10)
      while ((yield* failing).length === 0) yield* Effect.sleep(20)
      const [first] = yield* failing
      assert.deepInclude(first, { state: "failing", projection: "p", timer: null, aggregate: "order", stream: "s" })
      assert.match(first!.reason!, /the application has no aggregate order/)
      assert.deepStrictEqual(
        // which of the two is tried first depends on when the failed one was
        (yield* listTimers(sql, all, 10)).map(({ state, timer }) => `${state} ${timer}`).toSorted(),
        ["due null", "failing null", "waiting escalate"]
      )
      // its pause is made long, so that only a person's decision makes it due
      yield* Effect.promise(() => sql`update millrace.timer set next_try = now() + interval '1 hour'`)
      assert.deepStrictEqual(yield* retryTimers(sql, { ...all, aggregate: Case.name }), [])
      assert.deepStrictEqual(yield* retryTimers(sql, all), [first!.id])
      while (((yield* failing)[0]?.failures ?? 0) <= first!.failures) yield* Effect.sleep(20)
      assert.deepStrictEqual(yield* discardTimers(sql, { ...all, ids: ["none", first!.id.toUpperCase()] }), [first!.id])
      assert.lengthOf(yield* discardTimers(sql, { ...all, projection: "p" }), 2)
      assert.strictEqual(yield* left(sql), 0)
    })
  )
)
