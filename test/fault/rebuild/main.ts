// `npm run fault -- rebuild`: a long run of the rebuild harness by seed, or its mutants. Prints the figures last, and ends with 1 if anything is wrong.
import { parseArgs } from "node:util"
import { commonFlags, runHarness, say, whole } from "../harness/command.ts"
import { execute, planOf } from "./execute.ts"
import { hunt, mutants } from "./mutants.ts"

const { values } = parseArgs({ options: { ...commonFlags, cycles: { type: "string" }, events: { type: "string" } } })
const cycles = whole("cycles", values.cycles)
const events = whole("events", values.events) ?? 20_000

const long = (seed: number) => execute({ seed, plan: planOf(seed, cycles), events, patienceMs: 240_000, say })

process.exitCode = await runHarness(values, { long, mutants, hunt })
