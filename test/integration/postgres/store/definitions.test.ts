// A definition that changed under its version: what is refused, what a build takes over, and what is a warning until it is accepted.
// oxlint-disable unicorn/no-thenable -- `then` is a word of failure policies
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Projection, ReadModel, Topic, Window } from "../../../../src/index.ts"
import type { Fields } from "../../../../src/model/fields.ts"
import type { Table } from "../../../../src/model/read-model.ts"
import { query, transaction, type Sql } from "../../../../src/postgres/client/client.ts"
import { acceptFunctions, readDefinitionWarnings } from "../../../../src/postgres/store/definitions.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import type { Mismatch } from "../../../../src/runner/store.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const test = (name: string, body: (sql: Sql) => Effect.Effect<void, unknown>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(databaseOn(root, 4), ({ sql }) => body(sql))))

const value = { user: Schema.String, n: Schema.Finite }
const source = Topic.records("s", { value, key: "user" })
const tableOf = (more: Fields = {}, name = "t", shared = false) =>
  ReadModel.table(name, { columns: { user: Schema.String, ...more }, primaryKey: ["user"], shared })
const counted = (grace = "1 minute", publish = "w.v1") =>
  Window.tumbling("w", {
    size: "1 minute",
    grace: grace as never,
    key: { user: Schema.String },
    aggregate: { n: Agg.count },
    publish
  })
const handle = () => {}
const make = (more: object = {}) =>
  Projection.make({
    name: "p",
    version: 1,
    source,
    dedupe: { within: "1 hour", by: "user" },
    maxAhead: "1 minute",
    failure: { order: "key" },
    writes: [tableOf(), counted()],
    handle,
    ...more
  } as never) as Projection.Any
const prepare = (sql: Sql, ...projections: ReadonlyArray<Projection.Any>) =>
  PostgresStore.make(sql).prepare(projections, () => 2)
const refusal = (sql: Sql, more: object) =>
  Effect.map(Effect.flip(prepare(sql, make(more))), (error) => error as Mismatch)
const rowsOf = (sql: Sql, text: string) => query("read", () => sql.unsafe<Array<Record<string, unknown>>>(text))
const columnsOf = (sql: Sql, schema: string, table = "t") =>
  Effect.map(
    rowsOf(
      sql,
      `select column_name as name from information_schema.columns where table_schema = '${schema}' and table_name = '${table}' order by ordinal_position`
    ),
    (rows) => rows.map(({ name }) => name)
  )
const warningsOf = (sql: Sql) =>
  Effect.map(readDefinitionWarnings(sql), (found) => found.flatMap((one) => one.warnings))

