// Runs an example of `examples/` as its page says: in a copy of its folder outside of the checkout, where `millrace` and `effect` are installed.
import { spawnSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { afterAll, beforeAll, expect, test } from "vitest"
import { environmentOf, type Running, startCommandIn, startIn } from "./cli.ts"
import { removed } from "./removed.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))
const isDeno = "Deno" in globalThis
const quoted = (text: string) => `"${text}"`
/** What a shell runs for the programs that pages name, on the runtime of the tests. */
const programs = [
  `runtime() { ${quoted(process.execPath)} "$@"; }`,
  `millrace() { runtime ${isDeno ? "run -A " : ""}${quoted(join(root, "bin/millrace.mjs"))} "$@"; }`,
  `npx() { shift; millrace "$@"; }`,
  // a busy machine may be refused for a moment
  `curl() { command curl --retry 5 "$@"; }`,
  isDeno
    ? `deno() { if [ "$1" = test ]; then shift; runtime test --no-check "$@"; else runtime "$@"; fi; }`
    : `deno() { if [ "$1" = test ]; then runtime --test; else shift 3; millrace "$@"; fi; }`,
  isDeno
    ? `node() { if [ "$1" = --test ]; then shift; runtime test -A --no-check "$@"; else runtime run -A "$@"; fi; }`
    : `node() { runtime "$@"; }`
].join("\n")

/** A command with the output that the page says, or a change of a file. */
type Step =
  | {
      readonly command: string
      readonly output: string
      /** `later`: repeated until the output is that; `until`: stopped once it has all of these lines, and no others. */
      readonly mark: "later" | "until" | undefined
    }
  | { readonly file: string; readonly diff: string }
/** The blocks of a page that are marked to run, in their order. */
const stepsOf = (page: string): ReadonlyArray<Step> =>
  [
    ...page.matchAll(
      /^```(?:sh run(?: (later|until))?\n([\s\S]*?)^```\n\n^```text\n([\s\S]*?)|diff run (\S+)\n([\s\S]*?))^```$/gm
    )
  ].map(([, mark, command = "", output = "", file, diff = ""]) =>
    file === undefined ? { command, output, mark: mark as "later" | "until" | undefined } : { file, diff }
  )
/** Replaces each line of a diff that has a `-` by the one with a `+` below it. */
const change = (file: string, diff: string): void => {
  for (const [, before = "", after = ""] of diff.matchAll(/^-(.*)\n\+(.*)$/gm)) {
    const text = readFileSync(file, "utf8")
    expect(text.split(before).length, `${before} in ${file}`).toBe(2)
    writeFileSync(file, text.replace(before, after))
  }
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

/** A copy of an example, which is deleted with the scope. */
export interface Copy {
  readonly folder: string
  /** The scripts of its package.json, or the tasks of its deno.json. */
  readonly scripts: Readonly<Record<string, string>>
  readonly page: string
}
type Scripts = Readonly<Record<string, string>>
/** What a folder declares for npm, or for Deno. What the copy imports is there, so Deno has nothing to install. */
const declared = (folder: string): { readonly scripts?: Scripts; readonly tasks?: Scripts } => {
  const [npm, deno] = [join(folder, "package.json"), join(folder, "deno.json")]
  if (existsSync(npm)) return JSON.parse(readFileSync(npm, "utf8")) as { readonly scripts: Scripts }
  const text = readFileSync(deno, "utf8").replace('"nodeModulesDir": "auto"', '"nodeModulesDir": "manual"')
  writeFileSync(deno, text)
  return JSON.parse(text) as { readonly tasks: Scripts }
}
export const copyOf = (name: string): Effect.Effect<Copy, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const parent = mkdtempSync(join(tmpdir(), `millrace-${name}-`))
      const [folder, modules] = [join(parent, name), join(parent, "node_modules")]
      const isOwn = (path: string) => !/[/\\](node_modules|\.millrace)$/.test(path)
      cpSync(join(root, "examples", name), folder, { recursive: true, filter: isOwn })
      mkdirSync(modules)
      symlinkSync(root, join(modules, "millrace"))
      symlinkSync(join(root, "node_modules/effect"), join(modules, "effect"))
      symlinkSync(join(root, "node_modules/@types"), join(modules, "@types"))
      const { scripts = {}, tasks = {} } = declared(folder)
      return {
        parent,
        folder,
        scripts: { ...scripts, ...tasks },
        page: readFileSync(join(folder, "README.md"), "utf8")
      }
    }),
    ({ parent }) => Effect.promise(() => removed(parent))
  )

/** The command that `npm run` or `deno task` would run. */
const expanded = (command: string, { scripts }: Copy): string =>
  command.replaceAll(/^(?:npm(?: run)?|deno task) ([\w:-]+)(?: --(?= |$))?(.*)$/gm, (_, script: string, args: string) =>
    `${scripts[script] ?? `echo "there is no script ${script}"; false`}${args}`.trim()
  )
