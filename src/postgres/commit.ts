// The commit statement: fence, rows, windows, late and dead events, ids and outbox of one batch, in one statement without BEGIN.
//
// Every part selects from `fence` and reads no other table but those it writes, for all parts share a snapshot that was taken before
// the fence waited. Rows are locked in the order of their keys, tables in the order of their names, each part after the one before,
// so two commits that write the same rows wait for one another and never deadlock.
import type { Projection } from "../projection.ts"
import type { Row } from "../recorder.ts"
import { metaText } from "../packing.ts"
import type { Changes, Claim, DeadLetter, LateEvent, TableChange, WindowChange } from "../store.ts"
import { isStorable } from "../failure.ts"
import { arrayOf, columnArray, fromParameter, keyOrder, parameterType, quote, toJson, type Column } from "./columns.ts"
import { relationsOf, type Placed } from "./ddl.ts"

/** What a parameter may be: arrays go as their text form. */
export type Parameter = string | number | null | Uint8Array
/** A statement's text and its parameters. The text depends on which parts a batch has, so that few are prepared. */
export interface Statement {
  readonly text: string
  readonly parameters: ReadonlyArray<Parameter>
}

/** How many messages a batch publishes: the sequence moves by so many. */
export const messagesOf = (changes: Changes): number =>
  changes.segments.reduce((sum, { messages }) => sum + messages, 0) +
  changes.windows.reduce((sum, { deltas, window }) => sum + (window.topic === undefined ? 0 : deltas.length), 0)

/** Builds the commit statements of one projection. */
export class CommitBuilder {
  private readonly relations: ReadonlyMap<string, Placed>

  constructor(projection: Projection.Any) {
    this.relations = new Map(relationsOf(projection).map((relation) => [relation.name, relation]))
  }

  /** The statement; it returns `mode` and `outbox_seq`, or no row where the claim is fenced. */
  build(claim: Claim, changes: Changes): Statement {
    const parts = new Parts(fence(claim, changes))
    let offset = 0
    for (const change of [...changes.tables, ...changes.windows].toSorted((a, b) => (nameOf(a) < nameOf(b) ? -1 : 1))) {
      const relation = this.relations.get(nameOf(change))!
      if ("table" in change) tableParts(parts, relation, change)
      else {
        windowParts(parts, relation, change, offset)
        if (change.window.topic !== undefined) offset += change.deltas.length
      }
    }
    if (changes.segments.length > 0) segmentPart(parts, changes, offset)
    if (changes.late.length > 0) latePart(parts, changes.late)
    if (changes.dead.length > 0) deadPart(parts, changes.dead)
    if (changes.seen !== undefined) seenPart(parts, claim, changes)
    return parts.statement()
  }
}
const nameOf = (change: TableChange | WindowChange) => ("table" in change ? change.table.name : change.window.name)

/** The chunk of ids that a batch's go to: small batches fill one together, so that a trickle of events is no row each. */
export const seenChunkOf = (claim: Claim, changes: Changes): { readonly chunk: number; readonly fill: number } => {
  const count = changes.seen?.count ?? 0
  if (count === 0) return { chunk: claim.seenChunk, fill: claim.seenFill }
  return claim.seenFill + count > chunkIds
    ? { chunk: claim.seenChunk + 1, fill: count }
    : { chunk: claim.seenChunk, fill: claim.seenFill + count }
}
const chunkIds = 256

/** Common table expressions one after the other, each referring to the one before. */
class Parts {
  private readonly texts: Array<string> = []
  private readonly parameters: Array<Parameter> = []
  private count = 0
  private last: string | undefined

