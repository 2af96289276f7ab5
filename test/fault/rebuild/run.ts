// A run of the rebuild harness: processes of an application on Kafka, PostgreSQL and Pulsar, whose projection is rebuilt, promoted, rolled back and
// retired again and again while events come in, readers query, and commands and processes are killed.
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type postgres from "postgres"
import { shared } from "../../../stack/testing.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import type { Log } from "../../../src/log/log.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import type { PulsarOptions } from "../../../src/pulsar/client/options.ts"
import { server } from "../../support/postgres.ts"
import { makeTenant } from "../../support/relay-pulsar.ts"
import { connect as connectPulsar } from "../../../src/pulsar/client/cluster.ts"
import { optionsOf } from "../../support/pulsar.ts"
import { type Random, randomOf } from "../../support/random.ts"
import { FaultRun, type FaultRunOptions } from "../harness/fault-run.ts"
import { Fleet } from "../harness/fleet.ts"
import { type Patch, patchedCopy } from "../harness/patched-copy.ts"
import { connect } from "../harness/postgres.ts"
import { type Point, points } from "./points.ts"
import { marker, Readers } from "./readers.ts"

/** Options of a run. */
export interface RunOptions extends FaultRunOptions {
  readonly seed: number
  /** A cycle for each: a rebuild, a promotion and a retirement, one of whose commands is killed there; undefined: none is. */
  readonly plan: ReadonlyArray<Point | undefined>
  /** How many events are sent at least. */
  readonly events: number
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
/** What a run works on. */
export interface Services {
  readonly name: string
  readonly log: Log["Service"]
  readonly brokers: ReadonlyArray<string>
  readonly pulsar: PulsarOptions
  readonly url: string
  readonly sql: postgres.Sql
}
const partitions = 4
/** How often a command is run before the run gives up. */
const most = 10

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

