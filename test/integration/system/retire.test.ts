// What becomes of projections that the configuration no longer has: `status` names them, and `retire` ends them without losing anything.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import type { Application } from "../../../src/model/application.ts"
import { query, transaction } from "../../../src/postgres/client/client.ts"
import { countEvents } from "../../../src/postgres/store/status.ts"
import { embedded } from "../../../src/postgres/relay/to-log.ts"
import type { Database } from "../../../src/system/database.ts"
import { openObserved, readStatus } from "../../../src/system/observed.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, cancelRebuild } from "../../../src/system/rebuild.ts"
import { retire } from "../../../src/system/retire.ts"
import { openSystem, runProjections, runRelay, type System } from "../../../src/system/system.ts"
import { untilProcessed } from "../../../src/system/until-processed.ts"
import { applicationOf, eventOf } from "../../support/named-applications.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const test = (title: string, body: (database: Database) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(
    title,
    () =>
      Effect.scoped(
        Effect.flatMap(databaseOn(url, 6), (own) => body({ ...own, embedded: false, failed: Effect.never }))
      ),
    60_000
  )

/** Runs an application on a database until it has processed these events and those before. `relays`: whether it publishes as well. */
const processed = (application: Application.Any, database: Database, ids: ReadonlyArray<string>, relays = true) =>
  Effect.scoped(
    Effect.gen(function* () {
      const system = yield* openSystem(application, database)
      const [source] = application.projections[0]!.projection.sources as ReadonlyArray<{ readonly name: string }>
      const records = ids.map(eventOf)
      if (records.length > 0) yield* system.log.append(source!.name, records)
      yield* Effect.forkScoped(runProjections(system))
      if (relays) yield* Effect.forkScoped(runRelay(system))
      yield* relays ? untilProcessed(system) : untilCommitted(system, ids.length)
    })
  )
const untilCommitted = ({ database: { sql } }: System, events: number): Effect.Effect<void, unknown> =>
  Effect.flatMap(
    query("count", () => sql`select coalesce(sum(events), 0)::int8 as events from millrace.progress`),
    ([row]) =>
      Number(row!["events"]) >= events
        ? Effect.void
        : Effect.andThen(
            Effect.sleep("20 millis"),
            Effect.suspend(() => untilCommitted({ database: { sql } } as System, events))
          )
  )
const contextOf = Effect.fnUntraced(function* (application: Application.Any, database: Database) {
  yield* openObserved(database)
  return { application, sql: database.sql, targets: [embedded] }
})
const retiring = (
  application: Application.Any,
  database: Database,
  options: { readonly version?: number; readonly drop?: boolean; readonly dryRun?: boolean } = {}
) =>
  Effect.scoped(
    Effect.flatMap(contextOf(application, database), (context) =>
      retire(context, { name: "orders", version: undefined, drop: false, dryRun: false, ...options })
    )
  )
/** Promotes the candidate with no process running. */
const promoted = (application: Application.Any, database: Database) =>
  Effect.scoped(
    Effect.flatMap(openObserved(database), ({ log }) =>
      promote(
        { application, sql: database.sql, log, on: "PostgreSQL" },
        { name: "orders", rollback: false, dryRun: false, timeoutMs: 20_000 }
      )
    )
  )
const refusal = (...args: Parameters<typeof retiring>) =>
  Effect.map(Effect.flip(retiring(...args)), (error) => error as { readonly message: string; readonly try: string })
const idsIn = ({ sql }: Database, table = "orders_ids") =>
  Effect.map(
    query("rows", () => sql.unsafe<Array<{ readonly id: string }>>(`select id from ${table} order by id`)),
    (rows) => rows.map(({ id }) => id)
  )
/** How many rows of Millrace's own tables belong to a build, by table, and how many tables it has. */
const leftOf = (sql: Database["sql"], name: string, version: number) =>
  Effect.map(
    query("what is left", () =>
      sql.unsafe<Array<{ readonly table: string; readonly n: number }>>(
        `select * from (
          select 'seen' as table, count(*) as n from millrace.seen where (projection, version) = ($1, $2)
          union all select 'late_events', count(*) from millrace.late_events where (projection, version) = ($1, $2)
          union all select 'dead_letters', count(*) from millrace.dead_letters where (projection, version) = ($1, $2)
          union all select 'log_group', count(*) from millrace.log_group where name = $1 || '_v' || $2
          union all select 'tables', count(*) from pg_tables where schemaname = $1 || '_v' || $2
        ) x where n > 0`,
        [name, version]
      )
    ),
    (rows) => Object.fromEntries(rows.map(({ n, table }) => [table, n]))
  )
