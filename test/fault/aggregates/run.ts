// A run of the aggregates' harness: writers send commands to processes over one PostgreSQL, while replies are lost and backends, processes and the
// server are killed. A command without an answer is sent again with the same id, as a client does.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import type { Expected } from "../../../src/aggregate/event-store.ts"
import { launch } from "../../../stack/pick.ts"
import type { Local } from "../../../stack/service.ts"
import { shared } from "../../../stack/testing.ts"
import { type Random, randomOf } from "../../support/random.ts"
import { FaultRun, type FaultRunOptions } from "../harness/fault-run.ts"
import { Fleet } from "../harness/fleet.ts"
import { type Patch, patchedCopy } from "../harness/patched-copy.ts"
import { connect, crashPostgres } from "../harness/postgres.ts"
import { lossy, type Lossy } from "../lossy.ts"
import { Answers } from "./answers.ts"
import { boundaries } from "./boundaries.ts"
import type { Concern } from "./concern.ts"
import { erasure } from "./erasure.ts"
import type { Reply, Request, SideRequest } from "./messages.ts"
import { timers } from "./timers.ts"
import { WriterProcess, Writers } from "./writers.ts"

/** What a phase is about: ledgers, unless it is one of these. */
export type ConcernName = "boundaries" | "timers" | "erasure"
/** What the writers do for a time. */
export interface Phase {
  readonly of?: ConcernName
  /** How many streams there are, or courses, accounts or people. */
  readonly streams: number
  readonly ms: number
  /** If given, a concern beside ledgers lasts until so many steps were done, and its faults with it. Server and broker are killed within `ms`. */
  readonly steps?: number
}
/** Options of a run. */
export interface RunOptions extends FaultRunOptions {
  readonly seed: number
  readonly phases: ReadonlyArray<Phase>
  /** Where the events are published; on `embedded` they stay in the outbox. */
  readonly on: "embedded" | "kafka"
  /** Whether appends write rows of an inline projection, which are then of all commands of a statement or of none. Default true. */
  readonly isInline?: boolean
  /** How often the server and one of its backends are killed in each phase. Default 1. */
  readonly crashes?: number
  /** How many worker processes run policies, timers and projections in phases that need them. Default 3. */
  readonly workers?: number
  /** Whether no append expects all of its commands to pass, so that the statement which judges each is used for all. Default false. */
  readonly judgesAll?: boolean
  /** How likely a command of a ledger is sent twice at the same time, from 0 to 1. Default 0.15. */
  readonly repeats?: number
  /** Whether replies are lost and processes are killed. Default true. */
  readonly isDisturbed?: boolean
  /** The patches of a mutant. */
  readonly mutant?: ReadonlyArray<Patch>
}
/** What a run works on. */
interface Services {
  readonly name: string
  readonly server: Local
  readonly sql: postgres.Sql
  readonly proxies: ReadonlyArray<Lossy>
  readonly brokers: ReadonlyArray<string>
  /** The run's own broker, which is killed; undefined if there is none, or it is shared with other runs. */
  readonly broker: Local | undefined
}
const writerCount = 64
/** Concerns beside ledgers have fewer: decisions over a tag wait for one another. */
const concernWriters = 24
const processCount = 4
/** What happens all the time, the more frequent more often. */
const faults = ["reply", "reply", "reply", "reply", "backend", "backend", "stop", "process"] as const
const here = "test/fault/aggregates"

/** A run. */
export class Run extends FaultRun<RunOptions> {
  readonly services: Services
  readonly answers = new Answers(this.differences)
  readonly writers: Writers
  /** Whether everything has started. */
  begun = false
  private readonly random: Random
  /** The last version of each stream that a writer has heard of. */
  private readonly versions = new Map<string, number>()
  private readonly sent: Array<Request> = []
  private isOver = false
  /** How many steps of concerns were done. */
  steps = 0
  private stepsBegun = 0
  /** What is killed some times in each phase. */
  private readonly crashes: Readonly<Record<string, () => Promise<void>>>

