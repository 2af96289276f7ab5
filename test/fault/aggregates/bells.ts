// The aggregates of timers: a policy sets a timer for each job and sends a command at once. A bell takes every command, so that one too many shows.
import { Schema } from "effect"
import { Aggregate, Event, Policy } from "../../../src/index.ts"

const run = process.env["FAULT_RUN"] ?? "fault"
const of = { job_id: Schema.String }

export const Placed = Event.make("job.placed", { ...of, after_ms: Schema.Int })
export const Cancelled = Event.make("job.cancelled", of)
export const Job = Aggregate.make({
  name: `${run}-job`,
  id: "job_id",
  partitions: 4,
  events: [Placed, Cancelled],
  commands: { place: { ...of, after_ms: Schema.Int }, cancel: of },
  state: Schema.Null,
  initial: null,
  evolve: { "job.placed": () => null, "job.cancelled": () => null },
  decide: {
    place: (_, { after_ms, job_id }) => Placed.make({ job_id, after_ms }),
    cancel: (_, { job_id }) => Cancelled.make({ job_id })
  }
})

export const Rung = Event.make("bell.rung", of)
export const Noted = Event.make("bell.noted", of)
export const Bell = Aggregate.make({
  name: `${run}-bell`,
  id: "job_id",
  partitions: 4,
  events: [Rung, Noted],
  commands: { ring: of, note: of },
  state: Schema.Null,
  initial: null,
  evolve: { "bell.rung": () => null, "bell.noted": () => null },
  decide: {
    ring: (_, { job_id }) => Rung.make({ job_id }),
    note: (_, { job_id }) => Noted.make({ job_id })
  }
})

export const bells = Policy.make({
  name: "bells",
  version: 1,
  source: Job,
  writes: [Bell],
  handle: {
    "job.placed": ({ after_ms, job_id }, out) => {
      out.timer("ring", { after: after_ms, send: [Bell, job_id, { type: "ring" }] })
      out.send(Bell, job_id, { type: "note" })
    },
    "job.cancelled": (_, out) => out.cancel("ring")
  }
})
