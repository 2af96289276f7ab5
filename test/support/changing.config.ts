// An application for tests of commands whose projection changes: with TEST_VERSIONS=2 or 1,2 it has another version with one more column.
import { Schema } from "effect"
import { Application, Event, Projection, ReadModel, Topic } from "../../src/index.ts"

const Seen = Event.make("seen", { id: Schema.String, who: Schema.String })
const sightings = Topic.events("sightings", { events: [Seen], id: "id", key: "who", partitions: 2 })
const alerts = Topic.records("alerts.v1", { value: { id: Schema.String }, key: "id", id: "id", partitions: 2 })

const versionOf = (version: number) => {
  const people = ReadModel.table("people", {
    columns: { who: Schema.String, last: Schema.String, ...(version > 1 && { first: Schema.String }) },
    primaryKey: ["who"]
  })
  return Projection.make({
    name: "signals",
    version,
    source: sightings,
    writes: [people, alerts],
    handle: ({ id, who }, out) => {
      // from version 2 on names are written in capitals
      out.upsert(people, version > 1 ? { who, last: id.toUpperCase(), first: id } : { who, last: id })
      out.publish(alerts, { id })
    }
  })
}
const versions = (process.env["TEST_VERSIONS"] ?? "1").split(",").map(Number)

export default Application.make({
  name: "changing",
  projections: versions.map((version) => Projection.async(versionOf(version)))
})
