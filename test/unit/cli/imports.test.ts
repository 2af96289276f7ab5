// The command line resolves imports of its own and of Effect without Node: it loads the same files, and asks Node for few of them.
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { expect, test } from "vitest"

const pathOf = (path: string) => fileURLToPath(new URL(`../../../${path}`, import.meta.url))
interface Loaded {
  readonly asked: number
  readonly files: ReadonlyArray<string>
}
const load = (how: "by-text" | "by-node", ...modules: ReadonlyArray<string>) => {
  const args = [pathOf("test/support/imports-child.mjs"), how, ...modules]
  const { status, stderr, stdout } = spawnSync(process.execPath, args, { encoding: "utf8" })
  expect(stderr).toBe("")
  expect(status).toBe(0)
  return JSON.parse(stdout) as Loaded
}

// Deno resolves imports itself
test.skipIf("Deno" in globalThis)(
  "imports that are resolved by their text load the files that Node finds, and Node is asked for a quarter of them at most",
  () => {
    const modules = ["src/index.ts", "src/cli/http-options.ts"].map(pathOf)
    const byNode = load("by-node", ...modules)
    const byText = load("by-text", ...modules)
    expect(byText.files).toEqual(byNode.files)
    expect(byNode.files.length).toBeGreaterThan(250)
    expect(byText.asked).toBeLessThan(byNode.asked / 4)
  }
)
