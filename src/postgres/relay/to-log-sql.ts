// The statement that copies segments of the outbox into the log and moves positions, and the one that notes halts.
import type { OutboxStream } from "../../relay/target.ts"
import type { Sql } from "../client/client.ts"
import { textArray } from "../client/columns.ts"
import { arrayLiteral } from "../client/types.ts"
import { overlapOf } from "./outbox-sql.ts"

/** Why a segment was not copied. `split` is no halt: the segment's messages go to several partitions. */
export type StopReason = "position" | "gap" | "topic" | "partition" | "split"
/** What a copy did with one stream. */
export interface CopyRow extends OutboxStream {
  /** How many messages were copied. */
  readonly messages: number
  /** Why the copy stopped before a segment; null if it did not. */
  readonly stop: StopReason | null
  /** The stream's position before the copy. */
  readonly seq: number
  /** Why the stream was halted before. */
  readonly halted: string | null
  /** The segment at which the copy stopped, and its topic. */
  readonly first_seq: number | null
  readonly target: string | null
  readonly target_partition: number | null
  readonly partitions: number | null
  readonly more: boolean
  /** Topic id, partition and new end of each partition that grew, for the log's readers. The same in every row. */
  readonly ends: ReadonlyArray<string> | null
}

const copying = `
  with stream as materialized (
    select p.projection, p.source, p.partition, p.seq, p.incarnation, p.halted
    from millrace.relay_position p
    where p.target = $1::text
    order by p.projection, p.source, p.partition
    for update skip locked
  ), candidate as (
    select s.projection, s.source, s.partition, s.seq, s.halted, o.first_seq, o.messages, o.incarnation, o.target,
      o.target_partition, o.meta, o.vals, octet_length(o.vals) as bytes, t.topic_id, t.partitions, t.name, t.aggregate,
      row_number() over nth as n,
      case
        when s.seq > 0 and s.incarnation is not null and ((last.seq, last.incarnation) is distinct from (s.seq, s.incarnation)
          or exists (${overlapOf("s")})) then 'position'
        when o.first_seq <> s.seq + 1 + coalesce(sum(o.messages) over before, 0) then 'gap'
        when t.topic_id is null then 'topic'
        when o.target_partition is null then 'split'
        when o.target_partition >= t.partitions then 'partition'
      end as stop
    from stream s
    left join lateral (
      select l.first_seq, l.first_seq + l.messages - 1 as seq, l.incarnation from millrace.outbox l
      where (l.projection, l.source, l.partition) = (s.projection, s.source, s.partition) and l.first_seq <= s.seq
      order by l.first_seq desc
      limit 1
    ) last on true
    cross join lateral (
      select * from millrace.outbox o
      where (o.projection, o.source, o.partition) = (s.projection, s.source, s.partition) and o.first_seq > s.seq
      order by o.first_seq
      limit $2::integer
    ) o
    left join millrace.log_topic t on t.name = o.target
    window nth as (partition by s.projection, s.source, s.partition order by o.first_seq),
      before as (nth rows between unbounded preceding and 1 preceding)
  ), judged as (
    select *, min(n) filter (where stop is not null) over (partition by projection, source, partition) as stop_n
    from candidate
  ), clear as (
    select *, sum(bytes) over (order by n, projection, source, partition) - bytes as bytes_before
    from judged
    where n < coalesce(stop_n, n + 1)
  ), picked as materialized (
    select *,
      sum(messages) over (partition by topic_id, target_partition) as total,
      coalesce(sum(messages) over (partition by topic_id, target_partition order by projection, source, partition, n
        rows between unbounded preceding and 1 preceding), 0) as before
    from clear
    where bytes_before < $3::bigint
  ), head as (
    insert into millrace.log_head as h (topic_id, partition, next_position)
    select topic_id, target_partition, sum(messages) from picked where not aggregate group by 1, 2 order by 1, 2
    on conflict (topic_id, partition) do update set next_position = h.next_position + excluded.next_position
    returning h.topic_id, h.partition, h.next_position
  ), batch as (
    insert into millrace.log_batch
      (topic_id, partition, base_position, next_position, records, bytes, meta, vals, stream, first_seq, incarnation)
    select p.topic_id, p.target_partition, h.next_position - p.total + p.before,
      h.next_position - p.total + p.before + p.messages, p.messages, p.bytes, p.meta, p.vals,
      p.projection || '/' || p.source || '/' || p.partition, p.first_seq, left(p.incarnation::text, 8)
    from picked p
    join head h on (h.topic_id, h.partition) = (p.topic_id, p.target_partition)
    order by 1, 2, 3
  ), gain as (
    select projection, source, partition, sum(messages) as messages, max(n) as n,
      max(first_seq + messages - 1) as seq, (array_agg(incarnation order by n desc))[1] as incarnation
    from picked
    group by 1, 2, 3
  ), moved as (
    update millrace.relay_position p
    set seq = g.seq, incarnation = g.incarnation, moved_at = clock_timestamp(), halted = null
    from gain g
    where (p.target, p.projection, p.source, p.partition) = ($1::text, g.projection, g.source, g.partition)
  )
  select s.projection, s.source, s.partition, coalesce(g.messages, 0)::integer as messages, j.stop,
    s.seq::float8 as seq, s.halted, j.first_seq::float8 as first_seq, j.target, j.target_partition, j.partitions,
    (select json_agg(topic_id || '.' || partition || '=' || next_position) from head) as ends,
    coalesce(g.n, 0) < coalesce(j.stop_n - 1, c.n) or (j.stop is null and c.n = $2::integer) as more
  from stream s
  join (select projection, source, partition, max(n) as n from judged group by 1, 2, 3) c
    using (projection, source, partition)
  left join judged j on (j.projection, j.source, j.partition) = (s.projection, s.source, s.partition) and j.n = j.stop_n
  left join gain g on (g.projection, g.source, g.partition) = (s.projection, s.source, s.partition)`
/**
 * Copies segments once. Streams that another relay has locked are skipped. The outbox is read as of the statement's start, and a position
 * as of its lock: what the snapshot has of a stream after its position is contiguous, because commits publish in the order of their
 * sequence numbers. The topics of aggregates have their events already. Heads of the log are locked after the positions, in the order of topic and partition, as every append does.
 */
export const copySegments = (sql: Sql, target: string, limits: { readonly segments: number; readonly bytes: number }) =>
  sql.unsafe<Array<CopyRow>>(copying, [target, limits.segments, limits.bytes], { prepare: true })

/** Why a stream is halted at a sequence number. */
export interface HaltMark extends OutboxStream {
  readonly seq: number
  readonly reason: string
}
/** Stores why streams are halted, unless they moved in the meantime. */
export const markHalted = (sql: Sql, target: string, marks: ReadonlyArray<HaltMark>) => sql`
  update millrace.relay_position p
  set halted = m.reason
  from unnest(
    ${arrayLiteral(marks.map(({ projection }) => projection))}::text[],
    ${arrayLiteral(marks.map(({ source }) => source))}::text[],
    ${arrayLiteral(marks.map(({ partition }) => partition))}::integer[],
    ${arrayLiteral(marks.map(({ seq }) => seq))}::bigint[],
    ${textArray(marks.map(({ reason }) => reason))}::text[]
  ) as m (projection, source, partition, seq, reason)
  where (p.target, p.projection, p.source, p.partition, p.seq) = (${target}, m.projection, m.source, m.partition, m.seq)
    and p.halted is distinct from m.reason`
