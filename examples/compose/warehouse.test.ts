// The same application in memory: what is left, and what is published about it.
import { test } from "node:test"
import { ProjectionTest } from "millrace/testing"
import { inventory, StockReceived, StockSold } from "./millrace.config.ts"

const at = "2026-05-04T10:00:00Z"
test("what is sold is taken from the stock, and the level is published", () => {
  ProjectionTest.make(inventory)
    .when([StockReceived.make({ movement_id: "a", product: "kettle", pieces: 40, at })])
    .when([StockSold.make({ movement_id: "b", product: "kettle", pieces: 32, at })])
    .then({
      stock: [{ product: "kettle", movements: 2, pieces: 8 }],
      published: {
        "stock.levels.v1": [
          { product: "kettle", pieces: 40 },
          { product: "kettle", pieces: 8 }
        ]
      }
    })
})
test("a movement that is sent twice counts once", () => {
  const received = StockReceived.make({ movement_id: "a", product: "lamp", pieces: 6, at })
  ProjectionTest.make(inventory)
    .when([received, received])
    .then({ stock: [{ product: "lamp", movements: 1, pieces: 6 }] })
})
