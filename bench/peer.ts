// Measures throughput, beside the peer: N events lie in Kafka, and the clock runs from the start of the application's process until all of them are
// visible in SQL and at the committed ends of the output topics. Both in turn, on one stack; the peer's model verifies both.
import { parseArgs } from "node:util"
import { busyWarning, threadsOf } from "./machine.ts"
import { inTurn, median, pairwise } from "./rounds.ts"
import {
  chosenSides,
  type Figures,
  measure,
  number,
  shapeOf,
  type Stack,
  topicBytes,
  verify,
  withStack
} from "./side.ts"

const { values } = parseArgs({
  options: {
    events: { type: "string", default: "1000000" },
    seed: { type: "string", default: "1" },
    entities: { type: "string", default: "10000" },
    warmup: { type: "string", default: "200000" },
    runs: { type: "string", default: "1" },
    only: { type: "string" },
    processes: { type: "string", default: "projections,relay" },
    profile: { type: "string" },
    "sql-only": { type: "boolean", default: false },
    node: { type: "string", default: "" },
    timeout: { type: "string", default: "180" },
    json: { type: "boolean", default: false }
  }
})
const half = values["sql-only"] ? ["--sql-only"] : []
const others = ["--seed", values.seed, "--entities", values.entities, "--timeout-s", values.timeout, ...half]
const workload = ["--events", values.events, "--seed", values.seed, "--entities", values.entities]
const shape = shapeOf(values.processes, values.profile, values.node)
const plain = shapeOf(values.processes, undefined, values.node)

type Run = {
  readonly eventsPerSecond: number
  readonly seconds: number
  readonly secondsToFirstRow: number
  readonly secondsToAllRows: number
  readonly cpuSeconds: {
    readonly app: number
    readonly broker: number
    readonly postgres: number
    readonly total: number
  }
  /** Of the application's threads, by process and what they do: `main`, `v8` (the collector and the compilers), `libuv`; of the peer by their names. */
  readonly cpuSecondsByThread: Readonly<Record<string, number>>
  /** Everything else on the machine. */
  readonly cpuSecondsOthers: number
  /** Whether so little else ran that the figures mean something by themselves. */
  readonly isQuiet: boolean
  readonly peakMiB: number
  readonly walBytesPerEvent: number
  /** Bytes on the broker's disk for each event, by topic. */
  readonly kafkaBytesPerEvent: Readonly<Record<string, number>>
  readonly verified: boolean
}
const runOf = (stack: Stack, figures: Figures, verified: boolean): Run => {
  const of = (name: string) => number(figures, name)
  return {
    eventsPerSecond: Math.round(of("events_per_s_from_process_start")),
    seconds: of("seconds_from_process_start"),
    secondsToFirstRow: of("seconds_to_first_row"),
    secondsToAllRows: of("seconds_to_all_rows"),
    cpuSeconds: {
      app: of("cpu_s_app"),
      broker: of("cpu_s_broker"),
      postgres: of("cpu_s_postgres"),
      total: of("cpu_s_total")
    },
    cpuSecondsByThread: threadsOf(figures["cpu_s_app_threads"] ?? ""),
    cpuSecondsOthers: of("cpu_s_others"),
    isQuiet: busyWarning(of("cpu_s_others") / of("seconds_from_process_start")) === undefined,
    peakMiB: Math.round(of("peak_rss_app_mib")),
    walBytesPerEvent: Math.round(of("wal_bytes") / of("events")),
    kafkaBytesPerEvent: Object.fromEntries(
      Object.entries(topicBytes(stack)).map(([topic, bytes]) => [topic, Math.round(bytes / of("events"))])
    ),
    verified
  }
}

const compare = async (stack: Stack) => {
  const chosen = chosenSides(values.only)
  // a broker that just started is slow, which would count against the side that goes first
  if (values.warmup !== "0") {
    for (const side of chosen) await measure(stack, side, "throughput", plain, ["--events", values.warmup, ...others])
  }
  const { figures, runs } = await inTurn(chosen, Number(values.runs), async (side): Promise<Run> => {
    const found = await measure(stack, side, "throughput", shape, ["--events", values.events, ...others])
    const run = runOf(stack, found, await verify(stack, [...workload, ...half]))
    process.stderr.write(`${side} ${JSON.stringify(run)}\n${found["curve_s_to_events_in_1m"]}\n`)
    return run
  })
  const { millrace, peer } = runs
  const of = (all: ReadonlyArray<Run>, figure: (run: Run) => number) => all.map(figure)
  const rate = ({ eventsPerSecond }: Run) => eventsPerSecond
  const cpu = ({ cpuSeconds }: Run) => cpuSeconds.total
  return {
    events: Number(values.events),
    seed: Number(values.seed),
    processes: shape.processes,
    ...figures,
    ...(Number(values.runs) > 1 && { rates: Object.fromEntries(chosen.map((side) => [side, of(runs[side], rate)])) }),
    ...(chosen.length === 2 && {
      ratio: Math.round((median(of(millrace, rate)) / median(of(peer, rate))) * 100) / 100,
      cpuRatio: Math.round((median(of(millrace, cpu)) / median(of(peer, cpu))) * 100) / 100,
      ratios: pairwise(of(millrace, rate), of(peer, rate))
    })
  }
}

const result = await withStack(compare)
process.stdout.write(`${JSON.stringify(result, null, values.json ? undefined : 2)}\n`)
if (JSON.stringify(result).includes('"verified":false')) process.exitCode = 1
