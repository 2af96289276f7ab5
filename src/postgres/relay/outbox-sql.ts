// The statements of the outbox on PostgreSQL: streams' positions start and move, and segments are read after them.
import * as Effect from "effect/Effect"
import {
  type ReadLimits,
  type FollowingSegments,
  type MirroredPosition,
  type ParkedMessage,
  type ParkRequest,
  type OutboxPosition,
  type Segment,
  type TopicPosition,
  unopened
} from "../../relay/outbox.ts"
import { type OutboxStream, RelayError, type StreamLag } from "../../relay/target.ts"
import { storable } from "../../text/text.ts"
import { query, type Sql } from "../client/client.ts"
import { textArray } from "../client/columns.ts"
import { arrayLiteral } from "../client/types.ts"

/** Runs a statement for the relay to `target`. A full disk is retryable, because nothing is lost from the outbox until a person frees space. */
export const queryFor =
  (target: string) =>
  <A>(operation: RelayError["operation"], run: () => PromiseLike<A>): Effect.Effect<A, RelayError> =>
    Effect.mapError(query(operation, run), (error) => {
      const retryable = error.retryable || error.code === "53100"
      return new RelayError({ target, operation, retryable, reason: error.reason, cause: error.cause ?? error })
    })

/** The streams of the outbox, found by one index lookup each, because the outbox has many segments of few streams. */
export const streams = `
  with recursive stream as (
    (select projection, source, partition from millrace.outbox order by projection, source, partition limit 1)
    union all
    select next.projection, next.source, next.partition
    from stream s
    cross join lateral (
      select o.projection, o.source, o.partition
      from millrace.outbox o
      where (o.projection, o.source, o.partition) > (s.projection, s.source, s.partition)
      order by o.projection, o.source, o.partition
      limit 1
    ) next
  )`

/** Stores a position for each stream that has segments and no position yet. Returns the number of those. */
export const startStreams = async (sql: Sql, target: string): Promise<number> => {
  const [row] = await sql<Array<{ readonly begun: number }>>`select millrace.relay_begin(${target}) as begun`
  return row!.begun
}

/** All positions of a target. */
export const positions = async (sql: Sql, target: string): Promise<ReadonlyArray<MirroredPosition>> => {
  const rows = await sql<
    Array<
      OutboxStream & {
        seq: number
        incarnation: string | null
        adopt: boolean
        generation: number
        halted: string | null
        committed: number | null
      }
    >
  >`
    select p.projection, p.source, p.partition, p.seq, p.incarnation, p.adopt, p.generation, p.halted, coalesce(g.outbox_seq, h.next_position) as committed
    from millrace.relay_position p
    left join millrace.progress g on (g.projection, g.topic, g.partition) = (p.projection, p.source, p.partition) and g.mode = 'live'
    left join millrace.log_topic t on t.aggregate and t.name = p.projection and t.name = p.source
    left join millrace.log_head h on (h.topic_id, h.partition) = (t.topic_id, p.partition)
    where p.target = ${target} order by p.projection, p.source, p.partition`
  return rows.map(({ adopt, committed, generation, halted, incarnation, partition, projection, seq, source }) => ({
    projection,
    source,
    partition,
    seq,
    incarnation: incarnation ?? undefined,
    adopt,
    generation,
    halted: halted ?? undefined,
    committed: committed ?? undefined
  }))
}

/** The columns of streams, as array parameters. */
const streamArrays = (list: ReadonlyArray<OutboxStream>) =>
  [
    arrayLiteral(list.map(({ projection }) => projection)),
    arrayLiteral(list.map(({ source }) => source)),
    arrayLiteral(list.map(({ partition }) => partition))
  ] as const
/** The same, as arguments of `unnest`. */
const streamColumns = (sql: Sql, list: ReadonlyArray<OutboxStream>) => {
  const [projections, sources, partitions] = streamArrays(list)
  return sql`${projections}::text[], ${sources}::text[], ${partitions}::integer[]`
}

/** Selects the segment before `last` of a stream's row, if the two have a message in common: numbers that were given twice. */
export const overlapOf = (stream: string) => `
  select from (
    select b.first_seq + b.messages as next from millrace.outbox b
    where (b.projection, b.source, b.partition) = (${stream}.projection, ${stream}.source, ${stream}.partition) and b.first_seq < last.first_seq
    order by b.first_seq desc
    limit 1
  ) before where before.next > last.first_seq`

