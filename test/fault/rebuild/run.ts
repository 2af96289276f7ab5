// A run of the rebuild harness: processes of an application on Kafka, PostgreSQL and Pulsar, whose projection is rebuilt, promoted, rolled back and
// retired again and again while events come in, readers query, and commands and processes are killed.
import { join } from "node:path"
import * as Effect from "effect/Effect"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { type Random, randomOf } from "../../support/random.ts"
import { FaultRun, type FaultRunOptions } from "../harness/fault-run.ts"
import { Fleet, type Worker } from "../harness/fleet.ts"
import { type Patch, patchedCopy } from "../harness/patched-copy.ts"
import { patiently } from "../harness/postgres.ts"
import { holdSwitch, kill } from "./deaths.ts"
import type { CommandKill, Disturbance, ServiceFault } from "./plan.ts"
import { type Command, points } from "./points.ts"
import { marker, type Outages, Readers } from "./readers.ts"
import { open, type Services } from "./services.ts"

/** Options of a run. */
export interface RunOptions extends FaultRunOptions {
  readonly seed: number
  /** A cycle for each: a rebuild, a comparison, a promotion and a retirement, one of whose commands is disturbed. */
  readonly plan: ReadonlyArray<Disturbance>
  /** How many events are sent at least. */
  readonly events: number
  /** How many of them are in the log before the first process starts. Default 0. */
  readonly ahead?: number
  /** How many events come in a second while commands run. Default 50. */
  readonly rate?: number
  /** The patches of a mutant. */
  readonly mutant?: ReadonlyArray<Patch>
}
/** An event that was sent. */
export interface Sent {
  readonly id: string
  readonly key: string
  readonly n: number
  readonly partition: number
}
const partitions = 4
/** How often a command is run before the run gives up. */
const most = 10

/** How a command ended. */
interface Ended {
  readonly exit: number | NodeJS.Signals
  /** Everything that it wrote. */
  readonly output: string
  /** Its result, or its error. */
  readonly line: string
}

/** A run. */
export class Run extends FaultRun<RunOptions> {
  readonly services: Services
  readonly sent: Array<Sent> = []
  readonly random: Random
  /** Whether everything has started. */
  begun = false
  private readers: Readers | undefined
  /** The number of the live build. */
  private live = 1
  private readonly outages: Outages = { count: 0, isDown: false }
  private readonly rate: number
  private fedAt = performance.now()
  private feeding: Promise<void> = Promise.resolve()
  private isQuiet = false

  constructor(options: RunOptions, services: Services, fleet: Fleet) {
    super(options, fleet)
    this.services = services
    this.random = randomOf(options.seed)
    this.rate = options.rate ?? 50
    this.feedOn(() => this.feedDue(), 100)
  }
  protected async describe(): Promise<ReadonlyArray<string>> {
    const { sql } = this.services
    const builds = await sql`
      select g.version, g.mode, l.version as live, sum(g.next_position)::int as position, sum(g.outbox_seq)::int as seq, min(g.halted) as halted
      from millrace.progress g left join millrace.live l using (projection) group by 1, 2, 3 order by 1`
    const relays = await sql`select target, partition, seq, halted from millrace.relay_position order by 1, 2`
    return [JSON.stringify(builds), JSON.stringify(relays), `sent ${this.sent.length}`]
  }
  /** Sends the events that are due. */
  private async feedDue(): Promise<void> {
    const now = performance.now()
    const due = Math.floor((Math.min(now - this.fedAt, 1_000) * this.rate) / 1_000)
    if (due === 0 || this.isQuiet || !this.begun) return
    this.fedAt = now
    await (this.feeding = this.feed(due))
  }
  /** Sends events. */
  private async feed(count: number): Promise<void> {
    const made = Array.from({ length: count }, (_, i): Sent => {
      const number = this.sent.length + i
      const key = `k${this.random.int(0, 19)}`
      return { id: `e${number}`, key, n: this.random.int(1, 9), partition: partitionOf(key, partitions) }
    })
    const records = made.map(({ partition, ...event }) => ({
      partition,
      key: event.key,
      value: JSON.stringify({ ...event, at: 1_700_000_000_000 + Number(event.id.slice(1)) }),
      eventTime: 1_700_000_000_000,
      eventId: event.id,
      tenant: undefined,
      traceparent: undefined,
      schemaVersion: 1,
      headers: {}
    }))
    await Effect.runPromise(this.services.log.append(`${this.services.name}.events`, records))
    this.sent.push(...made)
  }
  /** Sends events until so many were sent. */
  private async feedTo(count: number): Promise<void> {
    for (let left = count - this.sent.length; left > 0; left = count - this.sent.length)
      await this.feed(Math.min(left, 5_000))
  }

