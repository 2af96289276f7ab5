// A new user's first minute: the packed packages from a registry, an application from them, its tests, its types, and rows in SQL.
//
// On Node 24 the application comes from `npm create millrace`, on Node 22 from `npx millrace init`, on Deno from `deno run npm:create-millrace`.
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join } from "node:path"
import { afterAll, assert, beforeAll, expect, test } from "vitest"
import { packInto } from "../../support/packed.ts"
import { startRegistry } from "../../support/registry.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("registry")
const isDeno = "Deno" in globalThis
/** The oldest Node that the documentation names, but for its last number: npm has this one. */
const oldNode = "22.19.0"

suite("a new application", () => {
  const scratch = mkdtempSync(join(tmpdir(), "millrace-new-"))
  let environment: Record<string, string> = {}
  let stopRegistry = async () => {}
  const running = new Set<ChildProcess>()

  beforeAll(async () => {
    // PostgreSQL may run as another account, which has to reach its files
    if (process.getuid?.() === 0) await ended("chmod", ["711", scratch], scratch, {})
    const registry = await startRegistry(await packInto(scratch))
    stopRegistry = registry.stop
    const own = Object.entries(process.env).filter(
      ([name]) => !/^(MILLRACE_|npm_|VITEST|NODE_ENV$|NODE_OPTIONS$)/.test(name)
    )
    environment = {
      ...(Object.fromEntries(own) as Record<string, string>),
      NO_COLOR: "1",
      CI: "true",
      npm_config_registry: registry.url,
      NPM_CONFIG_REGISTRY: registry.url,
      // tarballs of other packages come from npm's own cache, which knows them by their address
      npm_config_replace_registry_host: "never",
      npm_config_prefer_offline: "true",
      npm_config_audit: "false",
      npm_config_update_notifier: "false",
      DENO_NO_UPDATE_CHECK: "1"
    }
  }, 180_000)
  afterAll(async () => {
    for (const child of running) kill(child, "SIGKILL")
    await stopRegistry()
    rmSync(scratch, { recursive: true, force: true, maxRetries: 5 })
  })

  const ended = (program: string, args: ReadonlyArray<string>, cwd: string, env: Record<string, string>) =>
    new Promise<{ readonly code: number; readonly output: string }>((resolve) => {
      execFile(program, args, { cwd, env, timeout: 150_000 }, (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === "number" ? error.code : 1
        resolve({ code, output: `${stdout}${stderr}${error !== null && code === 1 ? error.message : ""}` })
      })
    })
  const succeeds = async (program: string, args: ReadonlyArray<string>, cwd: string, env: Record<string, string>) => {
    const { code, output } = await ended(program, args, cwd, env)
    if (code !== 0) assert.fail(`${program} ${args.join(" ")} ended with ${code}: ${output}`)
    return output
  }
  const kill = (child: ChildProcess, signal: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, signal)
    } catch {
      // it has ended
    }
  }
  /** The package brings the console: its page, and every module that it loads, those of other packages among them. */
  const hasConsole = async (url: string) => {
    const page = await (await fetch(url)).text()
    const { imports } = JSON.parse(/<script type="importmap">([^<]+)</.exec(page)![1]!) as {
      readonly imports: Readonly<Record<string, string>>
    }
    const [, app = ""] = /<script type="module" src="([^"]+)"/.exec(page)!
    const paths = new Set([
      app,
      ...Object.values(imports),
      ...[...page.matchAll(/href="([^"]+)"/g)].map(([, path = ""]) => path)
    ])
    for (const path of paths) {
      const response = await fetch(url + path)
      assert.strictEqual(response.status, 200, path)
      const text = await response.text()
      for (const [, name = ""] of text.matchAll(/(?:\bfrom |\bimport\()"(\.[^"]+)"/g))
        paths.add(new URL(name, url + path).pathname)
    }
    assert.isAbove(paths.size, 25)
  }
  /** Runs the application until it has processed its sample, calls `meanwhile`, and stops it. Returns what it printed. */
  const started = async (
    [program, ...args]: readonly [string, ...ReadonlyArray<string>],
    cwd: string,
    env: Record<string, string>,
    meanwhile: () => Promise<void>
  ) => {
    // a group of its own: npm and Deno run the command in further processes
    const child = spawn(program, args, { cwd, env, detached: true, stdio: ["ignore", "pipe", "pipe"] })
    running.add(child)
    let output = ""
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => (output += chunk.toString()))
    const closed = new Promise<void>((resolve) => void child.once("close", () => resolve()))
    await expect.poll(() => output, { timeout: 90_000, interval: 50 }).toContain("All events are processed")
    await hasConsole(/http:\/\/127\.0\.0\.1:\d+/.exec(output)![0])
    await meanwhile()
    kill(child, "SIGINT")
    await closed
    running.delete(child)
    return output
  }
  const usageQuery = "select name, rides, electric from station_usage order by name"
  const usage =
    "(unknown station)\t1\t0\nCentral Station\t21\t6\nHarbour\t13\t3\nMarket Square\t11\t0\nUniversity\t16\t4\n"
  const sampled = "63 events in"
  const summarised = "1 duplicate, 1 late for a window, 0 dead letters"

  /** A file that uses all that the package exports, and strict types of a consumer. */
  const everything = `import * as Millrace from "millrace"
import * as System from "millrace/system"
import * as Testing from "millrace/testing"
export const names = [Millrace, System, Testing].map((module) => Object.keys(module).length)
`

  const onNode = async (env: Record<string, string>, app: string) => {
    // pictures of pages are for those who read them in the repository or on the site
    assert.isFalse(existsSync(join(app, "node_modules/millrace/docs/guide/console")))
    assert.isTrue(existsSync(join(app, "node_modules/millrace/docs/guide/console.md")))
    const passed = await succeeds("npm", ["test"], app, env)
    assert.match(passed, /4 passed/)
    writeFileSync(join(app, "src", "everything.ts"), everything)
    // as the application has it: strict, of NodeNext, with the types of all packages checked
    assert.notInclude(readFileSync(join(app, "tsconfig.json"), "utf8"), "skipLibCheck")
    await succeeds("npm", ["run", "typecheck"], app, env)
    await succeeds("npx", ["tsc", "--module", "esnext", "--moduleResolution", "bundler"], app, env)
    const output = await started(["npm", "start", "--", "--port", "0"], app, env, async () => {
      const rows = await succeeds("npx", ["millrace", "sql", "--format", "tsv", usageQuery], app, env)
      assert.strictEqual(rows, usage)
    })
    for (const text of [sampled, summarised, "rides_by_hour  17 rows", "│ Central Station   │ 21 "])
      assert.include(output, text)
    assert.notMatch(output, /alert/i)
  }

  test.skipIf(isDeno)(
    "of npm create millrace is tested, type-checked and running on this Node",
    async () => {
      const output = await succeeds("npm", ["create", "--yes", "millrace@latest", "my-app"], scratch, environment)
      assert.match(output, /Next:\n\n {2}cd my-app\n {2}npm start/)
      await onNode(environment, join(scratch, "my-app"))
    },
    240_000
  )

  test.skipIf(isDeno)(
    `of millrace init is tested, type-checked and running on Node ${oldNode}`,
    async () => {
      const folder = join(scratch, "on-node-22")
      mkdirSync(folder)
      await succeeds("npm", ["install", `node@${oldNode}`, "millrace", "effect"], folder, environment)
      const bin = join(folder, "node_modules", "node", "bin")
      const env = { ...environment, PATH: `${bin}${delimiter}${environment["PATH"]}` }
      assert.strictEqual(await succeeds("node", ["--version"], folder, env), `v${oldNode}\n`)
      const output = await succeeds("npx", ["millrace", "init", "My App"], folder, env)
      assert.match(output, /Created my-app in [\s\S]*cd "My App"/)
      await onNode(env, join(folder, "My App"))
    },
    240_000
  )

  test.runIf(isDeno)(
    "of create-millrace is tested, type-checked and running on Deno",
    async () => {
      const deno = process.execPath
      const env = {
        ...environment,
        DENO_DIR: join(scratch, "deno"),
        PATH: `${join(deno, "..")}${delimiter}${environment["PATH"]}`
      }
      const output = await succeeds(deno, ["run", "-A", "npm:create-millrace", "my-app"], scratch, env)
      assert.match(output, /Next:\n\n {2}cd my-app\n {2}deno task start/)
      const app = join(scratch, "my-app")
      assert.isFalse(existsSync(join(app, "package.json")))
      assert.match(await succeeds(deno, ["task", "test"], app, env), /4 passed \| 0 failed/)
      await succeeds(deno, ["task", "check"], app, env)
      const printed = await started([deno, "task", "start", "--port", "0"], app, env, async () => {
        const rows = await succeeds(
          deno,
          ["task", "--quiet", "millrace", "sql", "--format", "tsv", usageQuery],
          app,
          env
        )
        assert.strictEqual(rows, usage)
      })
      for (const text of [sampled, summarised, "rides_by_hour  17 rows"]) assert.include(printed, text)
      assert.notInclude(printed, "npx")
    },
    240_000
  )
})
