// The plan of a projection's views: what is replaced, what is dropped and created, and what is refused with the things that depend on it.
import { assert, describe, it } from "@effect/vitest"
import {
  isGateOpen,
  planViews,
  type PublicView,
  refusalText,
  showsOnly,
  type ViewColumn,
  type ViewFacts
} from "../../../../src/postgres/store/view-plan.ts"

const columnsOf = (types: Readonly<Record<string, string>>): ReadonlyArray<ViewColumn> =>
  Object.entries(types).map(([name, type]) => ({ name, type }))
const tableOf = (build: number, types: Readonly<Record<string, string>>, name = "t") => ({
  build,
  name,
  columns: columnsOf(types)
})
const viewOf = (types: Readonly<Record<string, string>>, more: Partial<PublicView> = {}): PublicView => ({
  name: "t",
  columns: columnsOf(types),
  builds: [1],
  isGated: false,
  options: [],
  dependents: [],
  attached: [],
  materialized: [],
  ...more
})
const factsOf = (tables: ViewFacts["tables"], views: ViewFacts["views"], taken: ReadonlyArray<string> = []) => ({
  projection: "p",
  tables,
  views,
  taken
})
const depended = { dependents: ["view mine", "function f()"] }
const statements = (facts: ViewFacts, build: number, other?: number) =>
  planViews(facts, other === undefined ? { build } : { build, other }).statements
const refusal = (facts: ViewFacts, build: number, other?: number) => {
  const plan = planViews(facts, other === undefined ? { build } : { build, other })
  assert.deepStrictEqual(plan.statements, [])
  return refusalText(plan.refusals)
}

