// An application that runs in this process on a database of its own, with its server.
import * as Effect from "effect/Effect"
import { Log } from "../../src/log/log.ts"
import type { Principal, Scope as KeyScope } from "../../src/server/access/principal.ts"
import { changeSource } from "../../src/server/changes/source.ts"
import { serve, type ServeOptions } from "../../src/server/server.ts"
import { viewReader } from "../../src/server/views/reader.ts"
import { openQueries } from "../../src/system/database.ts"
import { readStatus } from "../../src/system/observed.ts"
import { openSystem, runProjections, runRelay, type System } from "../../src/system/system.ts"
import { databaseOn, server as postgres } from "./postgres.ts"

/** What runs, and where its server is. */
export interface ServedSystem {
  readonly system: System
  readonly url: string
  readonly port: number
}
/** Credentials by their texts. */
export type Keys = Readonly<Record<string, Principal>>
/** Keys with their tenants (undefined: all) and scopes, each for a principal of its name. */
export const keysOf = (
  given: Readonly<Record<string, readonly [tenant: string | undefined, ...scopes: ReadonlyArray<KeyScope>]>>
): Keys =>
  Object.fromEntries(
    Object.entries(given).map(([key, [tenant, ...scopes]]) => [key, { name: key, tenant, scopes: new Set(scopes) }])
  )

/**
 * Runs an application until the scope closes. With `keys` each request needs one of them, without them none is asked for. `limits` are those of the
 * server that differ.
 */
export const serveSystem = Effect.fnUntraced(function* (
  application: ServeOptions["application"],
  { keys, limits }: { readonly keys?: Keys | undefined; readonly limits?: ServeOptions["limits"] } = {}
) {
  const database = { ...(yield* databaseOn(yield* postgres, 12)), embedded: false, failed: Effect.never }
  const system = yield* openSystem(application, database)
  yield* Effect.forkScoped(Effect.all([runProjections(system), runRelay(system)], { concurrency: "unbounded" }))
  const queries = yield* openQueries(database, 10_000)
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
    limits: { eventLoopDelayMs: 0, ...limits }
  })
  const { port, url } = yield* Effect.provideService(served, Log, system.log)
  const running: ServedSystem = { system, url, port }
  return running
})
