// What happens (rides end), and what is known (the stations). Everything else is computed from these.
import { Schema } from "effect"
import { Event, Topic } from "millrace"

const ride = {
  ride_id: Schema.String,
  station: Schema.String,
  minutes: Schema.Int,
  at: Schema.Int // epoch milliseconds
}

/**
 * A bike was returned. The first version did not say which kind of bike it was. Events of that version stay in the log as they are, and
 * `upcast` turns them into the newest version whenever they are read.
 */
export const RideEnded = Event.make("ride.ended", ride).upcast(
  { ...ride, bike: Schema.Literals(["classic", "electric"]) },
  (v1) => ({ ...v1, bike: "classic" as const })
)

/** The log of rides. Rides of one station are processed in their order; partitions are processed side by side. */
export const rides = Topic.events("rides.v1", {
  events: [RideEnded],
  id: "ride_id", // finds duplicates
  key: "station",
  eventTime: "at",
  partitions: 4
})

/** A lookup topic: it keeps the newest value of each key. */
export const stations = Topic.compacted("stations.v1", {
  value: { station: Schema.String, name: Schema.String, docks: Schema.Int },
  key: "station",
  partitions: 4
})
