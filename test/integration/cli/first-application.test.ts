// The first application of docs/start: its files, written as the page says, compile and run, and its commands print what the page says.
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { start } from "../../support/cli.ts"
import { patternOf, stepsOf, writeFilesOf } from "../../support/page.ts"
import { removed } from "../../support/removed.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const page = readFileSync(join(root, "docs/start/first-application.md"), "utf8")
const directory = mkdtempSync(join(tmpdir(), "millrace-first-"))
const scope = Effect.runSync(Scope.make())
let url = ""
beforeAll(async () => {
  // what the page's `npm install` does
  mkdirSync(join(directory, "node_modules"))
  for (const [name, target] of [
    ["millrace", root],
    ["effect", join(root, "node_modules/effect")],
    ["@types", join(root, "node_modules/@types")]
  ] as const)
    symlinkSync(target, join(directory, "node_modules", name), "junction")
  writeFileSync(join(directory, "package.json"), `{ "type": "module" }`)
  writeFilesOf(page, directory)
  const flags = ["--config", join(directory, "millrace.config.ts"), "--data", join(directory, ".millrace")]
  const dev = await Effect.runPromise(Scope.provide(start({}, "dev", ...flags, "--port", "0"), scope))
  url = /http:\S+?:\d+/.exec(await Effect.runPromise(dev.said(/POST http:\S+?:\d+/)))![0]
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await removed(directory)
})

const programs = `node() { "${process.execPath}" "$@"; }
npx() { case $1 in millrace) shift; node ${root}/bin/millrace.mjs "$@" ;; *) node ${root}/node_modules/typescript/bin/tsc ;; esac; }`
const run = (command: string) => {
  const { stderr, stdout } = spawnSync(
    "sh",
    ["-c", `${programs}\n${command.replaceAll("http://127.0.0.1:7070", url)}`],
    {
      cwd: directory,
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "1" }
    }
  )
  return `${stdout}${stderr}`
}

test("the commands print what the page says", { timeout: 120_000 }, async () => {
  const steps = stepsOf(page)
  expect(steps.length).toBeGreaterThan(8)
  for (const { command, isLater, output } of steps) {
    const pattern = patternOf(output)
    let printed = run(command)
    for (let left = isLater ? 40 : 0; left > 0 && !pattern.test(printed); left--) {
      await setTimeout(200)
      printed = run(command)
    }
    expect(printed, command).toMatch(pattern)
  }
})
