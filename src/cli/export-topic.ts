// Runs `millrace topics export`: prints the events of a topic as NDJSON, in the form that `millrace ingest` takes.
import * as Effect from "effect/Effect"
import { retryHeader } from "../dead-letter/retry-record.ts"
import { aggregateHeaders } from "../log/envelope.ts"
import type { Log, LogRecord } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { openLog } from "../system/open-log.ts"
import { logTopicNames } from "../system/topic-list.ts"
import { CommandFailed } from "./command-failure.ts"
import { warn, writeOut } from "./print.ts"
import { unknownTopic } from "./unknown-topic.ts"
import { counted } from "../text/counted.ts"

/** The flags and the argument of the command. */
export interface ExportFlags {
  readonly data: string
  readonly topic: string
}
/** What was read of a partition and not printed. */
interface Cursor {
  readonly partition: number
  /** Where the partition ended when the command began. */
  readonly end: number
  next: number
  records: ReadonlyArray<LogRecord>
  printed: number
}
const linesPerWrite = 1_000

/** The line of a record; undefined if it is no event. */
const lineOf = ({ headers, key, schemaVersion, value }: LogRecord): string | undefined => {
  if (value === null) return isTimeMark({ headers, value }) ? undefined : JSON.stringify({ key, value })
  if (headers[retryHeader] !== undefined) return undefined
  const json: unknown = JSON.parse(value)
  const isVersioned = typeof json === "object" && json !== null && !Object.hasOwn(json, "schema_version")
  return isVersioned && schemaVersion !== undefined
    ? JSON.stringify({ ...json, schema_version: schemaVersion })
    : JSON.stringify(json)
}

/** The next record to print: by the time of the append, in each partition by position. Undefined if all were printed. */
const nextRecord = Effect.fnUntraced(function* (log: Log["Service"], topic: string, cursors: ReadonlyArray<Cursor>) {
  let first: Cursor | undefined
  for (const cursor of cursors) {
    while (cursor.printed === cursor.records.length && cursor.next < cursor.end) {
      const { next, records } = yield* log.read(topic, cursor.partition, cursor.next)
      const within = records.filter(({ position }) => position < cursor.end)
      Object.assign(cursor, { next, records: within, printed: 0 })
    }
    const record = cursor.records[cursor.printed]
    if (record === undefined) continue
    if (first === undefined || record.appendedAt < first.records[first.printed]!.appendedAt) first = cursor
  }
  return first?.records[first.printed++]
})

/** Prints what the topic has when the command begins. Records that ask for retries of dead letters, and time marks, are left out. */
export const exportTopic = Effect.fnUntraced(function* ({ data, topic }: ExportFlags) {
  yield* assertDatabaseExists(data)
  const { sql } = yield* openDatabase(data, "join")
  const opened = yield* openLog(Effect.succeed(sql))
  const { log } = opened
  const bounds = yield* Effect.catchTag(
    log.bounds(topic),
    "UnknownTopic",
    Effect.fnUntraced(function* () {
      const stored = yield* Effect.orElseSucceed(logTopicNames(opened), () => [])
      return yield* yield* unknownTopic(`the log on ${opened.on} has no topic ${topic}`, topic, stored)
    })
  )
  const cursors = bounds.map(({ end, partition, start }) => ({ partition, end, next: start, records: [], printed: 0 }))
  let lines: Array<string> = []
  let count = 0
  const flush = Effect.suspend(() => {
    const text = lines.map((line) => `${line}\n`).join("")
    lines = []
    return Effect.promise(() => writeOut(text, true))
  })
  while (true) {
    const record = yield* nextRecord(log, topic, cursors)
    if (record === undefined) break
    if (record.headers[aggregateHeaders.version] !== undefined)
      return yield* new CommandFailed({
        message: `${topic} has the events of an aggregate, which are kept in the database and cannot be sent again`,
        try: "move them with the database: dump it, and restore it where they are to be"
      })
    const line = lineOf(record)
    if (line === undefined) continue
    count++
    if (lines.push(line) < linesPerWrite) continue
    if (!(yield* flush)) return 0
  }
  yield* flush
  yield* warn(`${counted(count, "event")} of ${topic}`)
  return 0
})
