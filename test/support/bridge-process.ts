// `millrace bridge` as processes of their own, and the files that they are given. It holds no test.
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeOptions } from "../../src/bridge/definition.ts"
import type { Places } from "./bridge.ts"

/** The environment of a command that reaches both systems. */
export const environmentOf = ({ kafka, pulsar: { adminUrl, client, url } }: Places) => ({
  MILLRACE_KAFKA_BROKERS: kafka.brokers.join(","),
  MILLRACE_PULSAR_URL: url,
  MILLRACE_PULSAR_ADMIN_URL: adminUrl,
  MILLRACE_PULSAR_CLIENT: client
})

/** A bridge as a process of its own: the command. */
export interface BridgeProcess {
  readonly signal: (signal: NodeJS.Signals) => void
  readonly isAlive: () => boolean
  /** Whether SIGSTOP holds it. Linux only. */
  readonly isStopped: () => boolean
  /** Its exit code, or null where a signal ended it, when it has ended. */
  readonly ended: Promise<number | null>
  /** What it wrote to standard error, the last of it. */
  readonly said: () => string
  /** Where it serves health and metrics, once it does. */
  readonly url: () => string | undefined
}
/** How a process differs from the usual. */
export interface ProcessOptions {
  /** Of a patched copy of the tree; default: this one. */
  readonly root?: string
  /** The point that `points.mjs` of the copy kills or stops it at. */
  readonly point?: string
}
const here = fileURLToPath(new URL("../..", import.meta.url))
const runtime = "Deno" in globalThis ? ["run", "-A"] : []

/** Starts `millrace bridge` with the rules of a file; killed at the latest when the scope closes. */
export const bridgeProcess = (
  places: Places,
  rules: string,
  { point, root = here }: ProcessOptions = {}
): Effect.Effect<BridgeProcess, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync((): BridgeProcess => {
      const args = [...runtime, join(root, "bin", "millrace.mjs"), "bridge", "--rules", rules, "--json", "--port", "0"]
      const child = spawn(process.execPath, args, {
        cwd: root,
        // a copy's process ends with whoever holds its standard input
        stdio: [root === here ? "ignore" : "pipe", "pipe", "pipe"],
        env: { ...process.env, NODE_OPTIONS: "", ...environmentOf(places), ...(point && { MILLRACE_POINT: point }) }
      })
      let [out, said] = ["", ""]
      child.stdout!.on("data", (chunk: Buffer) => (out += chunk.toString()))
      child.stderr!.on("data", (chunk: Buffer) => {
        said = (said + chunk.toString()).slice(-20_000)
      })
      const ended = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)))
      const isAlive = () => child.exitCode === null && child.signalCode === null
      return {
        // not the child's own `kill`, after which Deno tells no exit code
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
/** A file for the length of a scope. */
export const fileWith = (name: string, text: string): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const directory = mkdtempSync(join(tmpdir(), "millrace-bridge-"))
      writeFileSync(join(directory, name), text)
      return directory
    }),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ).pipe(Effect.map((directory) => join(directory, name)))
/** Rules in a file, for the length of a scope. */
export const rulesFile = (options: BridgeOptions) => fileWith("rules.json", JSON.stringify(options))
