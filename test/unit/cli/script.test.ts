// A command that npm started ends with npm, which ends nothing but its own shell.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { expect, test } from "vitest"
import { environmentOf } from "../../support/cli.ts"

const main = fileURLToPath(new URL("../../../bin/millrace.mjs", import.meta.url))
const directory = mkdtempSync(join(tmpdir(), "millrace-script-"))
test.skipIf(process.platform === "win32")(
  "npm start ends millrace at SIGTERM, though npm passes that on to its shell alone",
  { timeout: 120_000 },
  async () => {
    const runtime = "Deno" in globalThis ? `'${process.execPath}' run -A` : `'${process.execPath}'`
    // it waits for a database that does not answer; the shell stays, because it has more to do
    const config = fileURLToPath(new URL("../../../millrace.config.ts", import.meta.url))
    const scripts = { start: `${runtime} '${main}' start --port 0 --config '${config}'; true` }
    writeFileSync(join(directory, "package.json"), JSON.stringify({ name: "app", version: "1.0.0", scripts }))
    const environment = environmentOf({ MILLRACE_DATABASE_URL: "postgres://nobody@127.0.0.1:1/none" })
    const npm = spawn("npm", ["start"], { cwd: directory, env: environment, stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    for (const stream of [npm.stdout, npm.stderr])
      stream.on("data", (data: Buffer) => {
        output += data.toString()
      })
    // the command holds the other end of its output until it ends
    const closed = once(npm.stdout, "close").then(() => "ended")
    try {
      while (!output.includes("waiting for a service") && npm.exitCode === null) await setTimeout(50)
      expect(output).toContain("waiting for a service that is away")
      npm.kill("SIGTERM")
      expect(await Promise.race([closed, setTimeout(60_000, "it goes on")])).toBe("ended")
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
)
