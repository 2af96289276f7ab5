// Appends to the log on PostgreSQL. Records of all calls that come while a statement is under way go into the next one, in one commit.
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import { LogError, type NewRecord, type LogPosition } from "../../log/log.ts"
import { pack, type PackedRecords } from "./batch-codec.ts"
import { logError } from "./errors.ts"
import { counted } from "../../text/counted.ts"

/** Limits of one row, in characters of values and in records. Further records go into further rows of the same statement. */
const rowCharacters = 1 << 20
const rowRecords = 5_000
/** Limits of one statement, in characters of values and in records. It takes whole calls, and at least one. */
const statementCharacters = 2 << 20
const statementRecords = 20_000
/** How many statements are under way at once. The server runs them in order; the second is encoded during the first one's commit. */
const depth = 2
/** How many calls may wait at most. */
const waiting = 10_000

/** Appends records of a topic, which `checkRecords` has accepted, and returns their positions. */
export interface Appender {
  readonly append: (
    topic: { readonly topicId: number; readonly name: string },
    records: ReadonlyArray<NewRecord>
  ) => Effect.Effect<ReadonlyArray<LogPosition>, LogError>
}
/** A call of `append` that waits for its positions. */
interface AppendCall {
  readonly topicId: number
  readonly topic: string
  readonly records: ReadonlyArray<NewRecord>
  readonly characters: number
  readonly resume: (result: Effect.Effect<ReadonlyArray<LogPosition>, LogError>) => void
}
/** The records of one partition that one statement appends. */
interface PartitionRecords {
  readonly topicId: number
  readonly partition: number
  readonly records: Array<NewRecord>
  /** The position of the first record, once it is known; then that of the next record whose call gets its positions. */
  position: number
}

const statement = (rows: number) => {
  const values = Array.from({ length: rows }, (_, row) => {
    const $ = (i: number) => `$${4 + row * 7 + i}`
    return `(${$(0)}::int, ${$(1)}::int, ${$(2)}::bigint, ${$(3)}::int, ${$(4)}::int, ${$(5)}::text, ${$(6)}::text)`
  })
  return `
with heads as (
  insert into millrace.log_head as h (topic_id, partition, next_position)
  select * from unnest($1::int[], $2::int[], $3::bigint[]) as t (topic_id, partition, records) order by 1, 2
  on conflict (topic_id, partition) do update set next_position = h.next_position + excluded.next_position
  returning h.topic_id, h.partition, h.next_position
)
insert into millrace.log_batch as b (topic_id, partition, base_position, next_position, records, bytes, meta, vals)
select h.topic_id, h.partition, h.next_position - v.back, h.next_position - v.back + v.records, v.records, v.bytes, v.meta, v.vals
from (values ${values.join(", ")}) as v (topic_id, partition, back, records, bytes, meta, vals)
join heads h using (topic_id, partition)
returning b.topic_id, b.partition, b.base_position`
}
const statements = new Map<number, string>()
const statementOf = (rows: number) => {
  if (rows > 64) return statement(rows)
  const found = statements.get(rows) ?? statement(rows)
  statements.set(rows, found)
  return found
}

/** Packs a partition's records into rows of a limited size. */
const rowsOf = (records: ReadonlyArray<NewRecord>): ReadonlyArray<PackedRecords> => {
  const rows: Array<PackedRecords> = []
  let from = 0
  let characters = 0
  for (let i = 0; i < records.length; i++) {
    const size = records[i]!.value?.length ?? 0
    if (i > from && (characters + size > rowCharacters || i - from === rowRecords)) {
      rows.push(pack(records.slice(from, i)))
      from = i
      characters = 0
    }
    characters += size
  }
  rows.push(pack(from === 0 ? records : records.slice(from)))
  return rows
}

const groupsOf = (calls: ReadonlyArray<AppendCall>) => {
  const groups = new Map<string, PartitionRecords>()
  for (const { records, topicId } of calls) {
    for (const record of records) {
      const key = `${topicId}:${record.partition}`
      const group = groups.get(key)
      if (group === undefined) groups.set(key, { topicId, partition: record.partition, records: [record], position: 0 })
      else group.records.push(record)
    }
  }
  return groups
}

