// The background process that owns the services of a directory (the daemon), and stops them when it stops.
import { randomBytes } from "node:crypto"
import { rmSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { lifeOf } from "../src/postgres/embedded/lock.ts"
import { pick } from "./pick.ts"
import { type Local, type Name, names } from "./service.ts"
import { clear, type Entry, type Life, lifeOfProcess, lives, type State, write } from "./state.ts"

/** What can be done to a service that was started in the background. */
export const deeds = ["kill", "stop", "start", "restart"] as const
export type Deed = (typeof deeds)[number]

/** The parts of an HTTP request that the daemon reads. */
interface Order {
  readonly url?: string | undefined
  readonly method?: string | undefined
  readonly headers: { readonly authorization?: string | undefined }
  readonly resume: () => unknown
}
interface Kept {
  readonly local: Local
  readonly startMs: number
}

/** Serves a directory until it receives a `down` request, SIGTERM or SIGINT, or the owner is gone. Then it stops the services and deletes their files except logs. */
export const daemon = async (root: string, owner: Life | undefined): Promise<void> => {
  const token = randomBytes(16).toString("hex")
  const kept = new Map<Name, Promise<Kept>>()
  let over = (): void => undefined
  const ended = new Promise<void>((resolve) => (over = resolve))
  process.on("SIGTERM", over).on("SIGINT", over).on("SIGHUP", over)
  const watch = setInterval(() => {
    if (owner !== undefined && !lives(owner)) over()
  }, 500)

  const entries = async (): Promise<ReadonlyArray<Entry>> => {
    const settled = await Promise.allSettled(kept.values())
    return settled.flatMap((one) => (one.status === "fulfilled" ? [entryOf(one.value)] : []))
  }
  const up = async (name: Name): Promise<Kept> => {
    const began = Date.now()
    const local = await pick(name, join(root, name), { say: (line) => process.stdout.write(`${line}\n`) })
    return { local, startMs: Date.now() - began }
  }
  const handle = async (request: Order): Promise<unknown> => {
    const url = new URL(request.url ?? "/", "http://127.0.0.1")
    const action = url.pathname.slice(1)
    const wanted = names.filter((name) => url.searchParams.getAll("service").includes(name))
    if (action === "up") {
      for (const name of wanted) {
        if (kept.has(name)) continue
        const starting = up(name)
        kept.set(name, starting)
        // the failure goes to the callers that wait; the next caller tries again
        starting.catch(() => {
          kept.delete(name)
          // with no service left the daemon stops, once the failure was reported
          setTimeout(() => kept.size === 0 && over(), 500)
        })
      }
      // All of them settle first, so that a failure leaves none half started.
      const settled = await Promise.allSettled(wanted.map((name) => kept.get(name)))
      const failure = settled.find((one) => one.status === "rejected")
      if (failure !== undefined) throw failure.reason
    } else if (action === "down") setImmediate(over)
    else if (deeds.includes(action as Deed)) for (const name of wanted) await act(await kept.get(name), action as Deed)
    const services = await entries()
    write(root, { ...self, services })
    return services
  }
  const server = createServer(async (request, response) => {
    const { body, code } = await answer(request, token, handle)
    response.writeHead(code, { "content-type": "application/json" }).end(JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address() as AddressInfo
  const life = lifeOf(process.pid) ?? ""
  const self: State = { pid: process.pid, life, control: `http://127.0.0.1:${port}`, token, services: [] }
  write(root, self)
  await ended
  clearInterval(watch)
  const all = await Promise.allSettled(kept.values())
  await Promise.allSettled(all.map(async (one) => (one.status === "fulfilled" ? one.value.local.close() : undefined)))
  await clear(root)
  // a test run leaves nothing; services that a person started leave their logs
  if (owner !== undefined) rmSync(root, { recursive: true, force: true })
  server.closeAllConnections()
  server.close()
}

const entryOf = ({ local, startMs }: Kept): Entry => {
  const { endpoints, from, name } = local
  return { name, from, endpoints, process: lifeOfProcess(local.pid()), startMs }
}

const act = async (kept: Kept | undefined, deed: Deed): Promise<void> => {
  if (kept === undefined) throw new Error(`that service is not up. try: up --services NAME`)
  if (deed !== "restart") return kept.local[deed]()
  await kept.local.stop()
  await kept.local.start()
}

const answer = async (request: Order, token: string, handle: (request: Order) => Promise<unknown>) => {
  request.resume()
  if (request.method !== "POST" || request.headers.authorization !== token)
    return { code: 403, body: { message: "no" } }
  try {
    return { code: 200, body: await handle(request) }
  } catch (error) {
    const { message, reason } = error as { readonly message: string; readonly reason?: string }
    return { code: 500, body: { message, reason } }
  }
}