  constructor(options: RunOptions, services: Services, fleet: Fleet, writers: Writers) {
    super(options, fleet)
    this.services = services
    this.writers = writers
    this.random = randomOf(options.seed)
    const { broker, server } = services
    this.crashes = {
      "backend killed": () => this.killBackend(),
      "server killed": () => this.killServer(server),
      ...(broker === undefined ? {} : { "broker killed": () => this.killBroker(broker) })
    }
  }
  protected async describe() {
    return [JSON.stringify(this.answers.counts), ...this.writers.processes.map(({ output }) => output.slice(-500))]
  }
  override assertSound(): void {
    super.assertSound()
    if (this.writers.fell !== undefined) throw new Error(`a writer ended by itself:\n${this.writers.fell}`)
  }

  async begin(): Promise<void> {
    if (this.options.on === "kafka") {
      this.fleet.start("relay")
      await this.until("a relay", () => this.fleet.workers.every(({ up }) => up))
    }
    await this.writers.launch(processCount)
    this.begun = true
  }

  private requestOf(id: string, random: Random, streams: number): Request {
    const stream = `s${random.int(1, streams)}`
    const kind = random.pick(["add", "add", "take", "raw"] as const)
    const known = this.versions.get(stream) ?? 0
    const expected: Expected = random.pick(["any", "any", "exists", known, known])
    // an `add` of nothing appends nothing, which is remembered
    const size = kind === "take" ? 1 : random.int(kind === "raw" ? 1 : 0, 3)
    return { id, stream, kind, expected, amounts: Array.from({ length: size }, () => random.int(1, 9)) }
  }
  /** Sends a request to a process, and to another one while it has no answer. */
  readonly settle = async (request: Request | SideRequest, random: Random): Promise<Reply> => {
    let waited = 0
    while (true) {
      const began = performance.now()
      const reply = await random.pick(this.writers.processes).ask(request)
      waited += Math.min(performance.now() - began, 5_000)
      this.assertSound()
      if (reply.kind !== "again" || waited > (this.options.patienceMs ?? 60_000)) return reply
      this.note("sent again")
      await sleep(random.int(5, 50))
      waited += 50
    }
  }
  private async deliver(request: Request, random: Random): Promise<void> {
    const reply = await this.settle(request, random)
    this.answers.note(request, reply)
    const version = reply.kind === "executed" ? reply.version : reply.kind === "conflict" ? reply.actual : 0
    const { stream } = request
    if (version > 0) this.versions.set(stream, Math.max(version, this.versions.get(stream) ?? 0))
  }
  private async stepOn(number: number, { ms, steps }: Phase, phase: number, { step }: Concern): Promise<void> {
    const random = randomOf(this.options.seed + 1_000 * (phase + 1) + number)
    const end = performance.now() + ms
    for (let n = 0; steps === undefined ? performance.now() < end : this.stepsBegun < steps; n++) {
      this.stepsBegun++
      await step(`${phase}/${number}/${n}`, random)
      this.steps++
    }
  }
  private async write(number: number, { ms, streams }: Phase, phase: number): Promise<void> {
    const random = randomOf(this.options.seed + 1_000 * (phase + 1) + number)
    const end = performance.now() + ms
    for (let n = 0; performance.now() < end; n++) {
      const request = this.requestOf(`${phase}/${number}/${n}`, random, streams)
      this.sent.push(request)
      // two answers of different times to a command that expects a stream may differ
      const isStable = request.expected !== "exists" || this.versions.has(request.stream)
      const times = isStable && random.chance(this.options.repeats ?? 0.15) ? 2 : 1
      await Promise.all(Array.from({ length: times }, () => this.deliver(request, random)))
      // the same command again, much later
      if (random.chance(0.1)) await this.deliver(random.pick(this.sent), random)
    }
  }

