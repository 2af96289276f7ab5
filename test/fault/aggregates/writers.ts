// The writer processes of a run: started from the patched copy, asked for commands, killed and replaced.
import { type ChildProcess, fork } from "node:child_process"
import type { Numbered, Reply, Request, SideRequest } from "./messages.ts"

/** One writer process. */
export class WriterProcess {
  /** Resolves when it can execute commands; rejects if it ends before. */
  readonly ready: Promise<void>
  /** Resolves when it has ended. */
  readonly ended: Promise<void>
  isReady = false
  isDoomed = false
  hasEnded = false
  /** The last lines of what it wrote. */
  output = ""
  private readonly child: ChildProcess
  private readonly open = new Map<number, (reply: Reply) => void>()
  private count = 0

  /** `path` is the program's, in `root`. */
  constructor(root: string, path: string, environment: Readonly<Record<string, string>>) {
    const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("MILLRACE_")))
    const env = { ...inherited, NODE_OPTIONS: "", ...environment }
    this.child = fork(path, { cwd: root, env, execArgv: [], stdio: ["ignore", "pipe", "pipe", "ipc"] })
    for (const stream of [this.child.stdout!, this.child.stderr!])
      stream.on("data", (chunk: Buffer) => (this.output = (this.output + chunk.toString()).slice(-4_000)))
    this.ended = new Promise((resolve) =>
      this.child.once("close", () => {
        this.hasEnded = true
        for (const answer of this.open.values()) answer({ kind: "again", reason: "its process ended" })
        this.open.clear()
        resolve()
      })
    )
    this.ready = new Promise((resolve, reject) => {
      void this.ended.then(() => reject(new Error(`a writer did not start:\n${this.output}`)))
      this.child.on("message", (message: "ready" | Numbered<Reply>) => {
        if (message === "ready") {
          this.isReady = true
          return resolve()
        }
        this.open.get(message.n)?.(message.of)
        this.open.delete(message.n)
      })
    })
    // a run that fails earlier does not wait for it
    this.ready.catch(() => undefined)
  }
  /** Executes a command. If the process ends before its answer, the answer is `again`. */
  ask(request: Request | SideRequest): Promise<Reply> {
    return new Promise((resolve) => {
      if (this.hasEnded) return resolve({ kind: "again", reason: "its process ended" })
      const n = this.count++
      this.open.set(n, resolve)
      this.child.send({ n, of: request } satisfies Numbered<Request | SideRequest>, () => undefined)
    })
  }
  signal(signal: NodeJS.Signals): void {
    if (!this.hasEnded) this.child.kill(signal)
  }
  async kill(): Promise<void> {
    this.isDoomed = true
    this.signal("SIGKILL")
    await this.ended
  }
}

/** Several writer processes, each of which is replaced when it is killed. */
export class Writers {
  readonly processes: Array<WriterProcess> = []
  /** How many were started. */
  started = 0
  private readonly start: (i: number) => WriterProcess

  constructor(start: (i: number) => WriterProcess) {
    this.start = start
  }
  async launch(count: number): Promise<void> {
    for (let i = 0; i < count; i++) this.put(i)
    await Promise.all(this.processes.map(({ ready }) => ready))
  }
  private put(i: number): void {
    this.started++
    this.processes[i] = this.start(i)
  }
  /** kill -9; another process takes its place. */
  async replace(i: number): Promise<void> {
    const before = this.processes[i]!
    await before.kill()
    this.put(i)
  }
  /** What a process wrote that ended by itself; undefined if none did. */
  get fell(): string | undefined {
    return this.processes.find(({ hasEnded, isDoomed }) => hasEnded && !isDoomed)?.output
  }
  async kill(): Promise<void> {
    await Promise.all(this.processes.map((one) => one.kill()))
  }
}
