// A whole system in a process of its own, for malformed requests: the server, projections and relay of application.ts. Its parent gets the
// URL first, and then every stall of the event loop. DATABASE_URL of its environment names the database.
import * as Effect from "effect/Effect"
import { Log } from "../../src/log/log.ts"
import { connect } from "../../src/postgres/client/client.ts"
import { changeSource } from "../../src/server/changes/source.ts"
import { viewReader } from "../../src/server/views/reader.ts"
import { serve } from "../../src/server/server.ts"
import { openQueries } from "../../src/system/database.ts"
import { readStatus } from "../../src/system/observed.ts"
import { makeSharedReading } from "../../src/system/shared-reading.ts"
import { openSystem, runProjections, runRelay } from "../../src/system/system.ts"
import application from "./application.ts"

/** What the process sends to its parent. `at`: by `Date.now()`, when the stall ended. */
export type ServerMessage =
  | { readonly url: string }
  | { readonly stallMs: number; readonly at: number }
  | { readonly memory: number; readonly handles: number }

const send = (message: ServerMessage): void => void process.send?.(message)

/** How often the event loop is looked at, and from which delay on a stall is reported. Milliseconds. */
const watching = { everyMs: 5, stallMs: 50 }
const watchStalls = (): void => {
  let last = performance.now()
  setInterval(() => {
    const now = performance.now()
    const stallMs = now - last - watching.everyMs
    last = now
    if (stallMs >= watching.stallMs) send({ stallMs, at: Date.now() })
  }, watching.everyMs)
}

const main = Effect.gen(function* () {
  const url = process.env["DATABASE_URL"]!
  const sql = yield* connect(url, { max: 6 })
  const database = { url, sql, embedded: false, failed: Effect.never }
  const system = yield* openSystem(application, database)
  yield* Effect.forkScoped(Effect.all([runProjections(system), runRelay(system)], { concurrency: "unbounded" }))
  // as the commands serve it
  const reading = yield* makeSharedReading(readStatus(system), { freshMs: 2_000, patienceMs: 3_000 })
  const limits = { bodyIdleMs: 300, bodySlowMs: 200, headersMs: 5_000, requestMs: 5_000, waitMs: 100, commandMs: 5_000 }
  const queries = yield* openQueries(database, 5_000)
  const served = yield* serve({
    application,
    eventStore: system.eventStore,
    system,
    status: Effect.map(reading, ({ value }) =>
      value === undefined ? { healthy: false, reason: "not read" } : { ...value }
    ),
    views: viewReader(queries, sql),
    changes: changeSource(queries, sql),
    port: 0,
    limits: { ...limits, eventLoopDelayMs: 0 }
  }).pipe(Effect.provideService(Log, system.log))
  send({ url: served.url })
  watchStalls()
  yield* Effect.callback<void>((resume) => {
    process.on("message", (message) => {
      if (message === "stop") return resume(Effect.void)
      globalThis.gc?.()
      send({ memory: process.memoryUsage().heapUsed, handles: process.getActiveResourcesInfo().length })
    })
    process.once("disconnect", () => resume(Effect.void))
  })
})

await Effect.runPromise(Effect.scoped(main))
process.exit()
