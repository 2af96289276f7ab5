// What requests about projections may ask for, and what they are answered.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { FastifyRequest } from "fastify"
import { limitBounds, type RebuildLimits } from "../../postgres/store/rebuild.ts"
import { InvalidOperation } from "../../system/errors.ts"
import { momentOf } from "./parts.ts"
import { described, flag, integer, list, nullable, number, object, oneOf, text, time } from "../http/json-schema.ts"

/** How many keys a request may have; a file of the command line may have more. */
export const mostKeys = 100_000
/** How long an operation may take, in milliseconds: by default, and at most. */
export const times = { promote: 5_000, diff: 60_000, most: 600_000 }

const limit = Schema.Finite.check(Schema.isBetween({ minimum: limitBounds.least, maximum: limitBounds.most }))
const Limits = {
  rate: Schema.optional(Schema.NullOr(limit)),
  maxLiveLag: Schema.optional(Schema.NullOr(limit))
}
/** The bodies of requests. */
export const Rebuild = Schema.Struct({
  ...Limits,
  from: Schema.optional(Schema.String),
  until: Schema.optional(Schema.String),
  keys: Schema.optional(Schema.Array(Schema.String)),
  lookups: Schema.optional(Schema.Literals(["asSeen", "today"]))
})
export const Resume = Schema.Struct({ ...Limits, until: Schema.optional(Schema.String) })
export const Until = Schema.Struct({ until: Schema.optional(Schema.String) })
const Timeout = { timeoutMs: Schema.optional(Schema.Int) }
export const DiffBody = Schema.Struct({
  with: Schema.optional(Schema.Int),
  exact: Schema.optional(Schema.Boolean),
  samples: Schema.optional(Schema.Int),
  ...Timeout
})
export const Promote = Schema.Struct({
  build: Schema.optional(Schema.Int),
  rollback: Schema.optional(Schema.Boolean),
  publish: Schema.optional(Schema.Literals(["corrections"])),
  ...Timeout
})
export const Retire = Schema.Struct({ build: Schema.optional(Schema.Int), drop: Schema.optional(Schema.Boolean) })

/** The schema of a projection with its builds. */
export const projection = object({
  name: text,
  live: described(nullable(integer), "the number of the live build"),
  job: described(nullable(text), "the job that runs for it in this process"),
  builds: list(
    object(
      {
        build: integer,
        version: integer,
        role: oneOf("live", "candidate", "previous", "investigation", "follower"),
        schema: text,
        inline: flag,
        lookups: oneOf("asSeen", "today"),
        copy_of: nullable(integer),
        rebuild: nullable(
          object({
            state: oneOf("running", "paused", "done", "cancelled"),
            rate: nullable(number),
            max_live_lag: described(nullable(number), "seconds")
          })
        ),
        left: described(integer, "records to go until it is where the live build is, or where it stops"),
        positions: list(
          object({
            topic: text,
            partition: integer,
            position: nullable(integer),
            live: nullable(integer),
            stop: nullable(integer),
            halted: nullable(text)
          })
        )
      },
      { from: time, until: time }
    )
  )
})

/** The projection that the path names. */
export const nameOf = (request: FastifyRequest) => (request.params as { readonly name: string }).name
/** The limits of a rebuild as a body has them: events a second, and seconds. */
interface AskedLimits {
  readonly rate?: number | null | undefined
  readonly maxLiveLag?: number | null | undefined
}
/** The limits of a rebuild. */
export const limitsOf = ({ maxLiveLag, rate }: AskedLimits) =>
  ({ rate, maxLiveLagMs: maxLiveLag == null ? maxLiveLag : maxLiveLag * 1000 }) satisfies RebuildLimits
/** The same as options of the command. */
export const limitOptions = ({ maxLiveLag, rate }: AskedLimits) => ({
  rate: rate === null ? "max" : rate,
  "max-live-lag": maxLiveLag === null ? "none" : maxLiveLag
})
/** A time that is over, in epoch milliseconds. Fails with `InvalidOperation` for one in the future. */
export const pastOf = (given: string | undefined, name: string) => {
  const time = momentOf(given, name)
  return time !== undefined && time > Date.now()
    ? Effect.fail(
        new InvalidOperation({ message: `${name} ${given} is in the future`, try: "use a time that is over" })
      )
    : Effect.succeed(time)
}
/** How long an operation may take, in milliseconds. Fails with `InvalidOperation`. */
export const timeoutOf = (given: number | undefined, usual: number) =>
  given === undefined || (given > 0 && given <= times.most)
    ? Effect.succeed(given ?? usual)
    : Effect.fail(
        new InvalidOperation({ message: `timeoutMs is ${given}`, try: `use a number from 1 to ${times.most}` })
      )
/** Fails with `InvalidOperation` if both are given. */
export const exclude = (first: unknown, second: unknown, message: string) =>
  first && second ? Effect.fail(new InvalidOperation({ message, try: "send one of them" })) : Effect.void
