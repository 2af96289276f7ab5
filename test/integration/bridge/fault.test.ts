// A short run of the bridge's fault harness (`npm run fault -- bridge`): every record must be on the other side once.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import { mutants } from "../../fault/bridge/mutants.ts"
import { points } from "../../fault/bridge/points.ts"
import { execute } from "../../fault/bridge/run.ts"
import type { Step } from "../../fault/bridge/plan.ts"
import { services } from "../../fault/bridge/services.ts"
import { assertFits } from "../../fault/harness/patched-copy.ts"
import { randomOf, seed } from "../../support/random.ts"
import { isLong } from "../../support/size.ts"
import { owning } from "../../support/stack.ts"

it("the patches of named points and mutants fit the source", () => {
  for (const { patches } of mutants) assertFits([...patches, ...points])
})

const suite = await owning("kafka", "pulsar", "native")
// copies end when their standard input closes, which a process of Deno does not notice, so under Deno processes run from the tree itself
const copied = !("Deno" in globalThis)

const stepsOf = (): ReadonlyArray<Step> => {
  const random = randomOf(seed)
  const kill = (point: string, transport: Step["transport"]): Step =>
    copied
      ? { kind: "kill", point, nth: random.int(1, 2), transport }
      : { kind: "killAtRandom", afterMs: random.int(0, 1_500), transport }
  const others: ReadonlyArray<Step> = [
    { kind: "cut", transport: "native" },
    { kind: "pulsar", downMs: 0, transport: "native" },
    { kind: "kafka", downMs: 0, transport: "websocket" },
    { kind: "forget", transport: "native" }
  ]
  const kills = [
    kill("out, all stored", "native"),
    kill("in, committed", "websocket"),
    kill("out, some stored", "websocket"),
    kill("records produced", "native")
  ]
  // a long run has all eight; a short one has a kill and two others, not the same each time
  if (isLong) return others.flatMap((step, i) => [kills[i]!, step])
  const left = random.int(0, 3)
  return [kills[random.int(0, 3)]!, others[left]!, others[(left + random.int(1, 3)) % 4]!]
}

suite("bridge, under faults", () => {
  it.live(
    "everything is mirrored once and in the order of keys while processes and brokers are killed and connections are cut",
    () =>
      Effect.gen(function* () {
        const lines: Array<string> = [`seed ${seed}`]
        const say = (line: string) => void lines.push(line)
        const report = yield* execute({ seed, steps: stepsOf(), copied, say }, yield* services)
        const { disordered, doubled, examples, hang, lost, wrong } = report
        const told = [...lines, ...examples, hang ?? ""].join("\n")
        assert.deepStrictEqual({ lost, doubled, disordered, wrong, hang }, { ...nothing }, told)
        assert.isAbove(report.mirrored, 0)
        assert.isAbove(report.deadLetters, 0)
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Fatal")) as Effect.Effect<void>,
    900_000
  )
})
const nothing = { lost: 0, doubled: 0, disordered: 0, wrong: 0, hang: undefined }
