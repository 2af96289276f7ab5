// An outbox for tests: segments as commits publish them, and what readers of the log find. Values have their stream and sequence number.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { LogRecord } from "../../src/log/log.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import { pack, unpack } from "../../src/postgres/log/batch-codec.ts"

export interface Published {
  readonly projection?: string
  readonly partition?: number
  readonly firstSeq: number
  readonly messages: number
  readonly target?: string
  readonly targetPartition?: number | null
  readonly incarnation?: string
}
export const incarnation = "00000000-0000-4000-8000-000000000001"
export const recordsOf = (projection: string, partition: number, firstSeq: number, messages: number) =>
  Array.from({ length: messages }, (_, i) => ({
    partition: 0,
    key: `k${(firstSeq + i) % 7}`,
    value: JSON.stringify({ from: `${projection}/events/${partition}`, seq: firstSeq + i }),
    eventTime: firstSeq + i,
    eventId: `e${firstSeq + i}`,
    tenant: "t",
    traceparent: undefined,
    schemaVersion: 1,
    headers: {}
  }))
export const publish = (sql: Sql, options: Published) => {
  const {
    firstSeq,
    messages,
    partition = 0,
    projection = "p",
    target = "alerts",
    targetPartition = partition
  } = options
  const { meta, vals } = pack(recordsOf(projection, partition, firstSeq, messages))
  return query(
    "publish",
    () => sql`
    insert into millrace.outbox
      (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    values (${projection}, 'events', ${partition}, ${firstSeq}, ${messages}, ${options.incarnation ?? incarnation}, ${target},
      ${targetPartition}, ${meta}, ${vals})`
  )
}
export const declare = (sql: Sql, name: string, partitions: number) =>
  query(
    "declare",
    () => sql`
    with topic as (
      insert into millrace.log_topic (name, partitions, compacted) values (${name}, ${partitions}, false) returning topic_id
    )
    insert into millrace.log_head (topic_id, partition, next_position)
    select topic_id, generate_series(0, ${partitions}::integer - 1), 0 from topic`
  )

export interface Found extends LogRecord {
  readonly stream: string
  readonly seq: number
}
/** The records of a topic as readers get them; checks that positions have no gap. */
export const topicOf = Effect.fnUntraced(function* (sql: Sql, topic: string) {
  const rows = yield* query(
    "read",
    () => sql`
    select b.*, h.next_position as "end" from millrace.log_batch b join millrace.log_topic t using (topic_id)
    join millrace.log_head h using (topic_id, partition)
    where t.name = ${topic} order by partition, base_position`
  )
  const found: Array<Found> = []
  const ends = new Map<number, number>()
  for (const row of rows) {
    assert.strictEqual(row["base_position"], ends.get(row["partition"]) ?? 0)
    ends.set(row["partition"], row["next_position"])
    const records: Array<LogRecord> = []
    unpack(
      {
        partition: row["partition"],
        base: row["base_position"],
        next: row["next_position"],
        bytes: row["bytes"],
        appendedAt: 0,
        meta: row["meta"],
        vals: row["vals"]
      },
      0,
      records
    )
    assert.strictEqual(records.length, row["next_position"] - row["base_position"])
    assert.strictEqual(row["bytes"], Buffer.byteLength(row["vals"]))
    for (const [i, record] of records.entries()) {
      const stream = row["stream"] ?? record.headers["millrace-stream"]
      const seq = row["stream"] === null ? Number(record.headers["millrace-seq"]) : row["first_seq"] + i
      assert.deepStrictEqual(JSON.parse(record.value!), { from: stream, seq })
      found.push({ ...record, stream, seq })
    }
  }
  for (const row of rows) assert.strictEqual(ends.get(row["partition"]), row["end"])
  return found
})
/** Sequence numbers by stream, in the order in which readers of each partition get them. */
export const sequences = (records: ReadonlyArray<Found>) => {
  const streams: Record<string, Array<number>> = {}
  for (const { seq, stream } of records) (streams[stream] ??= []).push(seq)
  return streams
}
export const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1)
export const positions = (sql: Sql) =>
  query(
    "positions",
    () => sql<Array<{ stream: string; seq: number; halted: string | null }>>`
    select projection || '/' || source || '/' || partition as stream, seq, halted from millrace.relay_position order by 1`
  )

/** The incarnation of a build that did not take over the sequence numbers of the one before. */
export const another = "00000000-0000-4000-8000-00000000000a"
/** Notes how many messages of a stream the live build has committed. */
const committed = (sql: Sql, seq: number) =>
  query(
    "progress",
    () => sql`with p as (
      insert into millrace.projection (name, version, declared, definition) values ('p', 1, 1, '') on conflict do nothing
    )
    insert into millrace.progress (projection, version, topic, partition, mode, outbox_seq) values ('p', 1, 'events', 0, 'live', ${seq})
    on conflict (projection, version, topic, partition) do update set outbox_seq = excluded.outbox_seq`
  )
/** Commits a segment, as a build does. */
export const commitSegment = (sql: Sql, segment: Published, write: typeof publish = publish) =>
  Effect.andThen(write(sql, segment), committed(sql, segment.firstSeq + segment.messages - 1))
/** Deletes from the outbox what a relay has published. */
export const collectPublished = (sql: Sql, target: string) =>
  query("collect", () => sql`select millrace.outbox_collect(array[${target}::text], 0, 100)`)
/** Commits so many messages, in segments of one. */
export const commitEach = (
  sql: Sql,
  n: number,
  segment: Omit<Published, "firstSeq" | "messages">,
  write?: typeof publish
) =>
  Effect.forEach(upTo(n), (firstSeq) => commitSegment(sql, { ...segment, firstSeq, messages: 1 }, write), {
    discard: true
  })
/** A switch of builds that does not hand the sequence number over. */
export const forgetSequence = (sql: Sql) => committed(sql, 0)
/** What a person does about it: the messages of the new build get the numbers after those of the old one. */
export const renumber = (sql: Sql, by: number) =>
  query(
    "renumber",
    () => sql`with moved as (update millrace.outbox set first_seq = first_seq + ${by} where incarnation = ${another} returning messages)
      update millrace.progress set outbox_seq = outbox_seq + ${by} where (select count(*) from moved) > 0`
  )
