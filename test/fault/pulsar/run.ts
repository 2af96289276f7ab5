// A run while it is under way: services, relays and consumers in processes of their own, and what is published meanwhile.
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

/** What a run is to be. */
export interface RunOptions extends FaultRunOptions {
  readonly seed: number
  readonly plan: Plan
  /** At least so many messages; while a fault is waited for more are published. */
  readonly messages: number
  /** Relays send batches where many messages wait, and key-shared subscriptions have no order then. */
  readonly batching?: boolean
  /** Of all processes; default: each by chance. */
  readonly transport?: TransportName
  /** After so long no further fault begins, and what there is by then is compared. */
  readonly minutes?: number
  /** What makes the relay a mutant. */
  readonly mutant?: ReadonlyArray<Patch>
}
/** How a process differs from a regular one. */
export interface Special {
  readonly point?: string
  /** It takes every lane for its own. */
  readonly greedy?: boolean
  /** Handlers of a hundred. */
  readonly failing?: number
  readonly slow?: number
}

/** A run while it is under way. */
export class Run extends FaultRun<RunOptions> {
  /** Messages in topics that came there with others. */
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
      // on a slow machine consumers would fall behind for good
      if ((await this.backlog().catch(() => 0)) < mostBehind) await this.feeder.feed(10)
    }, 250)
  }
  /** Messages that were published and the slowest subscription has not handled. */
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

  /** Starts a process, over a transport of chance. */
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

  /** How far the relays have written down that they came. */
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
  /** What is published by now is relayed. */
  async relayed(what: string): Promise<void> {
    const { ends } = this.feeder
    await this.until(what, async () => {
      const found = new Map((await this.positions()).map(({ seq, stream }) => [stream, seq]))
      return [...ends].every(([stream, end]) => (found.get(stream) ?? 0) >= end)
    })
  }
  /** Different messages that subscriptions have handled. */
  async handled(): Promise<ReadonlyMap<string, number>> {
    const rows = await patiently(
      async () =>
        await this.services.sql<Array<{ subscription: string; count: number }>>`
          select subscription, count(distinct (stream, seq))::float8 as count from handled group by 1`
    )
    return new Map(rows.map(({ count, subscription }) => [subscription, count]))
  }
  /** Messages that are published by now, for each subscription. */
  private expected(): ReadonlyArray<readonly [subscription: string, messages: number]> {
    return subscriptions.map(({ name, tenant, topic }) => [
      name,
      this.feeder.fed.filter((fed) => !fed.poison && fed.tenant === tenant && fed.topic === topic).length
    ])
  }
  /** What is published by now is handled by every subscription. */
  async handledAll(what: string): Promise<void> {
    const expected = this.expected()
    await this.until(what, async () => {
      const found = await this.handled()
      return expected.every(([name, count]) => (found.get(name) ?? 0) >= count)
    })
  }
}

/** So many messages behind the trickle stops. */
const mostBehind = 400
const here = "test/fault/pulsar"
/** Opens a run, lets `use` have it, and leaves nothing behind. */
export const withRun = async <A>(options: RunOptions, use: (run: Run) => Promise<A>): Promise<A> => {
  // mutants first: points are then put into what they left
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
