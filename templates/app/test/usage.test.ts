// Given what is known, when events come, then rows are there. It runs Millrace's engine in memory: no server, no waiting.
import { ProjectionTest } from "millrace/testing"
import { test } from "vitest"
import { RideEnded, rides, stations } from "../src/events.ts"
import { usage } from "../src/usage.ts"

const nine = Date.UTC(2025, 4, 5, 9)
const minute = 60_000
const central = { station: "s1", name: "Central", docks: 20 }
const ride = (ride_id: string, at: number, minutes = 10) =>
  RideEnded.make({ ride_id, station: "s1", minutes, at, bike: "electric" })

test("rides are counted by station and by hour", () => {
  ProjectionTest.make(usage)
    .given(stations, [central])
    .when([ride("a", nine), ride("b", nine + 5 * minute, 30), ride("c", nine + 60 * minute)])
    .then({
      station_usage: [{ station: "s1", name: "Central", rides: 3, electric: 3, last_ride: nine + 60 * minute }],
      rides_by_hour: [
        { window_start: nine, rides: 2, minutes: 40, longest: 30 },
        { window_start: nine + 60 * minute, rides: 1 }
      ]
    })
})

test("a ride that is sent twice counts once", () => {
  ProjectionTest.make(usage)
    .when([ride("a", nine), ride("a", nine)])
    .then({ station_usage: [{ name: "(unknown station)", rides: 1 }] })
})

test("a ride that comes after its hour and 15 minutes is late for the window, and counts in the table", () => {
  ProjectionTest.make(usage)
    .when([ride("a", nine), ride("b", nine + 75 * minute), ride("c", nine + minute)])
    .then({
      station_usage: [{ rides: 3 }],
      rides_by_hour: [{ rides: 1 }, { rides: 1 }],
      late: [{ window: "rides_by_hour", window_start: nine }]
    })
})

test("a ride of version 1 was on a classic bike", () => {
  const stored = { type: "ride.ended", ride_id: "a", station: "s1", minutes: 10, at: nine }
  ProjectionTest.make(usage)
    .when([rides.decode(stored, 1)])
    .then({ station_usage: [{ rides: 1, electric: 0 }] })
})
