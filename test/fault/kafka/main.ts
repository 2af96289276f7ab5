// `npm run fault`: a long run of the harness by seed, or its mutants. It prints its figures last, and ends with 1 where anything was lost,
// doubled, out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import { hunt, mutants } from "./mutants.ts"
import { cycles, planOf, standard } from "./plan.ts"
import { execute, type Report } from "./execute.ts"
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
const whole = (name: "cycles" | "seed" | "events" | "entities"): number | undefined => {
  const text = values[name]
  if (text === undefined) return undefined
  if (!/^\d+$/.test(text)) throw new Error(`--${name} ${text} is no whole number`)
  return Number(text)
}
const print = (text: string) => void process.stdout.write(`${text}\n`)
const began = performance.now()
const say = (line: string) =>
  void process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${line}\n`)

const seed = whole("seed") ?? Math.floor(Math.random() * 2 ** 31)
const failed = ({ disordered, doubled, hang, lost, wrong }: Report) =>
  hang !== undefined || lost + doubled + disordered + wrong > 0

const long = async () => {
  const count = whole("cycles")
  const entities = whole("entities")
  say(`seed ${seed}`)
  const report = await execute(
    {
      seed,
      plan: planOf(seed, count === undefined ? standard : cycles(count)),
      events: whole("events") ?? 20_000,
      ahead: 2_000,
      patienceMs: 240_000,
      ...(entities === undefined ? {} : { entities }),
      hold: values.hold,
      say
    },
    [backUp, restoredDatabase, cutLog]
  )
  if (report.hang !== undefined) process.stderr.write(`${report.hang}\n`)
  for (const example of report.examples) process.stderr.write(`${example}\n`)
  const figures = { ...report, hang: report.hang !== undefined, examples: undefined }
  print(values.json ? JSON.stringify(figures) : JSON.stringify(figures, undefined, 2))
  process.exitCode = failed(report) ? 1 : 0
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