  constructor(fenceText: (parameter: (value: Parameter) => string) => string) {
    this.texts.push(`fence as (${fenceText((value) => this.parameter(value))})`)
  }
  parameter(value: Parameter): string {
    return `$${this.parameters.push(value)}`
  }
  /** A part that only reads parameters; its name. */
  input(text: string): string {
    const name = `i${++this.count}`
    this.texts.push(`${name} as materialized (${text})`)
    return name
  }
  /** A part that writes; `after` makes it run behind the part before. */
  write(text: (after: string) => string): string {
    const name = `w${++this.count}`
    const after = this.last === undefined ? "" : `, (select count(*) as n from ${this.last}) as after_${this.last}`
    this.texts.push(`${name} as (${text(after)})`)
    this.last = name
    return name
  }
  statement(): Statement {
    // the first part to be evaluated evaluates those before it, so the last one is asked for
    const tail = this.last === undefined ? "" : `, (select count(*) as n from ${this.last}) as after_${this.last}`
    return {
      text: `with ${this.texts.join(",\n")}\nselect fence.mode, fence.outbox_seq from fence${tail}`,
      parameters: this.parameters
    }
  }
}

const fence = (claim: Claim, changes: Changes) => (parameter: (value: Parameter) => string) => {
  const { chunk, fill } = seenChunkOf(claim, changes)
  return `update millrace.progress set commit_no = commit_no + 1, next_position = ${parameter(changes.position)}::int8,
    fingerprint = ${parameter(changes.fingerprint ?? null)}::text, stream_time = ${parameter(changes.streamTime ?? null)}::int8,
    outbox_seq = outbox_seq + case when mode = 'live' then ${parameter(messagesOf(changes))}::int8 else 0 end,
    events = events + ${parameter(changes.events)}::int8, duplicates = duplicates + ${parameter(changes.duplicates)}::int8,
    seen_chunk = ${parameter(chunk)}::int8, seen_fill = ${parameter(fill)}::int4,
    committed_at = clock_timestamp(), halted = null
  where projection = ${parameter(claim.projection)}::text and version = ${parameter(claim.version)}::int4
    and topic = ${parameter(claim.topic)}::text and partition = ${parameter(claim.partition)}::int4
    and incarnation = ${parameter(claim.incarnation)}::uuid and commit_no = ${parameter(claim.commitNo)}::int8 and mode <> 'frozen'
  returning projection, version, topic, partition, incarnation, mode, outbox_seq`
}

/** Rows as `select c1, c2 … from unnest($1::t1[], …)`, in the order of the key. `more`: further columns, a line a row. */
const rowsInput = (
  parts: Parts,
  relation: Placed,
  columns: ReadonlyArray<Column>,
  rows: ReadonlyArray<Row>,
  more: ReadonlyArray<[string, string]> = []
) => {
  const arrays = [
    ...columns.map((column) => `${parts.parameter(columnArray(column, rows))}::${parameterType(column)}`),
    ...more.map(([, lines]) => `string_to_array(${parts.parameter(lines)}::text, E'\\n')`)
  ]
  const names = [...columns.map(({ name }) => quote(name)), ...more.map(([name]) => name)]
  const values = [
    ...columns.map((column) => `${fromParameter(column, "u")} as ${quote(column.name)}`),
    ...more.map(([name]) => `u.${name}`)
  ]
  return parts.input(
    `select ${values.join(", ")} from unnest(${arrays.join(", ")}) as u(${names.join(", ")}) order by ${keyOrder(relation, "u")}`
  )
}
const keyColumns = (relation: Placed) => relation.columns.filter(({ name }) => relation.key.includes(name))
const valueColumns = (relation: Placed) => relation.columns.filter(({ name }) => !relation.key.includes(name))
const list = (columns: ReadonlyArray<{ readonly name: string }>, prefix = "") =>
  columns.map(({ name }) => prefix + quote(name)).join(", ")
const keyList = (relation: Placed, prefix = "") => relation.key.map((name) => prefix + quote(name)).join(", ")

