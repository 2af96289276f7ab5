// Tells the log's readers, in every process, what a statement appended that did not go through the log's own appender.
import { query, type Sql } from "../client/client.ts"
import * as Effect from "effect/Effect"
import { channel } from "./listeners.ts"

/** PostgreSQL takes less than 8000 bytes at once; an end has at most 45. */
const endsAtOnce = 150
// not the sender of a log adapter: readers of this process listen too
const sender = `copy${Math.random().toString(36).slice(2)}`

/**
 * Tells ends as the statements return them, `<topic id>.<partition>=<next position>`. Its failures are left out: a reader that was
 * not told looks by itself, within a second.
 */
export const tell = Effect.fnUntraced(function* (sql: Sql, ends: ReadonlyArray<string>) {
  for (let at = 0; at < ends.length; at += endsAtOnce) {
    const payload = `a;${sender};${ends.slice(at, at + endsAtOnce).join(",")}`
    yield* Effect.ignore(query("notify", () => sql`select pg_notify(${channel}, ${payload})`))
  }
})
