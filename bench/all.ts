// Runs all benchmarks one after another, and writes one table of them: `results.md` and `results.json` in the folder `--out`. What fails does not stop
// the others. `--readme` also puts the table into bench/README.md. `--only a,b` and `--except a,b` choose, `--small` tries each for seconds, `--list` prints what there is and how long it takes.
// `--continue` keeps what an earlier run on this machine wrote to that folder, and runs only what is not there yet or failed.
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { availableParallelism, cpus, loadavg, totalmem } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { sampleMachine, surroundings } from "./machine.ts"
import {
  isSameMachine,
  markdownOf,
  outputOf,
  suite,
  type SuiteEntry,
  type SuiteMachine,
  type SuiteResult
} from "./suite.ts"

const { values } = parseArgs({
  options: {
    only: { type: "string" },
    except: { type: "string" },
    small: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
    continue: { type: "boolean", default: false },
    readme: { type: "boolean", default: false },
    out: { type: "string", default: join(import.meta.dirname, "results") }
  }
})

const named = (text: string | undefined): ReadonlyArray<string> => {
  const names = text === undefined ? [] : text.split(",")
  const unknown = names.filter((name) => !suite.some((one) => one.name === name))
  if (unknown.length === 0) return names
  process.stderr.write(`there is no benchmark "${unknown.join('", "')}": ${suite.map(({ name }) => name).join(", ")}\n`)
  process.exit(2)
}
const [only, except] = [named(values.only), named(values.except)]

/** What `results.json` has. */
interface Results {
  readonly machine: SuiteMachine
  readonly results: ReadonlyArray<SuiteResult>
}
/** Those of an earlier run; undefined if the folder has none. */
const readResults = (): Results | undefined => {
  try {
    return JSON.parse(readFileSync(join(values.out, "results.json"), "utf8")) as Results
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined
    throw error
  }
}
const flagsOf = ({ flags, small }: SuiteEntry) => (values.small ? small : flags)
const earlier = values.continue ? readResults() : undefined
const isDone = (entry: SuiteEntry) =>
  earlier?.results.some(
    ({ exit, flags, name }) => exit === 0 && name === entry.name && flags.join(" ") === flagsOf(entry).join(" ")
  ) === true
const chosen = suite.filter(
  (entry) => (only.length === 0 || only.includes(entry.name)) && !except.includes(entry.name) && !isDone(entry)
)

const run = async (entry: SuiteEntry, commit: string): Promise<SuiteResult> => {
  const { name } = entry
  const given = flagsOf(entry)
  process.stderr.write(`\n${[name, ...given].join(" ")}\n`)
  const before = sampleMachine()
  const began = performance.now()
  const child = spawn(process.execPath, [join(import.meta.dirname, "main.ts"), name, ...given], {
    env: { ...process.env, MILLRACE_BENCH_SUITE: "1" },
    stdio: ["ignore", "pipe", "inherit"]
  })
  const end = () => child.kill()
  process.once("exit", end)
  let text = ""
  child.stdout.on("data", (chunk: Buffer) => (text += chunk.toString()))
  const [exit] = (await once(child, "close")) as [number | null]
  process.removeListener("exit", end)
  const seconds = (performance.now() - began) / 1_000
  const after = sampleMachine()
  // the load before it is that of the benchmark before
  const found = before && after && surroundings({ ...before, load: 0 }, after)
  if (found?.warning !== undefined) process.stderr.write(`${name}: ${found.warning}\n`)
  const output = outputOf(text)
  return { name, commit, flags: given, seconds, coresOthers: found?.coresOthers, warning: found?.warning, exit, output }
}

const [start, end] = ["<!-- the table of bench all -->", "<!-- its end -->"]
/** Puts the table into the README, between its marks. */
const quote = (table: string) => {
  const path = join(import.meta.dirname, "README.md")
  const text = readFileSync(path, "utf8")
  const [from, to] = [text.indexOf(start), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`bench/README.md has no "${start}" before "${end}"`)
  writeFileSync(path, `${text.slice(0, from + start.length)}\n\n${table}\n${text.slice(to)}`)
}

const main = async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1))
  const machine: SuiteMachine = {
    at: new Date().toISOString().slice(0, 10),
    commit: spawnSync("git", ["rev-parse", "--short", "HEAD"], { encoding: "utf8" }).stdout?.trim() ?? "",
    node: process.versions.node,
    processor: cpus()[0]?.model.trim() ?? "",
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    loadBefore: Math.round(loadavg()[0]! * 100) / 100
  }
  if (earlier !== undefined && !isSameMachine(earlier.machine, machine)) {
    const { cores, node, processor } = earlier.machine
    process.stderr.write(
      `${values.out} has results of another machine (Node ${node}, ${cores} cores, ${processor}), which do not compare. try: --out with another folder\n`
    )
    process.exit(2)
  }
  mkdirSync(values.out, { recursive: true })
  const results = (earlier?.results ?? []).filter(({ name }) => !chosen.some((one) => one.name === name))
  let table = markdownOf(machine, results)
  for (const one of chosen) {
    results.push(await run(one, machine.commit))
    // what is done is there also if the next one is never ready
    table = markdownOf(machine, results)
    writeFileSync(join(values.out, "results.json"), `${JSON.stringify({ machine, results }, null, 2)}\n`)
    writeFileSync(join(values.out, "results.md"), table)
  }
  if (values.readme) quote(table)
  process.stdout.write(table)
  if (results.some(({ exit }) => exit !== 0)) process.exitCode = 1
}

if (values.list) {
  for (const { flags, minutes, name, needs } of chosen)
    process.stdout.write(
      `${[name, ...flags].join(" ").padEnd(48)} ${minutes} min${needs === undefined ? "" : `, needs ${needs}`}\n`
    )
  process.stdout.write(`${"all of these".padEnd(48)} ${chosen.reduce((sum, { minutes }) => sum + minutes, 0)} min\n`)
} else await main()