const tableParts = (parts: Parts, relation: Placed, { deletes, updates, upserts }: TableChange) => {
  const values = valueColumns(relation)
  const others = [...updates, ...deletes]
  if (upserts.length > 0) {
    const kinds = [...upserts.map(() => "t"), ...others.map(() => "f")].join("\n")
    const more: ReadonlyArray<[string, string]> = others.length === 0 ? [] : [["upserted", kinds]]
    const rows = rowsInput(parts, relation, relation.columns, [...upserts, ...others], more)
    const set = values.map(({ name }) => `${quote(name)} = excluded.${quote(name)}`).join(", ")
    const from =
      others.length === 0 ? (after: string) => `fence, ${rows} r${after}` : lockedOnTheWay(parts, relation, rows)
    parts.write(
      (after) => `insert into ${relation.at} (${list(relation.columns)})
      select ${list(relation.columns, "r.")} from ${from(after)}
      on conflict (${keyList(relation)}) do ${values.length === 0 ? "nothing" : `update set ${set}`} returning 1`
    )
  } else if (updates.length > 0 && deletes.length > 0) {
    locked(parts, relation, rowsInput(parts, relation, keyColumns(relation), others))
  }
  if (updates.length > 0 && values.length > 0) {
    const masks = values.map(
      ({ name }, i) => [`m${i}`, updates.map((row) => (name in row ? "t" : "f")).join("\n")] as [string, string]
    )
    const rows = rowsInput(parts, relation, relation.columns, updates, masks)
    const set = values.map(
      ({ name }, i) => `${quote(name)} = case when r.m${i} = 't' then r.${quote(name)} else t.${quote(name)} end`
    )
    parts.write(
      (after) => `update ${relation.at} t set ${set.join(", ")}
      from (select r.* from fence, ${rows} r join ${locked(parts, relation, rows)} l using (${keyList(relation)})${after}) r
      where ${matches(relation, "r")} returning 1`
    )
  }
  if (deletes.length > 0) {
    const rows = rowsInput(parts, relation, keyColumns(relation), deletes)
    parts.write(
      (after) => `delete from ${relation.at} t
      using (select r.* from fence, ${rows} r join ${locked(parts, relation, rows)} l using (${keyList(relation)})${after}) r
      where ${matches(relation, "r")} returning 1`
    )
  }
}
/**
 * Rows to upsert, each locked or inserted before the next is looked at, and between them, in the same order, the rows that later
 * parts change: one kind after the other would lock them in an order that another batch does not have.
 */
const lockedOnTheWay = (parts: Parts, relation: Placed, rows: string) => {
  // no lock before the fence holds and the parts before are done; `offset` keeps the planner from merging this into what follows
  const gate = parts.write((after) => `select fence.mode from fence${after} offset 0`)
  return () => `${gate} g, ${rows} r, lateral (select count(*) as n from (
        select from ${relation.at} t where g.mode is not null and r.upserted = 'f' and ${matches(relation, "r")} for update) x) l
      where case when l.n >= 0 then r.upserted = 't' end`
}
/** The rows that are there, locked in the order of their keys before any of them is changed. */
const locked = (parts: Parts, relation: Placed, rows: string) =>
  parts.write(
    (
      after
    ) => `select ${keyList(relation, "t.")} from fence, ${relation.at} t join ${rows} r on ${matches(relation, "r")}${after}
    order by ${keyOrder(relation, "t")} for update of t`
  )
const matches = (relation: Placed, alias: string) =>
  relation.key.map((name) => `t.${quote(name)} = ${alias}.${quote(name)}`).join(" and ")