const noRows: Record<string, number> = {}
const status = (database: Database) => Effect.scoped(Effect.flatMap(openObserved(database), (one) => readStatus(one)))

const [first, publishing] = [
  applicationOf("shop", "orders", { writesTopic: false }),
  applicationOf("shop", "orders", { publishes: true })
]
const without = applicationOf("shop", "refunds", { writesTopic: false })
const second = applicationOf("shop", "orders", { writesTopic: false, version: 2, columns: 2 })

test("a changed projection is built as the next version, and the one before is retired once that was promoted", (database) =>
  Effect.gen(function* () {
    yield* processed(first, database, ["a", "b", "c"])
    const changed = applicationOf("shop", "orders", { writesTopic: false, columns: 2 })
    assert.strictEqual(
      ((yield* Effect.flip(Effect.scoped(openSystem(changed, database)))) as Error).message,
      "projection orders: its definition changed since version 1 first ran: table orders_ids: column twice (text) was added; undo the change, or increase version to 2, then millrace rebuild orders, millrace diff orders and millrace promote orders"
    )
    yield* Effect.scoped(openSystem(second, database))
    const early = yield* refusal(second, database, { version: 1 })
    assert.deepStrictEqual(
      [early.message, early.try],
      [
        "build 1 of projection orders is the live one, and build 2 follows it",
        "millrace promote orders, and then millrace retire orders 1"
      ]
    )
    yield* promoted(second, database)
    assert.deepStrictEqual(yield* idsIn(database), ["a", "b", "c"])
    const would = yield* retiring(second, database, { version: 1, dryRun: true })
    assert.deepStrictEqual(would, { versions: [1], dropped: false, published: false })
    yield* processed(second, database, ["d"])
    assert.deepStrictEqual(yield* idsIn(database), ["a", "b", "c", "d"])
    // a process that runs the build, its open dead letters, and a configuration that has its version are no obstacle
    yield* query("run elsewhere", () =>
      database.sql.unsafe(`insert into millrace.process (process_id, host, pid, roles, projections, targets, failing)
        values (gen_random_uuid(), 'far', 7, '{projections}', '{orders_v1,orders_v2}', '{}', '[]');
        insert into millrace.dead_letters (projection, version, topic, partition, position, status, error, message, attempts, headers)
        values ('orders', 1, 'orders.events', 0, 9, 'parked', 'E', 'm', 1, '{}')`)
    )
    const both = { ...second, projections: [...first.projections, ...second.projections] } as Application.Any
    yield* retiring(both, database, { version: 1 })
    assert.strictEqual((yield* status(database)).dead_letters, 0)
    yield* query("stop", () => database.sql.unsafe("delete from millrace.process"))
    yield* Effect.scoped(openSystem(both, database))
    yield* retiring(second, database, { version: 1, drop: true })
    // the builds that are gone are not meant, and the live one is in the configuration
    assert.strictEqual((yield* refusal(second, database)).message, "projection orders v2 is in the configuration")
    yield* processed(both, database, ["e"])
    assert.deepStrictEqual(yield* idsIn(database), ["a", "b", "c", "d", "e"])
    const { healthy, projections } = yield* status(database)
    assert.deepStrictEqual(
      [healthy, new Set(projections.map(({ mode, version }) => `${version} ${mode}`))],
      [true, new Set(["2 live"])]
    )
    // the version before cannot come back in its place
    assert.match(
      ((yield* Effect.flip(Effect.scoped(openSystem(first, database)))) as Error).message,
      /version 1 was retired, and build 2 of version 2 is live; if this is old code, deploy version 2; if it was changed, give it version 3$/
    )
  }))

