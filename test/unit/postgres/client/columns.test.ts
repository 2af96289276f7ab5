// The column of a schema, and its values as array parameters and as they are read back.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Agg, Column, Projection, ReadModel, Topic, Window } from "../../../../src/index.ts"
import type { Fields } from "../../../../src/model/fields.ts"
import { columnOf, fromRow, keyProblem, relationOf } from "../../../../src/model/columns.ts"
import { columnArray, quote } from "../../../../src/postgres/client/columns.ts"
import { definitionOf, tablesDdl } from "../../../../src/postgres/store/ddl.ts"

const struct = Schema.Struct({ a: Schema.Int, at: Schema.Date })
const kinds: ReadonlyArray<readonly [string, Fields[string], string, boolean]> = [
  ["String", Schema.String, "text", false],
  ["a checked String", Schema.String.check(Schema.isMinLength(1)), "text", false],
  ["a branded String", Schema.NonEmptyString.pipe(Schema.brand("Id")), "text", false],
  ["Literals of texts", Schema.Literals(["a", "b"]), "text", false],
  ["Literals of numbers", Schema.Literals([1, 2.5]), "double precision", false],
  ["Literals of both", Schema.Literals(["a", 1]), "jsonb", false],
  ["Finite", Schema.Finite, "double precision", false],
  ["Number, which may be infinite", Schema.Number, "jsonb", false],
  ["Int", Schema.Int, "bigint", false],
  ["a checked Number", Schema.Number.check(Schema.isInt()), "bigint", false],
  ["Boolean", Schema.Boolean, "boolean", false],
  ["timestamptz", Column.timestamptz, "timestamptz", false],
  ["timestamptz or null", Schema.NullOr(Column.timestamptz), "timestamptz", true],
  ["timestamptz or nothing", Schema.optionalKey(Column.timestamptz), "timestamptz", true],
  ["String or null", Schema.NullOr(Schema.String), "text", true],
  ["Int or nothing", Schema.optionalKey(Schema.Int), "bigint", true],
  ["Boolean or undefined", Schema.optional(Schema.Boolean), "boolean", true],
  [
    "either, or null, or nothing",
    Schema.optionalKey(Schema.NullOr(Schema.Union([Schema.Literal("a"), Schema.String]))),
    "text",
    true
  ],
  ["String or Int", Schema.Union([Schema.String, Schema.Int]), "jsonb", false],
  ["Struct", struct, "jsonb", false],
  ["Struct or null", Schema.NullOr(struct), "jsonb", true],
  ["Array", Schema.Array(Schema.String), "jsonb", false],
  ["Record", Schema.Record(Schema.String, Schema.Unknown), "jsonb", false],
  ["Unknown", Schema.Unknown, "jsonb", false],
  ["Date", Schema.Date, "text", false],
  ["BigInt", Schema.BigInt, "text", false]
]

describe("a schema's column", () => {
  test.each(kinds)("%s", (_, schema, type, nullable) => {
    expect(columnOf("c", schema)).toMatchObject({ name: "c", type, nullable })
  })

  test("a window's columns are its key, span and aggregates", () => {
    const key = { user: Schema.String, n: Schema.Int }
    const aggregate = {
      count: Agg.count,
      sum: Agg.sum,
      low: Agg.min,
      high: Agg.max
    }
    const { columns, key: primaryKey } = relationOf(Window.tumbling("w", { size: "1 hour", key, aggregate }))
    expect(columns.map(({ delta, name, type }) => [name, type, delta])).toEqual([
      ["user", "text", undefined],
      ["n", "bigint", undefined],
      ["window_size", "text", undefined],
      ["window_start", "timestamptz", undefined],
      ["count", "bigint", "count"],
      ["sum", "double precision", "sum"],
      ["low", "double precision", "min"],
      ["high", "double precision", "max"]
    ])
    expect(primaryKey).toEqual(["user", "n", "window_size", "window_start"])
  })

  test("a window with a fold writes whole rows, and a global window has no span", () => {
    const list = Agg.fold({
      input: Schema.Int,
      state: Schema.Array(Schema.Int),
      initial: [],
      add: (all, n) => [...all, n]
    })
    const { columns, key } = relationOf(
      Window.global("w", { key: { user: Schema.String }, aggregate: { n: Agg.count, list } })
    )
    expect(columns.map(({ delta, name, type }) => [name, type, delta])).toEqual([
      ["user", "text", undefined],
      ["n", "bigint", undefined],
      ["list", "jsonb", undefined]
    ])
    expect(key).toEqual(["user"])
  })
})

describe("values as array parameters", () => {
  const array = (schema: Fields[string], values: ReadonlyArray<unknown>) =>
    columnArray(
      columnOf("c", schema),
      values.map((c) => ({ c }))
    )

  test("texts are quoted", () => {
    expect(array(Schema.String, ["", "NULL", 'a"b', "a\\b", "a,b}", "a\nb"])).toBe(
      '{"","NULL","a\\"b","a\\\\b","a,b}","a\nb"}'
    )
  })
  test("an undefined value is null", () => {
    expect(array(Schema.optionalKey(Schema.Int), [1, undefined, null])).toBe("{1,NULL,NULL}")
    expect(array(Schema.NullOr(struct), [null])).toBe("{NULL}")
  })
  test("JSON's null is a value of its own in a column that is not nullable", () => {
    expect(array(Schema.Unknown, [null])).toBe('{"null"}')
  })
  test("JSON holds declared fields only, in their encoded form", () => {
    expect(array(struct, [{ a: 1, at: new Date(0), b: 2 }])).toBe(
      String.raw`{"{\"a\":1,\"at\":\"1970-01-01T00:00:00.000Z\"}"}`
    )
  })
  test("scalars with a transformation are sent in their JSON form", () => {
    expect(array(Schema.Date, [new Date(0)])).toBe('{"1970-01-01T00:00:00.000Z"}')
    expect(array(Schema.BigInt, [12n])).toBe('{"12"}')
  })
  test("numbers that could not be read back are sent as texts that PostgreSQL refuses", () => {
    expect(array(Schema.Int, [2 ** 53 - 1, -(2 ** 53) + 1])).toBe("{9007199254740991,-9007199254740991}")
    expect(array(Schema.Int, [2 ** 53])).toBe('{"9007199254740992 is not a whole number up to 2^53"}')
    expect(array(Schema.Finite, [Infinity])).toBe('{"Infinity is not a finite number"}')
    expect(array(Column.timestamptz, [Number.NaN])).toBe('{"NaN is not a number of milliseconds"}')
    expect(array(Schema.Int, [1.5])).toBe('{"1.5 is not a whole number up to 2^53"}')
  })
})

