// The documentation site in a browser: links, widths of a phone, pictures, the search, and the rules of WCAG AA in light and dark.
import { execFile } from "node:child_process"
import { join } from "node:path"
import { expect, test } from "vitest"
import { needing } from "../support/stack.ts"

const root = join(import.meta.dirname, "../..")
/** Builds the site unless it is newer than its pages, and looks at it. */
const look = () =>
  new Promise<{ readonly failed: boolean; readonly output: string }>((resolve) => {
    execFile(
      process.execPath,
      ["site/main.ts", "--browser", "--built"],
      { cwd: root, env: { ...process.env, NO_COLOR: "1" }, maxBuffer: 64 * 1024 * 1024, timeout: 900_000 },
      (error, stdout, stderr) => resolve({ failed: error !== null, output: `${stdout}${stderr}` })
    )
  })

const suite = await needing("chromium")

suite("the documentation site", () => {
  test("has no dead link, fits a phone, draws its pictures, finds words, and keeps WCAG AA in light and dark", async () => {
    const { failed, output } = await look()
    expect(failed, output).toBe(false)
    expect(output).toMatch(/in the browser: \d+ pages, \d+ with pictures/)
  }, 900_000)
})
