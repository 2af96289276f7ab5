// `npm run bench -- NAME [flags]` runs one benchmark, each a program of its own. Not part of the package.
import { readdirSync } from "node:fs"
import { join } from "node:path"

// modules that benchmarks share
const parts = new Set(["aggregates-http", "aggregates.config", "main", "percentile", "side", "system", "workload"])
const names = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith(".ts"))
  .map((file) => file.slice(0, -".ts".length))
  .filter((name) => !parts.has(name))

const [name = ""] = process.argv.splice(2, 1)
if (names.includes(name)) await import(join(import.meta.dirname, `${name}.ts`))
else {
  const problem = name === "" ? "name a benchmark" : `there is no benchmark "${name}"`
  process.stderr.write(
    `${problem}: npm run bench -- ${names.join(" | ")} [flags]. bench/README.md describes what each measures\n`
  )
  process.exitCode = 2
}
