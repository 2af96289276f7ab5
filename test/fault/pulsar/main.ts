// `npm run fault -- pulsar`: a long run of the harness on Pulsar and PostgreSQL by seed, or its mutants. Prints the figures last, and ends with 1 if
// anything is wrong.
import { parseArgs } from "node:util"
import { commonFlags, runHarness, say, whole } from "../harness/command.ts"
import { execute } from "./execute.ts"
import { hunt, mutants } from "./mutants.ts"
import { cycles, planOf, standard } from "./plan.ts"

const { values } = parseArgs({
  options: {
    ...commonFlags,
    cycles: { type: "string" },
    messages: { type: "string" },
    minutes: { type: "string" },
    batching: { type: "boolean", default: false }
  }
})
const count = whole("cycles", values.cycles)
const messages = whole("messages", values.messages) ?? (count ?? 10) * 100
const minutes = whole("minutes", values.minutes)

const long = (seed: number) =>
  execute({
    seed,
    plan: planOf(seed, count === undefined ? standard : cycles(count)),
    messages,
    batching: values.batching,
    patienceMs: 150_000,
    say,
    ...(minutes !== undefined && { minutes })
  })

process.exitCode = await runHarness(values, { long, mutants, hunt })
