// Appends the records by which people decide about dead letters to the topic of an aggregate. They are records of no event stream.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { NewRecord } from "../../log/log.ts"
import { answered } from "../client/answer.ts"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { pack } from "../log/batch-codec.ts"
import { answerMs } from "./errors.ts"
import { frozenCode } from "./inline-sql.ts"

/** The limit of one row, in characters of values. It has at least one record. */
const rowCharacters = 1 << 20
/** How often an append is tried again while a promotion has frozen an inline build, and how long it waits in between. */
const frozen = { times: 100, wait: "100 millis" } as const

/** The number of an aggregate's topic; undefined if the database has no aggregate of this name. */
const topicIdOf = (sql: Sql, aggregate: string): Effect.Effect<number | undefined, SqlError> =>
  query(
    "look for an aggregate",
    () => sql<Array<{ readonly topic_id: number }>>`
      select topic_id from millrace.log_topic where name = ${aggregate} and aggregate`
  ).pipe(
    Effect.map(([row]) => row?.topic_id),
    // the database is of a version without aggregates
    Effect.catchIf(
      ({ code }) => code === "42703",
      () => Effect.succeed(undefined)
    )
  )

/** Splits the records of a partition into rows of a limited size. */
const rowsOf = (records: ReadonlyArray<NewRecord>): ReadonlyArray<ReadonlyArray<NewRecord>> => {
  const rows: Array<Array<NewRecord>> = []
  let characters = Infinity
  for (const record of records) {
    const size = record.value?.length ?? 0
    if (characters + size > rowCharacters) {
      rows.push([])
      characters = 0
    }
    rows.at(-1)!.push(record)
    characters += size
  }
  return rows
}

/**
 * Appends retry or discard records to the topic of an aggregate, which no other append than that of events reaches. Events keep their versions, and
 * positions have no gap: inline builds move over the records, and relays publish them with the events. Returns false if the database has no aggregate of
 * this name. If the answer is lost the records may be there; then appending them again is safe, because a dead letter is decided once.
 */
export const appendDecisions = Effect.fnUntraced(function* (
  sql: Sql,
  topic: string,
  records: ReadonlyArray<NewRecord>
): Effect.fn.Return<boolean, SqlError> {
  const topicId = yield* topicIdOf(sql, topic)
  if (topicId === undefined) return false
  for (const [partition, ofPartition] of Map.groupBy(records, (record) => record.partition)) {
    for (const row of rowsOf(ofPartition)) {
      const { bytes, meta, records: count, vals } = pack(row)
      yield* query("append decisions about dead letters", () =>
        answered(
          sql`select millrace.append_decisions(${topicId}, ${partition}, ${count}, ${bytes}, ${meta}, ${vals})`,
          answerMs
        )
      ).pipe(
        Effect.retry({
          while: ({ code }) => code === frozenCode,
          times: frozen.times,
          schedule: Schedule.spaced(frozen.wait)
        })
      )
    }
  }
  return true
})