const merged = ({ delta, name }: Column) => {
  const column = quote(name)
  switch (delta) {
    case "count":
    case "sum":
      return `${column} = t.${column} + excluded.${column}`
    case "min":
      return `${column} = least(t.${column}, excluded.${column})`
    case "max":
      return `${column} = greatest(t.${column}, excluded.${column})`
    default:
      return `${column} = excluded.${column}`
  }
}
/** Deltas are added to rows that are there; the new rows are published from what the upsert returns, so no read races with it. */
const windowParts = (parts: Parts, relation: Placed, { deltas, window }: WindowChange, offset: number) => {
  const { topic } = window
  // JSON has no raw line feed, so lines do for an array, and nothing in them must be escaped
  const meta = topic && deltas.map((d) => metaText(d.key, d.eventTime, undefined, d.tenant, d.traceparent)).join("\n")
  const rows = rowsInput(
    parts,
    relation,
    relation.columns,
    deltas.map(({ row }) => row),
    meta === undefined ? [] : [["meta", meta]]
  )
  const written = parts.write(
    (after) => `insert into ${relation.at} as t (${list(relation.columns)})
    select ${list(relation.columns, "r.")} from fence, ${rows} r${after}
    on conflict (${keyList(relation)}) do update set ${valueColumns(relation).map(merged).join(", ")}
    returning ${topic === undefined ? "1" : list(relation.columns, "t.")}`
  )
  if (topic === undefined) return
  const partition = deltas.every((delta) => delta.partition === deltas[0]!.partition) ? deltas[0]!.partition : null
  const fields =
    topic.fields === undefined ? relation.columns : relation.columns.filter(({ name }) => topic.fields!.includes(name))
  const order = keyOrder(relation, "x")
  parts.write(
    (
      after
    ) => `insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    select f.projection, f.topic, f.partition, f.outbox_seq - ${parts.parameter(offset)}::int8 - ${parts.parameter(deltas.length)}::int8 + 1,
      ${parts.parameter(deltas.length)}::int4, f.incarnation, ${parts.parameter(topic.name)}::text, ${parts.parameter(partition)}::int4,
      (select '[' || string_agg(x.meta, ',' order by ${order}) || ']' from ${rows} x),
      (select string_agg((select row_to_json(j)::text from (select ${fields.map((field) => toJson(field, "x")).join(", ")}) j), E'\\n' order by ${order}) from ${written} x)
    from fence f${after} where f.mode = 'live' returning 1`
  )
}

/** `offset`: messages of the batch that come behind these in the stream. */
const segmentPart = (parts: Parts, { segments }: Changes, offset: number) => {
  const total = segments.reduce((sum, { messages }) => sum + messages, 0)
  const before: Array<number> = []
  let sum = 0
  for (const { messages } of segments) {
    before.push(sum)
    sum += messages
  }
  // each text a parameter of its own: in an array all its quotes would have to be escaped
  const rows = segments.map(
    ({ messages, meta, partition, target, vals }, i) =>
      `(${parts.parameter(target)}::text, ${parts.parameter(partition ?? null)}::int4, ${parts.parameter(messages)}::int4, ` +
      `${parts.parameter(before[i]!)}::int8, ${parts.parameter(meta)}::text, ${parts.parameter(vals)}::text)`
  )
  const input = parts.input(
    `select * from (values ${rows.join(", ")}) as u(target, partition, messages, before, meta, vals)`
  )
  parts.write(
    (
      after
    ) => `insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    select f.projection, f.topic, f.partition, f.outbox_seq - ${parts.parameter(offset + total)}::int8 + s.before + 1, s.messages,
      f.incarnation, s.target, s.partition, s.meta, s.vals
    from fence f, ${input} s${after} where f.mode = 'live' returning 1`
  )
}

/** JSON text that jsonb takes: it has no place for NUL, nor for half a surrogate pair. */
const jsonb = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "string" ? inner.replaceAll("\u0000", "\ufffd").toWellFormed() : inner
  )
