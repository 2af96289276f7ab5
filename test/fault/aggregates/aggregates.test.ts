// A run of the aggregates' harness: 64 writers on one event stream and on 1,000, while replies are lost and processes and the server are killed.
//
// MILLRACE_FAULT_SEED repeats a run. `npm run fault -- aggregates` makes longer runs, and with `--mutants` hunts the mutants.
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "vitest"
import { isLong } from "../../support/size.ts"
import { needing, owning } from "../../support/stack.ts"
import { execute } from "./execute.ts"
import { mutants } from "./mutants.ts"
import type { RunOptions } from "./run.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
// processes of the harness run on Node
const isDeno = "Deno" in globalThis
const skipped = (title: string, body: () => void) =>
  describe.skip(`${title} (the harness's processes run on Node)`, body)
const seed = Number(process.env["MILLRACE_FAULT_SEED"] ?? Math.floor(Math.random() * 2 ** 31))

it("the patches of the mutants of aggregates fit the source", () => {
  for (const { name, patches } of mutants)
    for (const { file, find } of patches)
      assert.lengthOf(readFileSync(join(root, file), "utf8").split(find), 2, `${name}: ${file} has this once: ${find}`)
})

const ledgers = (ms: number): RunOptions["phases"] => [
  { streams: 1, ms },
  // chains of commands meet other processes' appends most often on some streams
  { streams: 20, ms },
  { streams: 1_000, ms }
]
const concerns = (ms: number): RunOptions["phases"] =>
  (["boundaries", "timers", "erasure"] as const).map((of) => ({ of, streams: 12, ms }))

const check = async (on: RunOptions["on"], phases: RunOptions["phases"], crashes: number) => {
  process.stdout.write(`seed ${seed}: repeat with MILLRACE_FAULT_SEED=${seed}\n`)
  const lines: Array<string> = []
  const say = (line: string) => void lines.push(line)
  const report = await execute({
    seed,
    on,
    phases,
    crashes,
    isInline: on === "embedded",
    patienceMs: 240_000,
    say
  })
  const { disordered, doubled, events, examples, hang, lost, steps, wrong } = report
  process.stdout.write(`${JSON.stringify({ ...report, hang: hang !== undefined, examples: undefined })}\n`)
  assert.deepEqual(
    { hang: hang !== undefined, lost, doubled, disordered, wrong },
    { hang: false, lost: 0, doubled: 0, disordered: 0, wrong: 0 },
    [hang, ...examples, ...lines.slice(-5)].join("\n")
  )
  if (phases.some(({ of }) => of === undefined)) assert.isAbove(events, 100)
  else assert.isAbove(steps, 20)
}

const onEmbedded = isDeno ? skipped : await owning("postgres")
onEmbedded("aggregates while processes and the server are killed", () => {
  it(
    `nothing is lost, doubled or answered otherwise, and rows and outbox equal a fold (seed ${seed})`,
    () => check("embedded", ledgers(isLong ? 30_000 : 2_000), 1),
    600_000
  )
  it.runIf(isLong)(
    `boundaries hold, timers fire once, and erased data is gone (seed ${seed})`,
    () => check("embedded", concerns(30_000), 1),
    600_000
  )
})
const onKafka = isDeno ? skipped : await needing("kafka")
onKafka("aggregates on Kafka while processes are killed", () => {
  it(
    `the topic equals the store, in stream order (seed ${seed})`,
    () => check("kafka", ledgers(isLong ? 30_000 : 1_000), 0),
    600_000
  )
  // the broker is killed, too
  it.runIf(isLong)(
    `boundaries hold, timers fire once, and erased data is gone (seed ${seed})`,
    () => check("kafka", concerns(30_000), 1),
    600_000
  )
})
