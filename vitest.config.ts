// How the tests run, on Node and on Deno: forked processes, few at a time, since many start a PostgreSQL of their own.
import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

/** Where vitest does not know how long files take, it begins with the largest. The one that takes longest is small, and would run alone at the end. */
class LongestFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const isLongest = ({ moduleId }: TestSpecification) => moduleId.includes("/test/fault/kafka/")
    // oxlint-disable-next-line unicorn/no-array-sort -- it is no array's
    return (await super.sort(files)).toSorted((a, b) => Number(isLongest(b)) - Number(isLongest(a)))
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    reporters: ["default", "./test/support/skipped-reporter.ts"],
    pool: "forks",
    sequence: { sequencer: LongestFirst },
    // brokers live for a minute: what compiles best is not done before they end
    env: { MILLRACE_STACK_JVM: "-XX:+UseSerialGC -XX:TieredStopAtLevel=1" },
    maxWorkers: Math.max(1, Math.min(4, availableParallelism())),
    // CI shares its two cores, and a wait in a test may be too short there; what fails twice is broken, and the report names what was tried again
    retry: process.env["CI"] === "true" ? 1 : 0,
    // a hang is found all the same, and a machine that is four times slower finds none
    testTimeout: 60_000,
    hookTimeout: 120_000,
    teardownTimeout: 20_000
  }
})
