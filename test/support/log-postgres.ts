// Several logs on one PostgreSQL server, each with connections of its own like a process, and helpers for fault tests.
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { type Log, LogError, type NewRecord } from "../../src/log/log.ts"
import { connect, query } from "../../src/postgres/client/client.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import { range } from "../contract/log-support.ts"
import { type Database, databaseOn, server } from "./postgres.ts"

/** The file's server. */
export class Server extends Context.Service<Server, { readonly url: string }>()("test/Server") {
  static readonly layer = Layer.effect(
    Server,
    Effect.map(server, (url) => Server.of({ url }))
  )
}
/** A database with a topic, and several logs on it, each with its own connections. */
export const setUp = Effect.fnUntraced(function* (
  logs: number,
  partitions = 4,
  options: PostgresLog.PostgresLogOptions = {}
) {
  const { url } = yield* Server
  const database = yield* databaseOn(url)
  const made = yield* Effect.forEach(range(0, logs), () =>
    Effect.map(
      Effect.flatMap(connect(database.url, { max: 3 }), (sql) => PostgresLog.make(sql, options)),
      ({ log }) => log
    )
  )
  yield* made[0]!.declare([{ name: "topic", partitions, compacted: false, retentionMs: undefined }])
  return { ...database, logs: made, log: made[0]! }
})
/** Kills every connection of an application to the database. */
export const kill = ({ sql }: Database, application: string) =>
  query(
    "kill",
    () => sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = ${application} and datname = current_database()`
  )
/** Reads all records of a partition. */
export const readAll = Effect.fnUntraced(function* (log: Log["Service"], partition: number) {
  const records = []
  for (let position = 0; ;) {
    const batch = yield* log.read("topic", partition, position)
    if (batch.next === position) return records
    records.push(...batch.records)
    position = batch.next
  }
})
/** Asserts that positions are 0, 1, 2, … without a gap. */
export const gapless = (records: ReadonlyArray<{ readonly position: number }>) =>
  assert.deepStrictEqual(
    records.map(({ position }) => position),
    range(0, records.length)
  )
/** Appends until it succeeds, asserts that failures are retryable, and returns their number. */
export const persistently = (log: Log["Service"], records: ReadonlyArray<NewRecord>) =>
  Effect.gen(function* () {
    for (let failures = 0; ; failures++) {
      const error = yield* log.append("topic", records).pipe(Effect.as(undefined), Effect.catch(Effect.succeed))
      if (error === undefined) return failures
      assert.isTrue(error instanceof LogError && error.retryable, error.message)
      yield* Effect.sleep(20)
    }
  })
