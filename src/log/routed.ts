// A log that consists of two: the topics of aggregates are in one, all others in the other.
import type * as Effect from "effect/Effect"
import { Log } from "./log.ts"

/** The log of `others`, but for topics that `isAggregate`, which are read from `aggregates`. Topics are declared in `others`. */
export const routedLog = (
  others: Log["Service"],
  aggregates: Log["Service"],
  isAggregate: (topic: string) => boolean
): Log["Service"] => {
  const of = (topic: string) => (isAggregate(topic) ? aggregates : others)
  return Log.of({
    declare: others.declare,
    append: (topic, records) => of(topic).append(topic, records),
    bounds: (topic) => of(topic).bounds(topic),
    ends: (topic) => of(topic).ends(topic),
    identity: (topic) => of(topic).identity(topic),
    read: (topic, partition, position, options) => of(topic).read(topic, partition, position, options),
    open: (topic, partition, position, options) => of(topic).open(topic, partition, position, options),
    assign: (topic, group, use, options): Effect.Effect<never, never, never> =>
      of(topic).assign(topic, group, use, options) as Effect.Effect<never>
  })
}
