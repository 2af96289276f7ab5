// The event-store port: loads and appends the event streams of aggregates. The store in memory is its only adapter so far.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

/** Another writer appended to the stream between load and append: it has `actual` events where `expected` were expected. */
export class ConflictError extends Schema.TaggedError<ConflictError>()("ConflictError", {
  stream: Schema.String,
  expected: Schema.Int,
  actual: Schema.Int
}) {
  override get message() {
    const { actual, expected, stream } = this
    return `stream ${stream} has ${actual} events where ${expected} were expected: another writer appended to it; try the command again`
  }
}

/** Event streams by name. A stream that was never appended to is empty. */
export class EventStore extends Context.Service<
  EventStore,
  {
    /** All events of a stream, in the order of their appends. */
    load(stream: string): Effect.Effect<ReadonlyArray<unknown>>
    /** Appends all events or none. Fails with `ConflictError` unless the stream has exactly `expected` events. */
    append(stream: string, expected: number, events: ReadonlyArray<unknown>): Effect.Effect<void, ConflictError>
  }
>()("millrace/EventStore") {
  /** An empty store in memory, for tests and trials. */
  static readonly layerMemory = Layer.sync(EventStore, () => {
    const streams = new Map<string, Array<unknown>>()
    return EventStore.of({
      load: (stream) => Effect.sync(() => [...(streams.get(stream) ?? [])]),
      append: (stream, expected, events) =>
        Effect.suspend(() => {
          const stored = streams.get(stream) ?? []
          if (stored.length !== expected)
            return Effect.fail(new ConflictError({ stream, expected, actual: stored.length }))
          streams.set(stream, [...stored, ...events])
          return Effect.void
        })
    })
  })
}
