// Bulk HTTP to queryable in SQL: `millrace dev --once` on a synthetic file, figures as it prints them.
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { eventOf, featuresOf } from "./workload.ts"

const { values } = parseArgs({
  options: { events: { type: "string", default: "200000" }, entities: { type: "string", default: "10000" } }
})
const load = { events: Number(values.events), entities: Number(values.entities), seed: 1 }
const directory = mkdtempSync(join(tmpdir(), "millrace-bulk-"))
const features = join(directory, "features.ndjson")
const input = join(directory, "events.ndjson")
writeFileSync(
  features,
  featuresOf(load)
    .map(({ text }) => text)
    .join("\n")
)
writeFileSync(input, Array.from({ length: load.events }, (_, i) => eventOf(load, i).text).join("\n"))
const flags = [
  "--data",
  join(directory, "data"),
  "--features",
  features,
  "--input",
  input,
  "--speed",
  "max",
  "--once",
  "--json",
  "--port",
  "0"
]
const { status, stdout } = spawnSync("node", ["bin/millrace.mjs", "dev", ...flags], {
  stdio: ["ignore", "pipe", "inherit"],
  encoding: "utf8"
})
if (status === 0) {
  // without the address of a database that is gone, which has its password
  const { database_url: _, ...figures } = JSON.parse(stdout.trim().split("\n").at(-1)!) as Readonly<
    Record<string, unknown>
  >
  process.stdout.write(`${JSON.stringify(figures)}\n`)
} else process.stdout.write(stdout)
rmSync(directory, { recursive: true, force: true })
process.exitCode = status ?? 1