describe("rows as they are read", () => {
  const table = ReadModel.table("t", {
    columns: {
      id: Schema.String,
      none: Schema.optionalKey(Schema.Int),
      no: Schema.NullOr(Schema.Int),
      at: Schema.Date
    },
    primaryKey: ["id"]
  })
  test("omit absent fields, keep null, and hold decoded values", () => {
    const row = fromRow(relationOf(table), { id: "a", none: null, no: null, at: "1970-01-01T00:00:00.000Z" })
    expect(row).toEqual({ id: "a", no: null, at: new Date(0) })
    expect(row).not.toHaveProperty("none")
  })
})

describe("definitions", () => {
  const source = Topic.records("t", { value: { id: Schema.String }, key: "id" })
  const projectionOf = (columns: Fields, key: readonly [string, ...Array<string>]) =>
    Projection.make({
      name: "p",
      version: 2,
      source,
      writes: [ReadModel.table("user", { columns, primaryKey: key })],
      handle: () => {}
    })

  test("reserved words are quoted, and each version has a schema of its own", () => {
    const ddl = tablesDdl(projectionOf({ order: Schema.String, select: Schema.NullOr(Schema.Int) }, ["order"]))
    expect(ddl[0]).toBe("create schema if not exists p_v2")
    expect(ddl[1]).toBe(
      'create table if not exists p_v2."user" (\n  "order" text not null,\n  "select" bigint,\n  primary key ("order")\n) with (fillfactor = 80)'
    )
    expect(quote('a"b')).toBe('"a""b"')
  })

  test.each([
    ["null", Schema.NullOr(Schema.String), /may be null or missing; use a schema that requires a value/],
    ["nothing", Schema.optionalKey(Schema.String), /may be null or missing; use a schema that requires a value/],
    ["a struct", Schema.Struct({}), /has the type jsonb/],
    ["a date", Schema.Date, /has the type text or a schema that transforms it; keys can be/]
  ])("a key may not be %s", (_, schema, reason) => {
    expect(keyProblem(projectionOf({ id: Schema.String, k: schema }, ["id", "k"]).writes)).toMatch(reason)
    const window = Window.global("w", { key: { k: schema }, aggregate: { n: Agg.count } })
    const projection = Projection.make({ name: "p", version: 1, source, writes: [window], handle: () => {} })
    expect(keyProblem(projection.writes)).toMatch(/^column k in the key of w /)
  })
  test("a key has at most 32 columns, those of a window's span included", () => {
    const keyOf = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, i) => [`c${i}`, Schema.String] as const))
    const problem = (count: number) => {
      const names = Object.keys(keyOf(count)) as [string, ...Array<string>]
      const window = Window.tumbling("w", { size: "1 hour", key: keyOf(count - 2), aggregate: { n: Agg.count } })
      return [projectionOf(keyOf(count), names).writes, [window]].map((writes) => keyProblem(writes))
    }
    expect(problem(32)).toEqual([undefined, undefined])
    for (const found of problem(33))
      expect(found).toMatch(/has 33 columns, and PostgreSQL takes at most 32; combine some/)
  })
  test.each(["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"])("no column is called %s", (name) => {
    const refused = `"${name}": PostgreSQL gives every table a column of this name; use another one`
    const columns = { id: Schema.String, [name]: Schema.Int }
    expect(() => ReadModel.table("t", { columns, primaryKey: ["id"] })).toThrow(`column of table t, ${refused}`)
    const aggregate = { [name]: Agg.count }
    expect(() => Window.global("w", { key: { id: Schema.String }, aggregate })).toThrow(
      `column of window w, ${refused}`
    )
  })
  test("texts, numbers, booleans and instants can be keys", () => {
    const columns = { a: Schema.String, b: Schema.Finite, c: Schema.Boolean, d: Column.timestamptz, e: Schema.Int }
    expect(keyProblem(projectionOf(columns, ["a", "b", "c", "d", "e"]).writes)).toBeUndefined()
  })

  test("a definition changes with the shapes of its tables, and with nothing else", () => {
    const one = definitionOf(projectionOf({ id: Schema.String, n: Schema.Int }, ["id"]))
    expect(definitionOf(projectionOf({ id: Schema.String, n: Schema.Int }, ["id"]))).toBe(one)
    expect(definitionOf(projectionOf({ id: Schema.String, n: Schema.Finite }, ["id"]))).not.toBe(one)
    expect(definitionOf(projectionOf({ id: Schema.String, n: Schema.NullOr(Schema.Int) }, ["id"]))).not.toBe(one)
    expect(definitionOf(projectionOf({ id: Schema.String, n: Schema.Int }, ["id", "n"]))).not.toBe(one)
  })
})