test("what is counted of events is that of the live builds, whatever follows them or was retired", (database) =>
  Effect.gen(function* () {
    yield* processed(first, database, ["a"])
    yield* Effect.scoped(openSystem(second, database))
    yield* query("note events", () =>
      database.sql
        .unsafe(`insert into millrace.dead_letters (projection, version, topic, partition, position, status, error, message, attempts, headers)
        select 'orders', build, 'orders.events', 0, 90 + n, case n when 1 then 'parked' else 'discarded' end, 'E', 'm', 1, '{}'
        from generate_series(1, 2) build, generate_series(1, 2) n;
        insert into millrace.late_events (projection, version, topic, partition, position, number, window_name, window_size, key, contribution)
        select 'orders', build, 'orders.events', 0, 90, 0, 'w', '1h', '{}', '{}' from generate_series(1, 2) build;
        update millrace.progress set duplicates = version where projection = 'orders'`)
    )
    const before = yield* countEvents(database.sql)
    assert.deepInclude(before, { late: 1, deadLetters: 2, openDeadLetters: 1 })
    const perBuild = before.duplicates
    yield* promoted(second, database)
    assert.deepInclude(yield* countEvents(database.sql), {
      duplicates: 2 * perBuild,
      late: 1,
      deadLetters: 2,
      openDeadLetters: 1
    })
    yield* retiring(second, database, { version: 1 })
    assert.deepInclude(yield* countEvents(database.sql), { duplicates: 2 * perBuild, late: 1, deadLetters: 2 })
  }))

test("the tables of a build are not dropped while a transaction from before the promotion may read them", (database) =>
  Effect.gen(function* () {
    const { sql } = database
    yield* processed(first, database, ["a"])
    yield* Effect.scoped(openSystem(second, database))
    yield* transaction(sql, (tx) =>
      Effect.gen(function* () {
        yield* query("take a snapshot", () => tx.unsafe("set transaction isolation level repeatable read; select 1"))
        yield* promoted(second, database)
        const open = yield* refusal(second, database, { version: 1, drop: true })
        assert.match(
          open.message,
          /^transactions that began before the last promotion of projection orders may still read its tables: session \d+ of millrace/
        )
        const [row] = yield* query("read", () => tx.unsafe("select count(*)::int as rows from orders_ids"))
        assert.strictEqual(row!["rows"], 1)
      })
    )
    yield* retiring(second, database, { version: 1, drop: true })
    assert.deepStrictEqual(yield* idsIn(database), ["a"])
  }))

test("a build is deleted while a process commits for it, and neither fails because they wait for each other", (database) =>
  Effect.gen(function* () {
    const { sql } = database
    yield* processed(first, database, ["a"])
    yield* Effect.scoped(openSystem(second, database))
    const lockTable = (build: number) => `lock table orders_v${build}.orders_ids in row exclusive mode`
    const lockRow = (build: number) =>
      `select from millrace.progress where projection = 'orders' and version = ${build} for update`
    /** Runs the statements of a commit, the second one once the deletion waits for the first one. */
    const committing = Effect.fnUntraced(function* <E>(
      [begin, end]: readonly [string, string],
      deletion: Effect.Effect<unknown, E>
    ) {
      const deleting = yield* transaction(sql, (tx) =>
        Effect.gen(function* () {
          yield* query("begin", () => tx.unsafe(begin))
          const fiber = yield* Effect.forkChild(deletion)
          const waiting = query("look", () => sql`select from pg_locks where not granted`)
          while ((yield* waiting).length === 0) yield* Effect.sleep("5 millis")
          yield* query("end", () => tx.unsafe(end))
          return fiber
        })
      )
      yield* Fiber.join(deleting)
    })
    yield* promoted(second, database)
    yield* committing([lockTable(1), `${lockRow(1)} nowait`], retiring(second, database, { version: 1, drop: true }))
    assert.deepStrictEqual(yield* leftOf(sql, "orders", 1), noRows)
    const limits = { rate: undefined, maxLiveLagMs: undefined }
    const rebuilt = yield* Effect.scoped(
      Effect.flatMap(openSystem(second, database), (system) => beginRebuild(system, "orders", limits))
    )
    assert.strictEqual(rebuilt.version, 3)
    yield* committing([lockTable(3), `${lockRow(3)} nowait`], cancelRebuild(sql, "orders"))
    assert.deepStrictEqual(yield* leftOf(sql, "orders", 3), noRows)
  }))

