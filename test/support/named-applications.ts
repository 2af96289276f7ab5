// Applications for tests of who a database belongs to: each has one projection over a topic of its own.
import { Schema } from "effect"
import { Application, Projection, ReadModel, Topic } from "../../src/index.ts"
import type { NewRecord } from "../../src/log/log.ts"
import { partitionOf } from "../../src/model/partitioner.ts"
import { record } from "../contract/log-support.ts"

/** An application with one projection, which keeps the ids of the events of its topic, and publishes them if asked to. */
export const applicationOf = (
  name: string,
  projection: string,
  {
    columns = 1,
    publishes = false,
    version = 1,
    writesTopic = true
  }: {
    readonly version?: number
    readonly publishes?: boolean
    readonly columns?: number
    readonly writesTopic?: boolean
  } = {}
) => {
  const events = Topic.records(`${projection}.events`, { value: { id: Schema.String }, key: "id", partitions: 2 })
  const derived = Topic.records(`${projection}.ids`, { value: { id: Schema.String }, key: "id" })
  const ids = ReadModel.table(`${projection}_ids`, {
    columns: { id: Schema.String, ...(columns > 1 && { twice: Schema.String }) },
    primaryKey: ["id"]
  })
  const made = Projection.make({
    name: projection,
    version,
    source: events,
    writes: writesTopic ? [ids, derived] : [ids],
    handle: ({ id }, out) => {
      out.upsert(ids, { id, ...(columns > 1 && { twice: id + id }) })
      if (publishes) out.publish(derived, { id })
    }
  })
  return Application.make({ name, projections: [Projection.async(made)] })
}

/** An event of such an application's topic. */
export const eventOf = (id: string): NewRecord =>
  record({
    partition: partitionOf(id, 2),
    key: id,
    value: JSON.stringify({ id }),
    eventTime: Date.now(),
    schemaVersion: 1
  })

export default applicationOf("flights", "departures")
