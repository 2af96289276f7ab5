// Opens what the status of a system is read from, without its application.
import * as Effect from "effect/Effect"
import type { Log } from "../log/log.ts"
import type { Database } from "./database.ts"
import { openLog } from "./open-log.ts"
import { targetNames } from "./open-relays.ts"
import { readStatus as readStatusOf, type Status } from "./status.ts"
import type { ReadError } from "../log/log.ts"
import type { SqlError } from "../postgres/client/client.ts"

/** What the status is read from. A `System` has it, too. */
export interface Observed {
  /** The database of the system. */
  readonly database: Pick<Database, "sql" | "embeddedDir">
  /** The log of the system. */
  readonly log: Log["Service"]
  /** The names of the relays' targets. */
  readonly targets: ReadonlyArray<string>
}

/** Opens the log that the environment names, and lists the relays' targets. */
export const openObserved = Effect.fnUntraced(function* (database: Database) {
  const { log, on } = yield* openLog(Effect.succeed(database.sql))
  return { database, log, targets: yield* targetNames(on) } satisfies Observed
})

/** Reads how far the projections and relays of a system have come, and what is wrong. */
export const readStatus = (
  { database, log, targets }: Observed,
  options: {
    /** A record or a message that waits for longer makes the system unhealthy, in milliseconds. Default 60,000. */
    readonly maxAgeMs?: number
  } = {}
): Effect.Effect<Status, SqlError | ReadError> =>
  readStatusOf({ sql: database.sql, log, targets, embeddedDir: database.embeddedDir, ...options })
