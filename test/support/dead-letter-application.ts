// An application for tests of dead letters: one projection fails for events that say so until it is fixed, another counts all events.
import { Schema } from "effect"
import { Agg, Application, Projection, ReadModel, Topic, Window, type FailurePolicy } from "../../src/index.ts"

export const events = Topic.records("l.events", {
  value: { id: Schema.String, key: Schema.String, at: Schema.Int, does: Schema.String },
  key: "key",
  id: "id",
  eventTime: "at",
  partitions: 2
})
/** The values of `does` for which the handler of `watch` fails. A test fixes the handler by removing them. */
export const fails = { for: new Set(["bad"]) }

/** The ids of each key, in the order in which they were processed. */
const order = ReadModel.table("handled", { columns: { key: Schema.String, ids: Schema.String }, primaryKey: ["key"] })
const rows = ReadModel.table("whole", { columns: { id: Schema.String, n: Schema.Int }, primaryKey: ["id"] })
const counts = Window.global("counts", { key: { key: Schema.String }, aggregate: { events: Agg.count } })
/** The events of each hour, which closes with the first event of the next one. */
const hours = Window.tumbling("hours", {
  size: "1 hour",
  key: { key: Schema.String },
  aggregate: { events: Agg.count }
})
const watched = (failure: FailurePolicy, version: number, dedupes: boolean) =>
  Projection.make({
    name: "watch",
    version,
    source: events,
    ...(dedupes && { dedupe: { within: "1 hour" } }),
    writes: [order, rows, counts, hours],
    failure,
    handle: ({ does, id, key }, out) => {
      if (fails.for.has(does)) throw new TypeError(`cannot handle ${id}`)
      out.add(counts, { key, events: 1 })
      out.add(hours, { key, events: 1 })
      out.upsert(rows, { id, n: does === "whole" ? 2 ** 63 : 1 })
      out.modify(order, { key }, (row) => ({ key, ids: row === undefined ? id : `${row.ids} ${id}` }))
    }
  })
const all = Window.global("everything", { key: { key: Schema.String }, aggregate: { events: Agg.count } })
const other = Projection.make({
  name: "other",
  version: 1,
  source: events,
  writes: [all],
  handle: ({ key }, out) => out.add(all, { key, events: 1 })
})
/** The application with a failure policy and these versions of `watch`, which run side by side. */
export const application = (failure: FailurePolicy = {}, versions: ReadonlyArray<number> = [1], dedupes = true) =>
  Application.make({
    name: "dead-letters",
    projections: [
      ...versions.map((version) => Projection.async(watched(failure, version, dedupes))),
      Projection.async(other)
    ]
  })
export default application()
