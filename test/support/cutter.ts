// A TCP proxy on 127.0.0.1 whose connections can be cut, for any protocol.
import net from "node:net"

/** A proxy. Changing `target` affects new connections only. */
export class Cutter {
  port = 0
  target = 0
  private readonly sockets = new Set<net.Socket>()
  private readonly server: net.Server

  constructor() {
    this.server = net.createServer((client) => this.connect(client))
  }
  async open(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve))
    this.port = (this.server.address() as net.AddressInfo).port
  }
  private connect(client: net.Socket) {
    const backend = net.connect(this.target, "127.0.0.1")
    for (const [socket, other] of [
      [client, backend],
      [backend, client]
    ] as const) {
      this.sockets.add(socket)
      socket.on("error", () => undefined)
      socket.once("close", () => {
        this.sockets.delete(socket)
        other.destroy()
      })
      socket.pipe(other)
    }
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
