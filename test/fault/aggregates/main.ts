// `npm run fault -- aggregates`: long runs of the aggregates' harness by seed, or its mutants. Prints the figures last, and ends with 1 if anything is wrong.
import { parseArgs } from "node:util"
import { commonFlags, runHarness, say, whole } from "../harness/command.ts"
import { execute } from "./execute.ts"
import { hunt, mutants } from "./mutants.ts"
import type { Phase } from "./run.ts"

const { values } = parseArgs({
  options: {
    ...commonFlags,
    seconds: { type: "string" },
    steps: { type: "string" },
    on: { type: "string", default: "embedded" },
    of: { type: "string", default: "ledgers,boundaries,timers,erasure" }
  }
})
const names = ["ledgers", "boundaries", "timers", "erasure"] as const
const wanted = values.of.split(",")
for (const name of wanted)
  if (!names.some((one) => one === name)) throw new Error(`--of has ${name}; use some of ${names.join(", ")}`)
const seconds = whole("seconds", values.seconds) ?? 60
const steps = whole("steps", values.steps)
const { on } = values
if (on !== "embedded" && on !== "kafka") throw new Error(`--on is ${on}; use embedded or kafka`)

/** The phases of one run. */
const phasesOf = (ms: number): ReadonlyArray<Phase> =>
  names
    .filter((name) => wanted.includes(name))
    .flatMap((name): ReadonlyArray<Phase> => {
      if (name !== "ledgers") return [{ of: name, streams: 12, ms, ...(steps === undefined ? {} : { steps }) }]
      // chains of commands meet other processes' appends most often on some streams
      return [1, 20, 1_000].map((streams) => ({ streams, ms }))
    })
const ms = (seconds * 1_000) / phasesOf(0).length

const long = (seed: number) =>
  execute({
    seed,
    on,
    phases: phasesOf(ms),
    workers: 6,
    crashes: Math.floor(ms / 5_000),
    patienceMs: 240_000,
    say
  })

process.exitCode = await runHarness(values, { long, mutants, hunt })
