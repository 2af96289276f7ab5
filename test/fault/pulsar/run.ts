// A run of the harness on Pulsar: its services, the processes with relays and consumers, and what is published meanwhile.
import { join } from "node:path"
import type { PulsarRelayOptions } from "../../../src/pulsar/relay/relay.ts"
import { type TransportName, transports } from "../../support/pulsar.ts"
import { type Random, randomOf } from "../../support/random.ts"
import { type Copy, type Patch, patchedCopy } from "../harness/patched-copy.ts"
import { FaultRun, type FaultRunOptions } from "../harness/fault-run.ts"
import { Fleet, type Worker } from "../harness/fleet.ts"
import { patiently } from "../harness/postgres.ts"
import type { ConsumerGiven } from "./consumer-process.ts"
import { Feeder, projection } from "./feeder.ts"
import type { Plan } from "./plan.ts"
import { earlyBatches, points, type Role } from "./points.ts"
import type { RelayGiven } from "./relay-process.ts"
import { services, type Services, topics } from "./services.ts"
import { subscriptions } from "./subscriptions.ts"

/** Options of a run. */
export interface RunOptions extends FaultRunOptions {
  readonly seed: number
  readonly plan: Plan
  /** How many messages are published at least. While a step waits for its fault more are published. */
  readonly messages: number
  /** Relays send batches if many messages wait. Key-shared subscriptions are not ordered then. */
  readonly batching?: boolean
  /** The transport of all processes; by default random for each. */
  readonly transport?: TransportName
  /** After so many minutes no further step begins, and the result is compared. */
  readonly minutes?: number
  /** The patches of a mutant. */
  readonly mutant?: ReadonlyArray<Patch>
}
/** How a process differs from a regular one. */
export interface Special {
  readonly point?: string
  /** Whether it takes every lane, even those of other relays. */
  readonly greedy?: boolean
  /** How many of a hundred handlers fail, and how many are slow. */
  readonly failing?: number
  readonly slow?: number
}

/** A run. */
export class Run extends FaultRun<RunOptions> {
  /** How many messages were in batches with others. */
  batched = 0
  readonly services: Services
  readonly feeder: Feeder
  private readonly random: Random

  constructor(options: RunOptions, opened: Services, fleet: Fleet) {
    super(options, fleet)
    this.services = opened
    this.feeder = new Feeder(opened.sql, options.seed)
    this.random = randomOf(options.seed + 1)
    this.feedOn(async () => {
      // on a slow machine consumers would never catch up
      if ((await this.backlog().catch(() => 0)) < mostBehind) await this.feeder.feed(10)
    }, 250)
  }
  /** How many published messages the slowest subscription has not handled yet. */
  private async backlog(): Promise<number> {
    const handled = await this.handled()
    return Math.max(...this.expected().map(([name, count]) => count - (handled.get(name) ?? 0)))
  }
  protected async describe(): Promise<ReadonlyArray<string>> {
    return [
      `published ${JSON.stringify([...this.feeder.ends])}`,
      `relayed ${JSON.stringify(await this.positions().catch(() => []))}`,
      `handled ${JSON.stringify([...(await this.handled().catch(() => []))])}`
    ]
  }

  /** Starts a process, by default with a random transport. */
  start(role: Role, special: Special = {}): Worker {
    const { batching = false, seed } = this.options
    const { failing = 2, greedy = false, point, slow = 0 } = special
    const { services } = this
    const transport = this.options.transport ?? this.random.pick(transports)
    const options = services.through(transport)
    const batched = batching ? Object.keys(topics) : []
    const relay: PulsarRelayOptions = { prefix: `fault-${seed}`, batched, segments: 16 }
    const given: RelayGiven | ConsumerGiven =
      role === "relay" ? { url: services.url, options, relay } : { url: services.url, options, failing, slow }
    const worker = this.fleet.start(role, {
      ...(point === undefined ? {} : { point }),
      environment: { MILLRACE_FAULT: JSON.stringify(given), ...(greedy && { MILLRACE_GREED: "1" }) }
    })
    this.say(`${role} ${worker.pid}, ${transport}${point === undefined ? "" : `, ${point}`}`)
    return worker
  }

  /** The positions that the relays have stored. */
  positions(): Promise<
    ReadonlyArray<{ readonly stream: string; readonly seq: number; readonly halted: string | null }>
  > {
    return patiently(
      async () =>
        await this.services.sql<Array<{ stream: string; seq: number; halted: string | null }>>`
          select projection || '/' || source || '/' || partition as stream, seq::float8 as seq, halted
          from millrace.relay_position where target = 'pulsar' and projection = ${projection} order by 1`
    )
  }
  /** Waits until everything that is published by now is relayed. */
  async relayed(what: string): Promise<void> {
    const { ends } = this.feeder
    await this.until(what, async () => {
      const found = new Map((await this.positions()).map(({ seq, stream }) => [stream, seq]))
      return [...ends].every(([stream, end]) => (found.get(stream) ?? 0) >= end)
    })
  }
  /** How many different messages each subscription has handled. */
  async handled(): Promise<ReadonlyMap<string, number>> {
    const rows = await patiently(
      async () =>
        await this.services.sql<Array<{ subscription: string; count: number }>>`
          select subscription, count(distinct (stream, seq))::float8 as count from handled group by 1`
    )
    return new Map(rows.map(({ count, subscription }) => [subscription, count]))
  }
  /** How many messages are published by now for each subscription. */
  private expected(): ReadonlyArray<readonly [subscription: string, messages: number]> {
    return subscriptions.map(({ name, tenant, topic }) => [
      name,
      this.feeder.fed.filter((fed) => !fed.poison && fed.tenant === tenant && fed.topic === topic).length
    ])
  }
  /** Waits until every subscription has handled everything that is published by now. */
  async handledAll(what: string): Promise<void> {
    const expected = this.expected()
    await this.until(what, async () => {
      const found = await this.handled()
      return expected.every(([name, count]) => (found.get(name) ?? 0) >= count)
    })
  }
}

/** If a subscription is this many messages behind, the load in the background pauses. */
const mostBehind = 400
const here = "test/fault/pulsar"
/** Starts everything that a run needs, calls `use`, and stops and removes everything again. */
export const withRun = async <A>(options: RunOptions, use: (run: Run) => Promise<A>): Promise<A> => {
  // mutants first, because points are patches of lines that mutants keep
  const tree: Copy = patchedCopy(
    [...(options.mutant ?? []), ...(options.batching === true ? earlyBatches : []), ...points],
    [here]
  )
  let opened: Services | undefined
  let fleet: Fleet | undefined
  let run: Run | undefined
  try {
    opened = await services()
    fleet = new Fleet(tree.root, { NODE_COMPILE_CACHE: join(tree.root, ".compiled") }, (role) => [
      "--import",
      "./bin/points.mjs",
      `${here}/${role}-process.ts`
    ])
    run = new Run(options, opened, fleet)
    return await use(run)
  } finally {
    await run?.stopFeeding()
    await fleet?.kill()
    await opened?.close()
    tree.remove()
  }
}