  /** Starts the processes, and waits until the first build has processed what is in the log. */
  async begin(): Promise<void> {
    await this.feedTo(this.options.ahead ?? 0)
    for (const role of ["start --roles projections", "start --roles projections", "start --roles relay"])
      this.fleet.start(role)
    await this.until("the first build", async () => (await this.liveBuild()) === 1)
    await this.mark(1)
    await this.feed(5)
    const ahead = this.sent.length
    await this.until("processing of the first events", async () => (await this.position(1)) >= ahead)
    this.say(`${ahead} events are processed`)
    const random = randomOf(this.options.seed + 1)
    this.readers = new Readers(this.services.url, { differences: this.differences, outages: this.outages, random })
    this.begun = true
    this.fedAt = performance.now()
  }
  private liveBuild = (): Promise<number | undefined> =>
    patiently(async () => {
      const [row] = await this.services.sql<
        Array<{ version: number }>
      >`select version from millrace.live where projection = 'ledger'`
      return row?.version
    })
  private async position(build: number): Promise<number> {
    const [row] = await this.services.sql<Array<{ n: number }>>`
      select coalesce(sum(next_position), 0)::int as n from millrace.progress where version = ${build}`
    return row!.n
  }
  /** Writes the harness's rows into a build's tables. */
  private mark = (build: number) =>
    patiently(() =>
      this.services.sql.unsafe(`
        insert into ledger_v${build}.entries values ('${marker}', '', ${build}) on conflict do nothing;
        insert into ledger_v${build}.totals values ('${marker}', ${build}, '') on conflict do nothing`)
    )

