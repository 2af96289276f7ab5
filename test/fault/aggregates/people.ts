// The aggregate with personal data, and a projection that knows of erasures.
import { Schema } from "effect"
import { Aggregate, Erasures, Event, Personal, Projection, ReadModel } from "../../../src/index.ts"

const run = process.env["FAULT_RUN"] ?? "fault"

export const Wrote = Event.make("person.wrote", { person_id: Schema.String, text: Personal(Schema.String) })
export const Person = Aggregate.make({
  name: `${run}-person`,
  id: "person_id",
  partitions: 4,
  subject: ({ person_id }) => person_id,
  events: [Wrote],
  commands: { write: { person_id: Schema.String, text: Schema.String } },
  state: Schema.Struct({ texts: Schema.Array(Schema.String) }),
  initial: { texts: [] },
  evolve: { "person.wrote": ({ texts }, { text }) => ({ texts: [...texts, text] }) },
  decide: { write: (_, { person_id, text }) => Wrote.make({ person_id, text }) },
  snapshot: { every: 2 }
})
export const written = ReadModel.table("written", {
  columns: { person_id: Schema.String, text: Schema.String },
  primaryKey: ["person_id"]
})
export const people = Projection.make({
  name: "people",
  version: 1,
  source: [Person, Erasures],
  writes: [written],
  handle: {
    "person.wrote": ({ person_id, text }, out, { meta }) => {
      if (!meta.erased) out.upsert(written, { person_id, text })
    },
    "subject.erased": ({ subject }, out) => out.delete(written, { person_id: subject })
  }
})
