// Ports on 127.0.0.1 that nobody has, and whether somebody answers at one. It binds none for longer than a look.
import { connect } from "node:net"
import { freePort } from "../src/postgres/embedded/postmaster.ts"

// Below the range from which systems give ports to clients: a service that is restarted finds its port free again.
const lowest = 15_000
const highest = 31_000
/** Processes that look at the same time look at different ports: tests' workers by their number, others by their id. */
const slices = 64
const width = Math.floor((highest - lowest) / slices)
const first = lowest + (Number(process.env["VITEST_POOL_ID"] ?? process.pid) % slices) * width
/** What was given in this process: who was given one may be about to use it, or to start again there. */
const given = new Set<number>()

/** So many free ports, all different, that no other process is given now. */
export const freePorts = async (count: number): Promise<ReadonlyArray<number>> => {
  const found = new Set<number>()
  for (let tries = 0; found.size < count; tries++) {
    if (tries > 1_000) throw new Error(`no free port between ${lowest} and ${highest} on 127.0.0.1`)
    // a process that is given very many looks everywhere
    const port =
      tries < 500 ? first + Math.floor(Math.random() * width) : lowest + Math.floor(Math.random() * (highest - lowest))
    if (given.has(port)) continue
    given.add(port)
    if ((await freePort(port)) !== undefined) found.add(port)
    else given.delete(port)
  }
  return [...found]
}

/** Whether something takes connections at the port. */
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
