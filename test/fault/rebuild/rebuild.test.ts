// A run of the rebuild harness on Kafka, PostgreSQL and Pulsar: commands are killed at named points while events flow and readers query.
//
// MILLRACE_FAULT_SEED repeats a run. `npm run fault -- rebuild` makes longer runs, and with `--mutants` hunts the mutants.
import { assert, describe, it } from "vitest"
import { isLong } from "../../support/size.ts"
import { needing } from "../../support/stack.ts"
import { aggregateMutants } from "../directed/aggregate-mutants.ts"
import { mutants as directed } from "../directed/mutants.ts"
import { assertFits } from "../harness/patched-copy.ts"
import { execute } from "./execute.ts"
import { mutants } from "./mutants.ts"
import { planOf } from "./plan.ts"
import { points } from "./points.ts"

// processes of the harness end when their standard input closes, which a process of Deno does not notice
const suite =
  "Deno" in globalThis
    ? (title: string, body: () => void) => describe.skip(`${title} (the harness's processes run on Node)`, body)
    : await needing("kafka", "pulsar")
const seed = Number(process.env["MILLRACE_FAULT_SEED"] ?? Math.floor(Math.random() * 2 ** 31))

it("the patches of named points and mutants of rebuilds fit the source", () => {
  for (const { patches } of mutants) assertFits([...patches, ...points])
  assertFits(directed.flatMap(({ patches = [] }) => patches))
  // several of them change one line
  for (const { patches } of aggregateMutants) assertFits(patches ?? [])
})

suite("kills during rebuilds and promotions", () => {
  it(`readers see one build at a time, and every event is processed and published once (seed ${seed})`, async () => {
    process.stdout.write(`seed ${seed}: repeat with MILLRACE_FAULT_SEED=${seed}\n`)
    const plan = planOf(seed, isLong ? {} : { count: 2 })
    const lines: Array<string> = []
    const say = (line: string) => void lines.push(line)
    const report = await execute({
      seed,
      plan,
      events: isLong ? 20_000 : 500,
      rate: isLong ? 50 : 20,
      patienceMs: 240_000,
      say
    })
    const { disordered, doubled, examples, faults, hang, lost, wrong } = report
    process.stdout.write(`${JSON.stringify({ ...report, hang: hang !== undefined, examples: undefined })}\n`)
    assert.deepEqual(
      { hang: hang !== undefined, lost, doubled, disordered, wrong },
      { hang: false, lost: 0, doubled: 0, disordered: 0, wrong: 0 },
      [hang, ...examples, ...lines.slice(-5)].join("\n")
    )
    for (const { point } of plan) assert.strictEqual(faults[`killed: ${point}`], 1, point)
    assert.isAbove(faults["reads"]!, 100)
  }, 1_800_000)
})
