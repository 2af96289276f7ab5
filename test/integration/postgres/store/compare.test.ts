// Every kind of difference between two builds' tables, planted by hand, is found and counted once.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import { readBuildTables } from "../../../../src/postgres/store/build-tables.ts"
import { compare, type Differences } from "../../../../src/postgres/store/compare.ts"
import { joinSnapshot, openSnapshotSession, takeSnapshot } from "../../../../src/postgres/store/snapshot.ts"
import { database } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let sql: Sql
beforeAll(async () => {
  ;({ sql } = await Effect.runPromise(Scope.provide(database, scope)))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const run = (text: string) => query("test", () => sql.unsafe(text))
let made = 0
/** Creates the tables of two builds with these columns and key, and their rows as SQL values; `candidate` may have columns of its own. */
const tables = Effect.fnUntraced(function* (
  columns: string,
  rows: { readonly live: string; readonly candidate: string },
  candidateColumns = columns
) {
  const name = `p${++made}`
  for (const [build, of, values] of [
    [1, columns, rows.live],
    [2, candidateColumns, rows.candidate]
  ] as const) {
    yield* run(`create schema ${name}_v${build}; create table ${name}_v${build}.t (${of})`)
    if (values !== "") yield* run(`insert into ${name}_v${build}.t values ${values}`)
  }
  return name
})
const tableOf = Effect.fnUntraced(function* (name: string) {
  const session = yield* openSnapshotSession(sql)
  const [table] = yield* readBuildTables(session, name, { live: 1, candidate: 2 })
  return table!
}, Effect.scoped)
const compared = (name: string, options: { readonly exact?: boolean; readonly samples?: number } = {}) =>
  Effect.scoped(
    Effect.gen(function* () {
      const session = yield* openSnapshotSession(sql)
      const [table] = yield* readBuildTables(session, name, { live: 1, candidate: 2 })
      return yield* compare(session, table!.compared!, { exact: false, samples: 5, ...options })
    })
  )
const counts = ({ changed, extra, missing, rounding }: Differences) => ({ missing, extra, changed, rounding })
const none = { missing: 0, extra: 0, changed: 0, rounding: 0 }
const rowsOf = (text: (i: number) => string, count: number) => Array.from({ length: count }, (_, i) => text(i)).join()

it.live(
  "rows that are missing, extra or changed are counted apart, with samples that have the key and both values",
  () =>
    Effect.gen(function* () {
      const name = yield* tables("a text, b bigint, v text, w bigint, primary key (a, b)", {
        live: "('', 1, 'same', 1), ('null', 1, 'old', 7), ('NULL', 2, 'gone', 3), ('x', 3, null, 4)",
        candidate: "('', 1, 'same', 1), ('null', 1, 'new', 7), ('new', 9, 'more', 5), ('x', 3, '', 4)"
      })
      const found = yield* compared(name)
      assert.deepStrictEqual(counts(found), { missing: 1, extra: 1, changed: 2, rounding: 0 })
      assert.deepStrictEqual(found.rows, { live: 4, candidate: 4 })
      const shown = found.samples.map((one) =>
        [one.kind, one.key, one.live, one.candidate].map((part) =>
          typeof part === "object" ? part.map(({ column, text }) => `${column.name}=${text}`).join(" ") : part
        )
      )
      assert.deepStrictEqual(shown.toSorted(), [
        ["changed", "a=null b=1", "v=old", "v=new"],
        ["changed", "a=x b=3", "v=null", "v="],
        ["extra", "a=new b=9", undefined, "v=more w=5"],
        ["missing", "a=NULL b=2", "v=gone w=3", undefined]
      ])
    })
)

it.live(
  "a difference of floats by a billionth at most is rounding, unless exactness is asked for or another column differs",
  () =>
    Effect.gen(function* () {
      const pairs: ReadonlyArray<readonly [live: string, candidate: string, kind: string]> = [
        ["1", "1.0000000000000002", "rounding"],
        ["1e300", "1.0000000001e300", "rounding"],
        ["1e300", "1.00000001e300", "changed"],
        ["-1e308", "1e308", "changed"],
        ["1", "-1", "changed"],
        ["0", "1e-300", "changed"],
        ["5e-324", "1e-323", "rounding"],
        ["'NaN'", "'NaN'", "same"],
        ["'NaN'", "1", "changed"],
        ["'Infinity'", "'Infinity'", "same"],
        ["'Infinity'", "1e308", "changed"],
        ["'Infinity'", "'-Infinity'", "changed"],
        ["0", "'-0'", "rounding"],
        ["null", "null", "same"],
        ["null", "0", "changed"]
      ]
      const values = (side: 0 | 1) => pairs.map((pair, i) => `(${i}, ${pair[side]}, 1)`).join()
      const name = yield* tables("i bigint primary key, f float8, n bigint", { live: values(0), candidate: values(1) })
      const found = yield* compared(name, { samples: 100 })
      const kinds = new Map(found.samples.map(({ key, kind }) => [Number(key[0]!.text), kind as string]))
      assert.deepStrictEqual(
        pairs.map((_, i) => kinds.get(i) ?? "same"),
        pairs.map(([, , kind]) => kind)
      )
      assert.deepStrictEqual(counts(yield* compared(name, { exact: true })), { ...none, changed: 12 })
      yield* run(`update ${name}_v2.t set n = 2 where i in (0, 1)`)
      assert.deepStrictEqual(counts(yield* compared(name)), { ...none, changed: 10, rounding: 2 })
    })
)

it.live("values that compare as equal and have other bytes are changed: JSON numbers, json, the scale of numeric", () =>
  Effect.gen(function* () {
    const name = yield* tables("i int primary key, b jsonb, j json, n numeric, a float8[], t timestamptz", {
      live: `(1, '{"a": 1}', '[1]', 1.0, '{1,NULL}', 'epoch'), (2, '1', null, 1, '{}', 'infinity'), (3, '1', '1', 1, '{1}', 'epoch'), (4, '1', '1', 1, '{1}', 'epoch')`,
      candidate: `(1, '{"a": 1}', '[1]', 1.00, '{1,NULL}', 'epoch'), (2, '1.0', null, 1, '{}', 'infinity'), (3, '1', '1 ', 1, '{1}', 'epoch'), (4, '1', '1', 1, '{1}', '1970-01-01 00:00:00.000001Z')`
    })
    const found = yield* compared(name)
    assert.deepStrictEqual(counts(found), { ...none, changed: 4 })
    const columns = found.samples.map(({ key, live }) => [key[0]!.text, live!.map(({ column }) => column.name).join()])
    assert.deepStrictEqual(columns.toSorted(), [
      ["1", "n"],
      ["2", "b"],
      ["3", "j"],
      ["4", "t"]
    ])
  })
)

it.live("tables without rows, with a key only, and with keys of times, uuids and floats are compared", () =>
  Effect.gen(function* () {
    const empty = yield* tables("k text primary key", { live: "", candidate: "" })
    assert.deepStrictEqual(yield* compared(empty), { ...none, rows: { live: 0, candidate: 0 }, samples: [] })
    const keyOnly = yield* tables("k text primary key", { live: "('a'), ('b')", candidate: "('b'), ('c'), ('d')" })
    const found = yield* compared(keyOnly)
    assert.deepStrictEqual(counts(found), { ...none, missing: 1, extra: 2 })
    assert.deepStrictEqual(found.samples[0], {
      kind: "missing",
      key: [{ column: { name: "k", type: "text", oid: 25, delimiter: undefined }, text: "a" }],
      live: [],
      candidate: undefined
    })
    const odd = yield* tables("u uuid, t timestamptz, f float8, v text, primary key (u, t, f)", {
      live: "('00000000-0000-0000-0000-000000000001', '2013-01-01 00:00:00.000001+00', 0.1, 'x'), ('00000000-0000-0000-0000-000000000002', '-infinity', 'NaN', 'x')",
      candidate:
        "('00000000-0000-0000-0000-000000000001', '2013-01-01 00:00:00.000001+00', 0.1, 'y'), ('00000000-0000-0000-0000-000000000002', '-infinity', 'NaN', 'x')"
    })
    assert.deepStrictEqual(counts(yield* compared(odd)), { ...none, changed: 1 })
  })
)

it.live(
  "columns of one build and columns of another type are named, and tables whose keys differ are not compared",
  () =>
    Effect.gen(function* () {
      const columns = "k text primary key, v text, old int, n bigint"
      const name = yield* tables(
        columns,
        { live: "('a', 'x', 1, 1)", candidate: "('a', 'x', 1.5, 2)" },
        "k text primary key, v text, n float8, more int"
      )
      const table = yield* tableOf(name)
      assert.deepStrictEqual(
        [table.onlyLive, table.onlyCandidate, table.retyped],
        [["old"], ["more"], [{ name: "n", live: "bigint", candidate: "double precision" }]]
      )
      assert.deepStrictEqual(counts(yield* compared(name)), none)
      for (const [other, keys] of [
        ["k text, v text, primary key (v, k)", "k text in the live build, v text, k text in the candidate"],
        ["k bigint primary key", "k text in the live build, k bigint in the candidate"],
        ["k text", "k text in the live build, none in the candidate"]
      ]) {
        const differing = yield* tables(columns, { live: "", candidate: "" }, other)
        const without = yield* tableOf(differing)
        assert.strictEqual(without.compared, undefined)
        assert.strictEqual(without.notCompared, `its keys differ: ${keys}`)
      }
      yield* run(`alter table ${name}_v2.t rename to other`)
      const alone = yield* tableOf(name)
      assert.deepStrictEqual([alone.name, alone.onlyIn, alone.compared], ["other", "candidate", undefined])
    })
)

it.live(
  "a snapshot shows one state to all its sessions, and any number of differences is counted in bounded memory",
  () =>
    Effect.gen(function* () {
      const name = yield* tables("k bigint primary key, v bigint", {
        live: rowsOf((i) => `(${i}, ${i})`, 5_000),
        candidate: rowsOf((i) => `(${i}, ${i})`, 5_000)
      })
      const snapshot = yield* takeSnapshot(yield* openSnapshotSession(sql))
      yield* run(`update ${name}_v2.t set v = v + 1`)
      const session = yield* joinSnapshot(sql, snapshot)
      const [table] = yield* readBuildTables(session, name, { live: 1, candidate: 2 })
      const before = yield* compare(session, table!.compared!, { exact: false, samples: 5 })
      assert.deepStrictEqual(counts(before), none)
      const after = yield* compared(name, { samples: 3 })
      assert.deepStrictEqual([after.changed, after.samples.length], [5_000, 3])
    }).pipe(Effect.scoped)
)