const send = async (sql: postgres.Sql, groups: ReadonlyArray<PartitionRecords>) => {
  const parameters: Array<string | number> = [
    `{${groups.map((group) => group.topicId).join(",")}}`,
    `{${groups.map((group) => group.partition).join(",")}}`,
    `{${groups.map((group) => group.records.length).join(",")}}`
  ]
  for (const { partition, records, topicId } of groups) {
    let back = records.length
    for (const row of rowsOf(records)) {
      parameters.push(topicId, partition, back, row.records, row.bytes, row.meta, row.vals)
      back -= row.records
    }
  }
  const rows = (parameters.length - 3) / 7
  return await sql.unsafe<Array<{ topic_id: number; partition: number; base_position: string | number }>>(
    statementOf(rows),
    parameters,
    { prepare: rows <= 64 }
  )
}

/** Takes the calls of the next statement off the queue. */
const nextOf = (queue: Array<AppendCall>): Array<AppendCall> => {
  let characters = 0
  let records = 0
  let count = 0
  for (const call of queue) {
    characters += call.characters
    records += call.records.length
    if (count > 0 && (characters > statementCharacters || records > statementRecords)) break
    count += 1
  }
  return queue.splice(0, count)
}

/**
 * Appends over one connection, so that records keep the order of the calls. `appended` is called with each partition's new end after the
 * commit. A call that is interrupted before its statement is sent appends nothing; after that, its records may be in the log.
 */
export const make = (
  sql: postgres.Sql,
  appended: (topicId: number, partition: number, end: number) => void
): Appender => {
  const queue: Array<AppendCall> = []
  let sending = 0
  let scheduled = false

  const run = async (calls: ReadonlyArray<AppendCall>) => {
    const groups = groupsOf(calls)
    try {
      const rows = await send(sql, [...groups.values()])
      for (const group of groups.values()) group.position = Infinity
      for (const row of rows) {
        const group = groups.get(`${row.topic_id}:${row.partition}`)!
        group.position = Math.min(group.position, Number(row.base_position))
      }
      for (const group of groups.values())
        appended(group.topicId, group.partition, group.position + group.records.length)
      for (const { records, resume, topicId } of calls) {
        resume(
          Effect.succeed(
            records.map(({ partition }) => ({ partition, position: groups.get(`${topicId}:${partition}`)!.position++ }))
          )
        )
      }
    } catch (cause) {
      // a statement that is sent in the turn of the event loop in which its connection is lost would never be answered
      await new Promise((resolve) => void setImmediate(resolve))
      for (const { resume, topic } of calls) resume(Effect.fail(logError("append", topic)(cause)))
    }
  }
  const flush = () => {
    scheduled = false
    while (sending < depth && queue.length > 0) {
      sending += 1
      void run(nextOf(queue)).finally(() => {
        sending -= 1
        flush()
      })
    }
  }
  const append: Appender["append"] = (topic, records) =>
    Effect.callback((resume) => {
      if (records.length === 0) return resume(Effect.succeed([]))
      if (queue.length >= waiting) {
        const reason = `${counted(waiting, "append")} wait already; append less often, or several records at once`
        return resume(Effect.fail(new LogError({ operation: "append", topic: topic.name, retryable: true, reason })))
      }
      const characters = records.reduce((sum, record) => sum + (record.value?.length ?? 0), 0)
      const call: AppendCall = { topicId: topic.topicId, topic: topic.name, records, characters, resume }
      queue.push(call)
      // a microtask later, so that appends of other fibers in this turn of the event loop go into the same statement
      if (!scheduled && sending < depth) {
        scheduled = true
        queueMicrotask(flush)
      }
      return Effect.sync(() => {
        const at = queue.indexOf(call)
        if (at >= 0) queue.splice(at, 1)
      })
    })
  return { append }
}
