// `npm run fault -- pulsar`: a long run of the harness by seed, or its mutants. It prints its figures last, and ends with 1 where anything
// was lost, doubled, out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import { say, tell, whole } from "../command.ts"
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
  const missed: Array<string> = []
  const figures: Record<string, string> = {}
  for (const mutant of mutants.filter(({ name }) => name.includes(values.only ?? ""))) {
    const { caught, report } = await hunt(mutant, seed, say)
    const { disordered, doubled, hang, lost, wrong } = report
    const by = hang?.split("\n")[0] ?? report.examples[0] ?? "nothing"
    figures[mutant.name] =
      `${caught ? "caught" : "MISSED"}: ${JSON.stringify({ lost, doubled, disordered, wrong, hang: hang !== undefined })} ${by}`
    say(`${mutant.name}: ${figures[mutant.name]}`)
    if (!caught) missed.push(mutant.name)
  }
  process.stdout.write(`${JSON.stringify({ seed, missed, figures }, undefined, values.json ? 0 : 2)}\n`)
  process.exitCode = missed.length > 0 ? 1 : 0
}

await (values.mutants ? hunts() : long())
