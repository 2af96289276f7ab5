// Measures throughput, beside the peer: N events lie in Kafka, and the clock runs from the start of the application's process until all of them are
// visible in SQL and at the committed ends of the output topics. Both in turn, on one stack; the peer's model verifies both.
import { parseArgs } from "node:util"
import {
  type Figures,
  measure,
  median,
  number,
  shapeOf,
  type Side,
  sides,
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

interface Run {
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
  /** Everything else on the machine: if it is much, the run is worthless. */
  readonly cpuSecondsOthers: number
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
    cpuSecondsOthers: of("cpu_s_others"),
    peakMiB: Math.round(of("peak_rss_app_mib")),
    walBytesPerEvent: Math.round(of("wal_bytes") / of("events")),
    kafkaBytesPerEvent: Object.fromEntries(
      Object.entries(topicBytes(stack)).map(([topic, bytes]) => [topic, Math.round(bytes / of("events"))])
    ),
    verified
  }
}

/** The run with the median rate, and the rates of all. */
const middle = (runs: ReadonlyArray<Run>) => {
  const rates = runs.map(({ eventsPerSecond }) => eventsPerSecond)
  const run = runs.find(({ eventsPerSecond }) => eventsPerSecond === median(rates))
  return runs.length === 1 ? run : { ...run, verified: runs.every(({ verified }) => verified), rates }
}

const compare = async (stack: Stack) => {
  const chosen = sides.filter((side) => values.only === undefined || values.only === side)
  const runs: Record<Side, Array<Run>> = { peer: [], millrace: [] }
  // a broker that just started is slow, which would count against the side that goes first
  if (values.warmup !== "0") {
    for (const side of chosen) await measure(stack, side, "throughput", plain, ["--events", values.warmup, ...others])
  }
  for (let round = 0; round < Number(values.runs); round++) {
    for (const side of chosen) {
      const figures = await measure(stack, side, "throughput", shape, ["--events", values.events, ...others])
      const run = runOf(stack, figures, await verify(stack, [...workload, ...half]))
      runs[side].push(run)
      process.stderr.write(`${side} ${JSON.stringify(run)}\n${figures["curve_s_to_events_in_1m"]}\n`)
    }
  }
  const rate = (side: Side) => median(runs[side].map(({ eventsPerSecond }) => eventsPerSecond))
  return {
    events: Number(values.events),
    seed: Number(values.seed),
    processes: shape.processes,
    ...Object.fromEntries(chosen.map((side) => [side, middle(runs[side])])),
    ...(chosen.length === 2 && { ratio: Math.round((rate("millrace") / rate("peer")) * 100) / 100 })
  }
}

const result = await withStack(compare)
process.stdout.write(`${JSON.stringify(result, null, values.json ? undefined : 2)}\n`)
if (JSON.stringify(result).includes('"verified":false')) process.exitCode = 1
