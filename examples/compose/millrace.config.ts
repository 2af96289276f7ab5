// A warehouse: what is in stock, published whenever it changes. Nothing here says where it runs; environment variables do.
import { Schema } from "effect"
import { Agg, Application, Event, Projection, Topic, Window } from "millrace"

const movement = {
  movement_id: Schema.String,
  product: Schema.String,
  pieces: Schema.Int.check(Schema.isGreaterThan(0)),
  at: Schema.String
}
export const StockReceived = Event.make("stock.received", movement)
export const StockSold = Event.make("stock.sold", movement)
export const movements = Topic.events("stock.movements.v1", {
  events: [StockReceived, StockSold],
  id: "movement_id",
  key: "product",
  eventTime: ({ at }) => Date.parse(at),
  partitions: 3
})

/** How many pieces there are after a change. */
export const levels = Topic.records("stock.levels.v1", {
  value: { product: Schema.String, pieces: Schema.Finite },
  key: "product"
})
/** One row for each product, over all time. Every batch that changes a row publishes it to `levels`. */
export const stock = Window.global("stock", {
  key: { product: Schema.String },
  aggregate: { movements: Agg.count, pieces: Agg.sum },
  publish: levels
})
export const inventory = Projection.make({
  name: "inventory",
  version: 1,
  source: movements,
  dedupe: { within: "30 days" },
  writes: [stock],
  handle: {
    "stock.received": ({ pieces, product }, out) => out.add(stock, { product, movements: 1, pieces }),
    "stock.sold": ({ pieces, product }, out) => out.add(stock, { product, movements: 1, pieces: -pieces })
  }
})

export default Application.make({ name: "warehouse", projections: [Projection.async(inventory)] })