/** Each late pair's number within its event, which may contribute to one window several times. */
const numbered = (late: ReadonlyArray<LateEvent>): ReadonlyArray<number> => {
  let number = 0
  return late.map(({ position }, i) => (number = position === late[i - 1]?.position ? number + 1 : 1))
}
const latePart = (parts: Parts, late: ReadonlyArray<LateEvent>) => {
  const instants = (of: (event: LateEvent) => number) =>
    `${parts.parameter(arrayOf(late.map((event) => (Number.isFinite(of(event)) ? of(event) : null))))}::float8[]`
  const texts = (of: (event: LateEvent) => string | undefined) => `${parts.parameter(arrayOf(late.map(of)))}::text[]`
  const input = parts.input(
    `select * from unnest(${parts.parameter(arrayOf(late.map(({ position }) => position)))}::int8[],
      ${texts(({ window }) => window)}, ${texts(({ size }) => size)}, ${instants(({ start }) => start)},
      ${texts(({ key }) => jsonb(key))}, ${texts(({ contribution }) => jsonb(contribution))},
      ${instants(({ eventTime }) => eventTime)}, ${instants(({ streamTime }) => streamTime)}, ${texts(({ traceId }) => traceId)},
      ${parts.parameter(arrayOf(numbered(late)))}::int4[])
      as u(position, window_name, size, start, key, contribution, event_time, stream_time, trace_id, number)`
  )
  parts.write(
    (
      after
    ) => `insert into millrace.late_events (projection, version, topic, partition, position, number, window_name, window_size,
      window_start, key, contribution, event_time, stream_time, trace_id)
    select f.projection, f.version, f.topic, f.partition, l.position, l.number, l.window_name, l.size, to_timestamp(l.start / 1000.0),
      l.key::jsonb, l.contribution::jsonb, to_timestamp(l.event_time / 1000.0), to_timestamp(l.stream_time / 1000.0), l.trace_id
    from fence f, ${input} l${after} on conflict do nothing returning 1`
  )
}

const storable = (text: string | null): string | null =>
  text === null || isStorable(text) ? text : JSON.stringify(text)
// what lies outside is told by the dead letter's value; timestamptz ends in the year 294276
const instant = (time: number | undefined) => (time !== undefined && time > -2.1e14 && time < 8.6e15 ? time : null)
const deadPart = (parts: Parts, dead: ReadonlyArray<DeadLetter>) => {
  const texts = (of: (letter: DeadLetter) => string | null | undefined) =>
    `${parts.parameter(arrayOf(dead.map(of)))}::text[]`
  const input = parts.input(
    `select * from unnest(${parts.parameter(arrayOf(dead.map(({ position }) => position)))}::int8[],
      ${texts(({ status }) => status)}, ${texts(({ key }) => storable(key))}, ${texts(({ error }) => storable(error))},
      ${texts(({ message }) => storable(message))}, ${parts.parameter(arrayOf(dead.map(({ attempts }) => attempts)))}::int4[],
      ${texts(({ value }) => storable(value))}, ${texts(({ headers }) => jsonb(headers))},
      ${parts.parameter(arrayOf(dead.map(({ eventTime }) => instant(eventTime))))}::float8[], ${texts(({ traceId }) => storable(traceId ?? null))})
      as u(position, status, key, error, message, attempts, value, headers, event_time, trace_id)`
  )
  parts.write(
    (
      after
    ) => `insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message,
      attempts, value, headers, event_time, trace_id)
    select f.projection, f.version, f.topic, f.partition, d.position, d.status, d.key, d.error, d.message, d.attempts, d.value,
      d.headers::jsonb, to_timestamp(d.event_time / 1000.0), d.trace_id
    from fence f, ${input} d${after} on conflict do nothing returning 1`
  )
}

const seenPart = (parts: Parts, claim: Claim, changes: Changes) => {
  const { maxTime, minTime, packed } = changes.seen!
  const { chunk } = seenChunkOf(claim, changes)
  parts.write(
    (after) => `insert into millrace.seen as s (projection, version, topic, partition, chunk, min_time, max_time, ids)
    select f.projection, f.version, f.topic, f.partition, ${parts.parameter(chunk)}::int8, ${parts.parameter(minTime)}::float8,
      ${parts.parameter(maxTime)}::float8, ${parts.parameter(packed)}::bytea
    from fence f${after}
    on conflict (projection, version, topic, partition, chunk) do update set ids = s.ids || excluded.ids,
      min_time = least(s.min_time, excluded.min_time), max_time = greatest(s.max_time, excluded.max_time) returning 1`
  )
}
