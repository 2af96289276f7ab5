// The processes under test: started from a patched copy of the tree, watched, and signalled. None of them outlives the harness.
import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { patience } from "./patience.ts"

/** What a process of the application runs. */
export type Role = "projections" | "relay"

/** One process, running or ended. */
export class Worker {
  readonly role: string
  readonly pid: number
  /** Resolves when it has ended, with its exit code or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>
  /** How many of its commits were fenced. */
  fenced = 0
  /** Whether it has started completely. */
  up = false
  /** How often it found that another relay had taken its transactional id. */
  overtaken = 0
  /** How many partitions it has claimed. */
  claims = 0
  /** Whether it has said that it is at its point, where it goes on. */
  told = false
  /** How many statements with commits the database has answered since the process was stopped at a point. */
  answered = 0
  /** Whether it was told to end, or is to be killed at a point. */
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
    if (/^millrace [\w-]+: /.test(line) || line === "point: up") this.up = true
    if (line.includes("another relay took")) this.overtaken++
    if (line === "point: claimed") this.claims++
    if (line === "point: reached") this.told = true
    const [, fenced, answered] = /^point: (\d+) fenced, answer (\d+) since$/.exec(line) ?? []
    this.fenced += Number(fenced ?? 0)
    this.answered = Math.max(this.answered, Number(answered ?? 0))
    if (!line.startsWith("point: ")) this.lines.push(line)
    if (this.lines.length > 400) this.lines.shift()
  }
  /** The last 400 lines that it wrote. */
  get output(): string {
    return this.lines.join("\n")
  }
  /** Its exit code or the signal that ended it; undefined while it runs. */
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
  /** Sends the signal and waits until the process has ended. If that takes more than a minute it is killed, and this throws. */
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

/** How a program ended, and what it wrote. */
export interface Completed {
  readonly code: number
  readonly output: string
  readonly errors: string
}

/** All processes of a run. */
export class Fleet {
  readonly workers: Array<Worker> = []
  /** How many were started, including those that have ended. */
  started = 0
  /** Processes that ended although nothing told them to. */
  readonly fell: Array<Worker> = []
  private readonly root: string
  private readonly environment: Readonly<Record<string, string>>
  private readonly commandOf: (role: string) => ReadonlyArray<string>
  private fencedBefore = 0

  /** `commandOf` returns what Node runs for a role; by default the application. */
  constructor(
    root: string,
    environment: Readonly<Record<string, string>>,
    commandOf: (role: string) => ReadonlyArray<string> = (role) => [...application, "start", "--roles", role]
  ) {
    this.root = root
    this.environment = environment
    this.commandOf = commandOf
  }

  /** Starts a process, which stays in `workers` until it has ended. `point` is the value of MILLRACE_POINT, see `points.mjs`. */
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
  /** Runs a command of the application and waits until it has ended. */
  command(...args: ReadonlyArray<string>): Promise<Completed> {
    return this.program(...application, ...args)
  }
  /** Runs a program, given by its path from the root of the copy, and waits until it has ended. */
  async program(...args: ReadonlyArray<string>): Promise<Completed> {
    const child = this.spawn(args, {})
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
  /** How many commits of all processes were fenced. */
  get fenced(): number {
    return this.fencedBefore + this.workers.reduce((sum, { fenced }) => sum + fenced, 0)
  }
  /** Ends all processes of a role, or all, by SIGTERM. */
  async stop(role?: string): Promise<void> {
    await Promise.all(
      this.workers.filter((one) => role === undefined || one.role === role).map((one) => one.end("SIGTERM"))
    )
  }
  /** Kills all processes. */
  async kill(): Promise<void> {
    await Promise.all([...this.workers].map((one) => one.end("SIGKILL")))
  }
}
