// The filters of streams: which records fit, and what is refused.
import * as Schema from "effect/Schema"
import { expect, test } from "vitest"
import { Event, Topic } from "../../../src/index.ts"
import type { LogRecord } from "../../../src/log/log.ts"
import { Problem } from "../../../src/server/http/problem.ts"
import { fieldsOf, wantsOf } from "../../../src/server/streams/filter.ts"

const paid = Event.make("paid", {
  key: Schema.String,
  amount: Schema.Finite,
  account: Schema.BigInt,
  note: Schema.optionalKey(Schema.NullOr(Schema.String)),
  isCard: Schema.Boolean,
  place: Schema.Struct({ city: Schema.String, "zip.code": Schema.Int })
})
const topic = Topic.events("payments.v1", { events: [paid], key: "key" })
const fields = fieldsOf(topic)
const record = (value: object | null): LogRecord =>
  ({ key: "k", value: value === null ? null : JSON.stringify(value) }) as LogRecord
const value = {
  type: "paid",
  amount: 9.5,
  account: "10000000000000000001",
  isCard: true,
  place: { city: "oslo", "zip.code": 150 }
}
const fits = (query: string, of: object | null = value) =>
  wantsOf(Object.fromEntries(new URLSearchParams(query)), topic.name, fields)(record(of))
const refused = (query: string) => {
  try {
    fits(query)
  } catch (error) {
    if (error instanceof Problem) return [error.status, error.code, error.try]
  }
  return undefined
}

test.each([
  ["value.amount=9.50", true],
  ["value.amount.gt=9", true],
  ["value.amount.gt=10", false],
  ["value.amount.lte=9.5&value.amount.gte=9.5", true],
  ["value.amount.in=1,9.5", true],
  ["value.amount.ne=9.5", false],
  ["value.account.gt=9", true],
  ["value.account=10000000000000000000", false],
  ["value.isCard=true", true],
  ["value.isCard=false", false],
  ["value.note.null=true", true],
  ["value.note.ne=x", true],
  ["value.note=x", false],
  ["value.place.city.prefix=os", true],
  ["value.place.zip.code.lt=151", true],
  ["value.type=paid&key=k", true],
  ["key=other", false]
])("%s: %s", (query, isWanted) => expect(fits(query)).toBe(isWanted))

test("a deletion has no fields", () => {
  expect([fits("value.amount.gt=1", null), fits("key=k", null)]).toEqual([false, true])
})

test.each([
  ["value.amuont=1", "unknown_column", "did you mean amount?"],
  ["value.amount.gtt=1", "unknown_operator", "did you mean gt?"],
  ["value.amount.gt=much", "invalid_parameter", "use a number"],
  ["value.isCard=yes", "invalid_parameter", "use true or false"],
  ["value.type=payd", "invalid_parameter", "did you mean paid?"],
  ["value.place=oslo", "invalid_parameter", "filter by a field of it, or by place.null"],
  ["value.__proto__=1", "unknown_column", expect.any(String)],
  ["amount=1", "invalid_parameter", "did you mean value.amount?"],
  ["form=earliest", "invalid_parameter", "did you mean from?"]
])("%s is refused with %s", (query, code, advice) => expect(refused(query)).toEqual([400, code, advice]))
