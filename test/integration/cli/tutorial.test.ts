// The tutorial in examples/orders: its tests pass, and its commands, run in their order, print what the page says.
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { start } from "../../support/cli.ts"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const page = readFileSync(join(root, "examples/orders/README.md"), "utf8")
/** The blocks that are marked to run, each with the output that follows it; `later`: it may take a while until the output is that. */
const steps = [...page.matchAll(/^```sh run( later)?\n([\s\S]*?)^```\n\n^```text\n([\s\S]*?)^```$/gm)].map(
  ([, later, command = "", output = ""]) => ({ command, output, isLater: later !== undefined })
)
const runtime = "Deno" in globalThis ? `"${process.execPath}" run -A` : `"${process.execPath}"`

const data = mkdtempSync(join(tmpdir(), "millrace-tutorial-"))
const scope = Effect.runSync(Scope.make())
let url = ""
beforeAll(async () => {
  const flags = ["--config", "examples/orders/millrace.config.ts", "--data", data, "--port", "0"]
  const running = start({ ORDER_PATIENCE_MS: "2500" }, "dev", ...flags)
  const dev = await Effect.runPromise(Scope.provide(running, scope))
  url = /http:\S+?:\d+/.exec(await Effect.runPromise(dev.said(/POST http:\S+?:\d+/)))![0]
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(data, { recursive: true, force: true })
})

const run = (command: string) => {
  const script = command.replaceAll("http://127.0.0.1:7070", url).replaceAll(".orders", data)
  const { stderr, stdout } = spawnSync("sh", ["-c", `npx() { shift; ${runtime} bin/millrace.mjs "$@"; }\n${script}`], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1" }
  })
  return `${stdout}${stderr}`
}
/** What a text with `…` for anything matches. */
const patternOf = (text: string) =>
  new RegExp(
    text
      .trim()
      .split("…")
      .map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`))
      .join(".*")
  )

test("the commands print what the page says", { timeout: 120_000 }, async () => {
  expect(steps.length).toBeGreaterThan(7)
  for (const { command, isLater, output } of steps) {
    const pattern = patternOf(output)
    let printed = run(command)
    let left = isLater ? 40 : 0
    while (left-- > 0 && !pattern.test(printed)) {
      await setTimeout(200)
      printed = run(command)
    }
    expect(printed, command).toMatch(pattern)
  }
})
test("the tests of the tutorial pass", () => {
  const { status, stderr } = spawnSync("sh", ["-c", `${runtime} examples/orders/order-test.ts`], {
    cwd: root,
    encoding: "utf8"
  })
  expect(status, stderr).toBe(0)
})