describe("a definition that changed under its version", () => {
  test(
    "is refused by part, with what it was, what it is and what to do, and nothing is stored",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, make())
      const stored = yield* rowsOf(sql, "select * from millrace.projection")
      const advice =
        "; undo the change, or increase version to 2, then millrace rebuild p, millrace diff p and millrace promote p"
      const other = Topic.records("o", { value, key: "user" })
      const cases: ReadonlyArray<[object, string]> = [
        [{ writes: [tableOf(), counted("5 minutes")] }, "window w: grace was 1 minute and is 5 minutes"],
        [
          { source: [source, other], writes: [tableOf()] },
          "source o was added; window w was removed; published topic w.v1 was removed"
        ],
        [{ dedupe: { within: "2 hours", by: "user" } }, "dedupe: within was 1 hour and is 2 hours"],
        [{ enrich: { o: Topic.compacted("c", { value, key: "user" }) } }, "lookup o was added"],
        [{ failure: {} }, "failure: order was key and is not declared"],
        [{ maxAhead: "1 day" }, "maxAhead was 1 minute and is 1 day"],
        [{ writes: [tableOf({ n: Schema.Int }), counted()] }, "table t: column n (bigint) was added"],
        [
          { writes: [tableOf(), counted("1 minute", "w.v2")] },
          "window w: publish was w.v1 and is w.v2; published topic w.v2 was added; published topic w.v1 was removed"
        ]
      ]
      for (const [more, text] of cases) {
        const error = yield* refusal(sql, more)
        assert.strictEqual(error._tag, "Mismatch")
        assert.strictEqual(
          error.message,
          `projection p: its definition changed since version 1 first ran: ${text}${advice}`
        )
        assert.strictEqual(error.changes!.map((change) => change.text).join("; "), text)
      }
      assert.deepStrictEqual(yield* rowsOf(sql, "select * from millrace.projection"), stored)
      // in the next version all of it may differ
      yield* prepare(sql, make({ version: 2, maxAhead: "1 day", failure: {} }))
    })
  )

  test(
    "goes on where nothing is decided by it: another spelling, retries, retention",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, make())
      yield* prepare(
        sql,
        make({
          source: Topic.records("s", { value, key: "user", retention: "1 day" }),
          dedupe: { by: "user", within: "60 minutes" },
          maxAhead: "60 seconds",
          failure: { order: "key", then: "park", retry: Schedule.recurs(2), haltAfter: 5 },
          writes: [counted("60 seconds"), tableOf()]
        })
      )
      assert.deepStrictEqual(yield* warningsOf(sql), [])
    })
  )

  test(
    "of a build that an earlier release created: the first start stores its parts, and refuses tables that changed before",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, make())
      const forget = "update millrace.projection set parts = null, functions = null"
      yield* rowsOf(sql, forget)
      const { message } = yield* refusal(sql, { writes: [tableOf({ x: Schema.NullOr(Schema.Int) }), counted()] })
      assert.match(message, /^projection p: its tables changed since version 1 first ran; undo the change, or increase/)
      yield* prepare(sql, make({ maxAhead: "1 day" }))
      assert.match((yield* refusal(sql, {})).message, /maxAhead was 1 day and is 1 minute/)
    })
  )
})

