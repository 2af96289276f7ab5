// Starts the system of server-child.ts in a process of its own.
import { fork, type ChildProcess } from "node:child_process"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { ServerMessage } from "./server-child.ts"

/** A server in a process of its own. */
export interface FuzzServer {
  readonly child: ChildProcess
  readonly port: number
  readonly url: string
  readonly onStall: (listener: (stallMs: number) => void) => void
}
/** Starts a server on a database, and stops it with the scope. */
export const serverOn = (databaseUrl: string): Effect.Effect<FuzzServer, unknown, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(async (): Promise<FuzzServer> => {
      const child = fork(new URL("server-child.ts", import.meta.url), [], {
        env: { ...process.env, DATABASE_URL: databaseUrl },
        execArgv: []
      })
      const listeners: Array<(stallMs: number) => void> = []
      const url = await new Promise<string>((resolve, reject) => {
        child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)))
        child.on("message", (message) => {
          const told = message as ServerMessage
          if ("url" in told) resolve(told.url)
          else if ("stallMs" in told) for (const listener of listeners) listener(told.stallMs)
        })
      })
      return { child, url, port: Number(new URL(url).port), onStall: (listener) => void listeners.push(listener) }
    }),
    ({ child }) =>
      Effect.promise(async () => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const ended = new Promise((done) => child.once("exit", done))
        child.send("stop")
        const force = setTimeout(() => child.kill("SIGKILL"), 10_000)
        await ended
        clearTimeout(force)
      })
  )
