// Whose a stream is: the tenant of its first event, which never changes.
import * as Effect from "effect/Effect"
import { Aggregate, type ExecuteOptions } from "../../aggregate/aggregate.ts"
import { VersionConflict } from "../../aggregate/errors.ts"
import { EventStore, type LoadError } from "../../aggregate/event-store.ts"
import type { Aggregate as Model } from "../../model/aggregate.ts"
import { shown } from "../../text/text.ts"
import { Problem } from "../http/problem.ts"

/** The owner of a stream; undefined if it has no events. */
const ownerOf = (
  { name }: Model.Any,
  id: string
): Effect.Effect<{ readonly tenant: string | undefined } | undefined, LoadError, EventStore> =>
  Effect.gen(function* () {
    const { events } = yield* (yield* EventStore).load(name, id, { from: 1, limit: 1 })
    return events[0]
  })

/** Whether a tenant may read a stream; `tenant` undefined: of all tenants. A stream without events is nobody's. */
export const mayRead = (aggregate: Model.Any, id: string, tenant: string | undefined) =>
  tenant === undefined
    ? Effect.succeed(true)
    : Effect.map(ownerOf(aggregate, id), (owner) => owner === undefined || owner.tenant === tenant)

/** How often ownership is looked up where other writers create the stream at the same time. */
const mostTries = 5

/**
 * Executes a command of a tenant, on a stream that is its own or does not exist: `Aggregate.execute` otherwise. Fails with a `Problem` 403 if the
 * stream is another tenant's. Two tenants that create the same stream at once cannot both succeed: the command that creates one expects none.
 */
export const executeOwned = <E, R>(
  aggregate: Model.Any,
  id: string,
  tenant: string | undefined,
  options: ExecuteOptions,
  execute: (options: ExecuteOptions) => Effect.Effect<Effect.Success<ReturnType<typeof Aggregate.execute>>, E, R>
) =>
  Effect.gen(function* () {
    if (tenant === undefined) return yield* execute(options)
    for (let tries = 1; ; tries++) {
      const owner = yield* ownerOf(aggregate, id)
      if (owner !== undefined && owner.tenant !== tenant)
        return yield* Effect.fail(
          new Problem(
            403,
            "wrong_tenant",
            `${aggregate.name} ${shown(id)} belongs to another tenant`,
            "use another id: the ids of an aggregate are shared by all tenants"
          )
        )
      const isOpen = owner === undefined && options.expected === undefined
      const result = yield* Effect.result(execute(isOpen ? { ...options, expected: "noStream" } : options))
      if (result._tag === "Success") return result.success
      const isRace = isOpen && result.failure instanceof VersionConflict
      if (!isRace || tries === mostTries) return yield* Effect.fail(result.failure)
    }
  })