test("a retirement that PostgreSQL ends because it and a commit wait for each other is done again", (database) =>
  Effect.gen(function* () {
    const { sql } = database
    yield* processed(first, database, ["a"])
    yield* Effect.scoped(openSystem(second, database))
    yield* promoted(second, database)
    const retirement = yield* transaction(sql, (tx) =>
      Effect.gen(function* () {
        yield* query("lock a row", () =>
          tx.unsafe("select from millrace.progress where projection = 'orders' and version = 1 for update")
        )
        const fiber = yield* Effect.forkChild(retiring(second, database, { version: 1, drop: true }))
        const waiting = query("look", () => sql`select from pg_locks where not granted`)
        while ((yield* waiting).length === 0) yield* Effect.sleep("5 millis")
        // the one that has waited longer is ended
        yield* query("lock the table", () => tx.unsafe("lock table orders_v1.orders_ids in row exclusive mode"))
        return fiber
      })
    )
    assert.isTrue((yield* Fiber.join(retirement)).dropped)
    assert.deepStrictEqual(yield* leftOf(sql, "orders", 1), noRows)
  }))

test("a removed projection is named by status without making the system unhealthy, is not run, and goes on where it was if it is put back", (database) =>
  Effect.gen(function* () {
    yield* processed(first, database, ["a"])
    yield* processed(without, database, ["x"])
    const removed = yield* status(database)
    assert.deepInclude(
      removed.notices.find(({ kind }) => kind === "removed"),
      { what: "projection orders v1", try: "put it back, or end it: millrace retire orders 1" }
    )
    assert.isTrue(removed.healthy)
    yield* retiring(without, database)
    const after = yield* status(database)
    assert.isFalse(after.notices.some(({ kind }) => kind === "removed"))
    assert.isFalse(after.projections.some(({ name }) => name === "orders"))
    yield* processed(first, database, ["b"])
    assert.deepStrictEqual(yield* idsIn(database), ["a", "b"])
    assert.isTrue((yield* status(database)).projections.some(({ mode, name }) => name === "orders" && mode === "live"))
  }))

test("what is configured, runs, is not published yet or has open dead letters is not retired", (database) =>
  Effect.gen(function* () {
    const { sql } = database
    yield* processed(publishing, database, ["a", "b"], false)
    assert.match((yield* refusal(publishing, database)).message, /^projection orders v1 is in the configuration$/)
    assert.strictEqual(
      (yield* refusal(without, database)).message,
      "2 messages of projection orders are not published to embedded yet"
    )
    yield* processed(publishing, database, [])
    yield* query("run elsewhere", () =>
      sql.unsafe(`insert into millrace.process (process_id, host, pid, roles, projections, targets, failing)
        values (gen_random_uuid(), 'far', 7, '{projections}', '{orders_v1}', '{}', '[]')`)
    )
    assert.strictEqual((yield* refusal(without, database)).message, "process 7 on far runs projection orders")
    yield* query("stop", () => sql.unsafe("delete from millrace.process"))
    yield* query("park", () =>
      sql.unsafe(`insert into millrace.dead_letters (projection, version, topic, partition, position, status, error, message, attempts, headers)
        values ('orders', 1, 'orders.events', 0, 9, 'parked', 'E', 'm', 1, '{}')`)
    )
    assert.match((yield* refusal(without, database)).message, /^1 dead letter of projection orders is open/)
    yield* query("discard", () => sql.unsafe("update millrace.dead_letters set status = 'discarded'"))
    assert.deepStrictEqual(yield* retiring(without, database), {
      versions: [1],
      dropped: false,
      published: true
    })
    assert.strictEqual((yield* refusal(without, database)).message, "projection orders is retired already")
    // the tables are still there, and --drop drops them later, but not what a person built on them
    assert.deepStrictEqual(yield* idsIn(database), ["a", "b"])
    yield* query("have rows", () =>
      sql.unsafe(`insert into millrace.seen select p, 1, 'orders.events', 0, 0, 0, 0, '' from unnest('{orders,refunds}'::text[]) p;
        insert into millrace.late_events (projection, version, topic, partition, position, number, window_name, window_size, key, contribution)
        values ('orders', 1, 'orders.events', 0, 1, 1, 'w', '1 hour', '{}', '{}');
        insert into millrace.log_group (topic_id, name) select min(topic_id), 'orders_v1' from millrace.log_topic on conflict do nothing`)
    )
    assert.deepStrictEqual(
      Object.keys(yield* leftOf(sql, "orders", 1)).filter((table) => table !== "tables"),
      ["seen", "late_events", "dead_letters", "log_group"]
    )
    yield* query("depend", () => sql.unsafe("create view mine as select * from orders_ids"))
    assert.match((yield* refusal(without, database, { drop: true })).message, /other objects depend on it/)
    yield* query("depend", () => sql.unsafe("drop view mine; create view mine as select * from orders_v1.orders_ids"))
    assert.match((yield* refusal(without, database, { drop: true })).message, /other objects depend on it/)
    yield* query("no longer", () => sql.unsafe("drop view mine; create table orders_v1.own (n int)"))
    assert.match((yield* refusal(without, database, { drop: true })).message, /other objects depend on it/)
    yield* query("no longer", () => sql.unsafe("drop table orders_v1.own"))
    yield* retiring(without, database, { drop: true })
    assert.strictEqual((yield* Effect.flip(idsIn(database)))._tag, "SqlError")
    assert.deepStrictEqual(yield* leftOf(sql, "orders", 1), noRows)
    // what other projections have stays
    assert.notDeepEqual(yield* leftOf(sql, "refunds", 1), noRows)
  }))

