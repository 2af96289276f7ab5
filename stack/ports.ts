// Ports on 127.0.0.1 that nobody has, and whether somebody answers at one. It binds none for longer than a look.
import { connect } from "node:net"
import { freePort } from "../src/embedded/postmaster.ts"

// Below the range from which systems give ports to clients: a service that is restarted finds its port free again.
const lowest = 15_000
const highest = 31_000

/** So many free ports, all different. They are free now, and, being random, most likely still when they are used. */
export const freePorts = async (count: number): Promise<ReadonlyArray<number>> => {
  const found = new Set<number>()
  for (let tries = 0; found.size < count; tries++) {
    if (tries > 200) throw new Error(`no free port between ${lowest} and ${highest} on 127.0.0.1`)
    const port = lowest + Math.floor(Math.random() * (highest - lowest))
    if ((await freePort(port)) !== undefined) found.add(port)
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
