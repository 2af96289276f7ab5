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
import type { Request } from "./messages.ts"
import { WriterProcess, Writers } from "./writers.ts"

/** What the writers do for a time. */
export interface Phase {
  readonly streams: number
  readonly ms: number
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
}
const writerCount = 64
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

  constructor(options: RunOptions, services: Services, fleet: Fleet, writers: Writers) {
    super(options, fleet)
    this.services = services
    this.writers = writers
    this.random = randomOf(options.seed)
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
  /** Sends a command to a process, and to another one while it has no answer. */
  private async deliver(request: Request, random: Random): Promise<void> {
    let waited = 0
    while (true) {
      const began = performance.now()
      const reply = await random.pick(this.writers.processes).ask(request)
      waited += Math.min(performance.now() - began, 5_000)
      this.assertSound()
      if (reply.kind !== "again" || waited > (this.options.patienceMs ?? 60_000)) {
        this.answers.note(request, reply)
        const version = reply.kind === "executed" ? reply.version : reply.kind === "conflict" ? reply.actual : 0
        const { stream } = request
        if (version > 0) this.versions.set(stream, Math.max(version, this.versions.get(stream) ?? 0))
        return
      }
      this.note("sent again")
      await sleep(random.int(5, 50))
      waited += 50
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
      const times = isStable && random.chance(0.15) ? 2 : 1
      await Promise.all(Array.from({ length: times }, () => this.deliver(request, random)))
      // the same command again, much later
      if (random.chance(0.1)) await this.deliver(random.pick(this.sent), random)
    }
  }

  /** Causes faults until the phase is over. */
  private async disturb({ ms }: Phase): Promise<void> {
    const { random, services } = this
    const crashes = this.options.crashes ?? 1
    const began = performance.now()
    const due = Array.from({ length: 2 * crashes }, (_, i) => ({
      kind: i % 2 === 0 ? "backend killed" : "server killed",
      at: ((i + 1) * ms) / (2 * crashes + 1)
    }))
    while (!this.isOver) {
      const now = performance.now() - began
      if (now > ms && due.length === 0) return
      if (due.length > 0 && now > due[0]!.at) {
        const { kind } = due.shift()!
        await (kind === "server killed" ? crashPostgres({ postgres: services.server }, false) : this.killBackend())
        this.note(kind)
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
      where application_name = 'writer' and state = 'active' limit 1`
    this.note("backend terminated", found.length)
  }
  private async process(): Promise<void> {
    if (this.options.on === "kafka" && this.random.chance(0.2)) {
      const relay = this.fleet.of("relay")[0]
      if (relay === undefined) return
      await relay.end("SIGKILL")
      this.fleet.start("relay")
      return this.note("relay killed")
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
  /** kill -9 of a backend: the server restarts all of them and recovers. */
  private async killBackend(): Promise<void> {
    const found = await this.services.sql<Array<{ pid: number }>>`
      select pid from pg_stat_activity where application_name = 'writer' limit 1`.catch(() => [])
    for (const { pid } of found) process.kill(pid, "SIGKILL")
  }

  /** One phase: 64 writers, and faults. Afterwards every command has an answer. */
  async phase(phase: Phase, number: number): Promise<void> {
    this.isOver = false
    const disturbing = this.options.isDisturbed === false ? Promise.resolve() : this.disturb(phase)
    const writing = Array.from({ length: writerCount }, (_, i) => this.write(i, phase, number).catch(this.fail))
    await this.until("an answer to every command", async () => {
      const race = await Promise.race([Promise.all(writing).then(() => true), sleep(500).then(() => false)])
      return race
    })
    this.isOver = true
    await disturbing
    this.say(`${phase.streams} streams: ${JSON.stringify(this.answers.counts)} ${JSON.stringify(this.faults)}`)
  }
  async end(): Promise<void> {
    this.isOver = true
    for (const one of this.writers.processes) one.signal("SIGCONT")
    await this.writers.kill()
    this.note(
      "reply lost",
      this.services.proxies.reduce((sum, proxy) => sum + proxy.lost(), 0)
    )
  }
}

let runs = 0
const open = Effect.fnUntraced(function* ({ on, seed }: RunOptions) {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-fault-"))),
    (made) => Effect.sync(() => rmSync(made, { recursive: true, force: true, maxRetries: 5 }))
  )
  const server = yield* Effect.acquireRelease(
    Effect.promise(() => launch("postgres", join(directory, "postgres"))),
    (service) => Effect.promise(() => service.close())
  )
  const url = server.endpoints.MILLRACE_DATABASE_URL!
  const proxies = yield* Effect.forEach(Array.from({ length: processCount }), () => lossy(url))
  const sql = yield* Effect.acquireRelease(
    Effect.sync(() => connect(url, 3)),
    (one) => Effect.promise(() => one.end({ timeout: 1 }))
  )
  const brokers = on === "kafka" ? (yield* shared("kafka")).MILLRACE_KAFKA_BROKERS!.split(",") : []
  return { name: `agg${seed}x${process.pid}x${++runs}`, server, sql, proxies, brokers } satisfies Services
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
          MILLRACE_DATABASE_URL: services.server.endpoints.MILLRACE_DATABASE_URL!,
          NODE_COMPILE_CACHE: join(tree.root, ".compiled"),
          ...(options.on === "kafka" ? { MILLRACE_KAFKA_BROKERS: services.brokers.join(",") } : {})
        }
        const fleet = new Fleet(tree.root, environment, (role) => [
          "bin/millrace.mjs",
          "start",
          "--roles",
          role,
          ...config
        ])
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
