// `npm run fault`: a long run of the harness by seed, or its mutants. It prints its figures last, and ends with 1 where anything was lost,
// doubled, out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import { say, tell, whole } from "../command.ts"
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
const print = (text: string) => void process.stdout.write(`${text}\n`)

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
  const wanted = mutants.filter(({ name }) => name.includes(values.only ?? ""))
  const missed: Array<string> = []
  const figures: Record<string, string> = {}
  for (const mutant of wanted) {
    const { caught, report } = await hunt(mutant, seed, say)
    const { disordered, doubled, hang, lost, wrong } = report
    const by = hang?.split("\n")[0] ?? report.examples[0] ?? "nothing"
    figures[mutant.name] =
      `${caught ? "caught" : "MISSED"}: ${JSON.stringify({ lost, doubled, disordered, wrong })} ${by}`
    say(`${mutant.name}: ${figures[mutant.name]}`)
    if (!caught) missed.push(mutant.name)
  }
  print(
    values.json
      ? JSON.stringify({ seed, mutants: wanted.length, missed, figures })
      : JSON.stringify({ seed, missed, figures }, undefined, 2)
  )
  process.exitCode = missed.length > 0 ? 1 : 0
}

await (values.mutants ? hunts() : long())
