// `npm run fault -- aggregates`: long runs of the aggregates' harness by seed, or its mutants. Prints the figures last, and ends with 1 if anything is wrong.
import { parseArgs } from "node:util"
import { commonFlags, runHarness, say, whole } from "../harness/command.ts"
import { execute } from "./execute.ts"
import { hunt, mutants } from "./mutants.ts"

const { values } = parseArgs({
  options: { ...commonFlags, seconds: { type: "string" }, on: { type: "string", default: "embedded" } }
})
const ms = (whole("seconds", values.seconds) ?? 60) * 333
const { on } = values
if (on !== "embedded" && on !== "kafka") throw new Error(`--on is ${on}; use embedded or kafka`)

const long = (seed: number) =>
  execute({
    seed,
    on,
    phases: [
      { streams: 1, ms },
      // chains of commands meet other processes' appends most often on some streams
      { streams: 20, ms },
      { streams: 1_000, ms }
    ],
    crashes: Math.ceil(ms / 10_000),
    patienceMs: 240_000,
    say
  })

process.exitCode = await runHarness(values, { long, mutants, hunt })
