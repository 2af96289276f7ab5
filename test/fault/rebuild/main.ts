// `npm run fault -- rebuild`: a long run of the rebuild harness by seed, or its mutants. Prints the figures last, and ends with 1 if anything is wrong.
import { parseArgs } from "node:util"
import { commonFlags, runHarness, say, whole } from "../harness/command.ts"
import { isLong } from "../../support/size.ts"
import { execute } from "./execute.ts"
import { hunt, mutants } from "./mutants.ts"
import { planOf } from "./plan.ts"

const { values } = parseArgs({
  options: {
    ...commonFlags,
    cycles: { type: "string" },
    events: { type: "string" },
    ahead: { type: "string" },
    rate: { type: "string" },
    "commands-only": { type: "boolean", default: false },
    "services-only": { type: "boolean", default: false }
  }
})
const count = whole("cycles", values.cycles)
const ahead = whole("ahead", values.ahead) ?? (isLong ? 1_000_000 : 0)
const rate = whole("rate", values.rate) ?? (isLong ? 2_000 : 50)
const events = whole("events", values.events) ?? 20_000

const long = (seed: number) => {
  const plan = planOf(seed, { count, commands: !values["services-only"], services: !values["commands-only"] })
  return execute({ seed, plan, events, ahead, rate, patienceMs: isLong ? 1_200_000 : 240_000, say })
}

process.exitCode = await runHarness(values, { long, mutants, hunt })
