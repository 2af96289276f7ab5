// `npm run fault`: a long run of the harness by seed, or its mutants. It prints its figures last, and ends with 1 where anything was lost,
// doubled, out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import { cycles, planOf, standard } from "./plan.ts"
import { execute, type Report } from "./run.ts"

const { values } = parseArgs({
  options: {
    cycles: { type: "string" },
    seed: { type: "string" },
    events: { type: "string" },
    entities: { type: "string" },
    json: { type: "boolean", default: false },
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

const { hang, ...report } = await (async (): Promise<Report> => {
  const seed = whole("seed") ?? Math.floor(Math.random() * 2 ** 31)
  const count = whole("cycles")
  const entities = whole("entities")
  const plan = planOf(seed, count === undefined ? standard : cycles(count))
  say(`seed ${seed}`)
  return execute({
    seed,
    plan,
    events: whole("events") ?? 20_000,
    ...(entities === undefined ? {} : { entities }),
    hold: values.hold,
    say
  })
})()
if (hang !== undefined) process.stderr.write(`${hang}\n`)
for (const example of report.examples) process.stderr.write(`${example}\n`)
const failed = hang !== undefined || report.lost + report.doubled + report.disordered + report.wrong > 0
const figures = { ...report, hang: hang !== undefined }
print(values.json ? JSON.stringify(figures) : JSON.stringify(figures, undefined, 2))
process.exitCode = failed ? 1 : 0