  /** How many commands and steps have an answer. */
  private get answered(): number {
    return Object.values(this.answers.counts).reduce((sum, count) => sum + count, this.steps)
  }
  /** Causes faults until the phase is over. */
  private async disturb({ ms, steps }: Phase): Promise<void> {
    const { random } = this
    const crashes = this.options.crashes ?? 1
    const began = performance.now()
    const kinds = Object.keys(this.crashes) as ReadonlyArray<keyof Run["crashes"]>
    const count = kinds.length * crashes
    const due = Array.from({ length: count }, (_, i) => ({
      kind: kinds[i % kinds.length]!,
      at: ((i + 1) * ms) / (count + 1)
    }))
    const crashed = new Set<string>()
    let answered = -1
    while (!this.isOver) {
      const now = performance.now() - began
      if (steps === undefined && now > ms && (due.length === 0 || crashed.size === kinds.length)) return
      // on a busy machine a server that crashes again and again would answer nothing
      if (due.length > 0 && now > due[0]!.at && this.answered > answered) {
        const { kind } = due.shift()!
        await this.crashes[kind]!()
        this.note(kind)
        crashed.add(kind)
        answered = this.answered
        continue
      }
      const fault = random.pick(faults)
      await this[fault]().catch(() => undefined)
      await sleep(random.int(30, 150))
    }
  }
  private async reply(): Promise<void> {
    this.random.pick(this.services.proxies).arm(this.random.pick(["executed", "running", "unsent"]))
  }
  private async backend(): Promise<void> {
    const found = await this.services.sql`select pg_terminate_backend(pid) from pg_stat_activity
      where application_name in ('writer', 'millrace') and state = 'active' order by random() limit 1`
    this.note("backend terminated", found.length)
  }
  private async process(): Promise<void> {
    if (this.fleet.workers.length > 0 && this.random.chance(0.4)) {
      const killed = this.random.pick(this.fleet.workers)
      if (killed.role === "worker" && !killed.up) return
      await killed.end("SIGKILL")
      this.startWorker(killed.role)
      return this.note(`${killed.role} killed`)
    }
    // one that does not work yet would be no loss
    const i = this.random.int(0, processCount - 1)
    if (!this.writers.processes[i]!.isReady) return
    await this.writers.replace(i)
    this.note("process killed")
  }
  private async stop(): Promise<void> {
    const stopped = this.random.pick(this.writers.processes)
    stopped.signal("SIGSTOP")
    await sleep(this.random.int(20, 400))
    stopped.signal("SIGCONT")
    this.note("process stopped")
  }
  private startWorker(role: string): void {
    if (role === "relay") return void this.fleet.start(role)
    const { url } = this.random.pick(this.services.proxies)
    this.fleet.start(role, { environment: { MILLRACE_DATABASE_URL: url } })
  }
  /** Starts the worker processes, if they do not run yet. */
  private async startWorkers(): Promise<void> {
    if (this.fleet.of("worker").length > 0) return
    for (let i = 0; i < (this.options.workers ?? 3); i++) this.startWorker("worker")
    await this.until("start of the workers", () => this.fleet.workers.every(({ up }) => up))
  }
  private get allStarted(): Promise<void> {
    return this.until("start of all processes", () => this.fleet.workers.every(({ up }) => up))
  }
  /** kill -9 of PostgreSQL. A process that loses it in the middle of its start ends, so all have started then. */
  private async killServer(server: Local): Promise<void> {
    await this.allStarted
    await crashPostgres({ postgres: server }, false)
  }
  /** kill -9 of the broker. A process that starts without it ends, so all have started then. */
  private async killBroker(broker: Local): Promise<void> {
    await this.allStarted
    await broker.kill()
    await sleep(this.random.int(0, 1_000))
    await broker.start().catch(() => broker.start())
  }
  /** kill -9 of a backend: the server restarts all of them and recovers. */
  private async killBackend(): Promise<void> {
    await this.allStarted
    const found = await this.services.sql<Array<{ pid: number }>>`
      select pid from pg_stat_activity where application_name = 'writer' limit 1`.catch(() => [])
    for (const { pid } of found) process.kill(pid, "SIGKILL")
  }
  private concernOf({ of, streams }: Phase, number: number): Concern | undefined {
    if (of === undefined) return undefined
    return of === "timers" ? timers(this) : (of === "erasure" ? erasure : boundaries)(this, `p${number}`, streams)
  }

