// `npm run fault -- pulsar`: a long run of the harness by seed, or its mutants. It prints its figures last, and ends with 1 where anything
// was lost, doubled, out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import { execute, failed } from "./execute.ts"
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
const whole = (name: "cycles" | "seed" | "messages" | "minutes"): number | undefined => {
  const text = values[name]
  if (text === undefined) return undefined
  if (!/^\d+$/.test(text)) throw new Error(`--${name} ${text} is no whole number`)
  return Number(text)
}
const began = performance.now()
const say = (line: string) =>
  void process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${line}\n`)

const seed = whole("seed") ?? Math.floor(Math.random() * 2 ** 31)

const long = async () => {
  const count = whole("cycles")
  const minutes = whole("minutes")
  say(`seed ${seed}`)
  const report = await execute({
    seed,
    plan: planOf(seed, count === undefined ? standard : cycles(count)),
    messages: whole("messages") ?? (count ?? 10) * 100,
    batching: values.batching,
    patienceMs: 150_000,
    say,
    ...(minutes !== undefined && { minutes })
  })
  if (report.hang !== undefined) process.stderr.write(`${report.hang}\n`)
  for (const example of report.examples) process.stderr.write(`${example}\n`)
  const figures = { ...report, hang: report.hang !== undefined, examples: undefined }
  process.stdout.write(`${values.json ? JSON.stringify(figures) : JSON.stringify(figures, undefined, 2)}\n`)
  process.exitCode = failed(report) ? 1 : 0
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
