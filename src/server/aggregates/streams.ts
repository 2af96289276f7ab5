// A page of an aggregate's streams, as JSON.
import * as Effect from "effect/Effect"
import { EventStore, type ListedStream, type ListOptions } from "../../aggregate/event-store.ts"
import type { Aggregate } from "../../model/aggregate.ts"

const streamJson = ({ appendedAt, closed, id, tenant, version }: ListedStream) => ({
  id,
  version,
  appended_at: appendedAt,
  tenant: tenant ?? null,
  closed: closed ?? null
})
/** The JSON object of a stream. */
export type StreamJson = ReturnType<typeof streamJson>

/** Lists the streams of an aggregate that have events. `next` is the `after` of the next page; null if this is the last. */
export const streamsPage = Effect.fnUntraced(function* (aggregate: Aggregate.Any, options: ListOptions) {
  const store = yield* EventStore
  const { next, streams } = yield* store.list(aggregate.name, options)
  return { streams: streams.map(streamJson), next: next ?? null }
})
