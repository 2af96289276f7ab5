// A proxy in front of PostgreSQL that pools server connections as PgBouncer does: by transaction or by session.
//
// A client signs in to the server itself, over a connection that then belongs to the pool. As PgBouncer does, the proxy gives the client a process
// id of its own in BackendKeyData.
import net from "node:net"

/** How a pool gives out server connections. `last` gives the one that was given back last, `turns` each in turn. */
export interface PoolingOptions {
  readonly mode: "transaction" | "session"
  readonly order?: "last" | "turns"
}
interface Backend {
  readonly socket: net.Socket
  client: net.Socket | undefined
}

/** Splits a stream of messages, each of a type, a length that counts itself, and a body. */
class Messages {
  private rest = Buffer.alloc(0)
  take(data: Buffer): ReadonlyArray<Buffer> {
    this.rest = Buffer.concat([this.rest, data])
    const found: Array<Buffer> = []
    while (this.rest.length >= 5) {
      const end = 1 + this.rest.readInt32BE(1)
      if (this.rest.length < end) break
      found.push(this.rest.subarray(0, end))
      this.rest = this.rest.subarray(end)
    }
    return found
  }
}
const typeOf = (message: Buffer) => String.fromCharCode(message[0]!)

/** Listens on 127.0.0.1 and forwards to a port there. */
export class PoolingProxy {
  /** The port that clients connect to; 0 until it is open. */
  port = 0
  private readonly target: number
  private readonly options: PoolingOptions
  private readonly idle: Array<Backend> = []
  private readonly sockets = new Set<net.Socket>()
  private readonly server = net.createServer((client) => this.serve(client))

  constructor(target: number, options: PoolingOptions) {
    this.target = target
    this.options = options
  }
  async open(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve))
    this.port = (this.server.address() as net.AddressInfo).port
  }
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve))
    for (const socket of this.sockets) socket.destroy()
    await closed
  }
  private keep(socket: net.Socket) {
    this.sockets.add(socket.on("error", () => undefined))
    socket.once("close", () => this.sockets.delete(socket))
  }

  private serve(client: net.Socket) {
    this.keep(client)
    const { mode, order = "last" } = this.options
    let signedIn = false
    let started = false
    let waiting = 0
    let backend: Backend | undefined
    const fromClient = new Messages()
    const release = () => {
      if (backend === undefined) return
      backend.client = undefined
      this.idle.push(backend)
      backend = undefined
    }
    const connect = (): Backend => {
      const socket = net.connect(this.target, "127.0.0.1")
      const made: Backend = { socket, client }
      this.keep(socket)
      const fromServer = new Messages()
      let greeted = false
      socket.on("data", (data) => {
        for (const message of fromServer.take(data)) {
          const type = typeOf(message)
          if (type === "K" && !greeted) message.writeInt32BE(1_000_000 + Math.floor(Math.random() * 1e6), 5)
          made.client?.write(message)
          if (type !== "Z") continue
          greeted = true
          made.client?.emit("ready", made, String.fromCharCode(message[5]!))
        }
      })
      return made
    }
    client.on("ready", (_: Backend, status: string) => {
      if (signedIn) waiting--
      signedIn = true
      if (mode === "transaction" && waiting === 0 && status === "I") release()
    })
    backend = connect()
    client.on("data", (data) => {
      if (!started) {
        // the start-up message has no type
        started = true
        backend!.socket.write(data)
        return
      }
      for (const message of fromClient.take(data)) {
        const type = typeOf(message)
        if (type === "X") return void client.end()
        if (backend === undefined) {
          backend = (order === "last" ? this.idle.pop() : this.idle.shift())!
          backend.client = client
        }
        if (signedIn && (type === "Q" || type === "S")) waiting++
        backend.socket.write(message)
      }
    })
    client.once("close", release)
  }
}