type Environment = Readonly<Record<string, string | undefined>>
/** Runs commands of a page in the copy, and returns what they print. `functions`: what the shell runs for further programs. */
export const runIn = (copy: Copy, environment: Environment, command: string, functions = ""): string => {
  // on Deno a child also gets the variables of its parent
  const foreign = Object.keys(process.env).filter((name) => name.startsWith("MILLRACE_") && !(name in environment))
  const script = [...foreign.map((name) => `unset ${name}`), programs, functions, expanded(command, copy)].join("\n")
  const { stderr, stdout } = spawnSync("sh", ["-c", script], {
    cwd: copy.folder,
    encoding: "utf8",
    env: environmentOf(environment)
  })
  // Deno's runner counts in other words than Node's
  return `${stdout}${stderr}`.replace(/^ok \| (\d+) passed/m, "pass $1")
}
/** Starts a command of a page, such as `npm start`; what it runs is `millrace …` or `node …`, without a shell. */
export const startInCopy = (
  copy: Copy,
  environment: Environment,
  command: string
): Effect.Effect<Running, never, Scope.Scope> => {
  const [program, ...args] = expanded(command.trim(), copy).split(" ")
  if (program === "millrace") return startCommandIn(copy.folder, environment, ...args)
  if (program === "deno") {
    const [, , file = "", ...others] = args // deno run -A npm:millrace …
    return isDeno
      ? startIn(copy.folder, environment, file, ...others)
      : startCommandIn(copy.folder, environment, ...others)
  }
  const [file = "", ...others] = args
  return startIn(copy.folder, environment, file, ...others)
}

/** Runs every step of a page in its order, and compares what is printed. `addresses`: where what the page has at fixed ports is. */
export const runSteps = async (
  copy: Copy,
  environment: Environment,
  addresses: Readonly<Record<string, string>>,
  functions = ""
): Promise<void> => {
  const steps = stepsOf(copy.page)
  expect(steps.length).toBeGreaterThan(2)
  for (const step of steps) {
    if ("file" in step) {
      change(join(copy.folder, step.file), step.diff)
      continue
    }
    const { mark, output } = step
    const command = step.command.replaceAll(/http:\/\/127\.0\.0\.1:\d+/g, (url) => addresses[url] ?? url)
    const pattern = patternOf(output)
    if (mark === "until") {
      await Effect.runPromise(
        Effect.scoped(
          Effect.gen(function* () {
            const running = yield* startInCopy(copy, environment, command)
            const lines = output.trim().split("\n")
            // what handles several partitions prints its lines in any order
            for (const line of lines) yield* running.said(patternOf(line))
            running.process.kill("SIGINT")
            yield* running.ended
            expect(running.output().trim().split("\n").toSorted(), command).toEqual(lines.toSorted())
          })
        )
      )
      continue
    }
    let printed = runIn(copy, environment, command, functions)
    for (let left = mark === "later" ? 60 : 0; left > 0 && !pattern.test(printed); left--) {
      await setTimeout(200)
      printed = runIn(copy, environment, command, functions)
    }
    expect(printed, command).toMatch(pattern)
  }
}

/** What runs beside an example. */
export interface Beside {
  readonly environment: Environment
  readonly addresses?: Readonly<Record<string, string>>
}
/** What a test of an example may set. */
export interface ExampleOptions {
  /** Variables of its processes. */
  readonly environment?: Environment
  /** Starts what must run beside it, and returns more variables, and where what the page has at fixed ports is. */
  readonly beside?: (copy: Copy) => Effect.Effect<Beside, unknown, Scope.Scope>
  /** What `npm start` has printed when the steps may run. */
  readonly started?: RegExp
}
/** Declares the tests of an example: its commands print what its page says, its own test among them. */
export const testExample = (
  name: string,
  { beside, environment: given = {}, started = /All events are processed/ }: ExampleOptions = {}
): void => {
  const scope = Effect.runSync(Scope.make())
  const run = <A>(effect: Effect.Effect<A, unknown, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
  let copy: Copy
  let environment: Environment
  let addresses = {}
  beforeAll(async () => {
    copy = await run(copyOf(name))
    const others = beside && (await run(beside(copy)))
    environment = { ...given, ...others?.environment }
    const running = await run(startInCopy(copy, environment, "npm run start -- --port 0"))
    const url = /http:\S+?:\d+/.exec(await run(running.said(/POST http:\S+?:\d+/)))![0]
    addresses = { "http://127.0.0.1:7070": url, ...others?.addresses }
    await run(running.said(started))
    const [, said] = /^```text start\n([\s\S]*?)^```$/m.exec(copy.page) ?? []
    if (said !== undefined) expect(running.output()).toMatch(patternOf(said))
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
  test("the commands print what the page says", { timeout: 120_000 }, () => runSteps(copy, environment, addresses))
}
