// The socket under a connection of postgres.js 3.4.9: it does TLS, and reports the end of a connection as a single event.
//
// With a plain socket, the driver accepts statements for a connection between its `error` and its `close` events. They are never
// answered, or get another statement's answer after the driver has reconnected. And what was written just before the end stays in
// the driver's buffer, where it blocks the start of the next connection. Both happen whenever a server dies under load.
import { once } from "node:events"
import { readFileSync } from "node:fs"
import net from "node:net"
import tls from "node:tls"

/** The TLS settings of a database's URL: `sslmode` and `sslrootcert`. */
export interface Tls {
  readonly mode: "prefer" | "require" | "verify-ca" | "verify-full"
  /** The path of a file with the certificates to trust; undefined for those that Node trusts. */
  readonly root: string | undefined
}

/** Splits the TLS settings off a database's URL, as libpq understands them. Undefined if the connection uses no TLS. Throws if there is no such mode. */
export const splitTls = (text: string): { readonly url: string; readonly tls: Tls | undefined } => {
  const url = new URL(text)
  const take = (name: string) => {
    const value = url.searchParams.get(name) ?? undefined
    url.searchParams.delete(name)
    return value
  }
  const root = take("sslrootcert")
  const mode = take("sslmode") ?? (root === undefined ? "disable" : "verify-full")
  if (mode === "disable") return { url: url.href, tls: undefined }
  // a server that offers TLS is better than none, so `allow` is taken as `prefer`
  const found = modes.find((name) => name === (mode === "allow" ? "prefer" : mode))
  if (found === undefined)
    throw new Error(`sslmode is '${mode}' in the database's URL; it must be disable, allow, ${modes.join(", ")}`)
  return { url: url.href, tls: { mode: found, root: root === "system" ? undefined : root } }
}
const modes = ["prefer", "require", "verify-ca", "verify-full"] as const

/** The part of the argument of postgres.js's `socket` option that is used here. */
interface SocketAddress {
  readonly host: ReadonlyArray<string>
  readonly port: ReadonlyArray<number>
  readonly path?: string | false | undefined
}

const handshakeMs = 10_000
const sslRequest = Buffer.from([0, 0, 0, 8, 4, 210, 22, 47])
const protocol3 = Buffer.from([0, 3, 0, 0])

/** A start-up parameter so long that the driver sends its first message at once, together with what was left in its buffer. */
export const padding = " ".repeat(1_024)

/** The `socket` option for postgres.js. Several hosts are tried in turn. It never throws: errors are emitted by the socket. */
export const socketFor = (secure: Tls | undefined) => {
  let turn = 0
  return async (address: SocketAddress): Promise<net.Socket> => {
    const index = turn++ % address.host.length
    const host = address.host[index] ?? "localhost"
    const raw =
      typeof address.path === "string"
        ? net.connect(address.path)
        : net.connect({ host, port: Number(address.port[index] ?? 5432) })
    if (secure === undefined) return joinEvents(assertPostgres(raw))
    try {
      return joinEvents(await encrypt(raw, host, secure))
    } catch (error) {
      raw.destroy()
      const failed = joinEvents(Object.assign(new net.Socket(), { write: () => true }))
      setImmediate(() => failed.destroy(error as Error))
      return failed
    }
  }
}

/** The first byte of what other services answer to PostgreSQL's first message: an alert of TLS, or text of HTTP. */
const others: ReadonlyMap<number, string> = new Map([
  [0x15, "expects TLS from the first byte, which PostgreSQL does not"],
  ["H".charCodeAt(0), "speaks HTTP, not PostgreSQL's protocol"]
])
/** Ends a connection whose other side is recognized as not PostgreSQL; the driver would connect again and again. */
const assertPostgres = (socket: net.Socket): net.Socket => {
  socket.once("data", (first: Buffer) => {
    const speaks = others.get(first[0] ?? 0)
    if (speaks === undefined) return
    const where = `${socket.remoteAddress}:${socket.remotePort}`
    socket.destroy(failure("NOT_POSTGRES", `${where} ${speaks}. try: correct the host and port in the database's URL`))
  })
  return socket
}