test("a projection that publishes continues its streams, both after a promotion and under a later version once it was retired", (database) =>
  Effect.gen(function* () {
    const { sql } = database
    const sequences = (version: number) =>
      Effect.map(
        query(
          "sequences",
          () => sql<Array<{ seq: number; sent: number }>>`select sum(outbox_seq)::int8 as seq,
            (select sum(seq)::int8 from millrace.relay_position) as sent from millrace.progress where version = ${version}`
        ),
        ([row]) => [row!.seq, row!.sent]
      )
    yield* processed(publishing, database, ["a", "b"])
    const next = applicationOf("shop", "orders", { publishes: true, columns: 2, version: 2 })
    yield* Effect.scoped(openSystem(next, database))
    yield* promoted(next, database)
    assert.deepStrictEqual(yield* sequences(2), [2, 2])
    yield* processed(next, database, ["c"])
    assert.deepStrictEqual(yield* sequences(2), [3, 3])
    yield* retiring(next, database, { version: 1, drop: true })
    // without any build a later version publishes from the start of the log in the same streams
    yield* retiring(without, database, { version: 2 })
    yield* processed(applicationOf("shop", "orders", { publishes: true, columns: 2, version: 3 }), database, ["d"])
    assert.deepStrictEqual(yield* sequences(3), [7, 7])
    assert.isTrue((yield* status(database)).healthy)
  }))

test("timers of a projection are deleted with its last build, and stay while another one is live", (database) =>
  Effect.gen(function* () {
    const set = query(
      "set a timer",
      () => database.sql`insert into millrace.timer (timer_id, projection, topic, partition, position, number, key, name, slot, due, next_try,
          aggregate, stream, command, correlation_id, causation_id)
        select gen_random_uuid(), name, 't', 0, 0, 0, 'k', 'n', gen_random_uuid(), now(), now(), 'a', 's', '{}', 'c', 'e'
        from unnest(array['orders', 'refunds']) name`
    )
    const left = Effect.map(
      query(
        "what is left",
        () => database.sql<Array<{ readonly projection: string }>>`select projection from millrace.timer`
      ),
      (rows) => rows.map(({ projection }) => projection)
    )
    yield* processed(first, database, ["a"])
    yield* processed(second, database, [])
    yield* set
    yield* retiring(second, database, { version: 2 })
    assert.deepStrictEqual((yield* left).toSorted(), ["orders", "refunds"])
    const expected = { versions: [1], dropped: false, published: false, timers: 1 }
    assert.deepStrictEqual(yield* retiring(without, database, { dryRun: true }), expected)
    assert.lengthOf(yield* left, 2)
    assert.deepStrictEqual(yield* retiring(without, database), expected)
    assert.deepStrictEqual(yield* left, ["refunds"])
  }))
