// The views that an application declares: created at the start, changed with their query, and never in place of what others have created.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Application, Projection, ReadModel, Topic } from "../../../../src/index.ts"
import { query } from "../../../../src/postgres/client/client.ts"
import { createViews } from "../../../../src/postgres/store/application-views.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

it.live(
  "a view is created once, follows its query, and is refused with its name if PostgreSQL refuses it or another relation has the name",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql } = yield* databaseOn(root, 4)
        const run = (text: string) => query("run", () => sql.unsafe<Array<Record<string, unknown>>>(text))
        const create = (text: string, name = "seen") => createViews(sql, [ReadModel.view(name, { query: text })])
        const idOf = Effect.map(run("select 'seen'::regclass::oid::int8 as id"), ([row]) => row!["id"])
        // processes that start together
        yield* Effect.all(
          Array.from({ length: 4 }, () => create("select 1 as a")),
          { concurrency: "unbounded" }
        )
        const first = yield* idOf
        yield* run("grant select on seen to pg_monitor")
        yield* create("select 2 as a, 'b' as b")
        assert.strictEqual(yield* idOf, first)
        assert.deepStrictEqual([...(yield* run("select * from seen"))], [{ a: 2, b: "b" }])
        yield* create("select 'c' as c")
        assert.deepStrictEqual([...(yield* run("select * from seen"))], [{ c: "c" }])

        const refused = yield* Effect.flip(create("select d from nowhere"))
        assert.match(refused.message, /^view seen: PostgreSQL refuses it: .*relation "nowhere" does not exist/)
        yield* run("create view above as select c from seen")
        assert.match(
          (yield* Effect.flip(create("select 3 as e"))).message,
          /^view seen: PostgreSQL refuses it: .*other objects depend on it/
        )
        assert.match(
          (yield* Effect.flip(create("select 1 as a", "above"))).message,
          /^view above: the database has a table or a view of this name that the application did not create; rename the view$/
        )
        assert.deepStrictEqual([...(yield* run("select * from seen"))], [{ c: "c" }])
      })
    )
)

it("a view has a query, and a name that no read model has", () => {
  const source = Topic.records("s", { value: { id: Schema.String }, key: "id" })
  const table = ReadModel.table("t", { columns: { id: Schema.String }, primaryKey: ["id"] })
  const p = Projection.make({ name: "p", version: 1, source, writes: [table], handle: () => {} })
  const declare = (name: string) =>
    Application.make({
      name: "a",
      projections: [Projection.async(p)],
      views: [ReadModel.view(name, { query: "select 1" })]
    })
  assert.strictEqual(declare("v").views[0]?.name, "v")
  assert.throws(() => declare("t"), "two read models are called t; rename the view or the other one")
  assert.throws(() => declare("V"), /view "V": the name is not allowed/)
  assert.throws(() => ReadModel.view("v", { query: " " }), 'view v: its query is " "; give the text of a SELECT')
})
