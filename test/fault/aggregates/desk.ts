// The aggregate whose decisions depend on several tags. Its events say what they were decided on, so that the harness can order them.
import * as Effect from "effect/Effect"
import { Schema } from "effect"
import { Aggregate, Event } from "../../../src/index.ts"
import type { Decide, Reply } from "./messages.ts"

const run = process.env["FAULT_RUN"] ?? "fault"

export const Decided = Event.make("desk.decided", {
  desk_id: Schema.String,
  /** What the event adds to each of its tags. */
  changes: Schema.Record(Schema.String, Schema.Int),
  /** How many events each tag of the boundary had, as `decide` counted them. */
  saw: Schema.Record(Schema.String, Schema.Int)
})
export class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}

export const Desk = Aggregate.make({
  name: `${run}-desk`,
  id: "desk_id",
  partitions: 4,
  events: [Decided],
  commands: {},
  state: Schema.Null,
  initial: null,
  evolve: { "desk.decided": () => null },
  decide: {},
  tags: { of: ({ changes }) => Object.keys(changes) }
})

interface Tagged {
  readonly n: number
  readonly sum: number
}
const none: Tagged = { n: 0, sum: 0 }

/** Decides within the tags that a request reads. */
export const decide = ({ changes, desk, id, limits, reads }: Decide) =>
  Effect.map(
    Aggregate.decideWithin(
      Desk,
      {
        stream: desk,
        tags: { of: reads },
        initial: {} as Readonly<Record<string, Tagged>>,
        evolve: {
          "desk.decided": (state, event) => {
            const next = { ...state }
            for (const [tag, amount] of Object.entries(event.changes)) {
              const { n, sum } = state[tag] ?? none
              next[tag] = { n: n + 1, sum: sum + amount }
            }
            return next
          }
        },
        decide: (state) => {
          const isKept = limits.every(({ least, most, tags }) => {
            const sum = tags.reduce((all, tag) => all + (state[tag] ?? none).sum + (changes[tag] ?? 0), 0)
            return sum >= least && sum <= most
          })
          if (!isKept) return new Refused()
          const saw = Object.fromEntries(reads.map((tag) => [tag, (state[tag] ?? none).n]))
          return Decided.make({ desk_id: desk, changes, saw })
        }
      },
      { commandId: id }
    ),
    ({ events, position, repeated, version }): Reply => ({
      kind: "executed",
      version,
      count: events.length,
      position: position === undefined ? "" : `${position.partition}:${position.position}`,
      repeated
    })
  )
