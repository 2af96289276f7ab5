// The fan-out on PostgreSQL for tests, with its log and the topics that the contract publishes to.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import { Log } from "../../src/log/log.ts"
import type { Sql } from "../../src/postgres/client/client.ts"
import * as PostgresFanOut from "../../src/postgres/subscription/fanout.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import { Topics } from "../contract/fanout-support.ts"
import { type Database, databaseOn } from "./postgres.ts"

/** A fan-out on a database that has the project's tables. */
export const fanOutOn = (sql: Sql) => {
  const log = PostgresLog.layer(sql)
  const topics = Layer.effect(
    Topics,
    Effect.map(Effect.service(Log), (log) => ({
      declare: (name: string, partitions: number) =>
        log.declare([{ name, partitions, compacted: false, retentionMs: undefined }]),
      publish: (topic: string, messages) =>
        Effect.asVoid(
          log.append(
            topic,
            messages.map(({ key, partition = 0, seq }) => ({
              partition,
              key,
              value: JSON.stringify({ seq, key }),
              eventTime: 1_000 + seq,
              eventId: `e${seq}`,
              tenant: "t",
              traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
              schemaVersion: 1,
              headers: { "millrace-stream": "s", "millrace-seq": String(seq), "millrace-incarnation": "0123abcd" }
            }))
          )
        ),
      another: Effect.flatMap(PostgresLog.make(sql), ({ log }) => PostgresFanOut.make(sql, log))
    }))
  )
  // handlers that fail on purpose are no news
  const quiet = Layer.succeed(References.MinimumLogLevel, "Error")
  return Layer.mergeAll(quiet, PostgresFanOut.layer(sql), topics).pipe(Layer.provideMerge(log))
}
/** A fan-out on a new database of a server, which exists until `use` ends. */
export const onFanOut = <A, E, R>(root: string, use: (database: Database) => Effect.Effect<A, E, R>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const database = yield* databaseOn(root)
      return yield* Effect.provide(use(database), fanOutOn(database.sql))
    })
  )
