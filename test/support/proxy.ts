// A TCP proxy whose connections can be cut. It knows no protocol.
import net from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** A proxy on 127.0.0.1. */
export interface Proxy {
  readonly port: number
  /** Where connections go from now on. */
  readonly to: (port: number) => void
  /** Cuts every connection, and tells how many there were. */
  readonly cut: () => number
}

/** Listens on a free port until the scope closes. */
export const proxy: Effect.Effect<Proxy, never, Scope.Scope> = Effect.gen(function* () {
  const sockets = new Set<net.Socket>()
  let target = 0
  const server = net.createServer((client) => {
    const backend = net.connect(target, "127.0.0.1")
    for (const [socket, other] of [
      [client, backend],
      [backend, client]
    ] as const) {
      sockets.add(socket)
      socket.on("error", () => undefined)
      socket.once("close", () => {
        sockets.delete(socket)
        other.destroy()
      })
      socket.pipe(other)
    }
  })
  const cut = () => {
    const count = sockets.size / 2
    for (const socket of sockets) socket.destroy()
    return count
  }
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        cut()
      })
  )
  return { port: (server.address() as net.AddressInfo).port, to: (port) => void (target = port), cut }
})
