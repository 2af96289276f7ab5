// A TCP proxy in front of PostgreSQL that loses one reply, in one of three ways.
import net from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** What happens to the next prepared statement: executed, never sent, or still running when its connection is lost. */
export type Loss = "executed" | "unsent" | "running"
/** A proxy in front of a database. */
export interface Lossy {
  /** The database's URL through the proxy. */
  readonly url: string
  /** Loses the reply of the next prepared statement. Later connections are not disturbed. */
  readonly arm: (loss: Loss) => void
  /** How many replies were lost. */
  readonly lost: () => number
}

const bind = "B".charCodeAt(0)
// ReadyForQuery without its last byte, which says whether a transaction is open: the statement is done. Notifications may come right after it.
const ready = Buffer.from([0x5a, 0, 0, 0, 5])

/** Listens on a free port of 127.0.0.1 until the scope closes. */
export const lossy = Effect.fnUntraced(function* (url: string): Effect.fn.Return<Lossy, never, Scope.Scope> {
  const { hostname, port } = new URL(url)
  const sockets = new Set<net.Socket>()
  let armed: Loss | undefined
  let lost = 0
  const server = net.createServer((client) => {
    const backend = net.connect(Number(port), hostname)
    let dropReply = false
    let isRunning = false
    for (const socket of [client, backend]) {
      sockets.add(socket.on("error", () => undefined))
      socket.once("close", () => sockets.delete(socket))
    }
    const drop = () => {
      armed = undefined
      lost++
      client.destroy()
    }
    client.on("data", (data) => {
      if (data[0] !== bind || armed === undefined) return void backend.write(data)
      if (armed === "unsent") {
        drop()
        return void backend.destroy()
      }
      backend.write(data)
      if (armed === "executed") dropReply = true
      else {
        isRunning = true
        drop()
      }
    })
    backend.on("data", (data) => {
      if (dropReply && data.includes(ready)) {
        drop()
        return void backend.end()
      }
      // its session must not outlive the statement
      if (isRunning && data.includes(ready)) return void backend.end()
      if (!client.destroyed && !dropReply) client.write(data)
    })
    backend.once("close", () => client.destroy())
    // a running backend learns of a closed connection only when it next writes
    client.once("close", () => {
      if (!isRunning && !dropReply) backend.destroy()
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
  )
  const own = new URL(url)
  own.port = String((server.address() as net.AddressInfo).port)
  return { url: own.href, arm: (loss) => void (armed = loss), lost: () => lost }
})
