// A page of a stream's events, as JSON.
import * as Effect from "effect/Effect"
import { EventStore, type RecordedEvent } from "../../aggregate/event-store.ts"
import type { UnreadableEvent } from "../../aggregate/failures.ts"
import { decodeEvent } from "../../aggregate/state.ts"
import { traceIdOf } from "../../log/envelope.ts"
import type { Aggregate } from "../../model/aggregate.ts"

/** The JSON object of an event: where and when it was appended, by what, and its value in the newest version of its type. Throws `UnreadableEvent`. */
const eventJson = (aggregate: Aggregate.Any, recorded: RecordedEvent) => ({
  version: recorded.version,
  event: aggregate.encode(decodeEvent(aggregate, recorded)),
  event_time: recorded.eventTime,
  appended_at: recorded.appendedAt,
  event_id: recorded.eventId,
  partition: recorded.partition,
  position: recorded.position,
  tenant: recorded.tenant,
  trace_id: traceIdOf(recorded.traceparent),
  traceparent: recorded.traceparent,
  schema_version: recorded.schemaVersion,
  tags: recorded.tags,
  headers: recorded.headers
})
/** The JSON object of an event. */
export type EventJson = ReturnType<typeof eventJson>

/** Loads a page of a stream: its events as JSON, the stream's version, and why it takes no more events, if so. Fails with `UnreadableEvent` if the declarations do not fit an event. */
export const eventsPage = Effect.fnUntraced(function* (
  aggregate: Aggregate.Any,
  id: string,
  { from, limit }: { readonly from: number; readonly limit: number }
) {
  const store = yield* EventStore
  const { closed, events, version } = yield* store.load(aggregate.name, id, { from, limit })
  const shown = yield* Effect.try({
    try: () => events.map((event) => eventJson(aggregate, event)),
    catch: (error) => error as UnreadableEvent
  })
  return { version, events: shown, closed }
})
