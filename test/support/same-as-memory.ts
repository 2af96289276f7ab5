// Compares what the runner committed to PostgreSQL with what the engine in memory did: rows, messages, late events, dead letters, progress.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Row } from "../../src/model/recorder.ts"
import { partitionOf } from "../../src/model/partitioner.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import type { MemoryEngine } from "../../src/runner/in-memory.ts"

/** A message of the outbox. */
export type Message = readonly [
  stream: string,
  topic: string,
  key: string,
  eventTime: number,
  eventId: string | null,
  tenant: string | null,
  value: unknown
]
/** The outbox, stream by stream in order. Segments must follow one another without a gap, and name their messages' partition. */
export const outbox = Effect.fnUntraced(function* (sql: Sql, partitionsOf: (topic: string) => number) {
  const segments = yield* query(
    "read the outbox",
    () => sql`select * from millrace.outbox order by source collate "C", partition, first_seq`
  )
  const ends = new Map<string, number>()
  return segments.flatMap((segment): ReadonlyArray<Message> => {
    const { first_seq, messages, meta, partition, source, target, target_partition, vals } = segment
    const stream = `${source}/${partition}`
    assert.strictEqual(first_seq, (ends.get(stream) ?? 0) + 1, `the outbox of ${stream}`)
    ends.set(stream, first_seq + messages - 1)
    const metas = JSON.parse(meta) as ReadonlyArray<ReadonlyArray<unknown>>
    const lines = (vals as string).split("\n")
    assert.deepStrictEqual([metas.length, lines.length], [messages, messages], `a segment for ${target}`)
    return lines.map((line, i) => {
      const [key, eventTime, eventId, tenant] = metas[i] as [string, number, string | null, string | null]
      if (target_partition !== null)
        assert.strictEqual(target_partition, partitionOf(key, partitionsOf(target)), `${target} ${key}`)
      return [stream, target, key, eventTime, eventId, tenant, JSON.parse(line)]
    })
  })
})
/** The outbox of an engine in memory, as `outbox` returns it. */
export const outboxOf = (engine: Engine): ReadonlyArray<Message> => {
  const streams = Map.groupBy(engine.store.outbox, ({ source, sourcePartition }) => `${source}/${sourcePartition}`)
  return [...streams]
    .toSorted(([a], [b]) => bySize(a, b))
    .flatMap(([stream, messages]) =>
      messages.map(({ eventId, eventTime, key, tenant, topic, value }): Message => [
        stream,
        topic,
        key,
        eventTime,
        eventId,
        tenant,
        JSON.parse(value)
      ])
    )
}

/** An engine in memory. */
export type Engine = MemoryEngine<never, Error, never>
/** Compares texts. */
export const bySize = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
const texts = (rows: ReadonlyArray<Row>, columns: ReadonlyArray<string>) =>
  rows.map((row) => JSON.stringify(columns.map((column) => row[column] ?? null))).toSorted(bySize)
const columnsOf = (rows: ReadonlyArray<Row>) => [...new Set(rows.flatMap((row) => Object.keys(row)))].toSorted()
/** JSON whose objects have their fields in one order. */
const canonical = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(canonical)
  if (typeof value !== "object" || value === null) return value
  const fields = Object.entries(value).toSorted(([a], [b]) => bySize(a, b))
  return Object.fromEntries(fields.map(([name, inner]) => [name, canonical(inner)]))
}

/** What PostgreSQL says of a value, the store in memory says in its own words: the kind of error is the same. */
export const plain = (messages: ReadonlyArray<Message>) =>
  messages.map(([stream, topic, key, eventTime, eventId, tenant, value]) => {
    const { error, message } = value as Row
    const told = error === "Unstorable" ? { ...(value as Row), message: kindOf(message) } : value
    return [stream, topic, key, eventTime, eventId, tenant, told] as const
  })