  constructor(options: RunOptions, services: Services, fleet: Fleet) {
    super(options, fleet)
    this.services = services
    this.random = randomOf(options.seed)
    this.feedOn(() => this.feed(5), 100)
  }
  protected async describe(): Promise<ReadonlyArray<string>> {
    const { sql } = this.services
    const builds = await sql`
      select g.version, g.mode, l.version as live, sum(g.next_position)::int as position, sum(g.outbox_seq)::int as seq, min(g.halted) as halted
      from millrace.progress g left join millrace.live l using (projection) group by 1, 2, 3 order by 1`
    const relays = await sql`select target, partition, seq, halted from millrace.relay_position order by 1, 2`
    return [JSON.stringify(builds), JSON.stringify(relays), `sent ${this.sent.length}`]
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

  /** Starts the processes, and waits until the first build is there. */
  async begin(): Promise<void> {
    for (const role of ["start --roles projections", "start --roles projections", "start --roles relay"])
      this.fleet.start(role)
    await this.until("the first build", async () => (await this.liveBuild()) === 1)
    await this.mark(1)
    await this.until("the first events", async () => (await this.position(1)) > 0)
    this.readers = new Readers(this.services.url, this.differences, randomOf(this.options.seed + 1))
    this.begun = true
  }
  private async liveBuild(): Promise<number | undefined> {
    const [row] = await this.services.sql<
      Array<{ version: number }>
    >`select version from millrace.live where projection = 'ledger'`
    return row?.version
  }
  private async position(build: number): Promise<number> {
    const [row] = await this.services.sql<Array<{ n: number }>>`
      select coalesce(sum(next_position), 0)::int as n from millrace.progress where version = ${build}`
    return row!.n
  }
  /** Writes the harness's rows into a build's tables. */
  private async mark(build: number) {
    await this.services.sql.unsafe(`
      insert into ledger_v${build}.entries values ('${marker}', '', ${build}) on conflict do nothing;
      insert into ledger_v${build}.totals values ('${marker}', ${build}, '') on conflict do nothing`)
  }

  /**
   * Runs a command until `done`. The first time it is killed at the point, if it has one; afterwards it runs again, as a person would. Fails the run
   * if it ends in another way than it may.
   */
  private async command(words: string, point: Point | undefined, done: () => Promise<boolean>): Promise<void> {
    if (point !== undefined) {
      const worker = this.fleet.start(words, { point: `kill:${point.name}:1` })
      const ended = await worker.ended
      if (ended === "SIGKILL") this.note(`killed: ${point.name}`)
      else
        this.differences.add(
          "wrong",
          `${words} ended with ${ended} before it reached ${point.name}: ${worker.output.slice(-300)}`
        )
    }
    for (let n = 1; !(await done()); n++) {
      const worker = this.fleet.start(words)
      worker.doomed = true
      const begun = performance.now()
      const ended = await worker.ended
      const last =
        worker.output.split("\n").findLast((line) => line.startsWith("{") || line.startsWith("millrace: ")) ?? ""
      this.say(`${words} ended with ${ended} after ${Math.round(performance.now() - begun)} ms: ${last.slice(0, 300)}`)
      this.assertSound()
      this.note(`${words.split(" ")[0]!} ended with ${ended}`)
      // 3: a previous one has done it; 4: not in time, with nothing changed. A build that a reader may still see is not dropped yet
      const isRefused = ended === 1 && worker.output.includes("may still read its tables")
      if ((ended === 0 || ended === 3 || ended === 4 || isRefused) && n < most) continue
      if (await done()) return
      this.differences.add("wrong", `${words} ended with ${ended}: ${worker.output.slice(-500)}`)
      return
    }
  }
  /** Rebuilds, promotes, and retires what was replaced; now and then it goes back and forth before. */
  async cycle(point: Point | undefined): Promise<void> {
    const { sql } = this.services
    const at = (command: string) => (point?.command === command ? point : undefined)
    const before = this.live
    const newest = async () => {
      const [row] = await sql<Array<{ version: number }>>`
        select max(version) as version from millrace.projection where name = 'ledger' and retired_at is null`
      return row!.version
    }
    const rebuilt = async () => {
      const [row] = await sql<Array<{ state: string }>>`
        select state from millrace.rebuild where projection = 'ledger' and version = ${await newest()}`
      return (await newest()) > before && row?.state === "done"
    }
    await this.command("rebuild ledger --json", at("rebuild"), rebuilt)
    const next = await newest()
    await this.mark(next)
    if (this.random.chance(0.5)) await this.killOne()
    const isLive = (build: number) => async () => (await this.liveBuild()) === build
    await this.command("promote ledger --timeout 30s --json", at("promote"), isLive(next))
    if (this.random.chance(0.4)) {
      await this.command("promote ledger --rollback --timeout 30s --json", undefined, isLive(before))
      await this.command("promote ledger --timeout 30s --json", undefined, isLive(next))
    }
    this.live = next
    const dropped = async () => {
      const [row] = await sql<Array<{ dropped: boolean }>>`
        select dropped from millrace.projection where name = 'ledger' and version = ${before}`
      return row?.dropped === true
    }
    await this.command(`retire ledger ${before} --drop --json`, at("retire"), dropped)
    this.say(`build ${next} is live${point === undefined ? "" : ` (${point.command}: ${point.name})`}`)
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
    for (let left = this.options.events - this.sent.length; left > 0; left -= 50) await this.feed(Math.min(left, 50))
    const { sql } = this.services
    await this.until("processing of everything", async () => {
      const [row] = await sql<Array<{ n: number }>>`select count(*)::int as n from entries where id <> ${marker}`
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
    await this.fleet.stop()
  }
  async end(): Promise<void> {
    await this.stopFeeding().catch(() => undefined)
    await this.readers?.stop()
  }
}

const here = "test/fault/rebuild"
/** Opens services that several runs may share, creates topics, calls `use`, and removes what belongs to the run. */
export const withRun = <A>(options: RunOptions, use: (run: Run) => Promise<A>): Promise<A> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const services = yield* open(`rebuild${options.seed}x${process.pid}x${++runs}`)
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

const open = Effect.fnUntraced(function* (name: string): Effect.fn.Return<Services, unknown, Scope.Scope> {
  const endpoints = yield* shared("kafka", "pulsar")
  const brokers = endpoints.MILLRACE_KAFKA_BROKERS!.split(",")
  const pulsar = { ...optionsOf("websocket", endpoints), tenant: name, namespace: "alerts" }
  yield* Effect.promise(async () => makeTenant(await Effect.runPromise(Effect.scoped(connectPulsar(pulsar))), name))
  const url = new URL(yield* server)
  const admin = connect(url.href, 1)
  // the processes migrate it, with the patches of a mutant
  yield* Effect.promise(() => admin.unsafe(`create database ${name}`).finally(() => admin.end({ timeout: 1 })))
  url.pathname = `/${name}`
  const sql = yield* Effect.acquireRelease(
    Effect.sync(() => connect(url.href, 4)),
    (one) => Effect.promise(() => one.end({ timeout: 1 }))
  )
  return { name, brokers, pulsar, url: url.href, sql, log: yield* KafkaLog.make({ brokers }) }
})
