// An aggregate that adds up numbers, for tests that need one of a name of their own.
import { Schema } from "effect"
import { Aggregate, Event } from "../../src/index.ts"

/** An aggregate whose command `count` adds a number to its state. */
export const counterOf = (name: string, partitions: number) =>
  Aggregate.make({
    name,
    partitions,
    events: [Event.make("counted", { n: Schema.Int })],
    commands: { count: { n: Schema.Int } },
    state: Schema.Int,
    initial: 0,
    evolve: { counted: (state, { n }) => state + n },
    decide: { count: (_, { n }) => ({ type: "counted", n }) }
  })
