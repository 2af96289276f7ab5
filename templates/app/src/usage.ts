// What is computed: a table with a row for each station, and a window that counts its rides by the hour.
import { Schema } from "effect"
import { Agg, Column, Projection, ReadModel, Window } from "millrace"
import { rides, stations } from "./events.ts"

/** A table in PostgreSQL, with one row for each value of its primary key. */
export const stationUsage = ReadModel.table("station_usage", {
  columns: {
    station: Schema.String,
    name: Schema.String,
    rides: Schema.Int,
    electric: Schema.Int,
    last_ride: Column.timestamptz
  },
  primaryKey: ["station"]
})

/** A window: one row for each station and hour. It waits 15 minutes for rides that are reported late. */
export const ridesByHour = Window.tumbling("rides_by_hour", {
  size: "1 hour",
  grace: "15 minutes",
  key: { station: Schema.String },
  aggregate: { rides: Agg.count, minutes: Agg.sum, longest: Agg.max }
})

/** From events to rows. A handler only records on `out` what is to change; it is committed together with the position in the log. */
export const usage = Projection.make({
  name: "usage",
  version: 1, // increase it when the table, the window or the source changes
  source: rides,
  dedupe: { within: "1 day" }, // a ride that was sent twice counts once
  enrich: { stations }, // the handler gets the station that has the event's key
  writes: [stationUsage, ridesByHour],
  handle: {
    "ride.ended": ({ at, bike, minutes, station }, out, { stations }) => {
      const name = stations?.name ?? "(unknown station)"
      const electric = bike === "electric" ? 1 : 0
      out.modify(stationUsage, { station }, (row) =>
        row === undefined
          ? { station, name, rides: 1, electric, last_ride: at }
          : {
              station,
              name,
              rides: row.rides + 1,
              electric: row.electric + electric,
              last_ride: Math.max(row.last_ride, at)
            }
      )
      out.add(ridesByHour, { station, rides: 1, minutes, longest: minutes })
    }
  }
})
