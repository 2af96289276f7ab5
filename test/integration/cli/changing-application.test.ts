// docs/guide/changing.md: its files, edits and commands, done in their order as a reader does them, print what the page says.
import { spawn, spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { afterAll, expect, test } from "vitest"
import { patternOf } from "../../support/page.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const page = readFileSync(join(root, "docs/guide/changing.md"), "utf8")
const directory = mkdtempSync(join(tmpdir(), "millrace-changing-"))
// what `npm install` does
mkdirSync(join(directory, "node_modules"))
for (const [name, target] of [
  ["millrace", root],
  ["effect", join(root, "node_modules/effect")]
] as const)
  symlinkSync(target, join(directory, "node_modules", name), "junction")
writeFileSync(join(directory, "package.json"), `{ "type": "module" }`)

/** The blocks of the page that do something, in their order, and the output that follows a command. */
const steps = [
  ...page.matchAll(
    /^```(\w+) (run later|run|start|file=\S+|edit=\S+)\n([\s\S]*?)^```(?:\n\n^```text\n([\s\S]*?)^```)?$/gm
  )
]
  .map(([, language = "", mark = "", text = "", output]) => ({ language, mark, text, output }))
  .filter(({ language, mark }) => language !== "ts" || mark.startsWith("file="))

let url = ""
let stop = async () => {}
afterAll(async () => {
  await stop()
  rmSync(directory, { recursive: true, force: true })
})
const millrace = join(root, "bin/millrace.mjs")
const environment = { ...process.env, NO_COLOR: "1" }
/** Starts `millrace dev`, and returns once it serves. */
const start = async () => {
  const child = spawn(process.execPath, [millrace, "dev", "--port", "0"], { cwd: directory, env: environment })
  const ended = new Promise((resolve) => child.once("close", resolve))
  let output = ""
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += String(chunk)))
  stop = async () => {
    child.kill("SIGTERM")
    await ended
  }
  while (!output.includes("POST http")) {
    expect(child.exitCode, output).toBeNull()
    await setTimeout(20)
  }
  url = /http:\S+?:\d+/.exec(output)![0]
}
const run = (command: string) => {
  const programs = `npx() { shift; "${process.execPath}" "${millrace}" "$@"; }`
  const script = `${programs}\n${command.replaceAll("http://127.0.0.1:7070", url)}`
  const { stderr, stdout } = spawnSync("sh", ["-c", script], { cwd: directory, encoding: "utf8", env: environment })
  return `${stdout}${stderr}`
}
/** Replaces the lines with `-` of a block by those with `+`. */
const edit = (file: string, change: string) => {
  const lines = (mark: string) =>
    change
      .split("\n")
      .filter((line) => line.startsWith(mark))
      .map((line) => line.slice(1))
      .join("\n")
  const before = readFileSync(join(directory, file), "utf8")
  expect(before.split(`${lines("-")}\n`).length, `${file} has these lines once: ${lines("-")}`).toBe(2)
  writeFileSync(
    join(directory, file),
    before.replace(`${lines("-")}\n`, () => `${lines("+")}\n`)
  )
}

test("the files, edits and commands of the page do what it says", { timeout: 180_000 }, async () => {
  expect(steps.filter(({ mark }) => mark === "run").length).toBeGreaterThan(7)
  for (const { mark, output, text } of steps) {
    if (mark.startsWith("file=")) writeFileSync(join(directory, mark.slice("file=".length)), text)
    else if (mark.startsWith("edit=")) {
      // the reader stops `dev` before the first edit
      await stop()
      edit(mark.slice("edit=".length), text)
    } else if (mark === "start") await start()
    else {
      const pattern = patternOf(output ?? "")
      let printed = run(text)
      for (let left = mark === "run later" ? 40 : 0; left > 0 && !pattern.test(printed); left--) {
        await setTimeout(200)
        printed = run(text)
      }
      expect(printed, text).toMatch(pattern)
    }
  }
})
