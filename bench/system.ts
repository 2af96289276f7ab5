// A system in this process for the benchmarks, on an embedded database in a temporary directory.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import application from "../test/support/signals.ts"
import { openDatabase } from "../src/system/database.ts"
import { openSystem } from "../src/system/system.ts"
import type { Log, NewRecord } from "../src/log/log.ts"
import { partitionOf } from "../src/model/partitioner.ts"
import type { Sql } from "../src/postgres/client/client.ts"
import { eventOf, featuresOf, type Load } from "./workload.ts"

/** Opens the reference application on a new embedded database, until the scope closes. */
export const freshSystem = Effect.gen(function* () {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-bench-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const database = yield* openDatabase(directory, "own")
  return yield* openSystem(application, database)
})

const envelope = {
  traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  schemaVersion: 1,
  headers: {}
}
const record = (key: string, value: string, eventTime: number, eventId?: string, tenant?: string): NewRecord => ({
  ...envelope,
  partition: partitionOf(key, 12),
  key,
  value,
  eventTime,
  eventId,
  tenant
})

/** Appends the features of a load and then its events, 10,000 at a time. */
export const appendLoad = Effect.fnUntraced(function* (log: Log["Service"], load: Load) {
  yield* log.append(
    "features.entity.v1",
    featuresOf(load).map(({ key, text }) => record(key, text, Date.now()))
  )
  for (let from = 0; from < load.events; from += 10_000)
    yield* appendEvents(log, load, from, Math.min(load.events, from + 10_000))
})
/** Appends the events of a load from one number to before another. */
export const appendEvents = (log: Log["Service"], load: Load, from: number, to: number) => {
  const batch = Array.from({ length: Math.max(0, to - from) }, (_, i) => eventOf(load, from + i))
  const records = batch.map(({ id, key, tenant, text, time }) => record(key, text, time, id, tenant))
  return records.length === 0 ? Effect.succeed([]) : log.append("events.raw.v1", records)
}

/** The processor time and peak memory of this process so far. */
export const usage = () => {
  const { system, user } = process.cpuUsage()
  return { cpuSeconds: (system + user) / 1e6, peakMiB: Math.round(process.resourceUsage().maxRSS / 1024) }
}

/** The processor time of a database server and all its backends so far, including ended ones. Linux only: it reads /proc. */
export const serverCpuSeconds = (sql: Sql): Promise<number> =>
  sql<Array<{ pid: number }>>`select pg_backend_pid() as pid`.then(([row]) => {
    const stat = (pid: number) =>
      readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /, "")
        .split(" ")
    const postmaster = Number(stat(row!.pid)[1])
    const family = readdirSync("/proc")
      .map(Number)
      .filter((pid) => pid > 0 && (pid === postmaster || parentOf(pid) === postmaster))
    // fields after the name: 11 and 12 are user and system time, 13 and 14 those of children that were waited for; in hundredths
    const times = (pid: number) =>
      (pid !== postmaster && parentOf(pid) === 0 ? [] : stat(pid))
        .slice(11, pid === postmaster ? 15 : 13)
        .reduce((sum, ticks) => sum + Number(ticks), 0)
    return family.reduce((sum, pid) => sum + times(pid), 0) / 100
  })
const parentOf = (pid: number): number => {
  try {
    return Number(
      readFileSync(`/proc/${pid}/stat`, "utf8")
        .replace(/^.*\) /, "")
        .split(" ")[1]
    )
  } catch {
    return 0 // it ended meanwhile
  }
}
