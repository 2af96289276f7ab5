// The parts of a commit statement that write Millrace's own tables: outbox, late events, dead letters, seen ids.
import type { Changes, DeadLetter, LateEvent, RetriedDeadLetter, Segment } from "../../runner/store.ts"
import { isStorable } from "../../text/text.ts"
import { arrayOf, textArray } from "../client/columns.ts"
import { type PartitionCommit, outboxColumns, type StatementParts, seenChunkOf } from "./commit-parts.ts"

const segmentColumns = [
  ["part", "int4"],
  ["target", "text"],
  ["partition", "int4"],
  ["messages", "int4"],
  ["behind", "int8"],
  ["meta", "text"],
  ["vals", "text"]
] as const
/** Segments of each commit, picked by `pick`. `behind` has how many of its messages follow them in its stream. */
export const segmentPart = (
  parts: StatementParts,
  commits: ReadonlyArray<PartitionCommit>,
  behind: ReadonlyArray<number>,
  pick: (changes: Changes) => ReadonlyArray<Segment>
) => {
  const rows = commits.flatMap(({ changes }, part) => {
    const segments = pick(changes)
    let left = behind[part]! + segments.reduce((sum, { messages }) => sum + messages, 0)
    return segments.map(({ messages, meta, partition, topic, vals }) => {
      left -= messages
      return [part, topic, partition ?? null, messages, left, meta, vals]
    })
  })
  if (rows.length === 0) return
  // in a statement of one commit each text is a parameter of its own, because in an array all its quotes would have to be escaped
  const input = parts.input(`select * from ${parts.rows(segmentColumns, rows, "u")}`)
  parts.write(
    (after) => `insert into millrace.outbox (${outboxColumns})
    select f.projection, f.topic, f.partition, f.outbox_seq - s.behind - s.messages + 1, s.messages, f.incarnation, s.target,
      s.partition, s.meta, s.vals
    from fence f join ${input} s on s.part = f.part${after} where f.mode = 'live' returning 1`
  )
}

/** JSON text for jsonb, which can hold neither NUL nor a lone surrogate: they are replaced by U+FFFD. What has no JSON form is null. */
const jsonb = (row: Readonly<Record<string, unknown>>): string => {
  const fields = Object.entries(row).flatMap(([name, value]) => {
    const text = jsonOf(value)
    return text === undefined ? [] : [`${jsonOf(name)!}:${text}`]
  })
  return `{${fields.join(",")}}`
}
const jsonOf = (value: unknown): string | undefined => {
  try {
    return JSON.stringify(value, (_, inner: unknown) => {
      if (typeof inner === "bigint") return String(inner)
      return typeof inner === "string" ? inner.replaceAll("\u0000", "\ufffd").toWellFormed() : inner
    })
  } catch {
    return "null"
  }
}
/** Numbers late contributions within their event, because one event can contribute to a window several times. */
const numbered = (late: ReadonlyArray<LateEvent>): ReadonlyArray<number> => {
  let number = 0
  return late.map(({ position }, i) => (number = position === late[i - 1]?.position ? number + 1 : 1))
}
/** All commits' items of one kind, and the index of each item's commit. */
const collectItems = <A>(commits: ReadonlyArray<PartitionCommit>, pick: (changes: Changes) => ReadonlyArray<A>) => {
  const of = commits.map(({ changes }) => pick(changes))
  return { all: of.flat(), partOf: of.flatMap((some, part) => some.map(() => part)) }
}
/** Events that came too late for a window. */
export const latePart = (parts: StatementParts, commits: ReadonlyArray<PartitionCommit>) => {
  const { all: late, partOf } = collectItems(commits, (changes) => changes.late)
  if (late.length === 0) return
  const numbers = commits.flatMap(({ changes }) => numbered(changes.late))
  const instants = (of: (event: LateEvent) => number) =>
    `${parts.parameter(arrayOf(late.map((event) => (Number.isFinite(of(event)) ? of(event) : null))))}::float8[]`
  const texts = (of: (event: LateEvent) => string | undefined) => `${parts.parameter(textArray(late.map(of)))}::text[]`
  const input = parts.input(
    `select * from unnest(${parts.parameter(arrayOf(late.map(({ position }) => position)))}::int8[],
      ${texts(({ window }) => window)}, ${texts(({ size }) => size)}, ${instants(({ start }) => start)},
      ${texts(({ key }) => jsonb(key))}, ${texts(({ contribution }) => jsonb(contribution))},
      ${instants(({ eventTime }) => eventTime)}, ${instants(({ streamTime }) => streamTime)}, ${texts(({ traceId }) => traceId)},
      ${parts.parameter(arrayOf(numbers))}::int4[],
      ${parts.parameter(arrayOf(partOf))}::int4[])
      as u(position, window_name, size, start, key, contribution, event_time, stream_time, trace_id, number, part)`
  )
  parts.write(
    (
      after
    ) => `insert into millrace.late_events (projection, version, topic, partition, position, number, window_name, window_size,
      window_start, key, contribution, event_time, stream_time, trace_id)
    select f.projection, f.version, f.topic, f.partition, l.position, l.number, l.window_name, l.size, to_timestamp(l.start / 1000.0),
      l.key::jsonb, l.contribution::jsonb, to_timestamp(l.event_time / 1000.0), to_timestamp(l.stream_time / 1000.0), l.trace_id
    from fence f join ${input} l on l.part = f.part${after} on conflict do nothing returning 1`
  )
}