const reading = `
  with place as materialized (
    select p.*, last.incarnation as there
    from unnest($1::text[], $2::text[], $3::integer[], $4::bigint[])
      with ordinality as p (projection, source, partition, seq, n)
    left join lateral (
      select l.first_seq, l.first_seq + l.messages - 1 as seq, l.incarnation from millrace.outbox l
      where (l.projection, l.source, l.partition) = (p.projection, p.source, p.partition) and l.first_seq <= p.seq
      order by l.first_seq desc
      limit 1
    ) last on last.seq = p.seq and not exists (${overlapOf("p")})
  ), candidate as (
    select p.n, o.*, o.target = any ($5::text[]) as pass,
      case when o.target = any ($5::text[]) then 0 else octet_length(o.meta) + octet_length(o.vals) end as bytes,
      row_number() over (partition by p.n order by o.first_seq) as k
    from place p
    cross join lateral (
      select o.first_seq, o.messages, o.incarnation, o.target, o.target_partition, o.meta, o.vals
      from millrace.outbox o
      where (o.projection, o.source, o.partition) = (p.projection, p.source, p.partition) and o.first_seq > p.seq
      order by o.first_seq
      limit $6::integer
    ) o
  ), measured as (
    select *, sum(bytes) over (order by k, n) - bytes as bytes_before,
      sum(bytes) over (partition by n order by k) - bytes as own_before
    from candidate
  )
  select p.n - 1, p.there, (select count(*) from candidate c where c.n = p.n), m.first_seq, m.messages, m.incarnation, m.target, m.target_partition,
    case when not m.pass then m.meta end, case when not m.pass then m.vals end
  from place p
  left join measured m on m.n = p.n and m.own_before < $7::bigint and m.bytes_before < $8::bigint
  order by p.n, m.k`
/** A row of `reading` in the server's text form. */
type RawRow = ReadonlyArray<Uint8Array | null>

const textOf = (value: Uint8Array | null | undefined): string | undefined =>
  value == null ? undefined : Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("utf8")
const none = new Uint8Array(0)
const segmentOf = (row: RawRow): Segment => {
  const partition = textOf(row[7])
  return {
    firstSeq: Number(textOf(row[3])),
    messages: Number(textOf(row[4])),
    incarnation: textOf(row[5])!,
    topic: textOf(row[6])!,
    partition: partition === undefined ? undefined : Number(partition),
    meta: row[8] ?? none,
    vals: row[9] ?? none
  }
}

/** Reads the segments after positions. Their texts stay bytes, because targets need no strings. */
export const read = async (
  sql: Sql,
  positions: ReadonlyArray<OutboxPosition>,
  { bytes, segments, streamBytes }: ReadLimits,
  skip: ReadonlyArray<string>
): Promise<ReadonlyArray<FollowingSegments>> => {
  if (positions.length === 0) return []
  const parameters = [
    ...streamArrays(positions),
    arrayLiteral(positions.map(({ seq }) => seq)),
    arrayLiteral(skip),
    segments,
    streamBytes,
    bytes
  ]
  const rows = (await sql.unsafe(reading, parameters, { prepare: true }).raw()) as unknown as ReadonlyArray<RawRow>
  const there = positions.map((): string | undefined => undefined)
  const candidates = positions.map(() => 0)
  const found = positions.map((): Array<Segment> => [])
  for (const row of rows) {
    const n = Number(textOf(row[0]))
    there[n] = textOf(row[1])
    candidates[n] = Number(textOf(row[2]))
    if (row[3] != null) found[n]!.push(segmentOf(row))
  }
  return positions.map((place, n) => ({
    place,
    there: there[n],
    segments: found[n]!,
    more: found[n]!.length < candidates[n]! || candidates[n] === segments
  }))
}

/** Moves positions, never backwards. */
export const move = (sql: Sql, target: string, positions: ReadonlyArray<OutboxPosition>) => sql`
  update millrace.relay_position p
  set seq = m.seq, incarnation = m.incarnation, moved_at = clock_timestamp(), halted = null, adopt = false,
    generation = p.generation + p.adopt::integer
  from unnest(
    ${streamColumns(sql, positions)},
    ${arrayLiteral(positions.map(({ seq }) => seq))}::bigint[],
    ${arrayLiteral(positions.map(({ incarnation }) => incarnation ?? null))}::uuid[]
  ) as m (projection, source, partition, seq, incarnation)
  where (p.target, p.projection, p.source, p.partition) = (${target}, m.projection, m.source, m.partition) and p.seq <= m.seq`

/** The position of a stream in a topic: as stored, or else as `begin` says, which is stored then. */
export const topicPosition = async (sql: Sql, target: string, begin: TopicPosition): Promise<TopicPosition> => {
  const { generation, partition, place, projection, sent, seq, source, topic } = begin
  const [row] = await sql<Array<TopicPosition>>`
    with begun as (
      insert into millrace.relay_topic as t
      values (${target}, ${projection}, ${source}, ${partition}, ${generation}, ${storable(topic)}, ${seq}, ${sent}, ${storable(place)})
      on conflict (target, projection, source, partition, generation, topic) do update set
        sent = case t.place when ${unopened} then excluded.sent else t.sent end,
        place = case t.place when ${unopened} then excluded.place else t.place end
      returning *
    )
    select projection, source, partition, generation, topic, seq, sent, place from begun`
  return row!
}

/** Moves positions in topics, never backwards, and stores parked messages. */
export const keep = async (
  sql: Sql,
  target: string,
  positions: ReadonlyArray<TopicPosition>,
  parked: ReadonlyArray<ParkedMessage>
) => {
  // before the positions, because a position past a message means that the message is published or parked
  if (parked.length > 0) await sql`${insertParked(sql, target, parked)} order by m.seq on conflict do nothing`
  if (positions.length > 0) await moveTopicPositions(sql, target, positions)
}
/**
 * The statement that stores parked messages. The caller appends conditions on its rows `m`, and their order, in which dead letters are
 * numbered.
 */
