// Measures how long a projection processes nothing while builds replace each other there and back: from the freeze to the answer of the switch, and as
// its outputs show it. The reference application runs in this process with both builds and its relay, and events flow at a fixed rate.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import application from "../test/support/signals.ts"
import type { Projection } from "../src/model/projection.ts"
import { query, transaction } from "../src/postgres/client/client.ts"
import { createBuild } from "../src/postgres/store/builds.ts"
import { promote } from "../src/system/promote.ts"
import { runProjections, runRelay } from "../src/system/system.ts"
import { percentile } from "./percentile.ts"
import { appendEvents, appendLoad, freshSystem, serverCpuSeconds, usage } from "./system.ts"

const { values } = parseArgs({
  options: {
    switches: { type: "string", default: "50" },
    rate: { type: "string", default: "2000" },
    entities: { type: "string", default: "1000" }
  }
})
const [switches, rate] = [Number(values.switches), Number(values.rate)]
const load = { events: 0, entities: Number(values.entities), seed: 1 }
const projection = application.projections[0]!.projection as Projection.Any
/** Events are appended so often, in milliseconds. */
const everyMs = 20

const measure = Effect.gen(function* () {
  const system = yield* freshSystem
  const { sql } = system.database
  yield* appendLoad(system.log, load)
  yield* transaction(sql, (tx) => createBuild(tx, projection, { partitionsOf: () => 12, startOf: () => 0 }))
  yield* Effect.forkScoped(runProjections(system))
  yield* Effect.forkScoped(runRelay(system))
  let sent = 0
  const startedAt = performance.now()
  const feeding = yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        // what is due by now, whatever happened before
        const due = Math.floor(((performance.now() - startedAt) * rate) / 1000)
        yield* appendEvents(system.log, load, sent, due)
        sent = Math.max(sent, due)
        yield* Effect.sleep(everyMs)
      })
    )
  )
  yield* Effect.sleep(3_000)
  const [before, server] = [usage().cpuSeconds, yield* Effect.promise(() => serverCpuSeconds(sql))]
  const pauses: Array<number> = []
  let tries = 0
  while (pauses.length < switches) {
    tries++
    const done = yield* promote(
      { application, sql, log: system.log, on: "PostgreSQL" },
      { name: projection.name, rollback: pauses.length % 2 === 1, dryRun: false, timeoutMs: 20_000 }
    ).pipe(Effect.catchTag("NotPromoted", (error) => (error.timedOut ? Effect.undefined : Effect.fail(error))))
    if (done !== undefined) pauses.push(done.pauseMs)
    yield* Effect.sleep(200)
  }
  const seconds = (performance.now() - startedAt) / 1000 - 3
  const cpu = usage().cpuSeconds - before + (yield* Effect.promise(() => serverCpuSeconds(sql))) - server
  yield* Fiber.interrupt(feeding)
  const [row] = yield* query(
    "promotions",
    () => sql<Array<{ n: number }>>`select count(*)::int as n from millrace.promotion`
  )
  const sorted = pauses.toSorted((a, b) => a - b)
  return {
    rate,
    eventsPerSecond: Math.round(sent / (seconds + 3)),
    switches: row!.n,
    tries,
    pauseMs: { p50: percentile(sorted, 0.5), p90: percentile(sorted, 0.9), max: sorted.at(-1) },
    seconds: Math.round(seconds),
    coresUsed: Math.round((cpu / seconds) * 100) / 100
  }
})
process.stdout.write(`${JSON.stringify(await Effect.runPromise(Effect.scoped(measure)))}\n`)
process.exit()