/** A dead letter's time; null beyond the range of timestamptz, which ends in the year 294276. The value still has the time. */
export const instant = (time: number | undefined) =>
  time !== undefined && time > -2.1e14 && time < 8.6e15 ? time : null
/** Dead letters: events that could not be processed. */
export const deadPart = (parts: StatementParts, commits: ReadonlyArray<PartitionCommit>) => {
  const { all: dead, partOf } = collectItems(commits, (changes) => changes.deadLetters)
  if (dead.length === 0) return
  const texts = (of: (deadLetter: DeadLetter) => string | null | undefined) =>
    `${parts.parameter(textArray(dead.map(of)))}::text[]`
  const input = parts.input(
    `select * from unnest(${parts.parameter(arrayOf(dead.map(({ position }) => position)))}::int8[],
      ${texts(({ status }) => status)}, ${texts(({ key }) => key)}, ${texts(({ error }) => error)},
      ${texts(({ message }) => message)}, ${parts.parameter(arrayOf(dead.map(({ attempts }) => attempts)))}::int4[],
      ${texts(({ value }) => value)}, ${texts(({ headers }) => jsonb(headers))},
      ${parts.parameter(arrayOf(dead.map(({ eventTime }) => instant(eventTime))))}::float8[], ${texts(({ traceId }) => traceId)},
      ${parts.parameter(arrayOf(dead.map(({ streamTime }) => streamTime ?? null)))}::int8[],
      ${texts(({ envelope, value }) => fullEnvelope(envelope, value))}, ${texts(({ thrownAt }) => thrownAt)},
      ${parts.parameter(arrayOf(partOf))}::int4[])
      as u(position, status, key, error, message, attempts, value, headers, event_time, trace_id, stream_time, envelope, thrown_at, part)`
  )
  parts.write(
    (
      after
    ) => `insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message,
      attempts, value, headers, event_time, trace_id, stream_time, envelope, thrown_at)
    select f.projection, f.version, f.topic, f.partition, d.position, d.status, d.key, d.error, d.message, d.attempts, d.value,
      d.headers::jsonb, to_timestamp(d.event_time / 1000.0), d.trace_id, d.stream_time, d.envelope, d.thrown_at
    from fence f join ${input} d on d.part = f.part${after} on conflict do nothing returning 1`
  )
}

/** The envelope, together with the original value if the value's column cannot hold it. */
const fullEnvelope = (envelope: string | undefined, value: string | null) =>
  envelope === undefined || value === null || isStorable(value) ? envelope : JSON.stringify({ envelope, value })

