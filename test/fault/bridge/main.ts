// `npm run fault -- bridge`: a long run by seed, or the mutants. It prints its figures last, and ends with 1 where anything was lost, doubled,
// out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import { planOf } from "./plan.ts"
import { execute, failed } from "./run.ts"

const { values } = parseArgs({
  options: {
    cycles: { type: "string", default: "40" },
    seed: { type: "string" },
    json: { type: "boolean", default: false },
    mutants: { type: "boolean", default: false },
    only: { type: "string", default: "" }
  }
})
const whole = (name: "cycles" | "seed", text: string) => {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`--${name} ${text} is no whole number`)
  return Number(text)
}
const began = performance.now()
const say = (line: string) =>
  void process.stderr.write(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${line}\n`)
const seed = whole("seed", values.seed ?? String(Math.floor(Math.random() * 1e9)))

const long = Effect.gen(function* () {
  say(`seed ${seed}`)
  const steps = planOf(seed, whole("cycles", values.cycles))
  const report = yield* execute({ seed, steps, copied: true, say })
  for (const example of report.examples) process.stderr.write(`${example}\n`)
  if (report.hang !== undefined) process.stderr.write(`${report.hang}\n`)
  const figures = { cycles: steps.length, ...report, hang: report.hang !== undefined, examples: undefined }
  process.stdout.write(`${JSON.stringify(figures, undefined, values.json ? 0 : 2)}\n`)
  return failed(report) ? 1 : 0
})

const code = await Effect.runPromise(
  long.pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal"))
)
process.exit(code)
