// Reads events from PostgreSQL: pages of streams with their snapshots, what commands answered, and boundaries.
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import { CommandReused, EventStoreError } from "../../aggregate/errors.ts"
import { commandIdProblem, pageEvents, streamProblem, toEvent } from "../../aggregate/event-rules.ts"
import type { Answer, DecidedNothing, EventStore, RecordedEvent } from "../../aggregate/event-store.ts"
import type { LogRecord } from "../../log/log.ts"
import { partitionOf } from "../../model/partitioner.ts"
import type { Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { type Meta, unpack, unpackParsed } from "../log/batch-codec.ts"
import { run } from "./errors.ts"
import { uuidOf } from "./pack.ts"
import {
  backwardsStatement,
  boundaryRows,
  type BoundaryRow,
  boundaryStatement,
  type EventsRow,
  loadStatement,
  type LoadRow,
  type PageRow
} from "./read-sql.ts"
import type { AggregateTopics } from "./topics.ts"

/** The greatest version that a stream may have: JavaScript counts no further. */
const lastVersion = Number.MAX_SAFE_INTEGER

/** The events of a row. */
const eventsOf = (aggregate: string, partition: number, row: EventsRow): ReadonlyArray<RecordedEvent> => {
  const records: Array<LogRecord> = []
  const { appended_ms, base_position: base, meta, vals } = row
  unpack({ partition, base, next: base, bytes: 0, meta, vals, appendedAt: Math.round(appended_ms) }, 0, records)
  return records.map((record, i) => toEvent(aggregate, record, row.first_version + i))
}
/** The events of a page, whose rows the server joined: `limit` at most, from version `start` to `upTo`. */
const eventsOfPage = (
  aggregate: string,
  partition: number,
  { first_version: first, meta, places: text, vals }: PageRow,
  { limit, start, upTo }: { readonly limit: number; readonly start: number; readonly upTo: number }
): ReadonlyArray<RecordedEvent> => {
  if (first === null) return []
  const records: Array<LogRecord> = []
  const values = vals!.split("\n")
  // the first row may begin before the page, and the last one end after it
  const [from, end] = [Math.max(0, start - first), Math.min(start + limit - 1, upTo) - first + 1]
  const places = JSON.parse(text!) as ReadonlyArray<number>
  for (const [i, metas] of (JSON.parse(meta!) as ReadonlyArray<ReadonlyArray<Meta>>).entries()) {
    if (records.length >= end) break
    // versions have no gap, and each record has one line
    const row = { partition, base: places[2 * i]!, appendedAt: places[2 * i + 1]! }
    unpackParsed(row, { metas, values, at: records.length }, 0, records)
  }
  return records.slice(from, end).map((record, i) => toEvent(aggregate, record, first + from + i))
}
/** The answer that a row of a load has. */
const answerOf = (aggregate: string, partition: number, row: LoadRow): Answer => {
  if (row.kind === "remembered") {
    const { rejection } = JSON.parse(row.text!) as Pick<DecidedNothing, "rejection">
    const decided = rejection === undefined ? { version: row.version! } : { version: row.version!, rejection }
    return { ...decided, partition, position: -1, events: [] }
  }
  const events = eventsOf(aggregate, partition, row as EventsRow)
  return { version: events.at(-1)!.version, partition, position: row.base_position!, events }
}

type Service = EventStore["Service"]

const makeLoad = (sql: Sql, topics: AggregateTopics): Service["load"] =>
  Effect.fnUntraced(function* (aggregate, stream, options = {}) {
    const { commandId, digest, from, limit = pageEvents, shape, upTo = lastVersion } = options
    const problem =
      streamProblem(aggregate, stream) ?? (commandId === undefined ? undefined : commandIdProblem(commandId))
    if (problem !== undefined) return yield* problem
    const { partitions, topicId } = yield* topics.find("load", aggregate)
    const partition = partitionOf(stream, partitions)
    const id = commandId === undefined ? null : uuidOf(commandId)
    const parameters = [topicId, partition, stream, shape ?? null, from ?? null, upTo, ...(id === null ? [] : [id])]
    const rows = yield* run("load", aggregate, () =>
      sql.unsafe<Array<LoadRow>>(loadStatement(limit, id !== null), parameters, { prepare: true })
    )
    const page = rows.find(({ kind }) => kind === undefined || kind === "page")!
    const { closed, snapshot: at, text: state, version } = page
    const answer = rows.find(({ kind }) => kind === "appended") ?? rows.find(({ kind }) => kind === "remembered")
    if (answer?.digest != null && digest !== undefined && answer.digest !== uuidOf(digest))
      return yield* new CommandReused({ commandId: commandId! })
    const start = from ?? (at ?? 0) + 1
    const events = eventsOfPage(aggregate, partition, page, { start, upTo, limit })
    return {
      ...(state === null ? {} : { snapshot: { version: at!, state } }),
      version: version ?? 0,
      events,
      ...(answer === undefined ? {} : { answered: answerOf(aggregate, partition, answer) }),
      ...(closed === null ? {} : { closed })
    }
  })

const makeRead = (sql: Sql, topics: AggregateTopics, load: Service["load"]): Service["read"] => {
  const backwards = Effect.fnUntraced(function* (aggregate: string, stream: string, from: number, limit: number) {
    const { partitions, topicId } = yield* topics.find("read", aggregate)
    const partition = partitionOf(stream, partitions)
    const rows = yield* run("read", aggregate, () =>
      sql.unsafe<Array<EventsRow>>(backwardsStatement(limit), [topicId, partition, stream, from], { prepare: true })
    )
    const events = rows.flatMap((row) => eventsOf(aggregate, partition, row).toReversed())
    return events.filter(({ version }) => version <= from).slice(0, limit)
  })
  type Failure = Effect.Error<ReturnType<typeof backwards>>

  return (aggregate, stream, options = {}) => {
    const isBackwards = options.backwards === true
    const problem = streamProblem(aggregate, stream)
    if (problem !== undefined) return Stream.fail(problem)
    const next = Effect.fnUntraced(function* (from: number, left: number) {
      const limit = Math.min(left, pageEvents)
      const events = isBackwards
        ? yield* backwards(aggregate, stream, from, limit)
        : yield* Effect.map(load(aggregate, stream, { from, limit }), (page) => page.events).pipe(
            Effect.catchTags({ CommandReused: Effect.die, InvalidCommandId: Effect.die })
          )
      const last = events.at(-1)?.version
      const isEnd = last === undefined || left <= events.length || (isBackwards && last === 1)
      const following = [(last ?? 0) + (isBackwards ? -1 : 1), left - events.length] as const
      return [events, isEnd ? Option.none() : Option.some(following)] as const
    })
    const start = [options.from ?? (isBackwards ? lastVersion : 1), options.limit ?? Infinity] as const
    if (start[1] <= 0) return Stream.empty
    return Stream.paginate(
      start,
      ([from, left]: readonly [number, number]): Effect.Effect<
        readonly [ReadonlyArray<RecordedEvent>, Option.Option<readonly [number, number]>],
        Failure | Effect.Error<ReturnType<typeof next>>
      > => next(from, left)
    )
  }
}

const makeBoundary = (sql: Sql, topics: AggregateTopics): Service["readBoundary"] =>
  Effect.fnUntraced(function* (aggregate, { tags, types }) {
    const { topicId } = yield* topics.find("read", aggregate)
    const wanted = new Set(tags)
    const rows = yield* run("read", aggregate, () =>
      sql.unsafe<Array<BoundaryRow>>(boundaryStatement, [topicId, arrayOf([...wanted])], { prepare: true })
    )
    const batches = rows.filter(({ kind }) => kind === "batch")
    if (batches.length > boundaryRows) {
      const reason = `more than ${boundaryRows} appends have these tags; use tags of fewer events`
      return yield* new EventStoreError({ operation: "read", aggregate, retryable: false, reason })
    }
    const events = batches
      .flatMap((row) => eventsOf(aggregate, row.partition!, row))
      .filter(
        (event) => event.tags.some((tag) => wanted.has(tag)) && (types === undefined || types.includes(event.type))
      )
    const versions = new Map(rows.filter(({ kind }) => kind === "tag").map(({ meta, version }) => [meta, version!]))
    return {
      events,
      boundary: { tags: [...wanted].map((tag) => ({ aggregate, tag, version: versions.get(tag) ?? 0 })) }
    }
  })

/** The reading half of the event store. */
export const makeReads = (sql: Sql, topics: AggregateTopics): Pick<Service, "load" | "read" | "readBoundary"> => {
  const load = makeLoad(sql, topics)
  return { load, read: makeRead(sql, topics, load), readBoundary: makeBoundary(sql, topics) }
}