describe("the plan of a projection's views", () => {
  it("creates a view with the table's columns by name", () => {
    assert.deepStrictEqual(statements(factsOf([tableOf(1, { id: "bigint", 'a"b': "text" })], []), 1), [
      'create view public."t" as select "id", "a""b" from p_v1."t"'
    ])
  })

  it("keeps the view's columns in their order, and puts new ones behind them", () => {
    const facts = factsOf(
      [tableOf(1, { id: "bigint", a: "text" }), tableOf(2, { n: "bigint", a: "text", id: "bigint" })],
      [viewOf({ id: "bigint", a: "text" })]
    )
    assert.deepStrictEqual(statements(facts, 2), [
      'create or replace view public."t" as select "id", "a", "n" from p_v2."t"'
    ])
  })

  it("shows a removed column as null of its type while something depends on the view or would be lost with it", () => {
    const tables = [tableOf(1, { id: "bigint", a: "text" }), tableOf(2, { id: "bigint" })]
    const types = { id: "bigint", a: "text" }
    const replaced = ['create or replace view public."t" as select "id", null::text as "a" from p_v2."t"']
    assert.deepStrictEqual(statements(factsOf(tables, [viewOf(types, depended)]), 2), replaced)
    assert.deepStrictEqual(statements(factsOf(tables, [viewOf(types, { attached: ["grants"] })]), 2), replaced)
    assert.deepStrictEqual(statements(factsOf(tables, [viewOf(types)]), 2), [
      'drop view public."t"',
      'create view public."t" as select "id" from p_v2."t"'
    ])
  })

  it("converts a column whose type changed to the view's type where that cannot fail, and refuses otherwise with what depends on the view", () => {
    const from = (before: string, now: string, more?: Partial<PublicView>) =>
      factsOf([tableOf(1, { c: before }), tableOf(2, { c: now })], [viewOf({ c: before }, more)])
    const expressions = [
      ["text", "bigint", '"c"::text as "c"'],
      ["text", "timestamp with time zone", '"c"::text as "c"'],
      ["jsonb", "boolean", 'to_jsonb("c") as "c"'],
      ["double precision", "bigint", '"c"::double precision as "c"']
    ] as const
    for (const [before, now, expression] of expressions)
      assert.deepStrictEqual(statements(from(before, now, depended), 2), [
        `create or replace view public."t" as select ${expression} from p_v2."t"`
      ])
    assert.strictEqual(
      refusal(from("bigint", "double precision", { ...depended, attached: ["grants"] }), 2),
      "view public.t: column c is double precision in build 2 and bigint in the view, and not every double precision can be converted to bigint; " +
        "remove what depends on the view, or give the column another name; on the view depend: view mine, function f(), grants"
    )
    // where nothing is lost, the view gets the new type
    assert.deepStrictEqual(statements(from("bigint", "boolean"), 2), [
      'drop view public."t"',
      'create view public."t" as select "c" from p_v2."t"'
    ])
  })

  it("shows both builds through a gate, with a typed null where one of them has no such column", () => {
    const tables = [tableOf(1, { id: "bigint", a: "text" }), tableOf(2, { id: "bigint", b: "jsonb" })]
    const live = "(select l.version from millrace.live l where l.projection = 'p')"
    assert.deepStrictEqual(statements(factsOf(tables, [viewOf({ id: "bigint", a: "text" })]), 2, 1), [
      `create or replace view public."t" as select "id", "a", "b" from p_v2."t" where ${live} = 2`
        .replace('"a"', 'null::text as "a"')
        .concat(` union all select "id", "a", null::jsonb as "b" from p_v1."t" where ${live} = 1`)
    ])
  })

  it("opens a gate over a changed type in the direction that cannot fail, and refuses if there is none", () => {
    const gate = (before: string, now: string, more?: Partial<PublicView>) =>
      factsOf([tableOf(1, { c: before }), tableOf(2, { c: now })], [viewOf({ c: before }, more)])
    // the view keeps its type while the gate is open, and gets the new one when it is closed
    assert.match(statements(gate("text", "bigint"), 2, 1).join(), /^create or replace .*"c"::text as "c" from p_v2/)
    assert.match(
      statements(gate("bigint", "double precision"), 2, 1).join(),
      /^drop view .*"c"::double precision as "c" from p_v1/
    )
    assert.match(
      refusal(gate("bigint", "double precision", depended), 2, 1),
      /on the view depend: view mine, function f\(\)$/
    )
    assert.match(refusal(gate("bigint", "boolean"), 2, 1), /can be converted to bigint; give the column another name$/)
  })

  it("shows a read model that one of two builds has through a gate with one branch, and drops its view afterwards unless something depends on it", () => {
    const tables = [tableOf(1, { id: "bigint" }), tableOf(2, { n: "bigint" }, "u")]
    const live = "(select l.version from millrace.live l where l.projection = 'p')"
    const open = statements(factsOf(tables, [viewOf({ id: "bigint" })]), 2, 1)
    assert.deepStrictEqual(open, [
      `create or replace view public."t" as select "id" from p_v1."t" where ${live} = 1`,
      `create view public."u" as select "n" from p_v2."u" where ${live} = 2`
    ])
    const views = (more: Partial<PublicView>) => [
      viewOf({ id: "bigint" }, { isGated: true, ...more }),
      viewOf({ n: "bigint" }, { name: "u", builds: [2], isGated: true })
    ]
    const closed = 'create or replace view public."u" as select "n" from p_v2."u"'
    assert.deepStrictEqual(statements(factsOf(tables, views({})), 2), ['drop view public."t"', closed])
    assert.deepStrictEqual(statements(factsOf(tables, views(depended)), 2), [closed])
  })

  it("keeps a view's options, which a replacement would reset, and lists materialized views", () => {
    const view = viewOf({ id: "bigint" }, { options: ["security_invoker=true"], materialized: ["totals"] })
    const plan = planViews(factsOf([tableOf(1, { id: "bigint" }), tableOf(2, { id: "bigint" })], [view]), { build: 2 })
    assert.deepStrictEqual(plan, {
      statements: ['create or replace view public."t" with (security_invoker=true) as select "id" from p_v2."t"'],
      refusals: [],
      stale: ["totals"]
    })
  })

  it("refuses a name that something else has, and then changes no view", () => {
    const tables = [tableOf(1, { id: "bigint" }), tableOf(2, { id: "bigint" }), tableOf(2, { n: "bigint" }, "u")]
    assert.strictEqual(
      refusal(factsOf(tables, [viewOf({ id: "bigint" })], ["u"]), 2),
      "view public.u: public.u exists and is not a view of projection p; rename it, or give the read model another name"
    )
  })

  it("knows whether a gate is open, and whether views show one build alone", () => {
    const tables = [tableOf(1, { id: "bigint" }), tableOf(2, { id: "bigint" })]
    const facts = (more: Partial<PublicView>) => factsOf(tables, [viewOf({ id: "bigint" }, more)])
    const both = facts({ builds: [1, 2], isGated: true })
    assert.deepStrictEqual([isGateOpen(both, [1, 2]), showsOnly(both, 1), showsOnly(both, 2)], [true, false, false])
    const one = facts({})
    assert.deepStrictEqual([isGateOpen(one, [1, 2]), showsOnly(one, 1), showsOnly(one, 2)], [false, true, false])
    // what a build does not have is not shown by it
    assert.isTrue(showsOnly(factsOf([tableOf(1, { id: "bigint" })], [viewOf({ id: "bigint" }, { isGated: true })]), 2))
  })
})
