// Runs `millrace doctor`: checks the runtime, the application, the services and the port, and prints what is wrong and what fixes it.
import { execFile } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { createServer } from "node:net"
import { createRequire } from "node:module"
import { join, resolve } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { aggregatesOf, topicsOf } from "../model/application.ts"
import { type Check, checked, passed, wrong } from "../system/check.ts"
import { checkServices } from "../system/doctor.ts"
import { maskSecrets } from "../text/secrets.ts"
import { exitCodes } from "./command-failure.ts"
import { type AnyApplication, loadApplication } from "./config.ts"
import { clientTls, httpClient } from "./http-client.ts"
import { httpAddress } from "./http-options.ts"
import { print } from "./print.ts"
import { settingProblems } from "./setting-checks.ts"
import { terminalLine } from "./terminal-text.ts"
import { counted } from "../text/counted.ts"

/** The flags of the command. */
export interface DoctorFlags {
  readonly data: string
  readonly config: string | undefined
  readonly port: number
  readonly json: boolean
}

/** Whether a version such as `24.1.0` is at least another one. */
export const isAtLeast = (version: string, least: string): boolean => {
  const [own, other] = [version, least].map((text) => text.split(".").map(Number))
  for (const [i, number] of other!.entries()) {
    const difference = (own![i] ?? 0) - number
    if (difference !== 0) return difference > 0
  }
  return true
}

const { engines } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
  readonly engines: { readonly node: string }
}
const runtimeCheck = (): Check => {
  const deno = (globalThis as { readonly Deno?: { readonly version: { readonly deno: string } } }).Deno
  if (deno !== undefined)
    return isAtLeast(deno.version.deno, "2.9")
      ? passed("runtime", `Deno ${deno.version.deno}`)
      : wrong("runtime", `Deno ${deno.version.deno} is too old; Millrace needs 2.9 or newer`, "deno upgrade")
  const least = engines.node.replace(/^>=/, "")
  return isAtLeast(process.versions.node, least)
    ? passed("runtime", `Node ${process.versions.node}`)
    : wrong(
        "runtime",
        `Node ${process.versions.node} is too old; Millrace needs ${least} or newer`,
        "install a newer Node: https://nodejs.org"
      )
}

const applicationText = (application: AnyApplication) =>
  `${application.name} loads: ${counted(application.projections.length, "projection")}, ${counted(aggregatesOf(application).length, "aggregate")}, ${counted(topicsOf(application).length, "topic")}`

/** The TypeScript of the folder; undefined if it has none, or no tsconfig.json. */
const compiler = (): string | undefined => {
  if (!existsSync("tsconfig.json")) return undefined
  try {
    const manifest = createRequire(resolve("package.json")).resolve("typescript/package.json")
    const bin = join(manifest, "..", "bin", "tsc")
    return existsSync(bin) ? bin : undefined
  } catch {
    return undefined
  }
}
const typesMs = 120_000
/** What the type checker says of the folder, for types catch mistakes that do not show when the application loads. */
const typesCheck = Effect.callback<Check>((resume) => {
  const tsc = compiler()
  if (tsc === undefined)
    return resume(Effect.succeed(passed("types", "not checked: this folder has no tsconfig.json, or no TypeScript")))
  const child = execFile(
    process.execPath,
    [tsc, "--noEmit", "--pretty", "false"],
    { timeout: typesMs, maxBuffer: 64 << 20 },
    (error, stdout) => {
      const errors = stdout.split("\n").filter((line) => /error TS\d+/.test(line))
      const found =
        error === null
          ? passed("types", "the type checker finds no mistake")
          : errors.length > 0
            ? wrong("types", `${counted(errors.length, "mistake")}, the first: ${errors[0]}`, "npx tsc --noEmit")
            : wrong("types", `the type checker failed: ${error.message.split("\n")[0]}`, "npx tsc --noEmit")
      resume(Effect.succeed(found))
    }
  )
  return Effect.sync(() => void child.kill())
})

