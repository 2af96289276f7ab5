// One run: services, the application in processes of its own, a load, and the plan's faults; then everything is compared with the fold of the log.
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { consume } from "./consumer.ts"
import { copy, type Copy, type Patch } from "./copy.ts"
import { Differences } from "./differences.ts"
import { points } from "./failpoints.ts"
import { Feeder } from "./feeder.ts"
import { Fleet } from "./fleet.ts"
import { Fold, partitions } from "./fold.ts"
import { features } from "./load.ts"
import { isHandled, places, Watch } from "./observe.ts"
import { topics, Outputs } from "./outputs.ts"
import type { Plan } from "./plan.ts"
import { type Services, services, sessionMs } from "./services.ts"
import { Steps } from "./steps.ts"
import { compareTables } from "./tables.ts"

/** What a run is to be. */
export interface RunOptions {
  readonly seed: number
  readonly plan: Plan
  /** At least so many; while a fault is waited for more are sent. */
  readonly events: number
  readonly entities?: number
  /** What makes the application a mutant. */
  readonly mutant?: ReadonlyArray<Patch>
  /** Without relays, and so without outputs. */
  readonly projectionsOnly?: boolean
  /** How long anything may take to come about. */
  readonly patienceMs?: number
  readonly say?: (line: string) => void
  /** Where something is wrong services are left running for whoever wants to look, until the process is told to end. */
  readonly hold?: boolean
}
/** What became of a run. */
export interface Report {
  readonly seed: number
  readonly events: number
  readonly duplicates: number
  readonly late: number
  readonly alerts: number
  readonly dead: number
  /** Records of transactions that were aborted, and none of which may be seen. */
  readonly aborted: number
  readonly faults: Readonly<Record<string, number>>
  readonly fenced: number
  /** Processes that were started. */
  readonly processes: number
  readonly seconds: number
  readonly lost: number
  readonly doubled: number
  readonly disordered: number
  readonly wrong: number
  /** Why the run did not come to its end; undefined where it did. */
  readonly hang: string | undefined
  readonly examples: ReadonlyArray<string>
}

/** Something did not come about in time. */
export class Hang extends Error {
  override readonly name = "Hang"
}

/** A run while it is under way. */
export class Run {
  readonly options: RunOptions
  readonly services: Services
  readonly feeder: Feeder
  readonly fleet: Fleet
  readonly differences = new Differences()
  readonly watch = new Watch()
  readonly faults: Record<string, number> = {}
  private trickling = true
  private readonly trickle: Promise<void>
  private failed: unknown

  constructor(options: RunOptions, opened: Services, feeder: Feeder, fleet: Fleet) {
    this.options = options
    this.services = opened
    this.feeder = feeder
    this.fleet = fleet
    this.trickle = this.drip()
  }
  say(line: string): void {
    this.options.say?.(line)
  }
  note(fault: string, count = 1): void {
    this.faults[fault] = (this.faults[fault] ?? 0) + count
  }
  /** A few events now and then, so that whatever is waited for finds some. */
  private async drip() {
    while (this.trickling) {
      try {
        await this.feeder.drip(12)
      } catch (error) {
        this.failed ??= error
      }
      await sleep(100)
    }
  }
  async stopFeeding(): Promise<void> {
    this.trickling = false
    await this.trickle
  }
  /** Asks until it is so. Questions that fail, as to a server that is away, are asked again. */
  async until(what: string, ask: () => boolean | Promise<boolean>): Promise<void> {
    const { patienceMs = 60_000 } = this.options
    const deadline = performance.now() + patienceMs
    for (;;) {
      let wrong: unknown
      try {
        if (await ask()) return
      } catch (error) {
        wrong = error
      }
      if (this.failed !== undefined) throw this.failed
      if (performance.now() > deadline || this.fleet.fell.length > 0)
        throw new Hang(await this.describe(`no ${what}`, wrong))
      await sleep(15)
    }
  }
  private async describe(what: string, wrong: unknown): Promise<string> {
    const workers = [...this.fleet.fell, ...this.fleet.workers].map(
      ({ exit, output, pid, role, stopped }) =>
        `-- ${role} ${pid}${stopped ? " (stopped)" : ""} ${exit ?? ""}\n${output.slice(-1_500)}`
    )
    const where = await places(this.services.sql).catch(() => [])
    const ends = await this.feeder.ends().catch(() => [])
    const reason = wrong === undefined ? "" : `: ${String(wrong)}`
    return [`${what}${reason}`, JSON.stringify(where), JSON.stringify(ends), ...workers].join("\n")
  }

  /** Everything that was fed is handled, and everything published is relayed. Others must have stopped feeding. */
  async drain(): Promise<void> {
    const ends = await this.feeder.ends()
    const { sql } = this.services
    await this.until("handling of everything that was fed", () => isHandled(sql, ends))
    await this.relayed("relaying of everything that was published")
  }
  /** What is published by now is relayed. */
  async relayed(what: string): Promise<void> {
    if (this.options.projectionsOnly === true) return
    const { sql } = this.services
    const published = new Map((await places(sql)).map((place) => [place.partition, place.published]))
    await this.until(what, async () =>
      (await places(sql)).every(({ partition, relayed }) => (relayed ?? 0) >= published.get(partition)!)
    )
  }

