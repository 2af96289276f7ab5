// `npm run bench -- NAME [flags]` runs one benchmark, each a program of its own, and `npm run bench -- all` runs all of them. Not part of the package.
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { sampleMachine, surroundings } from "./machine.ts"

// modules that benchmarks share
const parts = new Set([
  "aggregates-http",
  "aggregates.config",
  "machine",
  "main",
  "percentile",
  "rounds",
  "services",
  "side",
  "stage-recorder",
  "stages",
  "suite",
  "system",
  "workload"
])
const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -".ts".length))
  .filter((name) => !parts.has(name))

/** Says at the end whether the machine was quiet. `all` does that for the benchmarks that it runs. */
const judgeMachine = () => {
  const before = sampleMachine()
  if (before === undefined || process.env["MILLRACE_BENCH_SUITE"] !== undefined) return
  process.once("exit", () => {
    const after = sampleMachine()
    const { warning } = after === undefined ? {} : surroundings(before, after)
    if (warning !== undefined) process.stderr.write(`${warning}\n`)
  })
}

const [name = ""] = process.argv.splice(2, 1)
if (names.includes(name)) {
  if (name !== "all") judgeMachine()
  await import(join(import.meta.dirname, `${name}.ts`))
} else {
  const problem = name === "" ? "name a benchmark" : `there is no benchmark "${name}"`
  process.stderr.write(
    `${problem}: npm run bench -- ${names.join(" | ")} [flags]. bench/README.md describes what each measures\n`
  )
  process.exitCode = 2
}
