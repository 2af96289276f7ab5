// `npm run fault -- pulsar`: a long run of the harness by seed, or its mutants. It prints its figures last, and ends with 1 where anything
// was lost, doubled, out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import { huntAll, say, tell, whole } from "../command.ts"
import { execute } from "./execute.ts"
import { hunt, mutants } from "./mutants.ts"
import { cycles, planOf, standard } from "./plan.ts"

const { values } = parseArgs({
  options: {
    cycles: { type: "string" },
    seed: { type: "string" },
    messages: { type: "string" },
    minutes: { type: "string" },
    mutants: { type: "boolean", default: false },
    only: { type: "string" },
    batching: { type: "boolean", default: false },
    json: { type: "boolean", default: false }
  }
})
const number = (name: "cycles" | "seed" | "messages" | "minutes") => whole(name, values[name])
const seed = number("seed") ?? Math.floor(Math.random() * 2 ** 31)

const long = async () => {
  const count = number("cycles")
  const minutes = number("minutes")
  say(`seed ${seed}`)
  const report = await execute({
    seed,
    plan: planOf(seed, count === undefined ? standard : cycles(count)),
    messages: number("messages") ?? (count ?? 10) * 100,
    batching: values.batching,
    patienceMs: 150_000,
    say,
    ...(minutes !== undefined && { minutes })
  })
  process.exitCode = tell(report, values.json)
}

/** Every mutant, or those whose names hold a text. */
const hunts = async () => {
  process.exitCode = await huntAll(mutants, hunt, { seed, only: values.only, json: values.json })
}

await (values.mutants ? hunts() : long())
