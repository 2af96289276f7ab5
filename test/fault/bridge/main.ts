// `npm run fault -- bridge`: a long run of the harness of the bridge by seed, or its mutants. Prints the figures last, and ends with 1 if anything is
// wrong.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import { commonFlags, isCaught, runHarness, say, whole } from "../harness/command.ts"
import { type Mutant, mutants } from "./mutants.ts"
import { planOf, type Step } from "./plan.ts"
import { execute } from "./run.ts"
import { services } from "./services.ts"

const { values } = parseArgs({
  options: {
    ...commonFlags,
    cycles: { type: "string", default: "40" },
    minutes: { type: "string", default: "60" },
    outage: { type: "string" }
  }
})
const count = whole("cycles", values.cycles)!
const maxMs = whole("minutes", values.minutes)! * 60_000
const outageSeconds = whole("outage", values.outage)

/** Kills Kafka, then Pulsar, and leaves each down for so many seconds. */
const outage = (seconds: number) =>
  (["kafka", "pulsar"] as const).map((kind): Step => ({ kind, downMs: seconds * 1_000, transport: "native" }))

const run = <A>(effect: Effect.Effect<A, unknown, Scope.Scope>): Promise<A> =>
  Effect.runPromise(effect.pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal")))

const main = Effect.gen(function* () {
  const opened = yield* services
  const long = (seed: number) => {
    const steps = outageSeconds === undefined ? planOf(seed, count) : outage(outageSeconds)
    return run(execute({ seed, steps, copied: true, say, maxMs }, opened))
  }
  const hunt = async ({ found, patches, steps }: Mutant, seed: number) => {
    const report = await run(execute({ seed, steps, patches, copied: true, say, patienceMs: 30_000 }, opened))
    return { caught: isCaught(found, report), report }
  }
  return yield* Effect.promise(() => runHarness(values, { long, mutants, hunt }))
})
process.exit(await run(main))
