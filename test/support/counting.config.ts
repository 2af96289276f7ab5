// An application for tests of processes: counts payments by payer, publishes each to a derived topic, and sleeps as long as it is told to.
import { Effect, Schema } from "effect"
import { Agg, Application, Event, Projection, Topic, Window } from "../../src/index.ts"

/** Begins the names of its topics, so that tests which share a cluster do not meet. */
const name = process.env["TEST_NAME"] ?? "counting"
const sleepMs = Number(process.env["TEST_SLEEP_MS"] ?? 0)

export const Paid = Event.make("paid", { id: Schema.String, who: Schema.String, at: Schema.Int })
export const payments = Topic.events(`${name}.payments`, {
  events: [Paid],
  id: "id",
  key: "who",
  eventTime: "at",
  partitions: 6
})
export const receipts = Topic.records(`${name}.receipts`, {
  value: { id: Schema.String, who: Schema.String },
  key: "who"
})
export const counts = Window.tumbling("counts", {
  size: ["1 hour"],
  key: { who: Schema.String },
  aggregate: { payments: Agg.count }
})
export const counting = Projection.make({
  name: "counting",
  version: 1,
  source: payments,
  writes: [counts, receipts],
  handle: {
    paid: ({ id, who }, out) => {
      out.add(counts, { who, payments: 1 })
      out.publish(receipts, { id, who })
      return sleepMs > 0 ? Effect.sleep(sleepMs) : Effect.void
    }
  }
})

export default Application.make({ name, projections: [Projection.async(counting)] })
