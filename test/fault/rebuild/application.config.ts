// The application of the rebuild harness: two read models and two derived topics that must agree, whatever build is live.
import { Schema } from "effect"
import { Application, Projection, ReadModel, Topic } from "../../../src/index.ts"

/** Names of a run, so that runs can share brokers. */
const run = process.env["FAULT_RUN"] ?? "fault"

const event = { id: Schema.String, key: Schema.String, n: Schema.Int, at: Schema.Int }
const source = Topic.records(`${run}.events`, { value: event, id: "id", key: "key", eventTime: "at", partitions: 4 })
const entries = ReadModel.table("entries", {
  columns: { id: Schema.String, key: Schema.String, n: Schema.Int },
  primaryKey: ["id"]
})
const totals = ReadModel.table("totals", {
  columns: { key: Schema.String, n: Schema.Int, last: Schema.String },
  primaryKey: ["key"]
})
const published = { id: Schema.String, key: Schema.String, n: Schema.Int }
const copies = Topic.records(`${run}.copies`, { value: published, id: "id", key: "key", partitions: 4 })
const odd = Topic.records(`${run}.odd`, { value: published, id: "id", key: "key", partitions: 1 })

export default Application.make({
  name: run,
  projections: [
    Projection.async(
      Projection.make({
        name: "ledger",
        version: 1,
        source,
        writes: [entries, totals, copies, odd],
        handle: ({ id, key, n }, out) => {
          out.upsert(entries, { id, key, n })
          out.modify(totals, { key }, (row) => ({ key, n: (row?.n ?? 0) + n, last: id }))
          out.publish(copies, { id, key, n })
          if (n % 2 === 1) out.publish(odd, { id, key, n })
        }
      })
    )
  ]
})
