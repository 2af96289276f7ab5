// Names that PostgreSQL, JavaScript or Millrace has for itself are refused where they are declared.
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { Agg, Event, InvalidName, Projection, ReadModel, Topic, Window } from "../../../src/index.ts"

const Put = Event.make("put", { k: Schema.String })
const puts = Topic.events("puts", { events: [Put], key: "k" })
const table = (name: string, column = "n") =>
  ReadModel.table(name, { columns: { k: Schema.String, [column]: Schema.Int }, primaryKey: ["k"] })
const window = (name: string, column = "n") =>
  Window.global(name, { key: { k: Schema.String }, aggregate: { [column]: Agg.sum } })
const projection = (name: string, version = 1) =>
  Projection.make({ name, version, source: puts, writes: [], handle: () => {} })

test("a projection, a table or a window must not begin with pg_; a column may", () => {
  const reason = "PostgreSQL keeps names that begin with pg_ for itself; use another one"
  expect(() => projection("pg_orders")).toThrow(`projection "pg_orders": ${reason}`)
  expect(() => table("pg_class")).toThrow(`table "pg_class": ${reason}`)
  expect(() => window("pg_stat")).toThrow(`window "pg_stat": ${reason}`)
  table("pg", "pg_id")
  projection("pgorders")
})
test("a column must not be called as what every table of PostgreSQL or every object of JavaScript has", () => {
  for (const make of [table, window]) {
    expect(() => make("t", "xmin")).toThrow("PostgreSQL gives every table a column of this name; use another one")
    expect(() => make("t", "constructor")).toThrow(
      "JavaScript gives every object a property of this name; use another one"
    )
    for (const name of ["__proto__", "toString", "hasOwnProperty", "_part", "N"])
      expect(() => make("t", name)).toThrow(name === "__proto__" ? undefined : InvalidName)
  }
})
test("the schema of a projection's version has at most 63 bytes", () => {
  projection("p".repeat(55), 999_999)
  expect(() => projection("p".repeat(56))).toThrow(InvalidName)
  expect(() => projection("p", 1_000_000)).toThrow("projection p: version")
})
test("versions of projections have schemas of their own, whatever their names are", () => {
  const schemas = ["a", "a_v1", "a_v11", "a_v1_v1"].flatMap((name) =>
    [1, 11, 111].map((version) => `${name}_v${version}`)
  )
  expect(new Set(schemas.map((schema) => /^(.*)_v(\d+)$/.exec(schema)!.slice(1).join(" "))).size).toBe(schemas.length)
})
test("no field of an event may be called type, in any version", () => {
  const reason = "a field is called `type`, which every event has for the name of its type; rename the field"
  expect(() => Event.make("put", { type: Schema.String })).toThrow(reason)
  expect(() => Put.upcast({ type: Schema.String }, () => ({ type: "x" }))).toThrow(reason)
})