  /** Waits until a command has ended. The live build must be the same if it says that nothing was changed. */
  private async ended(worker: Worker, words: string, before: number | undefined): Promise<Ended> {
    const began = performance.now()
    const exit = await worker.ended
    const { output } = worker
    const line = output.split("\n").findLast((one) => one.startsWith("{") || one.startsWith("millrace: ")) ?? ""
    this.say(`${words} ended with ${exit} after ${Math.round(performance.now() - began)} ms: ${line.slice(0, 300)}`)
    this.assertSound()
    this.note(`${words.split(" ")[0]!} ended with ${exit}`)
    if (exit !== 0 && line.includes("nothing was changed"))
      this.differences.same(`the live build after "${line.slice(0, 200)}"`, await this.liveBuild(), before)
    return { exit, output, line }
  }
  /** Runs a command that is killed at a point. */
  private async killAt(words: string, { point }: CommandKill): Promise<void> {
    const worker = this.fleet.start(words, { point: `kill:${point}:1` })
    const exit = await worker.ended
    if (exit === "SIGKILL") return this.note(`killed: ${point}`)
    this.differences.add(
      "wrong",
      `${words} ended with ${exit} before it reached ${point}: ${worker.output.slice(-300)}`
    )
  }
  /** Runs a command, during which a service is killed. */
  private async runThrough(words: string, fault: ServiceFault): Promise<void> {
    const { death, how, phase, point } = fault
    const before = await this.liveBuild()
    await this.until("start of all processes", () => this.fleet.workers.every(({ up }) => up))
    const worker = this.fleet.start(words, { point: `${how === "running" ? "tell" : "stop"}:${point}:1` })
    worker.doomed = true
    const isThere = () => worker.stopped || worker.told || worker.exit !== undefined
    await this.until(`${words} at the point '${point}'`, isThere)
    if (worker.exit !== undefined)
      this.differences.add("wrong", `${words} ended with ${worker.exit} before it reached ${point}: ${worker.output}`)
    const held = how === "locked" ? await holdSwitch(this.services, this.live) : undefined
    if (held !== undefined) {
      worker.signal("SIGCONT")
      // its freeze may be over before
      await this.until("a switch that waits", async () => (await held.isWaiting()) || worker.exit !== undefined)
    }
    // an append whose reply is lost would leave it unknown what the log has
    this.isQuiet = death === "broker killed"
    if (this.isQuiet) await this.feeding
    const isDatabase = death !== "broker killed" && death !== "Pulsar killed"
    this.outages.isDown = isDatabase
    if (isDatabase) this.outages.count++
    const revive = await kill(this.services, death)
    worker.signal("SIGCONT")
    await held?.release()
    await revive()
    this.outages.isDown = false
    this.isQuiet = false
    this.note(`${death} during ${phase}`)
    const { exit, line } = await this.ended(worker, words, before)
    if (![0, 1, 3, 4].includes(exit as number) || (exit === 1 && line === ""))
      this.differences.add("wrong", `${words} ended with ${exit}, ${death}: ${worker.output.slice(-500)}`)
  }
  /**
   * Runs a command until `done`. The first time it is disturbed, if it is to be; afterwards it runs again, as a person would. Fails the run if it
   * ends in another way than it may.
   */
  private async command(
    words: string,
    disturbance: Disturbance,
    done: (ended: Ended | undefined) => Promise<boolean> | boolean
  ): Promise<void> {
    if (disturbance?.kind === "command") await this.killAt(words, disturbance)
    if (disturbance?.kind === "service") await this.runThrough(words, disturbance)
    let last: Ended | undefined
    for (let n = 1; !(await done(last)); n++) {
      const before = await this.liveBuild()
      const worker = this.fleet.start(words)
      worker.doomed = true
      last = await this.ended(worker, words, before)
      const { exit, output } = last
      // 3: a previous one has done it; 4: not in time, with nothing changed. A build that a reader may still see is not dropped yet
      const isRefused = exit === 1 && output.includes("may still read its tables")
      if ((exit === 0 || exit === 3 || exit === 4 || isRefused) && n < most) continue
      if (await done(last)) return
      this.differences.add("wrong", `${words} ended with ${exit}: ${output.slice(-500)}`)
      return
    }
  }
  /** Compares the builds: only the harness's rows differ, since they have their build's number. */
  private async compareBuilds(disturbance: Disturbance): Promise<void> {
    await this.command("diff ledger --timeout 60s --json", disturbance, (ended) => {
      if (ended?.exit !== 3) return false
      const { late, messages, tables, deadLetters } = JSON.parse(ended.line)
      const of = ({ missing, extra, changed, rounding }: Record<string, number>) => [missing, extra, changed, rounding]
      const found = JSON.stringify([tables.map(of), of(late), of(deadLetters)])
      const none = [0, 0, 0, 0]
      const one = [0, 0, 1, 0]
      this.differences.same("what differs between builds", found, JSON.stringify([[one, one], none, none]))
      for (const { candidate, live, topic } of messages)
        this.differences.same(`the messages of the candidate to ${topic}`, candidate, live)
      this.note("builds compared")
      return true
    })
  }
  /** Rebuilds, compares, promotes, and retires what was replaced; now and then it goes back and forth before. */
  async cycle(disturbance: Disturbance): Promise<void> {
    const { sql } = this.services
    const at = (command: Command) => (disturbance?.command === command ? disturbance : undefined)
    const before = this.live
    const newest = () =>
      patiently(async () => {
        const [row] = await sql<Array<{ version: number }>>`
          select max(version) as version from millrace.projection where name = 'ledger' and retired_at is null`
        return row!.version
      })
    const rebuilt = () =>
      patiently(async () => {
        const build = await newest()
        const [row] = await sql<Array<{ state: string }>>`
          select state from millrace.rebuild where projection = 'ledger' and version = ${build}`
        return build > before && row?.state === "done"
      })
    await this.command("rebuild ledger --json", at("rebuild"), rebuilt)
    const next = await newest()
    await this.mark(next)
    await this.compareBuilds(at("diff"))
    if (this.random.chance(0.5)) await this.killOne()
    const isLive = (build: number) => async () => (await this.liveBuild()) === build
    await this.command("promote ledger --timeout 30s --json", at("promote"), isLive(next))
    if (this.random.chance(0.4)) {
      await this.command("promote ledger --rollback --timeout 30s --json", undefined, isLive(before))
      await this.command("promote ledger --timeout 30s --json", undefined, isLive(next))
    }
    this.live = next
    const dropped = () =>
      patiently(async () => {
        const [row] = await sql<Array<{ dropped: boolean }>>`
          select dropped from millrace.projection where name = 'ledger' and version = ${before}`
        return row?.dropped === true
      })
    await this.command(`retire ledger ${before} --drop --json`, at("retire"), dropped)
    this.say(`build ${next} is live${disturbance === undefined ? "" : ` (${JSON.stringify(disturbance)})`}`)
  }
  /** Kills a process that runs projections, or the relay, and starts another one. */
  private async killOne() {
    const worker = this.random.pick(this.fleet.workers)
    await worker.end("SIGKILL")
    this.note(`process killed: ${worker.role}`)
    this.fleet.start(worker.role)
  }
  /** Waits until everything is processed and published, and stops everything. */
  async finish(): Promise<void> {
    await this.stopFeeding()
    await this.feedTo(this.options.events)
    const { sql } = this.services
    await this.until("processing of everything", async () => {
      const [row] = await sql<Array<{ n: number }>>`
        select sum(next_position)::int as n from millrace.progress g join millrace.live l using (projection, version)`
      return row!.n >= this.sent.length
    })
    await this.until("publication of everything", async () => {
      const rows = await sql`
        select 1 from millrace.progress g join unnest('{kafka,pulsar}'::text[]) as t(target) on true
        left join millrace.relay_position p on (p.target, p.projection, p.source, p.partition) = (t.target, g.projection, g.topic, g.partition)
        where g.mode = 'live' and g.outbox_seq > coalesce(p.seq, 0)`
      return rows.length === 0
    })
    await this.readers?.stop()
    this.note("reads", this.readers?.reads)
    this.note("reads lost with the server", this.readers?.lost)
    await this.fleet.stop()
  }
  async end(): Promise<void> {
    await this.stopFeeding().catch(() => undefined)
    await this.readers?.stop()
  }
}

