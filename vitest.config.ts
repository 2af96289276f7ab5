// How the tests run, on Node and on Deno: forked processes, few at a time, since many start a PostgreSQL of their own.
import { availableParallelism } from "node:os"
import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
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