describe("a nullable column", () => {
  const more = { writes: [tableOf({ x: Schema.NullOr(Schema.String), y: Schema.optionalKey(Schema.Int) }), counted()] }
  test(
    "is added to the table and the view of the live build, with its rows, grants and dependents, and to a follower's table",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, make())
      yield* rowsOf(sql, "insert into p_v1.t values ('a'); create view public.mine as select * from public.t")
      yield* prepare(sql, make({ version: 2 }))
      yield* prepare(sql, make(more))
      assert.deepStrictEqual(yield* columnsOf(sql, "p_v1"), ["user", "x", "y"])
      assert.deepStrictEqual(yield* columnsOf(sql, "public"), ["user", "x", "y"])
      const [row] = yield* rowsOf(sql, "select * from public.t natural join public.mine")
      assert.deepStrictEqual(row, { user: "a", x: null, y: null })
      assert.deepStrictEqual(yield* columnsOf(sql, "p_v2"), ["user"])
      yield* prepare(sql, make({ ...more, version: 2 }))
      assert.deepStrictEqual(yield* columnsOf(sql, "p_v2"), ["user", "x", "y"])
      // readers still see the live build
      assert.strictEqual((yield* rowsOf(sql, "select * from public.t")).length, 1)
      assert.deepStrictEqual(yield* columnsOf(sql, "public"), ["user", "x", "y"])
    })
  )
  test(
    "stays where older code starts again, and cannot come back with another type",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, make())
      yield* prepare(sql, make(more))
      yield* prepare(sql, make())
      assert.deepStrictEqual(yield* warningsOf(sql), [])
      assert.deepStrictEqual(yield* columnsOf(sql, "p_v1"), ["user", "x", "y"])
      const { message } = yield* refusal(sql, { writes: [tableOf({ x: Schema.NullOr(Schema.Int) }), counted()] })
      assert.match(message, /column x was text or null and is bigint or null/)
      yield* prepare(sql, make(more))
    })
  )
  test(
    "is not seen by a process that still runs the old code, which goes on reading and writing",
    Effect.fnUntraced(function* (sql) {
      const old = make()
      const store = PostgresStore.make(sql)
      yield* store.prepare([old], () => 2)
      yield* rowsOf(sql, "insert into p_v1.t values ('a')")
      const read = store.readRows(old, (old.writes as ReadonlyArray<Table.Any>)[0]!, [{ user: "a" }])
      assert.deepStrictEqual([...(yield* read)], [{ user: "a" }])
      yield* prepare(sql, make(more))
      assert.deepStrictEqual([...(yield* read)], [{ user: "a" }])
    })
  )
  test(
    "of a shared table is added once, by whichever projection starts first",
    Effect.fnUntraced(function* (sql) {
      const both = (table: ReturnType<typeof tableOf>) =>
        ["p", "q"].map((name) => make({ name, dedupe: undefined, writes: [table] }))
      yield* prepare(sql, ...both(tableOf({}, "both", true)))
      const wider = both(tableOf({ x: Schema.NullOr(Schema.String) }, "both", true))
      yield* prepare(sql, wider[0]!)
      yield* prepare(sql, ...wider)
      assert.deepStrictEqual(yield* columnsOf(sql, "millrace_shared", "both"), ["user", "x"])
      assert.deepStrictEqual(yield* columnsOf(sql, "public", "both"), ["user", "x"])
    })
  )
  test(
    "waits but briefly for a transaction that reads the table, is tried again, and other readers go on",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, make())
      const release = Deferred.makeUnsafe<void>()
      const reader = yield* transaction(sql, (tx) =>
        Effect.andThen(
          query("read", () => tx`select * from public.t`),
          Deferred.await(release)
        )
      ).pipe(Effect.forkChild)
      const isHeld = "select from pg_locks where relation = 'p_v1.t'::regclass and mode = 'AccessShareLock'"
      const isAwaited = "select from pg_locks where relation = 'p_v1.t'::regclass and not granted"
      const until = (text: string): Effect.Effect<void, unknown> =>
        Effect.flatMap(rowsOf(sql, text), ({ length }) =>
          length > 0 ? Effect.void : Effect.andThen(Effect.sleep("5 millis"), until(text))
        )
      yield* until(isHeld)
      const preparing = yield* Effect.forkChild(prepare(sql, make(more)))
      yield* until(isAwaited)
      yield* Effect.timeout(rowsOf(sql, "select * from public.t"), "3 seconds")
      Deferred.doneUnsafe(release, Effect.void)
      yield* Fiber.join(preparing)
      yield* Fiber.join(reader)
      assert.deepStrictEqual(yield* columnsOf(sql, "public"), ["user", "x", "y"])
    })
  )
})

describe("functions", () => {
  test(
    "that changed are a warning at each start until they are accepted; what is declared stays refused",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, make())
      const changed = { handle: () => void 1, dedupe: { within: "1 hour", by: "user" } }
      yield* prepare(sql, make(changed))
      yield* prepare(sql, make(changed))
      assert.deepStrictEqual(yield* readDefinitionWarnings(sql), [
        { name: "p", version: 1, warnings: ["the handler changed"] }
      ])
      // the old code has no warning, and new code again has
      yield* prepare(sql, make())
      assert.deepStrictEqual(yield* warningsOf(sql), [])
      yield* prepare(sql, make(changed))
      assert.deepStrictEqual(yield* acceptFunctions(sql, make(changed)), ["the handler changed"])
      assert.deepStrictEqual(yield* warningsOf(sql), [])
      yield* prepare(sql, make(changed))
      assert.deepStrictEqual(yield* warningsOf(sql), [])
      yield* prepare(sql, make())
      assert.deepStrictEqual(yield* warningsOf(sql), ["the handler changed"])
      assert.deepStrictEqual(yield* acceptFunctions(sql, make({ name: "other" })), [])
      const { message } = yield* refusal(sql, {
        ...changed,
        dedupe: { within: "1 hour", by: (e: { user: string }) => e.user }
      })
      assert.match(message, /dedupe: by was user and is \(a function\)/)
    })
  )
})
