// Preparing projections: what is created once, and what is refused before anything is created.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Projection, ReadModel, Topic, Window } from "../../../../src/index.ts"
import type { Fields } from "../../../../src/model/fields.ts"
import type { Writable } from "../../../../src/model/handler.ts"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const source = Topic.records("s", { value: { user: Schema.String }, key: "user" })
const tableOf = (name: string, more: Fields = {}, shared = false) =>
  ReadModel.table(name, { columns: { user: Schema.String, ...more }, primaryKey: ["user"], shared })
const projectionOf = (name: string, writes: ReadonlyArray<Writable>, version = 1) =>
  Projection.make({ name, version, source, writes, handle: () => {} })
const prepare = (sql: Sql, ...projections: ReadonlyArray<ReturnType<typeof projectionOf>>) =>
  PostgresStore.make(sql).prepare(projections, () => 2)
/** The error's tag and message. */
const refusal = (sql: Sql, ...projections: ReadonlyArray<ReturnType<typeof projectionOf>>) =>
  Effect.map(Effect.flip(prepare(sql, ...projections)), (error) => `${error._tag} ${error.message}`)
const made = (sql: Sql) =>
  Effect.map(
    query(
      "look what is there",
      () => sql<Array<{ at: string }>>`
        select table_schema || '.' || table_name as at from information_schema.tables
        where table_schema not in ('pg_catalog', 'information_schema') and table_schema <> 'millrace' order by 1`
    ),
    (rows) => rows.map(({ at }) => at)
  )
const test = (name: string, body: (sql: Sql) => Effect.Effect<void, unknown>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(databaseOn(root, 4), ({ sql }) => body(sql))))

describe("preparing", () => {
  test(
    "creates tables, views and progress rows once",
    Effect.fnUntraced(function* (sql) {
      const shared = tableOf("both", {}, true)
      const projections = [projectionOf("select", [tableOf("order"), shared]), projectionOf("b", [shared])]
      yield* prepare(sql, ...projections)
      const there = ["millrace_shared.both", "public.both", "public.order", "select_v1.order"]
      assert.deepStrictEqual(yield* made(sql), there)
      yield* prepare(sql, ...projections)
      assert.deepStrictEqual(yield* made(sql), there)
      const [rows] = yield* query("count", () => sql`select count(*) as n from millrace.progress where mode = 'live'`)
      assert.strictEqual(rows!["n"], 4)
    })
  )

  test(
    "refuses what the runner cannot run, and creates nothing",
    Effect.fnUntraced(function* (sql) {
      const sessions = Window.session("w", {
        key: { user: Schema.String },
        aggregate: { n: Agg.count },
        gap: "1 minute"
      })
      assert.match(
        yield* refusal(sql, projectionOf("a", [tableOf("t")]), projectionOf("p", [sessions])),
        /^Mismatch projection p: w is a session window/
      )
      const keyed = ReadModel.table("t", { columns: { k: Schema.NullOr(Schema.String) }, primaryKey: ["k"] })
      assert.match(
        yield* refusal(sql, projectionOf("p", [keyed])),
        /^Mismatch projection p: column k in the key of t may be null or missing; use a schema that requires a value/
      )
      assert.deepStrictEqual(yield* made(sql), [])
    })
  )

  test(
    "refuses tables that changed while the version did not, and creates the next version beside the live one",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, projectionOf("p", [tableOf("t")]))
      const changed = [tableOf("t", { n: Schema.Int })]
      assert.match(
        yield* refusal(sql, projectionOf("p", changed)),
        /^Mismatch projection p: its definition changed since version 1 first ran: table t: column n \(bigint\) was added; undo the change, or increase version to 2, then millrace rebuild p, millrace diff p and millrace promote p$/
      )
      yield* prepare(sql, projectionOf("p", changed, 2))
      assert.deepStrictEqual(yield* made(sql), ["p_v1.t", "p_v2.t", "public.t"])
      const modes = yield* query("modes", () => sql`select distinct version, mode from millrace.progress order by 1`)
      assert.deepStrictEqual(
        modes.map(({ mode, version }) => [version, mode]),
        [
          [1, "live"],
          [2, "follower"]
        ]
      )
    })
  )

  test(
    "refuses a name that a table, a view or another projection's read model has",
    Effect.fnUntraced(function* (sql) {
      yield* query("make", () => sql.unsafe("create table public.mine (); create view public.seen as select 1 as p_v1"))
      const taken = (name: string, owner?: string) =>
        new RegExp(
          `^Mismatch projection p: public\\.${name} already exists and is not a view of this projection; give the read model another name${
            owner === undefined
              ? ""
              : `, or retire projection ${owner} if the configuration no longer has it: millrace retire ${owner} --drop`
          }$`
        )
      assert.match(yield* refusal(sql, projectionOf("p", [tableOf("mine")])), taken("mine"))
      assert.match(yield* refusal(sql, projectionOf("p", [tableOf("seen")])), taken("seen"))
      // the other projection's name only starts like this one's
      yield* prepare(sql, projectionOf("p_vehicles", [tableOf("t")]), projectionOf("xp", [tableOf("u")]))
      assert.match(yield* refusal(sql, projectionOf("p", [tableOf("t")])), taken("t", "p_vehicles"))
      assert.match(yield* refusal(sql, projectionOf("p", [tableOf("u")])), taken("u", "xp"))
      yield* prepare(sql, projectionOf("p", [tableOf("fine")]))
    })
  )
})
