// Measures how fast events that lie in the log are projected and visible in SQL, with nothing else going on. Prints one line of JSON.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { runProjections, runRelay } from "../src/system/system.ts"
import { appendLoad, freshSystem, serverCpuSeconds, usage } from "./system.ts"
import type { Load } from "./workload.ts"

const { values } = parseArgs({
  options: {
    events: { type: "string", default: "300000" },
    entities: { type: "string", default: "10000" },
    seed: { type: "string", default: "1" },
    relay: { type: "boolean", default: false },
    timeout: { type: "string", default: "600" }
  }
})
const load: Load = { events: Number(values.events), entities: Number(values.entities), seed: Number(values.seed) }
const main = Effect.gen(function* () {
  const system = yield* freshSystem
  const { sql } = system.database
  const filling = performance.now()
  yield* appendLoad(system.log, load)
  const filled = performance.now() - filling
  yield* Effect.promise(() => sql`checkpoint`)
  const before = usage()
  const serverBefore = yield* Effect.promise(() => serverCpuSeconds(sql))
  const started = performance.now()
  const timeoutMs = Number(values.timeout) * 1000
  const late = (missing: string) =>
    performance.now() - started > timeoutMs ? Effect.die(`not done after ${values.timeout} s: ${missing}`) : Effect.void
  yield* Effect.forkScoped(runProjections(system))
  if (values.relay) yield* Effect.forkScoped(runRelay(system))
  while (true) {
    const [row] = yield* Effect.promise(
      () => sql<Array<{ handled: number; halted: string | null }>>`
      select sum(next_position)::int8 as handled, string_agg(halted, '; ') as halted from millrace.progress`
    )
    if (row!.halted !== null) return yield* Effect.die(row!.halted)
    if (row!.handled >= load.events) break
    yield* late(`${row!.handled} of ${load.events} events are processed`)
    yield* Effect.sleep("10 millis")
  }
  const lags = Effect.map(Effect.all(system.relays.map(({ lag }) => lag)), (all) => all.flat())
  if (values.relay) {
    for (let behind = yield* lags; behind.some(({ lag }) => lag > 0); behind = yield* lags) {
      yield* late(`${behind.reduce((sum, { lag }) => sum + lag, 0)} messages are not relayed`)
      yield* Effect.sleep("10 millis")
    }
  }
  const seconds = (performance.now() - started) / 1000
  const { cpuSeconds, peakMiB } = usage()
  const serverMicrosPerEvent =
    (((yield* Effect.promise(() => serverCpuSeconds(sql))) - serverBefore) / load.events) * 1e6
  const [rows] = yield* Effect.promise(
    () => sql`select (select count(*) from entity_activity)::int4 as windows, (select count(*) from alerts)::int4 as alerts,
    (select count(*) from millrace.late_events)::int4 as late, (select count(*) from millrace.outbox)::int4 as segments`
  )
  process.stdout.write(
    `${JSON.stringify({ events: load.events, seconds, eventsPerSecond: Math.round(load.events / seconds), cpuMicrosPerEvent: ((cpuSeconds - before.cpuSeconds) / load.events) * 1e6, serverMicrosPerEvent, peakMiB, appendPerSecond: Math.round((load.events / filled) * 1000), ...rows })}\n`
  )
})
await Effect.runPromise(Effect.scoped(main))