/** Dead letters that were retried. */
export const retriedPart = (parts: StatementParts, commits: ReadonlyArray<PartitionCommit>) => {
  const { all: retried, partOf } = collectItems(commits, (changes) => changes.retried ?? [])
  if (retried.length === 0) return
  const texts = (of: (deadLetter: RetriedDeadLetter) => string | undefined) =>
    `${parts.parameter(textArray(retried.map(of)))}::text[]`
  const input = parts.input(
    `select * from unnest(${parts.parameter(arrayOf(retried.map(({ position }) => position)))}::int8[],
      ${parts.parameter(arrayOf(retried.map(({ by }) => by)))}::int8[], ${texts(({ failed }) => failed?.error)},
      ${texts(({ failed }) => failed?.message)}, ${parts.parameter(arrayOf(retried.map(({ failed }) => failed?.attempts ?? 1)))}::int4[],
      ${texts(({ failed }) => failed?.thrownAt)}, ${parts.parameter(arrayOf(partOf))}::int4[])
      as u(position, by, error, message, attempts, thrown_at, part)`
  )
  parts.write(
    (after) => `update millrace.dead_letters d set status = case when r.error is null then 'retried'
        -- it was discarded since, by a record that is still to come
        when d.discard_record = 'pending' then 'discarded' else 'parked' end,
      discard_record = case when r.error is not null then d.discard_record end,
      retried_position = r.by, attempts = d.attempts + r.attempts, error = coalesce(r.error, d.error),
      message = coalesce(r.message, d.message), thrown_at = case when r.error is null then d.thrown_at else r.thrown_at end, failed_at = case when r.error is null then d.failed_at else now() end
    from fence f join ${input} r on r.part = f.part${after}
    where (d.projection, d.version, d.topic, d.partition, d.position)
      = (f.projection, f.version, f.topic, f.partition, r.position) returning 1`
  )
}

/** Dead letters that discard records discard. */
export const discardedPart = (parts: StatementParts, commits: ReadonlyArray<PartitionCommit>) => {
  const { all: discarded, partOf } = collectItems(commits, (changes) => changes.discarded ?? [])
  if (discarded.length === 0) return
  const input = parts.input(
    `select * from unnest(${parts.parameter(arrayOf(discarded))}::int8[], ${parts.parameter(arrayOf(partOf))}::int4[]) as u(position, part)`
  )
  parts.write(
    (
      after
    ) => `update millrace.dead_letters d set status = 'discarded', discard_record = 'processed', decided_at = coalesce(d.decided_at, now())
    from fence f join ${input} r on r.part = f.part${after}
    where (d.projection, d.version, d.topic, d.partition, d.position)
      = (f.projection, f.version, f.topic, f.partition, r.position)
      and (d.status in ('parked', 'skipped', 'retrying') or d.discard_record = 'pending') returning 1`
  )
}

const seenColumns = [
  ["part", "int4"],
  ["chunk", "int8"],
  ["min_time", "float8"],
  ["max_time", "float8"],
  ["ids", "bytea"]
] as const
/** Ids of events that were processed. */
export const seenPart = (parts: StatementParts, commits: ReadonlyArray<PartitionCommit>) => {
  const rows = commits.flatMap(({ changes, claim }, part) => {
    if (changes.seen === undefined) return []
    const { maxTime, minTime, packed } = changes.seen
    return [[part, seenChunkOf(claim, changes).chunk, minTime, maxTime, packed]]
  })
  if (rows.length === 0) return
  parts.write(
    (after) => `insert into millrace.seen as s (projection, version, topic, partition, chunk, min_time, max_time, ids)
    select f.projection, f.version, f.topic, f.partition, i.chunk, i.min_time, i.max_time, i.ids
    from fence f join ${parts.rows(seenColumns, rows, "i")} on i.part = f.part${after}
    on conflict (projection, version, topic, partition, chunk) do update set ids = s.ids || excluded.ids,
      min_time = least(s.min_time, excluded.min_time), max_time = greatest(s.max_time, excluded.max_time), stored_at = excluded.stored_at returning 1`
  )
}
