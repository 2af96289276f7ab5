// `npm run fault -- directed`: runs the directed test of each mutant of rebuilds and of the event store against a copy without the protection. Prints which failed as they
// must, and ends with 1 if one passed. `--only TEXT` takes those whose names contain it, or one of several texts between commas.
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { commonFlags, say } from "../harness/command.ts"
import { patchedCopy } from "../harness/patched-copy.ts"
import { aggregateMutants } from "./aggregate-mutants.ts"
import { type Mutant, mutants } from "./mutants.ts"

const { values } = parseArgs({ options: commonFlags })
/** What a test needs beside the source. */
const more = ["test", "stack", "bench", "site", "vitest.config.ts", "tsconfig.json"]

interface TestReport {
  readonly testResults: ReadonlyArray<{
    readonly assertionResults: ReadonlyArray<{ readonly title: string; readonly status: string }>
  }>
}
/** Runs the test, and returns how its cases ended. */
const run = async ({ file, patches = [], title }: Mutant): Promise<ReadonlyArray<string>> => {
  const copy = patchedCopy(patches, more)
  try {
    const report = join(copy.root, "report.json")
    const args = [join(copy.root, "node_modules/vitest/vitest.mjs"), "run", `test/${file}`, "-t", title]
    const child = spawn(process.execPath, [...args, "--reporter=json", `--outputFile=${report}`], {
      cwd: copy.root,
      stdio: "ignore",
      env: { ...process.env, CI: "" }
    })
    await new Promise((resolve) => child.once("close", resolve))
    const { testResults } = JSON.parse(readFileSync(report, "utf8")) as TestReport
    return testResults
      .flatMap(({ assertionResults }) => assertionResults)
      .filter((one) => one.title.includes(title))
      .map(({ status }) => status)
  } finally {
    copy.remove()
  }
}

const figures: Record<string, string> = {}
const missed: Array<string> = []
const texts = (values.only ?? "").split(",")
const wanted = [...mutants, ...aggregateMutants].filter(({ name }) => texts.some((text) => name.includes(text)))
for (const mutant of wanted) {
  const statuses = await run(mutant)
  // without patches the test itself removes the protection, and asserts that it is missed
  const isCaught =
    mutant.patches === undefined ? statuses.every((one) => one === "passed") : statuses.includes("failed")
  figures[mutant.name] =
    `${isCaught && statuses.length > 0 ? "caught" : "MISSED"} by ${mutant.file}: ${statuses.join(", ") || "no test of the title ran"}`
  if (!figures[mutant.name]!.startsWith("caught")) missed.push(mutant.name)
  say(`${mutant.name}: ${figures[mutant.name]}`)
}
process.stdout.write(`${JSON.stringify({ mutants: wanted.length, missed, figures }, undefined, values.json ? 0 : 2)}\n`)
process.exitCode = missed.length > 0 ? 1 : 0
