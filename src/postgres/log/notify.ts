// Notifies the log's readers, in every process, of records that a statement other than the log's appender wrote.
import { query, type Sql } from "../client/client.ts"
import * as Effect from "effect/Effect"
import { channel } from "./listeners.ts"

/** A notification of PostgreSQL is shorter than 8,000 bytes; an end has at most 45. */
const endsAtOnce = 150
// differs from every log's own sender, so that readers of this process are woken too
const sender = `copy${Math.random().toString(36).slice(2)}`

/**
 * Notifies readers of partitions' ends, `<topic id>.<partition>=<next position>`. Ignores failures: a reader that misses a notification
 * looks by itself within a second.
 */
export const notifyEnds = Effect.fnUntraced(function* (sql: Sql, ends: ReadonlyArray<string>) {
  for (let at = 0; at < ends.length; at += endsAtOnce) {
    const payload = `a;${sender};${ends.slice(at, at + endsAtOnce).join(",")}`
    yield* Effect.ignore(query("notify", () => sql`select pg_notify(${channel}, ${payload})`))
  }
})
