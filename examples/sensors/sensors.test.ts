// Out of order, within the grace, and too late.
import { test } from "node:test"
import { ProjectionTest } from "millrace/testing"
import { freezers, ReadingTaken } from "./millrace.config.ts"

let count = 0
const reading = (time: string, celsius: number) =>
  ReadingTaken.make({ reading_id: `r-${count++}`, sensor: "freezer-1", celsius, at: `2026-06-01T${time}:00Z` })

test("a reading that is out of order counts while the grace of its window lasts", () => {
  ProjectionTest.make(freezers)
    .when([reading("06:05", -19), reading("06:14", -18), reading("06:09", -12)])
    .then({
      temperature: [
        { window_start: Date.parse("2026-06-01T06:00:00Z"), readings: 2, coldest: -19, warmest: -12 },
        { window_start: Date.parse("2026-06-01T06:10:00Z"), readings: 1 }
      ],
      newest: [{ celsius: -18, at: Date.parse("2026-06-01T06:14:00Z") }],
      late: []
    })
})
test("a reading that comes after the grace is kept as a late event, and changes no window", () => {
  ProjectionTest.make(freezers)
    .when([reading("06:05", -19), reading("06:15", -18), reading("06:09", -12)])
    .then({
      temperature: [{ readings: 1, warmest: -19 }, { readings: 1 }],
      late: [{ window: "temperature", window_size: "10m", window_start: Date.parse("2026-06-01T06:00:00Z") }]
    })
})