  /** One phase: 64 writers, and faults. Afterwards every command has an answer. */
  async phase(phase: Phase, number: number): Promise<void> {
    this.isOver = false
    this.stepsBegun = 0
    const concern = this.concernOf(phase, number)
    if (concern?.hasWorkers === true) await this.startWorkers()
    const disturbing = this.options.isDisturbed === false ? undefined : this.disturb(phase).catch(this.fail)
    const writing = Array.from({ length: concern === undefined ? writerCount : concernWriters }, (_, i) =>
      (concern === undefined ? this.write(i, phase, number) : this.stepOn(i, phase, number, concern)).catch(this.fail)
    )
    try {
      const isAnswered = () => Promise.race([Promise.all(writing).then(() => true), sleep(500).then(() => false)])
      await this.until("an answer to every command", isAnswered, phase.ms)
    } finally {
      // a server must not be started again once the run has removed its files
      this.isOver = true
      await disturbing
    }
    this.assertSound()
    await concern?.compare()
    const counts = concern === undefined ? this.answers.counts : { steps: this.steps }
    this.say(
      `${phase.streams} ${phase.of ?? "streams"}: ${JSON.stringify(counts)} ${JSON.stringify(this.faults)}, ${this.differences.total} differences`
    )
  }
  async end(): Promise<void> {
    this.isOver = true
    for (const one of this.writers.processes) one.signal("SIGCONT")
    await this.writers.kill()
    for (const worker of this.fleet.of("worker")) await worker.end("SIGKILL")
    this.note(
      "reply lost",
      this.services.proxies.reduce((sum, proxy) => sum + proxy.lost(), 0)
    )
  }
}

let runs = 0
const hasConcerns = ({ phases }: RunOptions) => phases.some(({ of }) => of !== undefined)
const open = Effect.fnUntraced(function* (options: RunOptions) {
  const { on, seed } = options
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-fault-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true, maxRetries: 5 }))
  )
  const launched = (service: "postgres" | "kafka") =>
    Effect.acquireRelease(
      Effect.promise(() => launch(service, join(directory, service))),
      (opened) => Effect.promise(() => opened.close())
    )
  const server = yield* launched("postgres")
  const url = server.endpoints.MILLRACE_DATABASE_URL!
  const proxies = yield* Effect.forEach(Array.from({ length: processCount }), () => lossy(url))
  const sql = yield* Effect.acquireRelease(
    Effect.sync(() => connect(url, 3)),
    (one) => Effect.promise(() => one.end({ timeout: 1 }))
  )
  // the topic of erasures has one name on a broker
  const broker = on === "kafka" && hasConcerns(options) ? yield* launched("kafka") : undefined
  const endpoints = broker?.endpoints ?? (on === "kafka" ? yield* shared("kafka") : {})
  const brokers = endpoints.MILLRACE_KAFKA_BROKERS?.split(",") ?? []
  return { name: `agg${seed}x${process.pid}x${++runs}`, server, sql, proxies, brokers, broker } satisfies Services
})

/** Opens what a run needs, calls `use`, and removes it again. */
export const withRun = <A>(options: RunOptions, use: (run: Run) => Promise<A>): Promise<A> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const services = yield* open(options)
        const tree = yield* Effect.acquireRelease(
          Effect.sync(() => patchedCopy(options.mutant ?? [], [here])),
          (copy) => Effect.sync(() => copy.remove())
        )
        const config = ["--config", `${here}/application.config.ts`]
        const environment = {
          FAULT_RUN: services.name,
          FAULT_INLINE: options.isInline === false ? "no" : "yes",
          FAULT_CONCERNS: hasConcerns(options) ? "yes" : "no",
          FAULT_JUDGES: options.judgesAll === true ? "yes" : "no",
          MILLRACE_DATABASE_URL: services.server.endpoints.MILLRACE_DATABASE_URL!,
          NODE_COMPILE_CACHE: join(tree.root, ".compiled"),
          ...(options.on === "kafka" ? { MILLRACE_KAFKA_BROKERS: services.brokers.join(",") } : {})
        }
        const fleet = new Fleet(tree.root, environment, (role) =>
          role === "worker" ? [`${here}/worker.ts`] : ["bin/millrace.mjs", "start", "--roles", role, ...config]
        )
        yield* Effect.addFinalizer(() => Effect.promise(() => fleet.kill()))
        const prepared =
          options.on === "kafka"
            ? yield* Effect.promise(() => fleet.command("topics", "apply", ...config))
            : yield* Effect.promise(() => fleet.program(`${here}/setup.ts`))
        if (prepared.code !== 0) return yield* Effect.die(new Error(`setup: ${prepared.errors}`))
        const writers = new Writers(
          (i) =>
            new WriterProcess(tree.root, `${here}/writer.ts`, {
              ...environment,
              MILLRACE_DATABASE_URL: services.proxies[i]!.url
            })
        )
        const run = new Run(options, services, fleet, writers)
        yield* Effect.addFinalizer(() => Effect.promise(() => run.end()))
        return yield* Effect.promise(() => use(run))
      })
    )
  )
