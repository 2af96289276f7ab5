// A TCP proxy whose connections can be cut, in a process of its own, so that a client that blocks this process does not block the proxy as well.
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** A proxy on 127.0.0.1. */
export interface Proxy {
  readonly port: number
  /** Sets the port that new connections lead to. */
  readonly to: (port: number) => void
  /** Cuts every connection, and returns how many there were. */
  readonly cut: () => Promise<number>
}

/** Listens on a free port until the scope closes. */
export const proxy: Effect.Effect<Proxy, never, Scope.Scope> = Effect.gen(function* () {
  const file = fileURLToPath(new URL("proxy-child.ts", import.meta.url))
  const flags = "Deno" in globalThis ? ["run", "-A"] : []
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [...flags, file], { stdio: ["pipe", "pipe", "inherit"] })),
    (made) => Effect.sync(() => made.kill("SIGKILL"))
  )
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const answer = async () => Number((await lines.next()).value)
  const order = (text: string) => void child.stdin.write(`${text}\n`)
  const port = yield* Effect.promise(answer)
  const cut = () => {
    order("cut")
    return answer()
  }
  return { port, to: (target) => order(String(target)), cut }
})
