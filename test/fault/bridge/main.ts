// `npm run fault -- bridge`: a long run by seed, or the mutants. It prints its figures last, and ends with 1 where anything was lost, doubled,
// out of order or wrong, or did not come about.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import { say, tell } from "../command.ts"
import { mutants } from "./mutants.ts"
import { planOf, type Step } from "./plan.ts"
import { execute } from "./run.ts"
import { services } from "./services.ts"

const { values } = parseArgs({
  options: {
    cycles: { type: "string", default: "40" },
    seed: { type: "string" },
    minutes: { type: "string", default: "60" },
    outage: { type: "string" },
    json: { type: "boolean", default: false },
    mutants: { type: "boolean", default: false },
    only: { type: "string", default: "" }
  }
})
const whole = (name: "cycles" | "seed" | "minutes" | "outage", text: string) => {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`--${name} ${text} is no whole number`)
  return Number(text)
}
const seed = whole("seed", values.seed ?? String(Math.floor(Math.random() * 1e9)))

/** Both brokers are killed, one after another, and stay away for so many seconds. */
const outage = (seconds: number) =>
  (["kafka", "pulsar"] as const).map((kind): Step => ({ kind, downMs: seconds * 1_000, transport: "native" }))

const long = Effect.gen(function* () {
  say(`seed ${seed}`)
  const steps =
    values.outage === undefined ? planOf(seed, whole("cycles", values.cycles)) : outage(whole("outage", values.outage))
  const mostMs = whole("minutes", values.minutes) * 60_000
  const report = yield* execute({ seed, steps, copied: true, say, mostMs }, yield* services)
  return tell(report, values.json)
})

/** Every mutant, or those whose names hold one of some texts. */
const hunts = Effect.gen(function* () {
  const texts = values.only.split(",")
  const wanted = mutants.filter(({ name }) => texts.some((text) => name.includes(text)))
  const all = yield* services
  const figures: Record<string, string> = {}
  const missed: Array<string> = []
  for (const { found, name, patches, steps } of wanted) {
    const options = { seed, steps, patches, copied: true, say, patienceMs: 30_000 }
    const report = yield* Effect.scoped(execute(options, all))
    const { disordered, doubled, hang, lost, wrong } = report
    const caught = report[found] > 0
    if (!caught) missed.push(name)
    figures[name] = `${caught ? "caught" : "MISSED"}: ${JSON.stringify({ lost, doubled, disordered, wrong })}`
    say(`${name}: ${figures[name]} ${hang?.slice(0, 300) ?? ""}`)
  }
  const told = { seed, mutants: wanted.length, missed, figures }
  process.stdout.write(`${JSON.stringify(told, undefined, values.json ? 0 : 2)}\n`)
  return missed.length > 0 ? 1 : 0
})

const code = await Effect.runPromise(
  (values.mutants ? hunts : long).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal"))
)
process.exit(code)