const kindOf = (message: string) => /SQLSTATE (.....)/.exec(message)![1]
/** Compares lists; the message is the first difference, for the whole lists are long. */
export const same = (actual: ReadonlyArray<unknown>, expected: ReadonlyArray<unknown>, what: string) => {
  const [found, wanted] = [actual, expected].map((all) => all.map((one) => JSON.stringify(canonical(one))))
  const at = found!.findIndex((one, i) => one !== wanted![i])
  const first = at < 0 ? found!.length : at
  assert.strictEqual(found![first], wanted![first], `${what}: number ${first} on PostgreSQL, and in memory`)
}
/** Compares the rows of all read models. */
export const sameRows = Effect.fnUntraced(function* (sql: Sql, engine: Engine) {
  for (const [name, expected] of Object.entries(engine.rows())) {
    const rows = yield* query(`read ${name}`, () => sql`select * from ${sql(name)}`)
    const columns = columnsOf([...rows, ...expected])
    const all = (of: ReadonlyArray<Row>) =>
      texts(
        of.map((row) => canonical(row) as Row),
        columns
      )
    same(all(rows), all(expected), name)
  }
})
/** Compares late events; if not exactly, without the positions of their records. */
export const sameLate = Effect.fnUntraced(function* (sql: Sql, engine: Engine, isExact: boolean) {
  const rows = yield* query(
    "read late events",
    () => sql`select topic, partition, position, window_name as window, window_size as size, window_start as start, key, contribution,
      event_time, stream_time from millrace.late_events`
  )
  const late = engine.store.late.map(({ at, eventTime, streamTime, ...event }): Row => ({
    topic: at.topic,
    partition: at.partition,
    event_time: eventTime,
    stream_time: streamTime,
    ...event
  }))
  const columns = [
    "topic",
    "partition",
    "position",
    "window",
    "size",
    "start",
    "key",
    "contribution",
    "event_time",
    "stream_time"
  ]
  const compared = isExact ? columns : columns.slice(3)
  const all = (of: ReadonlyArray<Row>) =>
    texts(
      of.map((row) => canonical(row) as Row),
      compared
    )
  same(all(rows), all(late), "late events")
})
/** The kinds of errors: what PostgreSQL says of a value, the store in memory says in its own words. */
export const sameDeadLetters = Effect.fnUntraced(function* (sql: Sql, engine: Engine) {
  const found = yield* query(
    "read dead letters",
    () => sql`select topic, partition, position, status, key, error, attempts, value, stream_time, retried_position as retried,
      case when error = 'Unstorable' then substring(message from 'SQLSTATE (.....)') else message end as message from millrace.dead_letters`
  )
  const dead = engine.store.deadLetters.map(
    ({ at, attempts, error, key, message, position, retriedPosition, status, streamTime, value }): Row => ({
      topic: at.topic,
      partition: at.partition,
      position,
      status,
      key,
      error,
      attempts,
      value,
      stream_time: streamTime,
      retried: retriedPosition,
      message: error === "Unstorable" ? kindOf(message) : message
    })
  )
  const columns = [
    "topic",
    "partition",
    "position",
    "status",
    "key",
    "error",
    "attempts",
    "value",
    "stream_time",
    "retried",
    "message"
  ]
  same(texts(found, columns), texts(dead, columns), "dead letters")
})
/** Compares how far partitions are. */
export const sameProgress = Effect.fnUntraced(function* (sql: Sql, engine: Engine) {
  const rows = yield* query(
    "read progress",
    () =>
      sql`select topic, partition, next_position, stream_time, outbox_seq, fingerprint from millrace.progress where commit_no > 0`
  )
  const claims = [...engine.store.claims.values()]
    .filter(({ commitNo }) => commitNo > 0)
    .map(({ fingerprint, outboxSeq, partition, position, streamTime, topic }): Row => ({
      topic,
      partition,
      next_position: position,
      stream_time: streamTime,
      outbox_seq: outboxSeq,
      fingerprint
    }))
  const columns = ["topic", "partition", "next_position", "stream_time", "outbox_seq", "fingerprint"]
  same(texts(rows, columns), texts(claims, columns), "progress")
})
