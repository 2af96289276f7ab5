// The key of a row as the arguments of a command name it.
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { NoRowKey, rowKeyOf } from "../../../src/system/row-key.ts"
import { Agg, Column, ReadModel, Window } from "../../../src/index.ts"
import { relationOf } from "../../../src/model/columns.ts"

const users = relationOf(ReadModel.table("users", { columns: { id: Schema.String }, primaryKey: ["id"] }))
const days = relationOf(
  ReadModel.table("days", {
    columns: { who: Schema.String, day: Schema.Int, first: Schema.Boolean, at: Column.timestamptz },
    primaryKey: ["who", "day", "first", "at"]
  })
)
const hours = relationOf(
  Window.tumbling("hours", { size: "1 hour", key: { who: Schema.String }, aggregate: { n: Agg.count } })
)
const messageOf = (key: ReturnType<typeof rowKeyOf>) => (key instanceof NoRowKey ? [key.message, key.advice] : key)

test("a key of one column is a value, a pair or JSON", () => {
  expect(rowKeyOf(users, ["ann"])).toEqual({ id: "ann" })
  expect(rowKeyOf(users, ["a=b"])).toEqual({ id: "a=b" })
  expect(rowKeyOf(users, ["id=ann=1"])).toEqual({ id: "ann=1" })
  expect(rowKeyOf(users, ['{"id":"ann"}'])).toEqual({ id: "ann" })
  expect(rowKeyOf(users, ["{"])).toEqual({ id: "{" })
})
test("a key of several columns is pairs or JSON, with values of the columns' types", () => {
  const key = { who: "ann", day: 5, first: true, at: 1_700_000_000_000 }
  expect(rowKeyOf(days, ["day=5", "who=ann", "at=1700000000000", "first=true"])).toEqual(key)
  expect(rowKeyOf(days, ["day=5", "who=ann", "at=2023-11-14T22:13:20Z", "first=true"])).toEqual(key)
  expect(rowKeyOf(days, [JSON.stringify(key)])).toEqual(key)
  expect(rowKeyOf(hours, ["who=ann", "window_size=1h", "window_start=0"])).toEqual({
    who: "ann",
    window_size: "1h",
    window_start: 0
  })
})
test("what names no key is refused, with what to write", () => {
  expect(messageOf(rowKeyOf(hours, ["ann"]))).toEqual([
    "'ann' is no part of the key, which has the columns who, window_size, window_start",
    "who=VALUE window_size=VALUE window_start=VALUE"
  ])
  expect(messageOf(rowKeyOf(hours, ["who=ann", "window_sise=1h"]))).toEqual([
    "the key of hours has no column 'window_sise'",
    "did you mean window_size?"
  ])
  expect(messageOf(rowKeyOf(hours, ["who=ann"]))).toEqual([
    "the key of hours has the columns who, window_size, window_start; window_size is missing",
    "who=TEXT window_size=TEXT window_start=2026-01-31T12:00Z"
  ])
  expect(messageOf(rowKeyOf(days, ["who=ann", "day=five", "first=true", "at=0"]))).toEqual([
    'day is "five", and the column has the type bigint',
    "day=5"
  ])
  expect(messageOf(rowKeyOf(days, ["who=ann", "day=5", "first=yes", "at=soon"]))).toEqual([
    'first is "yes", and the column has the type boolean',
    "first=true"
  ])
  expect(messageOf(rowKeyOf(days, ['{"who":']))).toEqual([
    expect.stringMatching("the key is no JSON"),
    expect.any(String)
  ])
})
