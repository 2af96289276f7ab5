// Closes a server: new requests are refused, running ones have some time to finish, and idle connections are closed.
import type { Socket } from "node:net"
import type { FastifyInstance } from "fastify"
import { Problem, retryAfterSeconds } from "./http/problem.ts"

/**
 * Watches a server's requests and connections; to be called before its routes are added. Returns a function that closes the server within
 * about `closeMs` and never rejects.
 */
export const closerOf = (app: FastifyInstance, closeMs: number): (() => Promise<void>) => {
  // clients open connections in advance, and Node does not count those as idle before their first request
  const unused = new Map<string, Socket>()
  // by the client's end: a connection with TLS has two sockets
  const endOf = ({ remoteAddress, remotePort }: Socket) => `${remoteAddress} ${remotePort}`
  app.server.on("connection", (socket: Socket) => {
    const end = endOf(socket)
    unused.set(end, socket)
    socket.once("close", () => {
      if (unused.get(end) === socket) unused.delete(end)
    })
  })
  const used = ({ socket }: { readonly socket: Socket }) => unused.delete(endOf(socket))
  app.server.on("request", used).on("upgrade", used)
  let closing = false
  app.addHook("onRequest", (_request, reply, done) => {
    if (!closing) return done()
    reply.header("connection", "close")
    const advice = "send the request again after Retry-After seconds"
    done(new Problem(503, "shutting_down", "the server is stopping", advice, retryAfterSeconds))
  })
  return async () => {
    closing = true
    const force = setTimeout(() => app.server.closeAllConnections(), closeMs)
    // Node does not close connections that become idle while it closes
    const idle = setInterval(() => {
      app.server.closeIdleConnections()
      for (const socket of unused.values()) socket.destroy()
    }, 20)
    await app
      .close()
      .catch((error: unknown) => app.log.error(error))
      .finally(() => {
        clearTimeout(force)
        clearInterval(idle)
      })
  }
}