/** Whether a program answers there as a server of Millrace does. */
const isOwnServer = async (host: string, port: number): Promise<boolean> => {
  try {
    const cert = process.env["MILLRACE_HTTP_TLS_CERT"] ?? ""
    const tls = cert === "" ? {} : { ...clientTls(), ca: readFileSync(cert, "utf8"), isOwnServer: true }
    const url = new URL(`${cert === "" ? "http" : "https"}://${host}:${port}/healthz`)
    const signal = AbortSignal.timeout(2_000)
    return (await httpClient(tls)(url, { method: "GET", headers: {}, signal })).text === '{"status":"ok"}'
  } catch {
    return false
  }
}
const portCheck = (port: number) =>
  Effect.promise(async (): Promise<Check> => {
    const { host } = httpAddress({ host: undefined, port })
    const server = createServer()
    const failure = await new Promise<NodeJS.ErrnoException | undefined>((resolvePort) => {
      server.once("error", resolvePort)
      server.listen({ host, port, exclusive: true }, () => server.close(() => resolvePort(undefined)))
    })
    if (failure === undefined) return passed("port", `${host}:${port} is free`)
    if (failure.code === "EADDRINUSE" && (await isOwnServer(host === "0.0.0.0" ? "127.0.0.1" : host, port)))
      return passed("port", `a server of Millrace runs at ${host}:${port}`)
    return failure.code === "EADDRINUSE"
      ? wrong(
          "port",
          `another program has ${host}:${port}`,
          `stop it (ss -ltnp 'sport = :${port}' shows it), or start with another --port`
        )
      : wrong(
          "port",
          `nothing can listen on ${host}:${port}: ${failure.message}`,
          "start with another --host or --port"
        )
  })

/** The findings for people: a line for each, and under what is wrong what fixes it. */
export const doctorText = (checks: ReadonlyArray<Check>): string => {
  const width = Math.max(...checks.map(({ name }) => name.length))
  const lines = checks.flatMap(({ message, name, ok, try: advice }) => [
    `${ok ? "✓" : "✗"} ${name.padEnd(width)}  ${terminalLine(message)}`,
    ...(advice === null ? [] : [`  ${" ".repeat(width)}  try: ${terminalLine(advice)}`])
  ])
  const bad = checks.filter(({ ok }) => !ok).length
  return [...lines, bad === 0 ? "Everything is in order." : `${counted(bad, "thing")} to fix.`].join("\n")
}

/** The settings that are in force: a process refuses to start with those that cannot be meant. */
const settingsCheck = Effect.map(settingProblems, (problems): ReadonlyArray<Check> =>
  problems.length === 0
    ? [passed("settings", "all values can be meant; millrace config prints them")]
    : problems.map((problem) => wrong("settings", problem.message, problem.try))
)

/** Runs all checks, and prints what they find. */
export const doctor = Effect.fnUntraced(function* ({ config, data, json, port }: DoctorFlags) {
  const loaded = yield* Effect.exit(loadApplication(config))
  const application = Exit.isSuccess(loaded) ? loaded.value : undefined
  const found = yield* Effect.all(
    [
      Effect.succeed([runtimeCheck()]),
      settingsCheck,
      checked(
        "application",
        "fix millrace.config.ts",
        Effect.map(loaded, (one) => passed("application", applicationText(one)))
      ),
      Effect.map(typesCheck, (one) => [one]),
      checkServices(application, data),
      checked("port", "start with another --port", portCheck(port))
    ],
    { concurrency: "unbounded" }
  )
  const checks = found.flat().map((check) => Object.assign(check, { message: maskSecrets(check.message) }))
  const ok = checks.every((check) => check.ok)
  yield* print(json ? JSON.stringify({ ok, checks }) : doctorText(checks))
  return ok ? 0 : exitCodes.unhealthy
})
