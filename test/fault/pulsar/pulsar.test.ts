// A run of the harness on Pulsar with every kind of fault, whose result is compared with what was published.
//
// MILLRACE_FAULT_SEED repeats a run. `npm run fault -- pulsar` makes longer runs, and with `--mutants` hunts all mutants.
import { assert, describe, it } from "vitest"
import { owning } from "../../support/stack.ts"
import { assertFits } from "../harness/patched-copy.ts"
import { execute } from "./execute.ts"
import { mutants } from "./mutants.ts"
import { isLong } from "../../support/size.ts"
import { planOf, short, standard } from "./plan.ts"
import { earlyBatches, points } from "./points.ts"

// processes of the harness end when their standard input closes, which a process of Deno does not notice
const onNode =
  "Deno" in globalThis
    ? (title: string, body: () => void) => describe.skip(`${title} (the harness's processes run on Node)`, body)
    : await owning("pulsar", "postgres", "native")
const seed = Number(process.env["MILLRACE_FAULT_SEED"] ?? Math.floor(Math.random() * 2 ** 31))
const lines: Array<string> = []
const say = (line: string) => void lines.push(line)

it("the patches of named points and mutants fit the source", () => {
  for (const { patches } of mutants) assertFits([...patches, ...points])
  assertFits([...earlyBatches, ...points])
})

onNode("faults on Pulsar", () => {
  it(`nothing is lost, doubled, out of order or wrong after faults of every kind (seed ${seed})`, async () => {
    process.stdout.write(`seed ${seed}: repeat with MILLRACE_FAULT_SEED=${seed}\n`)
    const counts = isLong ? standard : short
    const messages = isLong ? 1_000 : 250
    const report = await execute({ seed, plan: planOf(seed, counts), messages, patienceMs: 150_000, say })
    const { disordered, doubled, examples, faults, hang, kills, lost, wrong } = report
    process.stdout.write(`${JSON.stringify({ ...report, hang: hang !== undefined, examples: undefined })}\n`)
    assert.deepEqual(
      { hang: hang !== undefined, lost, doubled, disordered, wrong },
      { hang: false, lost: 0, doubled: 0, disordered: 0, wrong: 0 },
      [hang, ...examples, ...lines.slice(-5)].join("\n")
    )
    // one of them before the producers are forgotten, and one of two relays that fight
    assert.isAtLeast(kills, counts.relayKills + counts.consumerKills + 2)
    for (const once of [
      "broker killed",
      "connections cut",
      "producers forgotten",
      "topics unloaded",
      "message too large"
    ])
      assert.isAtLeast(faults[once] ?? 0, 1, once)
    for (const once of ["slow consumer", "redelivery storm", "two relays on one lane"])
      assert.isAtLeast(faults[once] ?? 0, 1, once)
  }, 600_000)
})
