// What TLS on Deno does not do by itself: a time limit for handshakes, and the end of sessions whose authority was taken away.
import { X509Certificate } from "node:crypto"
import type { Socket } from "node:net"
import type { Server as TlsServer, TLSSocket } from "node:tls"

const endOf = ({ remoteAddress, remotePort }: Socket) => `${remoteAddress} ${remotePort}`

/** Whether one of the authorities in a text has signed the certificate of a client itself. */
const isSignedBy = (socket: TLSSocket, authorities: ReadonlyArray<X509Certificate>): boolean => {
  const { raw } = socket.getPeerCertificate() as { readonly raw?: Buffer }
  if (raw === undefined) return false
  const certificate = new X509Certificate(raw)
  return authorities.some((one) => certificate.checkIssued(one) && certificate.verify(one.publicKey))
}

/**
 * Closes connections whose handshake has not ended in time, and, from the first change of the authorities on, those that resume the session of a client
 * whose certificate none of them has signed: Deno resumes sessions of before. Such a client connects again, with a new handshake. Returns what to
 * call with the authorities that are used from now on.
 */
export const guardHandshakes = (
  server: TlsServer,
  handshakeMs: number
): ((authorities: ReadonlyArray<X509Certificate>) => void) => {
  let changed: ReadonlyArray<X509Certificate> | undefined
  // a connection has two sockets: one of TCP, and one of TLS once the handshake has ended
  const pending = new Map<string, NodeJS.Timeout>()
  const settle = (end: string) => {
    clearTimeout(pending.get(end))
    pending.delete(end)
  }
  server.on("connection", (socket: Socket) => {
    const end = endOf(socket)
    pending.set(
      end,
      setTimeout(() => socket.destroy(), handshakeMs)
    )
    socket.once("close", () => settle(end))
  })
  server.on("secureConnection", (socket: TLSSocket) => {
    settle(endOf(socket))
    if (changed !== undefined && socket.isSessionReused() && !isSignedBy(socket, changed)) socket.destroy()
  })
  return (authorities) => (changed = authorities)
}
