// Names that mean something in PostgreSQL: as a column, a table or a projection each works, or is refused where it is declared.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Event, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"
import type { Writable } from "../../../src/model/handler.ts"
import { query } from "../../../src/postgres/client/client.ts"
import * as PostgresStore from "../../../src/postgres/store/store.ts"
import { halts } from "../../support/engine.ts"
import { memoryEngine, parked } from "../../support/memory-engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { isLong } from "../../support/size.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const Put = Event.make("put", { k: Schema.String, at: Schema.Int, how: Schema.String })
const puts = Topic.events("puts", { events: [Put], key: "k", eventTime: "at" })
const put = (how: string) => Put.make({ k: "a", at: Date.UTC(2026, 0, 1), how })
const others = [
  "millrace",
  "public",
  "information_schema",
  "millrace_shared",
  "fence",
  "excluded",
  "new",
  "old",
  "r",
  "t",
  "u"
]
/** All keywords of PostgreSQL, and names of its own and ours. */
const words = Effect.gen(function* () {
  const { sql } = yield* databaseOn(root)
  const found = yield* query(
    "keywords",
    () => sql<Array<{ word: string; catcode: string }>>`select word, catcode::text from pg_get_keywords()`
  )
  assert.isAbove(found.length, 400)
  const all = found.map(({ word }) => word)
  // a table or a schema for each takes time; those that are not reserved at all are names like any other
  const special = isLong ? all : found.filter(({ catcode }) => catcode !== "U").map(({ word }) => word)
  return { sql, words: [...new Set([...all, ...others])], special: [...new Set([...special, ...others])] }
})

it.live(
  "every keyword is a column of tables and windows, and a table",
  () =>
    Effect.gen(function* () {
      const { special: names, words: columnNames } = yield* words
      const columns = columnNames.filter((name) => name !== "k")
      const wide = ReadModel.table("wide", {
        columns: { k: Schema.String, ...Object.fromEntries(columns.map((name) => [name, Schema.Int])) },
        primaryKey: ["k"]
      })
      const counted = Window.global("counted", {
        key: { k: Schema.String },
        aggregate: Object.fromEntries(columns.map((name) => [name, Agg.sum])),
        publish: "counted.changed"
      })
      const tables = names.map((name) =>
        ReadModel.table(name, { columns: { k: Schema.String, n: Schema.Int }, primaryKey: ["k"] })
      )
      const values = Object.fromEntries(columns.map((name, i) => [name, i]))
      const projection: Projection.Any = Projection.make({
        name: "words",
        version: 1,
        source: puts,
        writes: [wide, counted, ...tables] as ReadonlyArray<Writable>,
        handle: (({ how, k }: (typeof Put)["Event"], out: Record<string, (...args: Array<unknown>) => void>) => {
          out[how]!(wide, { k, ...values })
          out["add"]!(counted, { k, ...values })
          for (const table of tables) out[how]!(table, { k, n: 1 })
        }) as never
      })
      const { append, handle, sql } = yield* memoryEngine(root, projection, [puts])
      yield* append(puts, [put("upsert")])
      yield* handle
      yield* append(puts, [put("update")])
      yield* handle
      assert.deepStrictEqual([...(yield* halts(sql))], [])
      assert.deepStrictEqual(yield* parked(sql), [])
      assert.deepStrictEqual({ ...(yield* query("wide", () => sql`select * from wide`))[0] }, { k: "a", ...values })
      for (const name of names)
        assert.deepStrictEqual(
          { ...(yield* query(name, () => sql`select * from public.${sql(name)}`))[0] },
          { k: "a", n: 1 }
        )
      yield* append(puts, [put("delete")])
      yield* handle
      assert.lengthOf(yield* query("select", () => sql`select * from public."select"`), 0)
    }).pipe(Effect.scoped),
  60_000
)
it.live(
  "every keyword is a projection",
  () =>
    Effect.gen(function* () {
      const { special: names, sql } = yield* words
      const projections = names.map((name, i) =>
        Projection.make({
          name,
          version: 999_999,
          source: puts,
          writes: [ReadModel.table(`of_${i}`, { columns: { k: Schema.String }, primaryKey: ["k"] })],
          handle: () => {}
        })
      )
      yield* PostgresStore.make(sql).prepare(projections as ReadonlyArray<Projection.Any>, () => 1)
      const [row] = yield* query(
        "schemas",
        () => sql`select count(*)::int4 as n from pg_namespace where nspname like '%\_v999999'`
      )
      assert.strictEqual(row!["n"], names.length)
    }).pipe(Effect.scoped),
  60_000
)
