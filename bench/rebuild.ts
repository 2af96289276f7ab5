// Measures a replay beside live processing of the same log, in one run: events a second and processor time an event of each, and how
// the live build keeps up meanwhile. Prints one line of JSON for each part.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { Log } from "../src/log/log.ts"
import { chainsOf } from "../src/model/chains.ts"
import type { Projection } from "../src/model/projection.ts"
import * as Runner from "../src/runner/runner.ts"
import { Store } from "../src/runner/store.ts"
import { appendLoad, freshSystem, serverCpuSeconds, usage } from "./system.ts"
import type { Load } from "./workload.ts"

const { values } = parseArgs({
  options: {
    events: { type: "string", default: "200000" },
    entities: { type: "string", default: "10000" },
    rounds: { type: "string", default: "2" },
    timeout: { type: "string", default: "900" }
  }
})
const load: Load = { events: Number(values.events), entities: Number(values.entities), seed: 1 }

/** Runs live processing and then replays of a load on a system of its own. Prints nothing for a warm-up. */
const compare = Effect.fnUntraced(function* (load: Load, rounds: number, isWarmUp = false) {
  const print = (line: object) => {
    if (!isWarmUp) process.stdout.write(`${JSON.stringify(line)}\n`)
  }
  const system = yield* freshSystem
  const { application, log, store } = system
  const { sql } = system.database
  const { projection: live } = application.projections.find(({ projection }) => projection.name === "signals")!
  yield* appendLoad(log, load)
  const measured = Effect.fnUntraced(function* (projection: Projection.Any) {
    yield* Effect.promise(() => sql`checkpoint`)
    const before = usage()
    const serverBefore = yield* Effect.promise(() => serverCpuSeconds(sql))
    const started = performance.now()
    const run = Runner.run(projection, new Map(), chainsOf([projection])).pipe(
      Effect.provideService(Log, log),
      Effect.provideService(Store, store),
      Effect.provide((application.services ?? Layer.empty) as Layer.Layer<unknown>)
    ) as Effect.Effect<void>
    const running = yield* Effect.forkChild(run)
    while (true) {
      const [row] = yield* Effect.promise(
        () => sql<Array<{ at: number; commits: number; halted: string | null }>>`
          select sum(next_position)::int8 as at, sum(commit_no)::int8 as commits, string_agg(halted, '; ') as halted
          from millrace.progress where projection = ${projection.name} and version = ${projection.version}`
      )
      if (row!.halted !== null) return yield* Effect.die(row!.halted)
      if (row!.at >= load.events) {
        const seconds = (performance.now() - started) / 1000
        const { cpuSeconds, peakMiB } = usage()
        const server = (yield* Effect.promise(() => serverCpuSeconds(sql))) - serverBefore
        yield* Fiber.interrupt(running)
        return {
          eventsPerSecond: Math.round(load.events / seconds),
          nodeMicrosPerEvent: ((cpuSeconds - before.cpuSeconds) / load.events) * 1e6,
          serverMicrosPerEvent: (server / load.events) * 1e6,
          commits: row!.commits,
          peakMiB
        }
      }
      if (performance.now() - started > Number(values.timeout) * 1000)
        return yield* Effect.die(
          `not done after ${values.timeout} s: ${row!.at} of ${load.events} events are processed`
        )
      yield* Effect.sleep("10 millis")
    }
  })
  let version = live.version
  const first = yield* measured(live)
  print({ part: "live", events: load.events, ...first })
  for (let round = 1; round <= rounds; round++) {
    const build = { ...live, version: ++version }
    yield* store.prepare([build], () => 12)
    const replay = yield* measured(build)
    const ratio =
      (replay.nodeMicrosPerEvent + replay.serverMicrosPerEvent) /
      (first.nodeMicrosPerEvent + first.serverMicrosPerEvent)
    const speed = replay.eventsPerSecond / first.eventsPerSecond
    print({ part: "replay", round, events: load.events, ...replay, ratio, speed })
  }
})
// what runs first would pay for the compilation of what both share
await Effect.runPromise(Effect.scoped(compare({ ...load, events: Math.min(load.events, 60_000) }, 1, true)))
await Effect.runPromise(Effect.scoped(compare(load, Number(values.rounds))))
