// Copies a segment whose messages go to several partitions: reads it, splits it by key, and appends it to the log.
import { describeError } from "../../dead-letter/event-failure.ts"
import type { LogRecord } from "../../log/log.ts"
import { partitionOf } from "../../model/partitioner.ts"
import type { Sql } from "../client/client.ts"
import { identityHeaders, pack, unpack } from "../log/batch-codec.ts"
import { arrayLiteral } from "../client/types.ts"

/** A stream's next segment in the outbox, and its topic. */
interface OutboxSegment {
  readonly messages: number
  readonly incarnation: string
  readonly meta: string
  readonly vals: string
  readonly topic_id: number
  readonly partitions: number
}
/** A stream, and the sequence number of the first message of a segment. */
export interface SegmentPosition {
  readonly projection: string
  readonly source: string
  readonly partition: number
  readonly firstSeq: number
}

/** The segment's messages by partition, in order. Each carries its own sequence number, because positions in the log do not show it. */
export const splitByPartition = (segment: Omit<OutboxSegment, "topic_id">, stream: string, firstSeq: number) => {
  const records: Array<LogRecord> = []
  const { incarnation, meta, partitions, vals } = segment
  unpack({ partition: 0, base: 0, next: segment.messages, bytes: 0, appendedAt: 0, meta, vals }, 0, records)
  const parts = new Map<number, Array<LogRecord>>()
  for (const [i, record] of records.entries()) {
    const partition = partitionOf(record.key ?? "", partitions)
    const headers = { ...record.headers, ...identityHeaders(stream, firstSeq + i, incarnation) }
    const found = parts.get(partition)
    if (found === undefined) parts.set(partition, [{ ...record, headers }])
    else found.push({ ...record, headers })
  }
  return [...parts].toSorted(([a], [b]) => a - b).map(([partition, of]) => Object.assign(pack(of), { partition }))
}

/**
 * Copies the stream's next segment to its topic and moves the position, in one statement, unless another relay did so first. Returns the
 * number of messages copied and the ends of the partitions that grew, or how the segment is damaged.
 */
export const splitSegment = async (
  sql: Sql,
  target: string,
  { firstSeq, partition, projection, source }: SegmentPosition
) => {
  const [segment] = await sql<Array<OutboxSegment>>`
    select o.messages, o.incarnation, o.meta, o.vals, t.topic_id, t.partitions
    from millrace.outbox o
    join millrace.log_topic t on t.name = o.target
    where (o.projection, o.source, o.partition, o.first_seq) = (${projection}, ${source}, ${partition}, ${firstSeq})`
  if (segment === undefined) return { messages: 0, ends: [] }
  let parts: ReturnType<typeof splitByPartition>
  try {
    parts = splitByPartition(segment, `${projection}/${source}/${partition}`, firstSeq)
  } catch (cause) {
    return { damage: describeError(cause).message }
  }
  const rows = await sql<Array<{ readonly ends: string }>>`
    with moved as (
      update millrace.relay_position
      set seq = seq + ${segment.messages}, incarnation = ${segment.incarnation}, moved_at = clock_timestamp(), halted = null
      where (target, projection, source, partition) = (${target}, ${projection}, ${source}, ${partition})
        and seq = ${firstSeq}::bigint - 1
      returning 1
    ), part as (
      select p.* from moved, unnest(
        ${arrayLiteral(parts.map((part) => part.partition))}::integer[],
        ${arrayLiteral(parts.map(({ records }) => records))}::integer[],
        ${arrayLiteral(parts.map(({ bytes }) => bytes))}::integer[],
        ${arrayLiteral(parts.map(({ meta }) => meta))}::text[],
        ${arrayLiteral(parts.map(({ vals }) => vals))}::text[]
      ) as p (partition, records, bytes, meta, vals)
    ), head as (
      insert into millrace.log_head as h (topic_id, partition, next_position)
      select ${segment.topic_id}::integer, partition, records from part order by partition
      on conflict (topic_id, partition) do update set next_position = h.next_position + excluded.next_position
      returning h.topic_id, h.partition, h.next_position
    ), batch as (
      insert into millrace.log_batch (topic_id, partition, base_position, next_position, records, bytes, meta, vals)
      select h.topic_id, h.partition, h.next_position - p.records, h.next_position, p.records, p.bytes, p.meta, p.vals
      from part p join head h using (partition)
    )
    select topic_id || '.' || partition || '=' || next_position as ends from head`
  return { messages: rows.length > 0 ? segment.messages : 0, ends: rows.map(({ ends }) => ends) }
}