const insertParked = (sql: Sql, target: string, parked: ReadonlyArray<ParkedMessage>) => sql`
  insert into millrace.relay_parked
    (target, projection, source, partition, seq, incarnation, topic, key, meta, val, reason)
  select ${target}::text, m.*
  from unnest(
    ${streamColumns(sql, parked)},
    ${arrayLiteral(parked.map(({ seq }) => seq))}::bigint[],
    ${arrayLiteral(parked.map(({ incarnation }) => incarnation))}::uuid[],
    ${textArray(parked.map(({ topic }) => topic))}::text[],
    ${textArray(parked.map(({ key }) => key))}::text[],
    ${textArray(parked.map(({ meta }) => meta))}::text[],
    ${textArray(parked.map(({ val }) => val))}::text[],
    ${textArray(parked.map(({ reason }) => reason))}::text[]
  ) as m (projection, source, partition, seq, incarnation, topic, key, meta, val, reason)`
/**
 * Parks messages of topics that the stream never connected to, and returns these topics. A relay that connects to one at the same time
 * waits for this statement, and continues after the parked messages.
 */
export const park = async (sql: Sql, target: string, parking: ParkRequest): Promise<ReadonlyArray<string>> => {
  const { generation, parked, partition, projection, source, topics } = parking
  const rows = await sql<Array<{ readonly topic: string }>>`
    with closed as (
      insert into millrace.relay_topic as t
      select ${target}::text, ${projection}::text, ${source}::text, ${partition}::integer, ${generation}::integer, m.topic, m.seq, 0, ${unopened}
      from unnest(
        ${textArray(topics.map(({ topic }) => topic))}::text[],
        ${arrayLiteral(topics.map(({ seq }) => seq))}::bigint[]
      ) as m (topic, seq)
      on conflict (target, projection, source, partition, generation, topic) do update set seq = greatest(t.seq, excluded.seq)
      where t.place = ${unopened}
      returning topic
    ), kept as (
      ${insertParked(sql, target, parked)}
      where m.topic in (select topic from closed)
      order by m.seq
      on conflict do nothing
    )
    select topic from closed`
  return rows.map(({ topic }) => topic)
}
const moveTopicPositions = (sql: Sql, target: string, positions: ReadonlyArray<TopicPosition>) => sql`
  update millrace.relay_topic t
  set seq = m.seq, sent = m.sent, place = m.place
  from unnest(
    ${streamColumns(sql, positions)},
    ${arrayLiteral(positions.map(({ generation }) => generation))}::integer[],
    ${textArray(positions.map(({ topic }) => topic))}::text[],
    ${arrayLiteral(positions.map(({ seq }) => seq))}::bigint[],
    ${arrayLiteral(positions.map(({ sent }) => sent))}::bigint[],
    ${textArray(positions.map(({ place }) => place))}::text[]
  ) as m (projection, source, partition, generation, topic, seq, sent, place)
  where (t.target, t.projection, t.source, t.partition, t.generation, t.topic) =
    (${target}, m.projection, m.source, m.partition, m.generation, m.topic) and t.seq <= m.seq`

/** Stores why streams are halted, or that they are not. */
export const halt = (
  sql: Sql,
  target: string,
  halts: ReadonlyArray<OutboxStream & { readonly reason: string | undefined }>
) => sql`
  update millrace.relay_position p
  set halted = m.reason
  from unnest(
    ${streamColumns(sql, halts)},
    ${textArray(halts.map(({ reason }) => reason))}::text[]
  ) as m (projection, source, partition, reason)
  where (p.target, p.projection, p.source, p.partition) = (${target}, m.projection, m.source, m.partition)
    and p.halted is distinct from m.reason`

/** How many messages of each stream the target does not have yet, also of streams without a position. */
export const lag = (sql: Sql, target: string) => sql.unsafe<Array<StreamLag>>(lags, [target], { prepare: true })
const lags = `${streams}
  select s.projection, s.source, s.partition, (last.seq - coalesce(p.seq, 0))::float8 as lag
  from stream s
  cross join lateral (
    select o.first_seq + o.messages - 1 as seq from millrace.outbox o
    where (o.projection, o.source, o.partition) = (s.projection, s.source, s.partition)
    order by o.first_seq desc
    limit 1
  ) last
  left join millrace.relay_position p
    on (p.target, p.projection, p.source, p.partition) = ($1, s.projection, s.source, s.partition)
  order by 1, 2, 3`

/** Deletes at most `limit` segments that every target has and that are older than the retention. Returns how many it deleted. */
export const collect = async (sql: Sql, targets: ReadonlyArray<string>, retentionMs: number, limit: number) => {
  const [row] = await sql<Array<{ readonly deleted: number }>>`
    select millrace.outbox_collect(${arrayLiteral(targets)}::text[], ${retentionMs}::float8, ${limit}::integer) as deleted`
  return row!.deleted
}
