// What `millrace rebuild` does to its own process: all threads of it, not only the main one, run at a lower priority.
import { execFileSync } from "node:child_process"
import { getPriority } from "node:os"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"

const priority = join(import.meta.dirname, "../../../src/cli/priority.ts")
/** The different values that the threads of a process have, which lowers its priority after it got some threads. The name of a thread, in parentheses, may have spaces. */
const script = `
  import { readdirSync, readFileSync } from "node:fs"
  import { setPriority } from "node:os"
  import * as Effect from "effect/Effect"
  import { atLowerPriority } from ${JSON.stringify(priority)}
  setPriority(Number(process.argv[1]))
  Effect.runSync(atLowerPriority)
  const stats = readdirSync("/proc/self/task").map((id) => readFileSync("/proc/self/task/" + id + "/stat", "utf8"))
  const values = new Set(stats.map((stat) => Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[16])))
  console.log(JSON.stringify({ threads: stats.length, values: [...values] }))
`
const threadsAfter = (before: number) =>
  JSON.parse(
    execFileSync(process.execPath, ["--input-type=module", "-e", script, String(before)], { encoding: "utf8" })
  ) as { readonly threads: number; readonly values: ReadonlyArray<number> }

it.runIf(process.platform === "linux")("all threads of the process get it", () => {
  const { threads, values } = threadsAfter(getPriority())
  assert.isAbove(threads, 1)
  assert.deepEqual(values, [Math.max(getPriority(), 10)])
})
it.runIf(process.platform === "linux")("what is lower already stays so", () => {
  assert.include(threadsAfter(15).values, 15)
})
