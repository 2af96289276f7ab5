// Freezers report their temperature by radio, sometimes late: windows of ten minutes, open for five minutes more.
import { Schema } from "effect"
import { Agg, Application, Column, Event, Projection, ReadModel, Topic, Window } from "millrace"

export const ReadingTaken = Event.make("reading.taken", {
  reading_id: Schema.String,
  sensor: Schema.String,
  celsius: Schema.Finite,
  at: Schema.String // when the sensor measured, not when its message arrived
})
/** Stream time is kept for each partition. With one partition, all freezers share it. */
export const readings = Topic.events("readings.v1", {
  events: [ReadingTaken],
  id: "reading_id",
  key: "sensor",
  eventTime: ({ at }) => Date.parse(at),
  partitions: 1
})

export const temperature = Window.tumbling("temperature", {
  size: "10 minutes",
  grace: "5 minutes",
  key: { sensor: Schema.String },
  aggregate: { readings: Agg.count, coldest: Agg.min, warmest: Agg.max }
})
export const newest = ReadModel.table("newest", {
  columns: { sensor: Schema.String, celsius: Schema.Finite, at: Column.timestamptz },
  primaryKey: ["sensor"]
})
export const freezers = Projection.make({
  name: "freezers",
  version: 1,
  source: readings,
  dedupe: { within: "1 hour" },
  writes: [temperature, newest],
  handle: ({ celsius, sensor }, out, { meta }) => {
    out.add(temperature, { sensor, readings: 1, coldest: celsius, warmest: celsius })
    // readings may be out of order, so an older one does not replace a newer one
    out.modify(newest, { sensor }, (row) =>
      row === undefined || row.at < meta.eventTime ? { sensor, celsius, at: meta.eventTime } : row
    )
  }
})

export default Application.make({ name: "sensors", projections: [Projection.async(freezers)] })
