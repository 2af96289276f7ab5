// A TCP proxy on 127.0.0.1 whose connections can be cut. Proxies that read a protocol extend it.
import net from "node:net"

/** Forwards connections unchanged, in both directions. */
export class TcpProxy {
  /** The port that clients connect to; 0 until it is open. */
  port = 0
  /** The port that new connections lead to. Connections that are open stay where they are. */
  target: number
  private readonly host: string
  private readonly sockets = new Set<net.Socket>()
  private readonly server: net.Server

  constructor(target = 0, host = "127.0.0.1") {
    this.target = target
    this.host = host
    this.server = net.createServer((client) => {
      const backend = net.connect(this.target, this.host)
      for (const socket of [client, backend]) {
        this.sockets.add(socket.on("error", () => undefined))
        socket.once("close", () => this.sockets.delete(socket))
      }
      this.join(client, backend)
    })
  }
  /** Connects the two ends of a connection. What becomes of one when the other closes is up to this, too. */
  protected join(client: net.Socket, backend: net.Socket): void {
    client.pipe(backend)
    backend.pipe(client)
    client.once("close", () => backend.destroy())
    backend.once("close", () => client.destroy())
  }
  async open(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve))
    this.port = (this.server.address() as net.AddressInfo).port
  }
  /** Cuts every connection, and returns how many there were. */
  cut(): number {
    const count = this.sockets.size / 2
    for (const socket of this.sockets) socket.destroy()
    return count
  }
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.server.close(resolve))
    this.cut()
    await closed
  }
}
