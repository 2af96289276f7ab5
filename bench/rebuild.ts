// Measures a replay beside live processing of the same log, in one run: events a second and processor time an event of each; then how long
// events take to be visible in the live build, without a rebuild and during one by another process. Prints a line of JSON for each part.
import { spawn } from "node:child_process"
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { Log } from "../src/log/log.ts"
import { chainsOf } from "../src/model/chains.ts"
import type { Projection } from "../src/model/projection.ts"
import * as Runner from "../src/runner/runner.ts"
import { Store } from "../src/runner/store.ts"
import { runProjections, runRelay, type System } from "../src/system/system.ts"
import { percentile } from "./percentile.ts"
import { appendEvents, appendLoad, freshSystem, serverCpuSeconds, usage } from "./system.ts"
import type { Load } from "./workload.ts"

const { values } = parseArgs({
  options: {
    events: { type: "string", default: "200000" },
    entities: { type: "string", default: "10000" },
    rounds: { type: "string", default: "2" },
    rate: { type: "string", default: "500" },
    seconds: { type: "string", default: "10" },
    "max-live-lag": { type: "string", default: "1" },
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
/** Appends events at a rate, and measures how long after its append each is visible, until `stop` or the time is over. */
const latencies = Effect.fnUntraced(function* (system: System, first: number, stop: { isDone: boolean }) {
  const { sql } = system.database
  const every = 20
  const waiting: Array<{ readonly partition: number; readonly position: number; readonly at: number }> = []
  const waits: Array<number> = []
  const feeding = { isOver: false }
  const feed = Effect.gen(function* () {
    const until = performance.now() + Number(values.seconds) * 1000
    for (let i = first; !stop.isDone && performance.now() < until; i += 1) {
      const due = performance.now()
      const count = Math.max(1, Math.round((Number(values.rate) * every) / 1000))
      const positions = yield* appendEvents(system.log, load, i * count, (i + 1) * count)
      for (const one of positions) waiting.push({ ...one, at: due })
      yield* Effect.sleep(Math.max(1, due + every - performance.now()))
    }
    feeding.isOver = true
  })
  const poll = Effect.gen(function* () {
    while (!feeding.isOver || waiting.length > 0) {
      const rows = yield* Effect.promise(
        () => sql<Array<{ partition: number; at: number }>>`select partition, next_position as at from millrace.progress
          join millrace.live using (projection, version) where projection = 'signals'`
      )
      const now = performance.now()
      const at = new Map(rows.map((row) => [row.partition, row.at]))
      for (const one of waiting.splice(0)) {
        if ((at.get(one.partition) ?? 0) > one.position) waits.push(now - one.at)
        else waiting.push(one)
      }
      yield* Effect.sleep("3 millis")
    }
  })
  yield* Effect.all([feed, poll], { concurrency: "unbounded" })
  const sorted = waits.toSorted((x, y) => x - y)
  return {
    events: sorted.length,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    max: percentile(sorted, 1)
  }
})
const beside = Effect.gen(function* () {
  const system = yield* freshSystem
  const { embeddedDir, sql } = system.database
  yield* appendLoad(system.log, load)
  yield* Effect.forkScoped(runProjections(system))
  yield* Effect.forkScoped(runRelay(system))
  const done = Effect.promise(
    () =>
      sql<
        Array<{ at: number }>
      >`select sum(next_position)::int8 as at from millrace.progress where projection = 'signals'`
  )
  while ((yield* done)[0]!.at < load.events) yield* Effect.sleep("100 millis")
  const alone = yield* latencies(system, load.events, { isDone: false })
  process.stdout.write(`${JSON.stringify({ part: "live alone", ...alone })}\n`)
  const flags = ["rebuild", "signals", "--data", embeddedDir!, "--max-live-lag", values["max-live-lag"], "--json"]
  const child = spawn(process.execPath, ["bin/millrace.mjs", ...flags], { stdio: ["ignore", "pipe", "ignore"] })
  const stop = { isDone: false }
  let output = ""
  child.stdout.on("data", (data: Buffer) => (output += data.toString()))
  const ended = new Promise<void>((resolve) => child.once("close", () => resolve()))
  void ended.then(() => (stop.isDone = true))
  const during = yield* latencies(system, 2 * load.events, stop)
  yield* Effect.promise(() => ended)
  const rebuilt = JSON.parse(output) as object
  process.stdout.write(`${JSON.stringify({ part: "live during a rebuild", ...during, rebuilt })}\n`)
})

// what runs first would pay for the compilation of what both share
await Effect.runPromise(Effect.scoped(compare({ ...load, events: Math.min(load.events, 60_000) }, 1, true)))
await Effect.runPromise(Effect.scoped(compare(load, Number(values.rounds))))
await Effect.runPromise(Effect.scoped(beside))