  /** Reads the log and the outputs with Kafka's own consumer, and compares. Nothing may run. `end` is the last marker's id. */
  async compare(end: string): Promise<Fold> {
    const { brokers, sql } = this.services
    const fold = new Fold()
    const sealed = `sealed ${end}`
    const read = (topic: string, take: Parameters<typeof consume>[0]["take"]) => {
      const isLast = ({ value }: { readonly value: string | null }) => value === sealed
      return consume({ brokers, topic, partitions, isLast, take: (record) => record.value !== sealed && take(record) })
    }
    for (const feature of features(this.feeder.load)) fold.feature(feature)
    const isLast = ({ value }: { readonly value: string | null }) => value?.includes(`"${end}-`) === true
    await consume({ brokers, topic: "events.raw.v1", partitions, isLast, takeLast: true, take: fold.event })
    await compareTables(sql, fold, this.differences)
    if (this.options.projectionsOnly === true) return fold
    const outputs = new Outputs(fold, this.differences)
    for (const topic of topics) await this.feeder.seal(topic, sealed)
    await Promise.all(topics.map((topic) => read(topic, (record) => outputs.take(topic, record))))
    const published = await places(sql)
    outputs.finish(new Map(published.map(({ partition, published }) => [partition, published])))
    return fold
  }
}

/** Makes the topics. Everything else is made by whichever process starts first. */
const prepare = async (fleet: Fleet) => {
  const { code, errors, output } = await fleet.command("topics", "apply")
  if (code !== 0) throw new Error(`topics apply ended with ${code}: ${output}${errors}`)
}

/** Opens a run, lets `use` have it, and leaves nothing behind. */
export const withRun = async <A>(options: RunOptions, use: (run: Run) => Promise<A>): Promise<A> => {
  // mutants first: points are then put into what they left
  const tree: Copy = copy([...(options.mutant ?? []), ...points])
  let opened: Services | undefined
  let feeder: Feeder | undefined
  let fleet: Fleet | undefined
  let run: Run | undefined
  try {
    opened = await services()
    fleet = new Fleet(tree.root, {
      MILLRACE_KAFKA_BROKERS: opened.brokers,
      MILLRACE_DATABASE_URL: opened.url,
      MILLRACE_KAFKA_SESSION_MS: String(sessionMs),
      // a start takes half as long
      NODE_COMPILE_CACHE: join(tree.root, ".compiled")
    })
    await prepare(fleet)
    feeder = new Feeder(opened.brokers.split(","), { seed: options.seed, entities: options.entities ?? 2_000 })
    await feeder.open()
    run = new Run(options, opened, feeder, fleet)
    return await use(run)
  } finally {
    await run?.stopFeeding()
    await fleet?.kill()
    await feeder?.close()
    await opened?.close()
    tree.remove()
  }
}

/** Regular processes, beside those that faults start. */
const regular = (options: RunOptions) => ({ projections: 2, relay: options.projectionsOnly === true ? 0 : 2 })

const held = async (run: Run, hang: string | undefined) => {
  const { brokers, url } = run.services
  run.say(`${hang ?? run.differences.toString()}\nheld: MILLRACE_KAFKA_BROKERS=${brokers} MILLRACE_DATABASE_URL=${url}`)
  await new Promise((resolve) => process.once("SIGINT", resolve).once("SIGTERM", resolve))
}

/** Runs the plan from beginning to end. */
export const execute = async (options: RunOptions, then?: (run: Run) => Promise<void>): Promise<Report> => {
  const began = performance.now()
  return withRun(options, async (run) => {
    let hang: string | undefined
    let fold: Fold | undefined
    try {
      const steps = new Steps(run, options.plan, regular(options))
      await steps.run()
      run.say("the plan is done")
      await run.stopFeeding()
      const left = options.events - run.feeder.fed
      if (left > 0) await run.feeder.feed(left)
      await run.feeder.mark("end")
      run.say("everything is fed")
      await run.drain()
      run.say("everything is handled")
      await run.watch.look(run.services.sql, run.differences)
      await run.fleet.stop()
      run.say("everything has ended")
      fold = await run.compare("end")
      run.say("everything is compared")
      await then?.(run)
    } catch (error) {
      if (!(error instanceof Hang)) throw error
      hang = error.message
    }
    if (options.hold === true && (hang !== undefined || run.differences.total > 0)) await held(run, hang)
    const { doubled, lost, order, wrong } = run.differences.counts
    const { alerts = 0, dead = 0, duplicates = 0, events = 0, late = 0 } = fold?.totals ?? {}
    return {
      seed: options.seed,
      events,
      duplicates,
      late,
      alerts,
      dead,
      aborted: run.feeder.aborted,
      faults: run.faults,
      fenced: run.fleet.fenced,
      processes: run.fleet.started,
      seconds: Math.round((performance.now() - began) / 100) / 10,
      lost,
      doubled,
      disordered: order,
      wrong,
      hang,
      examples: run.differences.examples
    }
  })
}
