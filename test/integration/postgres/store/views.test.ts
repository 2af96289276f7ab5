// The public views of a projection when another build takes over: what PostgreSQL and people have attached to them stays, or the change is refused.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Projection, ReadModel, Topic } from "../../../../src/index.ts"
import type { Fields } from "../../../../src/model/fields.ts"
import { query, type Sql, transaction } from "../../../../src/postgres/client/client.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import { readViewFacts, showBuild } from "../../../../src/postgres/store/views.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const test = (name: string, body: (sql: Sql) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(databaseOn(root, 4), ({ sql }) => body(sql))))

const source = Topic.records("s", { value: { user: Schema.String }, key: "user" })
const projectionOf = (version: number, columns: Fields, name = "p") =>
  Projection.make({
    name,
    version,
    source,
    writes: [ReadModel.table("t", { columns: { user: Schema.String, ...columns }, primaryKey: ["user"] })],
    handle: () => {}
  })
const prepare = (sql: Sql, ...projections: ReadonlyArray<ReturnType<typeof projectionOf>>) =>
  PostgresStore.make(sql).prepare(projections, () => 1)
const run = (sql: Sql, text: string) => query("run", () => sql.unsafe<Array<Record<string, unknown>>>(text))
const show = (sql: Sql, build: number) => transaction(sql, (tx) => showBuild(tx, "p", { build }))
const columnsIn = (sql: Sql) =>
  Effect.map(
    run(
      sql,
      "select attname::text as name from pg_attribute where attrelid = 'public.t'::regclass and attnum > 0 order by attnum"
    ),
    (rows) => rows.map(({ name }) => name)
  )

test("grants, a comment, options, views, functions and rules of users survive a build with other columns, and a materialized view is reported", (sql) =>
  Effect.gen(function* () {
    yield* prepare(sql, projectionOf(1, { a: Schema.String, n: Schema.Int }))
    yield* prepare(sql, projectionOf(2, { d: Schema.String, n: Schema.Int }))
    yield* run(
      sql,
      `insert into p_v1.t ("user", a, n) values ('x', 'one', 1); insert into p_v2.t ("user", d, n) values ('x', 'new', 2);
      grant select on public.t to pg_monitor; comment on view public.t is 'mine'; alter view public.t set (security_barrier = true);
      create view public.dep as select "user", a, n from public.t;
      create function public.total() returns bigint language sql begin atomic select sum(n)::bigint from public.t; end;
      create materialized view public.kept as select n from public.dep;
      create table public.noted (n bigint); create rule noting as on insert to public.t do instead insert into public.noted values (new.n)`
    )
    const { views } = yield* readViewFacts(sql, "p")
    assert.deepInclude(views[0], {
      dependents: ["function total()", "rule noting on view t", "view dep"],
      attached: ["a comment", "grants"],
      options: ["security_barrier=true"],
      materialized: ["kept"]
    })
    const plan = yield* show(sql, 2)
    assert.deepStrictEqual(plan.stale, ["kept"])
    assert.deepStrictEqual(yield* columnsIn(sql), ["user", "a", "n", "d"])
    assert.deepStrictEqual(yield* run(sql, `select a, n, d from public.t`), [{ a: null, n: 2, d: "new" }] as never)
    yield* run(sql, `insert into public.t ("user", n) values ('y', 7)`)
    assert.deepStrictEqual(
      yield* run(
        sql,
        `select (select n from public.dep) as dep, public.total() as total, (select n from public.kept) as kept, (select n from public.noted) as noted,
        obj_description('public.t'::regclass) as comment, has_table_privilege('pg_monitor', 'public.t', 'select') as granted,
        (select reloptions::text from pg_class where oid = 'public.t'::regclass) as options`
      ),
      [
        { dep: 2, total: 2, kept: 1, noted: 7, comment: "mine", granted: true, options: "{security_barrier=true}" }
      ] as never
    )
    // and back
    yield* show(sql, 1)
    assert.deepStrictEqual(yield* run(sql, `select a, n, d from public.t`), [{ a: "one", n: 1, d: null }] as never)
  }))

test("a type that cannot be converted is refused with what depends on the view, and nothing changes; without dependents the view gets the new type", (sql) =>
  Effect.gen(function* () {
    yield* prepare(sql, projectionOf(1, { n: Schema.Int }))
    yield* prepare(sql, projectionOf(2, { n: Schema.Boolean }))
    yield* run(sql, "create view public.dep as select n from public.t")
    assert.strictEqual(
      ((yield* Effect.flip(show(sql, 2))) as Error).message,
      "view public.t: column n is boolean in build 2 and bigint in the view, and not every boolean can be converted to bigint; " +
        "remove what depends on the view, or give the column another name; on the view depend: view dep"
    )
    assert.deepStrictEqual((yield* readViewFacts(sql, "p")).views[0]!.builds, [1])
    yield* run(sql, "drop view public.dep")
    yield* show(sql, 2)
    assert.deepStrictEqual((yield* readViewFacts(sql, "p")).views[0]!.columns, [
      { name: "user", type: "text" },
      { name: "n", type: "boolean" }
    ])
  }))

test("a view that was created by select * is known as the projection's own, and a view of a user over its table is not", (sql) =>
  Effect.gen(function* () {
    yield* prepare(sql, projectionOf(1, { a: Schema.String }))
    yield* run(
      sql,
      `drop view public.t; create view public.t as select * from p_v1.t; create view public.u as select * from p_v1.t`
    )
    yield* prepare(sql, projectionOf(2, { a: Schema.String, n: Schema.Int }))
    yield* show(sql, 2)
    assert.deepStrictEqual(yield* columnsIn(sql), ["user", "a", "n"])
    const u = ReadModel.table("u", { columns: { user: Schema.String }, primaryKey: ["user"] })
    const other = Projection.make({ name: "p", version: 3, source, writes: [u], handle: () => {} })
    assert.match(
      ((yield* Effect.flip(PostgresStore.make(sql).prepare([other], () => 1))) as Error).message,
      /^projection p: public\.u already exists and is not a view of this projection/
    )
  }))

test("statements that readers have prepared go on with the new build, and one that selects * is prepared again by itself", (sql) =>
  Effect.gen(function* () {
    yield* prepare(sql, projectionOf(1, { n: Schema.Int }))
    yield* prepare(sql, projectionOf(2, { d: Schema.String, n: Schema.Int }))
    yield* run(
      sql,
      `insert into p_v1.t ("user", n) values ('x', 1); insert into p_v2.t ("user", d, n) values ('x', 'new', 2)`
    )
    const named = query("named", () => sql`select n from public.t where "user" = ${"x"}`)
    const all = query("all", () => sql`select * from public.t where "user" = ${"x"}`)
    assert.deepStrictEqual([...(yield* named), ...(yield* all)], [{ n: 1 }, { user: "x", n: 1 }] as never)
    yield* show(sql, 2)
    assert.deepStrictEqual([...(yield* named), ...(yield* all)], [{ n: 2 }, { user: "x", n: 2, d: "new" }] as never)
  }))
