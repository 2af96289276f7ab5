// `npm run fault`: a long run of the harness by seed, or its mutants. It prints its figures last, and ends with 1 where anything was lost,
// doubled, out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import { huntAll, say, tell, whole } from "../command.ts"
import { hunt, mutants } from "./mutants.ts"
import { cycles, planOf, standard } from "./plan.ts"
import { execute } from "./execute.ts"
import { backUp, cutLog, restoredDatabase } from "./scenarios.ts"

const { values } = parseArgs({
  options: {
    cycles: { type: "string" },
    seed: { type: "string" },
    events: { type: "string" },
    entities: { type: "string" },
    json: { type: "boolean", default: false },
    mutants: { type: "boolean", default: false },
    only: { type: "string" },
    hold: { type: "boolean", default: false }
  }
})
const number = (name: "cycles" | "seed" | "events" | "entities") => whole(name, values[name])

const seed = number("seed") ?? Math.floor(Math.random() * 2 ** 31)

const long = async () => {
  const count = number("cycles")
  const entities = number("entities")
  say(`seed ${seed}`)
  const report = await execute(
    {
      seed,
      plan: planOf(seed, count === undefined ? standard : cycles(count)),
      events: number("events") ?? 20_000,
      ahead: 2_000,
      patienceMs: 240_000,
      ...(entities === undefined ? {} : { entities }),
      hold: values.hold,
      say
    },
    [backUp, restoredDatabase, cutLog]
  )
  process.exitCode = tell(report, values.json)
}

/** Every mutant, or those whose names hold a text. */
const hunts = async () => {
  process.exitCode = await huntAll(mutants, hunt, { seed, only: values.only, json: values.json })
}

await (values.mutants ? hunts() : long())
