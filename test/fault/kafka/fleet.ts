// The application's processes: started from a copy of the tree, watched, signalled by their own ids, and none of them outlives the harness.
import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { patience } from "./patience.ts"

/** What a process of the application is for. */
export type Role = "projections" | "relay"

/** One process, running or ended. */
export class Worker {
  readonly role: string
  readonly pid: number
  /** Settles when it has ended, with its exit code or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>
  /** How many of its commits the fence held off. */
  fenced = 0
  /** It has opened everything and runs. */
  up = false
  /** How often it found that its transactional id had gone to another relay. */
  overtaken = 0
  /** How many partitions it has claimed. */
  claims = 0
  /** How many statements of commits were answered since it stood still at a point. */
  answered = 0
  /** It was told to end, or is to kill itself at a point. */
  doomed: boolean
  private result: number | NodeJS.Signals | undefined
  private readonly lines: Array<string> = []
  private readonly child: ChildProcess

  constructor(role: string, child: ChildProcess, doomed: boolean) {
    this.role = role
    this.doomed = doomed
    this.child = child
    this.pid = child.pid!
    for (const stream of [child.stdout!, child.stderr!]) {
      let rest = ""
      stream.setEncoding("utf8").on("data", (chunk: string) => {
        const lines = (rest + chunk).split("\n")
        rest = lines.pop()!
        for (const line of lines) this.line(line)
      })
    }
    this.ended = new Promise((resolve) =>
      child.once("close", (code, signal) => resolve((this.result = signal ?? code ?? 0)))
    )
  }
  private line(line: string) {
    if (line.startsWith("millrace signals: ") || line === "point: up") this.up = true
    if (line.includes("another relay took")) this.overtaken++
    if (line === "point: claimed") this.claims++
    const [, fenced, answered] = /^point: (\d+) fenced, answer (\d+) since$/.exec(line) ?? []
    this.fenced += Number(fenced ?? 0)
    this.answered = Math.max(this.answered, Number(answered ?? 0))
    if (!line.startsWith("point: ")) this.lines.push(line)
    if (this.lines.length > 400) this.lines.shift()
  }
  /** The last lines that it wrote. */
  get output(): string {
    return this.lines.join("\n")
  }
  /** Undefined while it runs. */
  get exit(): number | NodeJS.Signals | undefined {
    return this.result
  }
  /** Whether it is stopped by a signal. Linux only. */
  get stopped(): boolean {
    try {
      return /^\d+ \(.*\) T/.test(readFileSync(`/proc/${this.pid}/stat`, "utf8"))
    } catch {
      return false
    }
  }
  signal(signal: NodeJS.Signals): void {
    if (this.result === undefined) this.child.kill(signal)
  }
  /** Ends it, orderly or not, and waits until it has ended. After a minute it is killed, and that is a failure. */
  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    this.doomed = true
    this.signal(signal)
    if (signal === "SIGTERM") this.signal("SIGCONT")
    const waiting = new AbortController()
    const ended = await Promise.race([this.ended, patience(60_000, waiting.signal)])
    waiting.abort()
    if (ended !== "late") return
    this.signal("SIGKILL")
    await this.ended
    throw new Error(`${this.role} ${this.pid} did not end on ${signal}:\n${this.output}`)
  }
}

const runtime = "Deno" in globalThis ? ["run", "-A"] : []
const application = ["bin/millrace.mjs"]

/** All processes of a run. */
export class Fleet {
  readonly workers: Array<Worker> = []
  /** Of all processes, those that have ended included. */
  started = 0
  /** Those that ended by themselves. */
  readonly fell: Array<Worker> = []
  private readonly root: string
  private readonly environment: Readonly<Record<string, string>>
  private readonly commandOf: (role: string) => ReadonlyArray<string>
  private fencedBefore = 0

  /** `commandOf`: what Node runs for a role; by default the application. */
  constructor(
    root: string,
    environment: Readonly<Record<string, string>>,
    commandOf: (role: string) => ReadonlyArray<string> = (role) => [...application, "start", "--roles", role]
  ) {
    this.root = root
    this.environment = environment
    this.commandOf = commandOf
  }

  /** Starts a process; `point` is what `points.mjs` reads. It is in `workers` until it has ended. */
  start(
    role: string,
    more: { readonly point?: string; readonly environment?: Readonly<Record<string, string>> } = {}
  ): Worker {
    const point = more.point === undefined ? {} : { MILLRACE_POINT: more.point }
    const worker = new Worker(
      role,
      this.spawn(this.commandOf(role), { ...point, ...more.environment }),
      more.point?.startsWith("kill") === true
    )
    this.started++
    this.workers.push(worker)
    void this.watch(worker)
    return worker
  }
  private async watch(worker: Worker) {
    await worker.ended
    this.fencedBefore += worker.fenced
    if (!worker.doomed) this.fell.push(worker)
    this.workers.splice(this.workers.indexOf(worker), 1)
  }
  private spawn(args: ReadonlyArray<string>, environment: Readonly<Record<string, string>>): ChildProcess {
    const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("MILLRACE_")))
    return spawn(process.execPath, [...runtime, ...args], {
      cwd: this.root,
      env: { ...inherited, NODE_OPTIONS: "", ...this.environment, ...environment },
      stdio: ["pipe", "pipe", "pipe"]
    })
  }
  /** Runs a command to its end. */
  async command(
    ...args: ReadonlyArray<string>
  ): Promise<{ readonly code: number; readonly output: string; readonly errors: string }> {
    const child = this.spawn([...application, ...args], {})
    let output = ""
    let errors = ""
    child.stdout!.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr!.on("data", (chunk: Buffer) => (errors += chunk.toString()))
    const code = await new Promise<number>((resolve) => child.once("close", (ended) => resolve(ended ?? -1)))
    return { code, output, errors }
  }
  of(role: string): ReadonlyArray<Worker> {
    return this.workers.filter((worker) => worker.role === role)
  }
  /** How many commits of all processes the fence held off. */
  get fenced(): number {
    return this.fencedBefore + this.workers.reduce((sum, { fenced }) => sum + fenced, 0)
  }
  /** Ends all of a role, or all, orderly. */
  async stop(role?: string): Promise<void> {
    await Promise.all(
      this.workers.filter((one) => role === undefined || one.role === role).map((one) => one.end("SIGTERM"))
    )
  }
  /** Leaves nothing running. */
  async kill(): Promise<void> {
    await Promise.all([...this.workers].map((one) => one.end("SIGKILL")))
  }
}
