// A TCP proxy in front of PostgreSQL that loses the replies to commits, in three ways. It reads the protocol just far enough to recognize a commit.
import type net from "node:net"
import { TcpProxy } from "../../support/tcp-proxy.ts"

/** When a commit loses its connection: after it was executed, before it was sent, or while it runs. */
export type Loss = "executed" | "unsent" | "running"
export const losses: ReadonlyArray<Loss> = ["executed", "unsent", "running"]

const bind = 0x42
const parse = 0x50
/** ReadyForQuery outside a transaction: the statement has been executed. */
const ready = Buffer.from([0x5a, 0, 0, 0, 5, 0x49])
const commit = Buffer.from("update millrace.progress")
const fence = Buffer.from("commit_no + 1")
/** Sync: the client has sent the whole statement. */
const sync = Buffer.from([0x53, 0, 0, 0, 4])

/** Splits what a client sends into messages, which may span packets. The first messages have no type and are skipped. */
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
      // a request for TLS has 8 bytes, and the startup message follows it
      else if (size > 8) this.started = true
    }
    return frames
  }
}
const textAt = (frame: Buffer, at: number) => frame.subarray(at, frame.indexOf(0, at))

/** Loses the connection of the next commit after it was armed. */
export class CommitProxy extends TcpProxy {
  /** How many commits lost their connection, by when. */
  readonly lost: Record<Loss, number> = { executed: 0, unsent: 0, running: 0 }
  private readonly database: URL
  private armed: Loss | undefined

  constructor(url: string) {
    const database = new URL(url)
    super(Number(database.port), database.hostname)
    this.database = database
  }
  /** The database's URL through the proxy. */
  get url(): string {
    const own = new URL(this.database)
    own.port = String(this.port)
    return own.href
  }
  /** Makes the next commit lose its connection. */
  arm(loss: Loss): void {
    this.armed = loss
  }
  get losses(): number {
    return Object.values(this.lost).reduce((sum, count) => sum + count, 0)
  }

  protected override join(client: net.Socket, backend: net.Socket): void {
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
    // after a loss the backend is left to run the commit to its end
    client.once("close", () => losing === undefined && backend.destroy())
  }
}