const here = "test/fault/rebuild"
/** Opens services, which several runs may share if none is killed, creates topics, calls `use`, and removes what belongs to the run. */
export const withRun = <A>(options: RunOptions, use: (run: Run) => Promise<A>): Promise<A> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const isOwn = options.plan.some((one) => one?.kind === "service")
        const services = yield* open(`rebuild${options.seed}x${process.pid}x${++runs}`, isOwn)
        // mutants first, because points are patches of lines that mutants keep
        const tree = yield* Effect.acquireRelease(
          Effect.sync(() => patchedCopy([...(options.mutant ?? []), ...points], [here])),
          (copy) => Effect.sync(() => copy.remove())
        )
        const { adminUrl = "", namespace = "", tenant = "", url } = services.pulsar
        const fleet = new Fleet(
          tree.root,
          {
            MILLRACE_KAFKA_BROKERS: services.brokers.join(","),
            MILLRACE_DATABASE_URL: services.url,
            MILLRACE_KAFKA_SESSION_MS: "3000",
            MILLRACE_PULSAR_URL: url,
            MILLRACE_PULSAR_ADMIN_URL: adminUrl,
            MILLRACE_PULSAR_TENANT: tenant,
            MILLRACE_PULSAR_NAMESPACE: namespace,
            FAULT_RUN: services.name,
            NODE_COMPILE_CACHE: join(tree.root, ".compiled")
          },
          (words) => ["bin/millrace.mjs", ...words.split(" "), "--config", `${here}/application.config.ts`]
        )
        yield* Effect.addFinalizer(() => Effect.promise(() => fleet.kill()))
        const applied = yield* Effect.promise(() =>
          fleet.command("topics", "apply", "--config", `${here}/application.config.ts`)
        )
        if (applied.code !== 0) return yield* Effect.die(new Error(`topics apply: ${applied.errors}`))
        const run = new Run(options, services, fleet)
        yield* Effect.addFinalizer(() => Effect.promise(() => run.end()))
        return yield* Effect.promise(() => use(run))
      })
    )
  )
let runs = 0
