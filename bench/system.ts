// A system in this process for the benchmarks: the embedded database in a directory that goes with the run.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import application from "../millrace.config.ts"
import { openDatabase, openSystem } from "../src/cli/system.ts"

/** Opens the reference application on a fresh embedded database, for as long as the scope is open. */
export const freshSystem = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-bench-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const database = yield* openDatabase(directory, "own", { max: 16 })
  return yield* openSystem(application, database)
})

/** Processor time and peak memory of this process and of the whole system's database, so far. */
export const usage = () => {
  const { system, user } = process.cpuUsage()
  return { cpuSeconds: (system + user) / 1e6, peakMiB: Math.round(process.resourceUsage().maxRSS / 1024) }
}
