// `npm run fault -- kafka`: a long run of the harness on Kafka and PostgreSQL by seed, or its mutants. Prints the figures last, and ends with 1 if
// anything is wrong.
import { parseArgs } from "node:util"
import { commonFlags, runHarness, say, whole } from "../harness/command.ts"
import { execute } from "./execute.ts"
import { hunt, mutants } from "./mutants.ts"
import { cycles, planOf, standard } from "./plan.ts"
import { backUp, cutLog, restoredDatabase } from "./scenarios.ts"

const { values } = parseArgs({
  options: {
    ...commonFlags,
    cycles: { type: "string" },
    events: { type: "string" },
    entities: { type: "string" },
    hold: { type: "boolean", default: false }
  }
})
const count = whole("cycles", values.cycles)
const events = whole("events", values.events) ?? 20_000
const entities = whole("entities", values.entities)

const long = (seed: number) =>
  execute(
    {
      seed,
      plan: planOf(seed, count === undefined ? standard : cycles(count)),
      events,
      ahead: 2_000,
      patienceMs: 240_000,
      ...(entities !== undefined && { entities }),
      hold: values.hold,
      say
    },
    [backUp, restoredDatabase, cutLog]
  )

process.exitCode = await runHarness(values, { long, mutants, hunt })
