// An application that runs in this process on a database of its own, with a server that has the console.
import * as Effect from "effect/Effect"
import { Log } from "../../../src/log/log.ts"
import type { Principal } from "../../../src/server/access/principal.ts"
import { changeSource } from "../../../src/server/changes/source.ts"
import { serve, type ServeOptions } from "../../../src/server/server.ts"
import { viewReader } from "../../../src/server/views/reader.ts"
import { openQueries } from "../../../src/system/database.ts"
import { readStatus } from "../../../src/system/observed.ts"
import { openSystem, runProjections, runRelay, type System } from "../../../src/system/system.ts"
import { databaseOn, server as postgres } from "../postgres.ts"

/** What runs, and where its console is. */
export interface Running {
  readonly system: System
  readonly url: string
}
/** Runs an application until the scope closes. `keys` are its credentials, by their text; without them it asks for none. */
export const startWithConsole = Effect.fnUntraced(function* (
  application: ServeOptions["application"],
  keys?: Readonly<Record<string, Principal>>
) {
  const database = { ...(yield* databaseOn(yield* postgres, 12)), embedded: false, failed: Effect.never }
  const system = yield* openSystem(application, database)
  yield* Effect.forkScoped(Effect.all([runProjections(system), runRelay(system)], { concurrency: "unbounded" }))
  const queries = yield* openQueries(database, 5_000)
  const access = keys && { isRequired: true, keys: { principalOf: (key: string) => Promise.resolve(keys[key]) } }
  const served = serve({
    application,
    eventStore: system.eventStore,
    system,
    status: Effect.map(Effect.orDie(readStatus(system)), (found) => ({ ...found })),
    views: viewReader(queries, database.sql),
    changes: changeSource(queries, database.sql),
    ...(access && { access }),
    port: 0,
    limits: { eventLoopDelayMs: 0 }
  })
  const { url } = yield* Effect.provideService(served, Log, system.log)
  const running: Running = { system, url }
  return running
})
