// Live reads: folds the events of one stream, or those with some tags, into a projection's rows in memory, by the engine's own code.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import type { LogRecord } from "../log/log.ts"
import { relationOf } from "../model/columns.ts"
import { keyText } from "../model/fields.ts"
import type { Writable } from "../model/handler.ts"
import type { Projection, Rows } from "../model/projection.ts"
import type { Row } from "../model/recorder.ts"
import { MemoryEngine } from "../runner/in-memory.ts"
import type { ProcessError } from "../runner/partition-processor.ts"
import type { EventStoreError, InvalidStream } from "./errors.ts"
import { EventStore, type RecordedEvent } from "./event-store.ts"

/** Which events a live read folds: those of a stream, or those that have one of the tags. */
export type LiveScope = { readonly stream: string } | { readonly tags: ReadonlyArray<string> }

/** The rows are not of the events that were read alone, so folding them would give wrong ones. */
export class NotFoldable extends Schema.TaggedError<NotFoldable>()("NotFoldable", {
  projection: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `projection ${this.projection} cannot be folded when it is read: ${this.reason}; run it with Projection.async or Projection.inline, and read its tables`
  }
}
/** An event could not be processed, so there are no rows. */
export class LiveFailed extends Schema.TaggedError<LiveFailed>()("LiveFailed", {
  projection: Schema.String,
  stream: Schema.String,
  version: Schema.Int,
  reason: Schema.String
}) {
  override get message() {
    const { projection, reason, stream, version } = this
    return `projection ${projection} fails for event ${version} of ${stream}: ${reason}`
  }
}

const recordOf = ({ stream, ...event }: RecordedEvent, position: number): LogRecord => ({
  ...event,
  key: stream,
  partition: 0,
  position
})
/** The texts of which a row's key must hold one, so that no other events change the row. A tag's text begins after its name. */
const ownersOf = (scope: LiveScope): ReadonlyArray<string> =>
  "stream" in scope ? [scope.stream] : scope.tags.flatMap((tag) => [tag, tag.slice(tag.indexOf(":") + 1)])

const assertOwned = (
  projection: Projection.Any,
  rows: Readonly<Record<string, ReadonlyArray<Row>>>,
  scope: LiveScope
) => {
  const owners = new Set(ownersOf(scope))
  for (const target of projection.writes as ReadonlyArray<Writable>) {
    if (target.kind === "topic") continue
    const { key, name } = relationOf(target)
    const other = rows[name]!.find((row) => !key.some((column) => owners.has(row[column] as string)))
    if (other === undefined) continue
    const what = "stream" in scope ? "the stream's id" : "the text of a tag that was read"
    const reason = `no column of the key of ${name} holds ${what} in the row ${keyText(key, other)}, so other events change it, too`
    return new NotFoldable({ projection: projection.name, reason })
  }
  return undefined
}

/** How many events are folded at once. */
const pageSize = 1_000

/**
 * Folds the events of a stream, or those that have one of the tags, into the projection's rows, and stores nothing. Every row must be of these events
 * alone: a column of its key has to hold the stream's id, or the text of a tag. Fails with `NotFoldable` otherwise and for projections of several
 * sources, and with `LiveFailed` at the first event that cannot be processed, whatever the failure policy says.
 *
 * ```ts
 * const { cases } = yield* Projection.read(caseStatus, { stream: "case-1" })
 * ```
 */
export const readLive = <Ev, W extends Writable, E, R>(
  projection: Projection<string, Ev, W, E, R, "aggregate">,
  scope: LiveScope
): Effect.Effect<Rows<W>, NotFoldable | LiveFailed | ProcessError | EventStoreError | InvalidStream, EventStore | R> =>
  Effect.gen(function* () {
    const store = yield* EventStore
    const any = projection as Projection.Any
    const [source] = any.sources
    const refused = (reason: string) => new NotFoldable({ projection: any.name, reason })
    if (any.sources.length !== 1 || source?.kind !== "aggregate")
      return yield* refused(
        `it reads ${any.sources.map(({ name }) => name).join(", ")}, and one aggregate can be folded`
      )
    if (Object.keys(any.enrich).length > 0) return yield* refused("it has lookups, whose values are in topics")
    if ("tags" in scope && scope.tags.length === 0) return yield* refused("no tags were given")
    const engine = new MemoryEngine<Ev, E, R>(projection as never)
    const folded: Array<RecordedEvent> = []
    const fold = Effect.fnUntraced(function* (events: ReadonlyArray<RecordedEvent>) {
      const from = folded.length
      for (const event of events) folded.push(event)
      const records = events.map((event, i) => recordOf(event, from + i))
      yield* engine
        .processBatch(source.name, 0, { records, next: folded.length })
        .pipe(Effect.catchTag("Mismatch", ({ reason }) => Effect.fail(failedAt(from, reason))))
      const [dead] = engine.store.deadLetters
      if (dead === undefined) return
      if (dead.cause !== undefined && Cause.hasInterrupts(dead.cause)) return yield* Effect.interrupt
      return yield* Effect.fail(failedAt(dead.position, `${dead.error}: ${dead.message}`))
    })
    const failedAt = (at: number, reason: string) => {
      const { stream, version } = folded[at]!
      return new LiveFailed({ projection: any.name, stream, version, reason })
    }
    if ("stream" in scope)
      yield* Stream.runForEach(Stream.grouped(store.read(source.name, scope.stream), pageSize), (events) =>
        fold(events)
      )
    else yield* fold((yield* store.readBoundary(source.name, { tags: scope.tags })).events)
    const rows = engine.rows()
    const notOwned = assertOwned(any, rows, scope)
    if (notOwned !== undefined) return yield* notOwned
    return rows as Rows<W>
  })
