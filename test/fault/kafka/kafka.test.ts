// A run of the harness on Kafka with every kind of fault, whose result is compared with a fold of the log; with MILLRACE_SIZE=long some of the mutants, too.
//
// MILLRACE_FAULT_SEED repeats a run. `npm run fault -- kafka` makes longer runs, and with `--mutants` hunts all mutants.
import { assert, describe, it } from "vitest"
import { owning } from "../../support/stack.ts"
import { assertFits } from "../harness/patched-copy.ts"
import { points } from "./failpoints.ts"
import { hunt, mutants } from "./mutants.ts"
import { isLong } from "../../support/size.ts"
import { planOf, short, standard } from "./plan.ts"
import { execute } from "./execute.ts"
import { backUp, cutLog, restoredDatabase } from "./scenarios.ts"

// processes of the harness end when their standard input closes, which a process of Deno does not notice
const suite =
  "Deno" in globalThis
    ? (title: string, body: () => void) => describe.skip(`${title} (the harness's processes run on Node)`, body)
    : await owning("kafka", "postgres")
const seed = Number(process.env["MILLRACE_FAULT_SEED"] ?? Math.floor(Math.random() * 2 ** 31))
const lines: Array<string> = []
const say = (line: string) => void lines.push(line)

/** How many faults there were whose names match. */
const count = (faults: Readonly<Record<string, number>>, kind: RegExp) =>
  Object.entries(faults).reduce((sum, [name, n]) => sum + (kind.test(name) ? n : 0), 0)

it("the patches of named points and mutants fit the source", () => {
  for (const { patches } of mutants) assertFits([...patches, ...points])
})

suite("faults on Kafka", () => {
  it(`nothing is lost, doubled, out of order or wrong after faults of every kind (seed ${seed})`, async () => {
    process.stdout.write(`seed ${seed}: repeat with MILLRACE_FAULT_SEED=${seed}\n`)
    const counts = isLong ? standard : short
    const events = isLong ? 20_000 : 10_000
    const options = { seed, plan: planOf(seed, counts), events, ahead: 2_000, patienceMs: 240_000, say }
    const report = await execute(options, [backUp, restoredDatabase, cutLog])
    const { aborted, dead, disordered, doubled, duplicates, examples, faults, fenced, hang, lost, wrong } = report
    process.stdout.write(`${JSON.stringify({ ...report, hang: hang !== undefined, examples: undefined })}\n`)
    const context = [hang, ...examples, ...lines.slice(-5)].join("\n")
    assert.deepEqual(
      { hang: hang !== undefined, lost, doubled, disordered, wrong },
      { hang: false, lost: 0, doubled: 0, disordered: 0, wrong: 0 },
      context
    )
    const atLeast = (kind: RegExp, n: number) => assert.isAtLeast(count(faults, kind), n, String(kind))
    atLeast(/^projector killed/, counts.projectorKills)
    atLeast(/^relay killed/, counts.relayKills)
    atLeast(/^rebalance/, counts.joins)
    atLeast(/^zombie fenced/, counts.zombies)
    atLeast(/^overlapping claim fenced/, counts.overlaps)
    atLeast(/^backend ended/, counts.backends)
    atLeast(/^commit's reply lost/, counts.replies)
    for (const once of ["PostgreSQL crashed", "broker killed", "two relays on one lane", "relay zombie"])
      atLeast(new RegExp(once), 1)
    for (const once of ["database restored to an older state", "log cut off before a consumer"])
      atLeast(new RegExp(once), 1)
    assert.isAbove(fenced, 0)
    assert.isAbove(aborted, 0)
    assert.isAbove(dead, 0)
    assert.isAbove(duplicates, 0)
  }, 900_000)

  const quick = isLong ? ["input is read uncommitted", "no fence", "the relay's offsets are committed after"] : []
  for (const mutant of mutants.filter(({ name }) => quick.some((begin) => name.startsWith(begin)))) {
    it(`the harness finds the mutant: ${mutant.name}`, async () => {
      const { caught, report } = await hunt(mutant, seed)
      assert.isTrue(caught, JSON.stringify(report))
    }, 300_000)
  }
})
