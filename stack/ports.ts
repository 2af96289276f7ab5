// Finds free ports on 127.0.0.1, and tells whether something listens at one.
import { connect } from "node:net"
import { freePort } from "../src/postgres/embedded/postmaster.ts"

// below the range from which systems assign ports to clients, so that a restarted service finds its port still free
const lowest = 15_000
const highest = 31_000
/** Processes that search at the same time search different ports: test workers by their number, other processes by their id. */
const slices = 64
const width = Math.floor((highest - lowest) / slices)
const first = lowest + (Number(process.env["VITEST_POOL_ID"] ?? process.pid) % slices) * width
/** Ports that this process was given before: their services may be about to start, or to restart. */
const given = new Set<number>()

/** Returns different free ports. Processes that ask at the same time get different ones. */
export const freePorts = async (count: number): Promise<ReadonlyArray<number>> => {
  const found = new Set<number>()
  for (let tries = 0; found.size < count; tries++) {
    if (tries > 1_000) throw new Error(`no free port between ${lowest} and ${highest} on 127.0.0.1`)
    // a process that needs very many ports searches the whole range
    const port =
      tries < 500 ? first + Math.floor(Math.random() * width) : lowest + Math.floor(Math.random() * (highest - lowest))
    if (given.has(port)) continue
    given.add(port)
    if ((await freePort(port)) !== undefined) found.add(port)
    else given.delete(port)
  }
  return [...found]
}

/** Whether something accepts connections at the port. */
export const listening = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port, timeout: 1_000 })
    const end = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    socket.once("connect", () => end(true))
    socket.once("timeout", () => end(false))
    socket.once("error", () => end(false))
  })
