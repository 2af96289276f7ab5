// How the tests run, on Node and on Deno: in forked processes, the longest files first.
import { readFileSync } from "node:fs"
import { availableParallelism, tmpdir } from "node:os"
import { join, relative } from "node:path"
import { configDefaults, defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"
import { onDeno } from "./test/deno.ts"

const tests = join(import.meta.dirname, "test")
/** Seconds that files took when they were last recorded (`scripts/durations.mjs`); one that is not listed took less than five. */
const durations = JSON.parse(readFileSync(join(tests, "durations.json"), "utf8")) as Readonly<Record<string, number>>

// The processes that tests start, and the workers, keep what they compile for those that come later: it halves the time of a start. The folder is
// the one that the `millrace` command uses by itself.
process.env["NODE_COMPILE_CACHE"] ??= join(tmpdir(), "node-compile-cache")

/** Starts the longest files first, so that none of them runs alone at the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const seconds = ({ moduleId }: TestSpecification) => durations[relative(tests, moduleId)] ?? 0
    return files.toSorted((a, b) => seconds(b) - seconds(a))
  }
}

/** Patterns of the files that run on Deno. */
const alsoOnDeno = Object.keys(onDeno).map((path) =>
  path.endsWith(".test.ts") ? `test/${path}` : `test/${path}/**/*.test.ts`
)

const chosen = "Deno" in globalThis ? alsoOnDeno : ["test/unit/**/*.test.ts", "test/**/*.test.ts"]
const isUnit = (pattern: string) => pattern.startsWith("test/unit/")

export default defineConfig({
  test: {
    projects: [
      // functions without I/O: files that share a process import everything once, which is most of their time
      { extends: true, test: { name: "unit", include: chosen.filter(isUnit), isolate: false } },
      {
        extends: true,
        test: {
          name: "other",
          include: chosen.filter((pattern) => !isUnit(pattern)),
          exclude: [...configDefaults.exclude, "test/unit/**"]
        }
      }
    ],
    reporters: ["default", "./test/support/skipped-reporter.ts"],
    globalSetup: ["./test/support/expected-parts.ts", "./test/support/remove-image.ts"],
    pool: "forks",
    sequence: { sequencer: LongestFirst },
    // brokers live for a minute in tests: the optimizing compiler would not have paid off by then
    env: { MILLRACE_STACK_JVM: "-XX:+UseSerialGC -XX:TieredStopAtLevel=1" },
    // most tests wait for brokers, sessions and processes for most of their time
    maxWorkers: Math.max(2, Math.min(6, Math.ceil(availableParallelism() * 1.5))),
    // CI shares its cores, so that a wait in a test may be too short there; a test that fails three times is broken, and the report names retries
    retry: process.env["CI"] === "true" ? 2 : 0,
    // long enough for a machine that is four times slower, short enough to find a hang
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 20_000
  }
})
