// What a server with TLS on Deno closes by itself: silent handshakes, and sessions of clients whose authority was taken away.
import { EventEmitter } from "node:events"
import { X509Certificate } from "node:crypto"
import type { Server } from "node:tls"
import { expect, test, vi } from "vitest"
import { guardHandshakes } from "../../../src/server/http/tls-deno.ts"
import { certificate } from "../../support/certificates.ts"

const [authority, others] = [certificate("Test Authority"), certificate("Another Authority")]
const client = certificate("loader", { by: authority })
const read = ({ cert }: { readonly cert: string }) => new X509Certificate(cert)

const socketOf = (remotePort: number, more: object = {}) =>
  Object.assign(new EventEmitter(), { remoteAddress: "127.0.0.1", remotePort, destroy: vi.fn<() => void>(), ...more })
const resuming = (port: number, isReused = true, raw: Buffer | undefined = read(client).raw) =>
  socketOf(port, { isSessionReused: () => isReused, getPeerCertificate: () => (raw === undefined ? {} : { raw }) })

test("a handshake has so long, and a connection whose handshake has ended has no limit", () => {
  vi.useFakeTimers()
  try {
    const server = new EventEmitter()
    guardHandshakes(server as Server, 1_000)
    const [silent, served, gone] = [socketOf(1), socketOf(2), socketOf(3)]
    for (const socket of [silent, served, gone]) server.emit("connection", socket)
    server.emit("secureConnection", resuming(2))
    gone.emit("close")
    vi.advanceTimersByTime(999)
    expect(silent.destroy).not.toHaveBeenCalled()
    vi.advanceTimersByTime(60_000)
    expect([silent, served, gone].map(({ destroy }) => destroy.mock.calls.length)).toEqual([1, 0, 0])
  } finally {
    vi.useRealTimers()
  }
})

test("sessions are resumed until the authorities change, and from then on those of clients that one of them has signed", () => {
  const server = new EventEmitter()
  const use = guardHandshakes(server as Server, 1_000)
  /** Whether a connection is left open. */
  const isServed = (socket: ReturnType<typeof resuming>) => {
    server.emit("secureConnection", socket)
    return socket.destroy.mock.calls.length === 0
  }
  expect(isServed(resuming(1))).toBe(true)
  use([read(others), read(authority)])
  expect(isServed(resuming(2))).toBe(true)
  use([read(others)])
  expect(isServed(resuming(3))).toBe(false)
  // a whole handshake was checked by TLS
  expect(isServed(resuming(4, false))).toBe(true)
  // an authority of the same name with another key
  use([read(certificate("Test Authority"))])
  expect(isServed(resuming(5))).toBe(false)
  expect(isServed(socketOf(6, { isSessionReused: () => true, getPeerCertificate: () => ({}) }) as never)).toBe(false)
})
