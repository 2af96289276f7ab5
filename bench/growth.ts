// Whether the cost of an event grows with the events before it: embedded, log to SQL, in steps up to 10,000,000 events. After each step the sizes of
// the tables and how long reads take. Each step starts the projections again, with the state so far. Prints one line of JSON at the end.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { threadSeconds } from "./machine.ts"
import { median } from "./rounds.ts"
import type { Sql } from "../src/postgres/client/client.ts"
import { runProjections, type System } from "../src/system/system.ts"
import { readStatus } from "../src/system/status.ts"
import { appendEvents, appendLoad, freshSystem, serverCpuSeconds } from "./system.ts"
import type { Load } from "./workload.ts"

const { values } = parseArgs({
  options: {
    events: { type: "string", default: "10000000" },
    step: { type: "string", default: "1000000" },
    entities: { type: "string", default: "10000" },
    timeout: { type: "string", default: "600" }
  }
})
const [events, step] = [Number(values.events), Number(values.step)]
const load: Load = { events: 0, entities: Number(values.entities), seed: 1 }
/** How often each read is timed. */
const reads = 5

const mib = (bytes: number) => Math.round(bytes / 2 ** 20)
const rounded = (value: number, digits: number) => Number(value.toFixed(digits))

/** Processor time so far, in seconds: of this process, of its threads and of the server. */
const cpuOf = Effect.fnUntraced(function* (sql: Sql) {
  const { system, user } = process.cpuUsage()
  const postgres = yield* Effect.promise(() => serverCpuSeconds(sql))
  return { node: (user + system) / 1e6, ...threadSeconds(), postgres } as Readonly<Record<string, number>>
})
/** Runs the projections until they have processed the events from one number to before another. */
const processTo = Effect.fnUntraced(function* (system: System, from: number, to: number) {
  const { sql } = system.database
  const before = yield* cpuOf(sql)
  const started = performance.now()
  const running = yield* Effect.forkChild(runProjections(system))
  let first: number | undefined
  while (true) {
    const [row] = yield* Effect.promise(
      () => sql<Array<{ at: number; halted: string | null }>>`
        select coalesce(sum(next_position), 0)::int8 as at, string_agg(halted, '; ') as halted from millrace.progress`
    )
    const seconds = (performance.now() - started) / 1_000
    if (row!.halted !== null) return yield* Effect.die(row!.halted)
    if (row!.at > from) first ??= seconds
    if (row!.at >= to) {
      const after = yield* cpuOf(sql)
      const { heapUsed, rss } = process.memoryUsage()
      yield* Fiber.interrupt(running)
      const micros = Object.entries(after).map(([name, of]) => [
        name,
        rounded(((of - (before[name] ?? 0)) / (to - from)) * 1e6, 1)
      ])
      return {
        eventsPerSecond: Math.round((to - from) / seconds),
        secondsToFirstCommit: rounded(first!, 2),
        microsPerEvent: Object.fromEntries(micros) as Readonly<Record<string, number>>,
        rssMiB: mib(rss),
        heapMiB: mib(heapUsed)
      }
    }
    if (seconds > Number(values.timeout))
      return yield* Effect.die(`not done after ${values.timeout} s: ${row!.at} of ${to} events are processed`)
    yield* Effect.sleep("20 millis")
  }
})

/** The median of some runs, in milliseconds. */
const timed = Effect.fnUntraced(function* (read: Effect.Effect<unknown, unknown>) {
  const times: Array<number> = []
  for (let i = 0; i < reads; i++) {
    const began = performance.now()
    yield* Effect.orDie(read)
    times.push(performance.now() - began)
  }
  return rounded(median(times), 1)
})
const readTimes = Effect.fnUntraced(function* ({ database: { sql }, log, targets }: System) {
  const [row] = yield* Effect.promise(() => sql`select entity_id from entity_activity limit 1`)
  const entity = String(row?.["entity_id"])
  const windows = Effect.promise(
    () => sql`select * from entity_activity where entity_id = ${entity} order by window_start desc limit 10`
  )
  return {
    status: yield* timed(readStatus({ log, sql, targets })),
    windowsOfAnEntity: yield* timed(windows),
    countOfWindows: yield* timed(Effect.promise(() => sql`select count(*) from entity_activity`)),
    oldestRecord: yield* timed(log.read("events.raw.v1", 0, 0, { maxBytes: 1 }))
  }
})
/** The largest tables with their indexes, in MiB. */
const tableSizes = (sql: Sql) =>
  Effect.promise(
    () => sql<Array<{ name: string; bytes: number }>>`
      select case n.nspname when 'millrace' then 'millrace.' else '' end || c.relname as name, pg_total_relation_size(c.oid)::float8 as bytes
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') order by 2 desc limit 6`
  ).pipe(Effect.map((all) => Object.fromEntries(all.map(({ bytes, name }) => [name, mib(bytes)]))))

const main = Effect.gen(function* () {
  const system = yield* freshSystem
  const { log } = system
  const { sql } = system.database
  yield* appendLoad(log, load)
  const steps: Array<object> = []
  for (let from = 0; from < events; from += step) {
    const to = Math.min(events, from + step)
    const filling = performance.now()
    for (let at = from; at < to; at += 10_000) yield* appendEvents(log, load, at, Math.min(to, at + 10_000))
    const appendedPerSecond = Math.round(((to - from) / (performance.now() - filling)) * 1_000)
    yield* Effect.promise(() => sql`checkpoint`)
    const processed = yield* processTo(system, from, to)
    const readMs = yield* readTimes(system)
    const found = { events: to, appendedPerSecond, ...processed, readMs, tablesMiB: yield* tableSizes(sql) }
    steps.push(found)
    process.stderr.write(`${JSON.stringify(found)}\n`)
  }
  process.stdout.write(`${JSON.stringify({ entities: load.entities, steps })}\n`)
})
await Effect.runPromise(Effect.scoped(main))
