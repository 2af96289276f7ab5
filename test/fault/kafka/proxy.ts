// A TCP proxy before PostgreSQL that loses the replies of commits, in three ways. It reads the protocol just far enough to know a commit.
import net from "node:net"

/** What becomes of a commit's connection: lost once it was executed, before it was sent, or while it runs. */
export type Loss = "executed" | "unsent" | "running"
export const losses: ReadonlyArray<Loss> = ["executed", "unsent", "running"]

const bind = 0x42
const parse = 0x50
/** ReadyForQuery, outside a transaction: the statement is done. */
const ready = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])
const commit = Buffer.from("update millrace.progress")
const fence = Buffer.from("commit_no + 1")
/** Sync: the client has sent all of a statement. */
const sync = Buffer.from([0x53, 0, 0, 0, 4])

/** The messages of a connection's client, which may lie across packets; the first ones, without a type, are passed over. */
class Frames {
  private rest: Buffer = Buffer.alloc(0)
  private started = false

  next(data: Buffer): ReadonlyArray<Buffer> {
    const frames: Array<Buffer> = []
    this.rest = this.rest.length === 0 ? data : Buffer.concat([this.rest, data])
    while (this.rest.length >= 5) {
      const size = this.started ? 1 + this.rest.readInt32BE(1) : this.rest.readInt32BE(0)
      if (this.rest.length < size) break
      const frame = this.rest.subarray(0, size)
      this.rest = this.rest.subarray(size)
      if (this.started) frames.push(frame)
      // a request for TLS is 8 bytes, and the start follows it
      else if (size > 8) this.started = true
    }
    return frames
  }
}
const textAt = (frame: Buffer, at: number) => frame.subarray(at, frame.indexOf(0, at))

/** Listens on a port of 127.0.0.1. */
export class Proxy {
  /** How many commits lost their connection, by how. */
  readonly lost: Record<Loss, number> = { executed: 0, unsent: 0, running: 0 }
  url = ""
  private readonly target: URL
  private readonly sockets = new Set<net.Socket>()
  private armed: Loss | undefined
  private readonly server: net.Server

  constructor(url: string) {
    this.target = new URL(url)
    this.server = net.createServer((client) => this.connect(client))
  }
  async open(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(0, "127.0.0.1", resolve))
    const own = new URL(this.target)
    own.port = String((this.server.address() as net.AddressInfo).port)
    this.url = own.href
  }
  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy()
    await new Promise((resolve) => this.server.close(resolve))
  }
  /** The next commit is lost so. */
  arm(loss: Loss): void {
    this.armed = loss
  }
  get losses(): number {
    return Object.values(this.lost).reduce((sum, count) => sum + count, 0)
  }

  private connect(client: net.Socket) {
    const backend = net.connect(Number(this.target.port), this.target.hostname)
    for (const socket of [client, backend]) {
      this.sockets.add(socket.on("error", () => undefined))
      socket.once("close", () => this.sockets.delete(socket))
    }
    const frames = new Frames()
    const commits = new Set<string>()
    let losing: Loss | undefined
    const isCommit = (frame: Buffer) => {
      if (frame[0] === parse) {
        const name = textAt(frame, 5)
        if (frame.includes(commit) && frame.includes(fence)) commits.add(name.toString())
        return false
      }
      if (frame[0] !== bind) return false
      const portal = textAt(frame, 5)
      return commits.has(textAt(frame, 5 + portal.length + 1).toString())
    }
    client.on("data", (data) => {
      const found = frames.next(data).map(isCommit).includes(true)
      if (found && this.armed !== undefined && losing === undefined) {
        losing = this.armed
        this.armed = undefined
        this.lost[losing]++
        if (losing === "unsent") backend.destroy()
        if (losing === "unsent") client.destroy()
      }
      if (losing !== "unsent") backend.write(data)
      if (losing === "running" && data.subarray(-sync.length).equals(sync)) client.destroy()
    })
    backend.on("data", (data) => {
      if (losing === undefined) return void client.write(data)
      if (!data.subarray(-ready.length).equals(ready)) return
      client.destroy()
      backend.end()
    })
    backend.once("close", () => client.destroy())
    // a backend is told of a lost client only where the loss is not that it runs on
    client.once("close", () => losing === undefined && backend.destroy())
  }
}
