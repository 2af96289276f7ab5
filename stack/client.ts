// Sends requests to the background process that owns the services (the daemon): start, status, kill, stop, restart, down.
import { spawn } from "node:child_process"
import { closeSync, mkdirSync, openSync } from "node:fs"
import { request } from "node:http"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import type { Deed } from "./daemon.ts"
import { StackError } from "./errors.ts"
import { lock } from "./jars.ts"
import { sizeOf, tail } from "./process.ts"
import type { Endpoints, Name } from "./service.ts"
import { clear, type Entry, type Life, lives, read, type State } from "./state.ts"

const daemonMs = 30_000

/**
 * Starts services in the background process of a directory, which is started if none runs, and returns their endpoints once all answer.
 * Services that it already has are used as they are. With an `owner`, the background process stops when the owner does. Rejects with a
 * `StackError`.
 */
export const up = async (root: string, wanted: ReadonlyArray<Name>, owner?: Life): Promise<Endpoints> => {
  mkdirSync(root, { recursive: true })
  const state = read(root) ?? (await begin(root, owner))
  const services = await order(state, "up", wanted)
  return Object.assign({}, ...services.filter(({ name }) => wanted.includes(name)).map(({ endpoints }) => endpoints))
}

/** Stops what runs in the background of a directory, and waits until nothing is left. Returns false if nothing ran. */
export const down = async (root: string): Promise<boolean> => {
  const state = read(root)
  if (state === undefined) {
    await clear(root)
    return false
  }
  // It may end, by itself or by a signal, while it is asked.
  await order(state, "down").catch(() => undefined)
  const deadline = Date.now() + daemonMs
  while (lives(state)) {
    if (Date.now() > deadline) process.kill(state.pid, "SIGKILL")
    await sleep(20)
  }
  await clear(root)
  return true
}

/** What runs in the background of a directory; undefined if nothing does. */
export const status = async (root: string): Promise<ReadonlyArray<Entry> | undefined> => {
  const state = read(root)
  return state === undefined ? undefined : order(state, "status")
}

/** Kills, stops, starts or restarts a service in the background. Rejects with `Refused` if nothing runs. */
export const interfere = async (root: string, deed: Deed, service: Name): Promise<void> => {
  const state = read(root)
  if (state === undefined) throw new StackError({ reason: "Refused", message: "no service is up. try: up first" })
  await order(state, deed, [service])
}

const order = async (state: State, action: string, wanted: ReadonlyArray<Name> = []): Promise<ReadonlyArray<Entry>> => {
  const query = wanted.map((name) => `service=${name}`).join("&")
  const { body, ok } = await post(`${state.control}/${action}?${query}`, state.token)
  if (ok) return body as ReadonlyArray<Entry>
  const { message, reason } = body as { readonly message: string; readonly reason?: StackError["reason"] }
  throw new StackError({ reason: reason ?? "Start", message })
}

// not `fetch`, which gives up after five minutes: a first download may take longer
const post = (url: string, token: string): Promise<{ readonly ok: boolean; readonly body: unknown }> =>
  new Promise((resolve, reject) => {
    const sent = request(url, { method: "POST", agent: false, headers: { authorization: token } }, (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk))
      response.once("end", () => resolve({ ok: response.statusCode === 200, body: JSON.parse(text) }))
      response.once("error", reject)
    })
    sent.once("error", reject)
    sent.end()
  })

/** Starts the background process. If several callers want it at the same time, one starts it and the others wait for that one. */
const begin = async (root: string, owner: Life | undefined): Promise<State> => {
  const deadline = Date.now() + daemonMs
  const log = join(root, "stack.log")
  for (;;) {
    const release = lock(join(root, "lock"))
    try {
      const found = read(root)
      if (found !== undefined) return found
      if (release !== undefined) {
        await clear(root)
        const from = sizeOf(log)
        launch(root, log, owner)
        for (;;) {
          const state = read(root)
          if (state !== undefined) return state
          if (Date.now() > deadline) {
            const message = `the background process did not start: ${tail(log, from)}\ntry: look at ${log}`
            throw new StackError({ reason: "Start", message })
          }
          await sleep(20)
        }
      }
    } finally {
      release?.()
    }
    if (Date.now() > deadline) {
      const message = `another process holds ${root}/lock. try: remove it`
      throw new StackError({ reason: "Start", message })
    }
    await sleep(50)
  }
}

const launch = (root: string, log: string, owner: Life | undefined): void => {
  const main = fileURLToPath(new URL("./main.ts", import.meta.url))
  const program = "Deno" in globalThis ? ["run", "-A", main] : [main]
  const whose = owner === undefined ? [] : ["--owner", `${owner.pid}:${owner.life}`]
  const output = openSync(log, "a", 0o600)
  const child = spawn(process.execPath, [...program, "daemon", "--root", root, ...whose], {
    cwd: root,
    detached: true,
    stdio: ["ignore", output, output]
  })
  closeSync(output)
  child.unref()
}
