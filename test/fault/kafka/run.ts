// A run of the harness on Kafka: its services, the processes of the application, the load, and the comparison with a fold of the log.
import { join } from "node:path"
import { consume, type Printed } from "./consumer.ts"
import { type Copy, type Patch, patchedCopy } from "../harness/patched-copy.ts"
import { FaultRun, type FaultRunOptions } from "../harness/fault-run.ts"
import { points } from "./failpoints.ts"
import { Feeder } from "./feeder.ts"
import { Fleet } from "../harness/fleet.ts"
import { Fold, partitions } from "./fold.ts"
import { features } from "./load.ts"
import { isHandled, partitionStates, Watch } from "./observe.ts"
import { type Output, Outputs, topics } from "./outputs.ts"
import type { Plan } from "./plan.ts"
import { type Services, services, sessionMs } from "./services.ts"
import { compareTables } from "./tables.ts"

/** Options of a run. */
export interface RunOptions extends FaultRunOptions {
  readonly seed: number
  readonly plan: Plan
  /** How many events are sent at least. While a step waits for its fault more are sent. */
  readonly events: number
  /** How many of them are in the log before the first process starts. */
  readonly ahead?: number
  readonly entities?: number
  /** The patches of a mutant. */
  readonly mutant?: ReadonlyArray<Patch>
  /** Runs no relays, and so compares no outputs. */
  readonly projectionsOnly?: boolean
  /** If something is wrong, keep the services running for inspection until SIGINT or SIGTERM. */
  readonly hold?: boolean
}
/** A run. */
export class Run extends FaultRun<RunOptions> {
  readonly services: Services
  readonly feeder: Feeder
  readonly watch = new Watch()
  private quiet = false

  constructor(options: RunOptions, opened: Services, feeder: Feeder, fleet: Fleet) {
    super(options, fleet)
    this.services = opened
    this.feeder = feeder
    this.feedOn(async () => {
      if (!this.quiet) await this.feeder.drip(12)
    }, 100)
  }
  /** Stops the load in the background while `use` runs. */
  async quietly<A>(use: () => Promise<A>): Promise<A> {
    this.quiet = true
    try {
      await this.feeder.settled
      return await use()
    } finally {
      this.quiet = false
    }
  }
  protected async describe(): Promise<ReadonlyArray<string>> {
    const where = await partitionStates(this.services.sql).catch(() => [])
    const ends = await this.feeder.ends().catch(() => [])
    return [JSON.stringify(where), JSON.stringify(ends)]
  }

  /** Waits until everything that was sent is processed and everything published is relayed. Nothing may be sent meanwhile. */
  async drain(): Promise<void> {
    const ends = await this.feeder.ends()
    const { sql } = this.services
    await this.until("processing of everything that was sent", () => isHandled(sql, ends))
    await this.relayed("relaying of everything that was published")
  }
  /** Waits until everything that is published by now is relayed. */
  async relayed(what: string): Promise<void> {
    if (this.options.projectionsOnly === true) return
    const { sql } = this.services
    const published = new Map((await partitionStates(sql)).map(({ partition, published }) => [partition, published]))
    await this.until(what, async () =>
      (await partitionStates(sql)).every(({ partition, relayed }) => (relayed ?? 0) >= published.get(partition)!)
    )
  }

  /** Reads the log and the outputs with Kafka's own consumer, and compares them with the tables. No process may run. `end` is the id of the last marker. */
  async compare(end: string): Promise<Fold> {
    const { sql } = this.services
    const fold = await this.fold(end)
    await compareTables(sql, fold, this.differences)
    if (this.options.projectionsOnly === true) return fold
    const published = await partitionStates(sql)
    await this.outputs(end, fold, new Map(published.map(({ partition, published }) => [partition, published])))
    return fold
  }
  /** Compares only the outputs with the log up to the marker `end`. `seal` names the records that end the outputs. */
  async compareOutputs(end: string, seal: string): Promise<void> {
    await this.outputs(seal, await this.fold(end), new Map())
  }
  /** Folds the log up to a marker. */
  private async fold(end: string): Promise<Fold> {
    const fold = new Fold()
    for (const feature of features(this.feeder.load)) fold.feature(feature)
    await this.read("events.raw.v1", ({ value }) => value?.includes(`"${end}-`) === true, fold.event, true)
    return fold
  }
  private async outputs(end: string, fold: Fold, published: ReadonlyMap<number, number>) {
    const outputs = new Outputs(fold, this.differences)
    const sealed = `sealed ${end}`
    for (const topic of topics) await this.feeder.seal(topic, sealed)
    const take = (topic: Output) => (record: Printed) => void (isSeal(record) || outputs.take(topic, record))
    await Promise.all(topics.map((topic) => this.read(topic, ({ value }) => value === sealed, take(topic), false)))
    outputs.finish(published)
  }
  private read(
    topic: string,
    isLast: (record: Printed) => boolean,
    take: (record: Printed) => void,
    takeLast: boolean
  ): Promise<number> {
    return consume({ brokers: this.services.brokers, topic, partitions, isLast, take, takeLast })
  }
}
const isSeal = ({ value }: Printed) => value?.startsWith("sealed ") === true

/** Creates the topics. The process that starts first creates everything else. */
const prepare = async (fleet: Fleet) => {
  const { code, errors, output } = await fleet.command("topics", "apply")
  if (code !== 0) throw new Error(`topics apply ended with ${code}: ${output}${errors}`)
}

/** Starts everything that a run needs, calls `use`, and stops and removes everything again. */
export const withRun = async <A>(options: RunOptions, use: (run: Run) => Promise<A>): Promise<A> => {
  // mutants first, because points are patches of lines that mutants keep
  const tree: Copy = patchedCopy([...(options.mutant ?? []), ...points])
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
      // halves the time that a process takes to start
      NODE_COMPILE_CACHE: join(tree.root, ".compiled")
    })
    await prepare(fleet)
    feeder = new Feeder(opened.brokers.split(","), { seed: options.seed, entities: options.entities ?? 2_000 })
    await feeder.open()
    await feeder.feed(options.ahead ?? 0)
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
