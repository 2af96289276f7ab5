// A shop, for tests of the console: events with fields of every kind, an aggregate whose command has them too, a topic without event types, and a
// projection that fails for one product until the file that SHOP_FIXED names is there.
import { existsSync } from "node:fs"
import { Schema } from "effect"
import { Aggregate, Application, Column, Event, Projection, ReadModel, Topic } from "../../src/index.ts"

const Line = Schema.Struct({ sku: Schema.NonEmptyString, count: Schema.Int.check(Schema.isGreaterThan(0)) })
const details = {
  lines: Schema.NonEmptyArray(Line),
  payment: Schema.Union([
    Schema.Struct({ kind: Schema.Literal("card"), last4: Schema.String }),
    Schema.Struct({ kind: Schema.Literal("cash") })
  ]),
  priority: Schema.Literals(["low", "high"]),
  gift: Schema.Boolean,
  cents: Schema.BigIntFromString,
  note: Schema.NullOr(Schema.String),
  weight: Schema.optionalKey(Schema.Number),
  due: Schema.optionalKey(Schema.DateTimeUtcFromString),
  labels: Schema.optionalKey(Schema.Record(Schema.String, Schema.Int)),
  extra: Schema.optionalKey(Schema.Unknown)
}
const Ordered = Event.make("ordered", {
  id: Schema.String,
  customer: Schema.NonEmptyString,
  at: Schema.Int,
  tenant: Schema.String,
  ...details
})
const orders = Topic.events("shop.orders", {
  events: [Ordered],
  id: "id",
  key: "customer",
  eventTime: "at",
  tenant: "tenant",
  partitions: 4
})
const prices = Topic.records("shop.prices", {
  value: { sku: Schema.String, price: Schema.Finite },
  key: "sku",
  partitions: 2
})

const bought = ReadModel.table("bought", {
  columns: {
    id: Schema.String,
    customer: Schema.String,
    tenant: Schema.String,
    note: Schema.NullOr(Schema.String),
    units: Schema.Int,
    weight: Schema.Finite,
    gift: Schema.Boolean,
    cents: Schema.String,
    lines: Schema.Array(Schema.Struct({ sku: Schema.String, count: Schema.Int })),
    at: Column.timestamptz
  },
  primaryKey: ["id"]
})
/** How many times a line counts: another build has other rows. */
const times = Number(process.env["SHOP_TIMES"] ?? 1)
const buying = Projection.make({
  name: "buying",
  version: Number(process.env["SHOP_VERSION"] ?? 1),
  source: orders,
  writes: [bought],
  failure: { order: "key" },
  handle: ({ at, cents, customer, gift, id, lines, note, tenant, weight }, out) => {
    if (lines.some(({ sku }) => sku === "broken") && !existsSync(process.env["SHOP_FIXED"] ?? ""))
      throw new RangeError(`cannot price broken for ${customer}`)
    const units = times * lines.reduce((sum, { count }) => sum + count, 0)
    const row = { id, customer, tenant, note, units, weight: weight ?? 0.1, gift, cents: String(cents) }
    out.upsert(bought, { ...row, lines, at })
  }
})

const listed = ReadModel.table("listed", {
  columns: { sku: Schema.String, price: Schema.Finite },
  primaryKey: ["sku"]
})
const pricing = Projection.make({
  name: "pricing",
  version: 1,
  source: prices,
  writes: [listed],
  handle: (price, out) => out.upsert(listed, price)
})

const Reserved = Event.make("reserved", { basket: Schema.String, ...details })
class TooMany extends Schema.TaggedError<TooMany>()("TooMany", {
  basket: Schema.String,
  most: Schema.Int,
  lines: Schema.Array(Line)
}) {}
const Basket = Aggregate.make({
  name: "basket",
  id: "basket",
  events: [Reserved],
  commands: { reserve: { basket: Schema.String, ...details }, clear: { basket: Schema.String } },
  state: Schema.Struct({ reserved: Schema.Int, cents: Schema.String }),
  initial: { reserved: 0, cents: "0" },
  evolve: {
    reserved: ({ reserved }, { cents, lines }) => ({ reserved: reserved + lines.length, cents: String(cents) })
  },
  decide: {
    reserve: ({ reserved }, { type: _, ...given }) =>
      reserved + given.lines.length > 3
        ? new TooMany({ basket: given.basket, most: 3, lines: given.lines })
        : Reserved.make(given),
    clear: () => []
  }
})

export default Application.make({
  name: "shop",
  aggregates: [Basket],
  projections: [Projection.async(buying), Projection.async(pricing)]
})