/** Open connections by the session that the server named to each. */
const connections = new Map<string, net.Socket>()
/** A session of the server, as its `BackendKeyData` message names it. */
interface BackendKey {
  readonly pid: number | null
  readonly secret: number | null
}
const nameOf = ({ pid, secret }: BackendKey) => `${pid} ${secret}`
/** Closes the connection of a session at once. The statement that it executes fails; the server may go on with it. */
export const endConnection = (session: BackendKey): void => {
  connections.get(nameOf(session))?.destroy(failure("CONNECTION_CLOSED", "the connection was closed: no answer came"))
}
const keyData = "K".charCodeAt(0)
/** The session that the server names in these messages. */
const sessionIn = (messages: Buffer): BackendKey | undefined => {
  for (let at = 0; at + 13 <= messages.length; at += 1 + messages.readUInt32BE(at + 1)) {
    if (messages[at] === keyData) return { pid: messages.readUInt32BE(at + 5), secret: messages.readUInt32BE(at + 9) }
  }
  return undefined
}

/** Emits `error` and `close` together, and drops what an earlier connection left in the driver's buffer. */
const joinEvents = (socket: net.Socket): net.Socket => {
  const emit = socket.emit.bind(socket) as (event: string, ...values: ReadonlyArray<unknown>) => boolean
  const write = socket.write.bind(socket) as (data: Uint8Array, ...rest: ReadonlyArray<unknown>) => boolean
  let failure: unknown
  let first = true
  let session: string | undefined
  socket.emit = ((event: string, ...values: ReadonlyArray<unknown>) => {
    if (event === "error") {
      failure ??= values[0]
      return true
    }
    if (event === "data" && session === undefined) {
      const found = sessionIn(values[0] as Buffer)
      if (found !== undefined) connections.set((session = nameOf(found)), socket)
    }
    if (event !== "close") return emit(event, ...values)
    if (session !== undefined) connections.delete(session)
    if (failure !== undefined) emit("error", failure)
    // With `true`, the driver would not reject the statements that were not answered yet.
    return emit("close", false)
  }) as typeof socket.emit
  socket.write = ((data: Buffer, ...rest: ReadonlyArray<unknown>) => {
    const start = first ? Math.max(0, data.lastIndexOf(protocol3) - 4) : 0
    first = false
    return write(start === 0 ? data : data.subarray(start), ...rest)
  }) as typeof socket.write
  return socket
}

const encrypt = async (raw: net.Socket, host: string, { mode, root }: Tls): Promise<net.Socket> => {
  raw.on("error", () => undefined)
  const signal = AbortSignal.timeout(handshakeMs)
  try {
    await once(raw, "connect", { signal })
    raw.write(sslRequest)
    const [answer] = (await once(raw, "data", { signal })) as [Buffer]
    const offered = answer.length === 1 && answer[0] === accepted
    if (!offered && answer.length === 1 && mode === "prefer") return raw
    // Further bytes would come from a man in the middle.
    if (!offered) throw failure("NO_TLS", `${host} offers no TLS, and sslmode=${mode} requires it`)
    const secured = tls.connect({
      socket: raw,
      rejectUnauthorized: mode.startsWith("verify"),
      ...(net.isIP(host) === 0 ? { servername: host } : { host }),
      ...(root === undefined ? {} : { ca: readFileSync(root) }),
      ...(mode === "verify-ca" ? { checkServerIdentity: () => undefined } : {})
    })
    await once(secured, "secureConnect", { signal })
    return secured
  } catch (error) {
    throw signal.aborted
      ? failure("CONNECT_TIMEOUT", `${host} did not complete the TLS handshake within ${handshakeMs / 1_000} s`)
      : error
  }
}
const accepted = "S".charCodeAt(0)
const failure = (code: string, message: string) => Object.assign(new Error(message), { code })
