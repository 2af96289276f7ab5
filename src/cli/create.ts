// Creates an application, installs its packages and prints what to do next. `millrace init` and `create-millrace` run it. Built-in modules only.
import { spawn } from "node:child_process"
import { relative } from "node:path"
import { createApplication, type NewApplication } from "./scaffold.ts"
import { terminalLine, terminalText } from "./terminal-text.ts"
import { counted } from "../text/counted.ts"

/** What to create, and whether to install the packages that it depends on. `deno` counts as set where this process runs on Deno. */
export interface CreateOptions extends NewApplication {
  readonly install: boolean
}

/** The program that installs packages: the one that runs this process, if a package manager does. */
const installerOf = (deno: boolean, { npm_config_user_agent: agent = "" }: NodeJS.ProcessEnv): string => {
  if (deno) return "deno"
  return /^(npm|pnpm|yarn|bun)\//.exec(agent)?.[1] ?? "npm"
}
/** How long an installation may take: a registry that does not answer must not hold the command forever. */
const installMs = 10 * 60_000

/** Runs `npm install` or the like, with its output. Undefined if it worked, else what went wrong. */
const installed = (installer: string, path: string): Promise<string | undefined> =>
  new Promise((resolve) => {
    const quiet = installer === "npm" ? ["--no-audit", "--no-fund"] : []
    // on Windows, package managers are scripts that a shell has to run
    const shell = process.platform === "win32"
    const child = spawn(installer, ["install", ...quiet], { cwd: path, stdio: "inherit", shell, timeout: installMs })
    child.once("error", ({ message }) => resolve(`${installer} does not run: ${message}`))
    child.once("close", (code, signal) =>
      resolve(code === 0 ? undefined : `${installer} install ended with ${signal ?? code}`)
    )
  })

/**
 * Creates an application, installs its packages unless `install` is false, and prints the next steps. An installation that fails is printed
 * and leaves the application as it is. Throws `CannotCreate` if nothing could be created.
 */
export const create = async (options: CreateOptions, print: (text: string) => void): Promise<void> => {
  const deno = options.deno || "Deno" in globalThis
  const { files, name, path } = createApplication({ ...options, deno })
  const below = relative(process.cwd(), path)
  const folder = below.startsWith("..") ? path : below
  print(`Created ${terminalLine(name)} in ${terminalLine(path)}: ${counted(files.length, "file")}.\n`)
  const installer = installerOf(deno, process.env)
  let problem: string | undefined
  if (options.install) {
    print(`Installing its packages with ${installer} …`)
    problem = await installed(installer, path)
    print(
      problem === undefined ? "" : `\n${terminalText(problem)}; the application is complete but for its packages.\n`
    )
  }
  const [start, test] = deno ? ["deno task start", "deno task test"] : [`${installer} start`, `${installer} test`]
  const steps = [
    ...(folder === "" ? [] : [`cd ${/^[\w./@+-]+$/.test(folder) ? folder : JSON.stringify(folder)}`]),
    ...(options.install && problem === undefined ? [] : [`${installer} install`]),
    `${start.padEnd(18)}# sends the sample events and prints the rows that come of them`,
    `${test.padEnd(18)}# tests without a server`
  ]
  print(`Next:\n\n${steps.map((step) => `  ${terminalLine(step)}`).join("\n")}\n\nREADME.md says what to change first.`)
}
