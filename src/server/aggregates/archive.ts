// Archives a stream that exists: for a request or a command line, whose id may be mistyped.
import * as Effect from "effect/Effect"
import { Aggregate } from "../../aggregate/aggregate.ts"
import { EventStore } from "../../aggregate/event-store.ts"
import type { Aggregate as Model } from "../../model/aggregate.ts"

/**
 * `Aggregate.archive` of a stream that has events; undefined if it has none, and nothing is done. `isDryRun`: what it would answer, if no command came
 * before it.
 */
export const archiveKnown = Effect.fnUntraced(function* (aggregate: Model.Any, id: string, isDryRun: boolean) {
  const { closed, version } = yield* (yield* EventStore).load(aggregate.name, id, { limit: 1 })
  if (version === 0) return undefined
  return isDryRun ? { version, repeated: closed !== undefined } : yield* Aggregate.archive(aggregate, id)
})
