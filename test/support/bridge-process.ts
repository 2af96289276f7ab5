// Runs `millrace bridge` as a process, and writes the files that it reads.
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeOptions } from "../../src/bridge/definition.ts"
import type { SideOptions } from "./bridge.ts"

/** The environment variables by which a command reaches both sides. */
export const environmentOf = ({ kafka, pulsar: { adminUrl, client, url } }: SideOptions) => ({
  MILLRACE_KAFKA_BROKERS: kafka.brokers.join(","),
  MILLRACE_PULSAR_URL: url,
  MILLRACE_PULSAR_ADMIN_URL: adminUrl,
  MILLRACE_PULSAR_CLIENT: client
})

/** A running `millrace bridge`. */
export interface BridgeProcess {
  readonly signal: (signal: NodeJS.Signals) => void
  readonly isAlive: () => boolean
  /** Whether it is stopped by SIGSTOP. Linux only. */
  readonly isStopped: () => boolean
  /** Resolves when it has ended: with its exit code, or null if a signal ended it. */
  readonly ended: Promise<number | null>
  /** The end of what it wrote to standard error. */
  readonly said: () => string
  /** The URL of its health and metrics; undefined until it serves them. */
  readonly url: () => string | undefined
}
/** What is special about a process. */
export interface ProcessOptions {
  /** The root of a patched copy of the tree. Default: this tree. */
  readonly root?: string
  /** The value of MILLRACE_POINT: at which point the copy kills or stops it. */
  readonly point?: string
}
const here = fileURLToPath(new URL("../..", import.meta.url))
const runtime = "Deno" in globalThis ? ["run", "-A"] : []

/** Starts `millrace bridge` with a rules file. The process is killed when the scope closes. */
export const bridgeProcess = (
  options: SideOptions,
  rules: string,
  { point, root = here }: ProcessOptions = {}
): Effect.Effect<BridgeProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync((): BridgeProcess => {
      const args = [...runtime, join(root, "bin", "millrace.mjs"), "bridge", "--rules", rules, "--json", "--port", "0"]
      const child = spawn(process.execPath, args, {
        cwd: root,
        // a process of a patched copy ends when its standard input closes
        stdio: [root === here ? "ignore" : "pipe", "pipe", "pipe"],
        env: { ...process.env, NODE_OPTIONS: "", ...environmentOf(options), ...(point && { MILLRACE_POINT: point }) }
      })
      let [out, said] = ["", ""]
      child.stdout!.on("data", (chunk: Buffer) => (out += chunk.toString()))
      child.stderr!.on("data", (chunk: Buffer) => {
        said = (said + chunk.toString()).slice(-20_000)
      })
      const ended = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)))
      const isAlive = () => child.exitCode === null && child.signalCode === null
      return {
        // not the child's own `kill`, after which Deno reports no exit code
        signal: (signal) => void (isAlive() && process.kill(child.pid!, signal)),
        isAlive,
        isStopped: () => /^\d+ \(.*\) T/.test(readFileSync(`/proc/${child.pid}/stat`, "utf8")),
        ended,
        said: () => said,
        url: () => (out.includes("\n") ? (JSON.parse(out.split("\n")[0]!) as { readonly url: string }).url : undefined)
      }
    }),
    ({ ended, signal }) =>
      Effect.promise(() => {
        signal("SIGKILL")
        return ended
      })
  )
/** Writes a file, and removes it when the scope closes. */
export const fileWith = (name: string, text: string): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "millrace-bridge-"))
      writeFileSync(join(directory, name), text)
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ).pipe(Effect.map((directory) => join(directory, name)))
/** Writes a rules file, and removes it when the scope closes. */
export const rulesFile = (options: BridgeOptions) => fileWith("rules.json", JSON.stringify(options))
