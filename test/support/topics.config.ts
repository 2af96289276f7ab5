// An application for tests of `millrace topics`: the environment variable TEST_TOPICS has the options of its topics as JSON.
import { Schema } from "effect"
import { Application, Event, Projection, ReadModel, Topic } from "../../src/index.ts"

interface TestTopics {
  readonly name: string
  readonly partitions?: number
  readonly retention?: string
  readonly kafka?: object
  /** Where the derived topic goes; undefined: the projection writes no topic. */
  readonly to?: ReadonlyArray<"kafka" | "pulsar">
}
const options = JSON.parse(process.env["TEST_TOPICS"] ?? "{}") as TestTopics

const Seen = Event.make("seen", { who: Schema.String })
const sights = Topic.events(`${options.name}.sights`, {
  events: [Seen],
  key: "who",
  partitions: options.partitions ?? 3,
  ...(options.retention !== undefined && { retention: options.retention as "1 hour" }),
  ...(options.kafka !== undefined && { kafka: options.kafka })
})
const people = Topic.compacted(`${options.name}.people`, { value: { who: Schema.String }, key: "who", partitions: 2 })
const last = ReadModel.table("last_seen", { columns: { who: Schema.String }, primaryKey: ["who"] })
const greetings = Topic.records(`${options.name}.greetings`, {
  value: { who: Schema.String },
  key: "who",
  ...(options.to !== undefined && { to: options.to })
})
const seeing = Projection.make({
  name: "seeing",
  version: 1,
  source: sights,
  enrich: { people },
  writes: options.to === undefined ? [last] : [last, greetings],
  failure: { then: "skip" },
  handle: { seen: ({ who }, out) => out.upsert(last, { who }) }
})

export default Application.make({ name: "topics", projections: [Projection.async(seeing)] })
