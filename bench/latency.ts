// Measures latency from produce to visible in SQL, beside the peer: events are due at a fixed rate whatever happens, and every alert of the
// measured time counts from when its event was due until a query first sees it. Both in turn, on one Kafka and PostgreSQL.
import { rmSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { busyWarning, threadsOf } from "./machine.ts"
import { inTurn, median } from "./rounds.ts"
import { chosenSides, type Figures, measure, number, shapeOf, type Stack, verify, withStack } from "./side.ts"
import { recording, seenAlerts, stagesOf, textOf } from "./stages.ts"

const { values } = parseArgs({
  options: {
    rate: { type: "string", default: "2000" },
    seconds: { type: "string", default: "30" },
    // the broker and the generator begin with code that is not compiled yet, which takes a quarter of a core for most of a minute
    warmup: { type: "string", default: "60" },
    seed: { type: "string", default: "1" },
    runs: { type: "string", default: "1" },
    only: { type: "string" },
    processes: { type: "string", default: "projections,relay" },
    profile: { type: "string" },
    stages: { type: "boolean", default: false },
    json: { type: "boolean", default: false }
  }
})
const shape = shapeOf(values.processes, values.profile, values.stages ? recording : "")
const events = Number(values.rate) * (Number(values.seconds) + Number(values.warmup))

const latencyOf = (figures: Figures, verified: boolean) => {
  const of = (name: string) => number(figures, name)
  return {
    p50: of("latency_ms_p50"),
    p95: of("latency_ms_p95"),
    p99: of("latency_ms_p99"),
    max: of("latency_ms_max"),
    alerts: of("alerts_measured"),
    missing: of("alerts_not_seen"),
    cores: { app: of("cores_app"), broker: of("cores_broker"), postgres: of("cores_postgres") },
    cpuSecondsByThread: threadsOf(figures["cpu_s_app_threads"] ?? ""),
    coresOthers: of("cores_others"),
    isQuiet: busyWarning(of("cores_others")) === undefined,
    generatorWorstLagMs: of("generator_worst_lag_ms"),
    peakMiB: Math.round(of("peak_rss_app_mib")),
    verified
  }
}

const flags = [
  ["--rate", values.rate],
  ["--measure-s", values.seconds],
  ["--warmup-s", values.warmup],
  ["--seed", values.seed]
].flat()
const workload = [
  ["--events", String(events)],
  ["--events-per-second-of-event-time", values.rate],
  ["--seed", values.seed]
].flat()

const compare = async (stack: Stack) => {
  const chosen = chosenSides(values.only)
  const { figures, runs } = await inTurn(chosen, Number(values.runs), async (side) => {
    const alerts = join(stack.directory, "alerts")
    const recorded = join(stack.directory, "stages")
    rmSync(recorded, { force: true })
    const noting = { ...stack, environment: { ...stack.environment, STAGES_FILE: recorded } }
    const found = await measure(noting, side, "latency", shape, [
      ...flags,
      ...(values.stages ? ["--alerts", alerts] : [])
    ])
    // only SQL: all rows were waited for, but not the last records of the output topics
    const run = latencyOf(found, await verify(stack, [...workload, "--sql-only"]))
    if (!values.stages || side === "peer") return run
    return { ...run, stages: stagesOf(seenAlerts(textOf(alerts)), textOf(recorded)) }
  })
  const p99 = (all: ReadonlyArray<{ readonly p99: number }>) => median(all.map((run) => run.p99))
  return {
    rate: Number(values.rate),
    processes: shape.processes,
    ...figures,
    ...(chosen.length === 2 && { p99Ratio: Math.round((p99(runs.millrace) / p99(runs.peer)) * 1000) / 1000 })
  }
}

const result = await withStack(compare)
process.stdout.write(`${JSON.stringify(result, null, values.json ? undefined : 2)}\n`)
if (JSON.stringify(result).includes('"verified":false')) process.exitCode = 1
