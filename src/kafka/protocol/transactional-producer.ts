// A transactional producer: batches of several partitions and offsets of groups become visible together, or not at all. It tries nothing
// again whose outcome matters: after any failure it must be closed, and another one made.
import { Client, isLost, isMoved } from "./client.ts"
import type { Broker } from "./kafkajs.ts"
import { typeOf } from "./errors.ts"
import { stamp } from "./batch-encode.ts"
import type { Options } from "./options.ts"
import * as Wire from "./transaction-requests.ts"

/** After that long the broker ends a transaction by itself. */
export const transactionMs = 10_000
/** What is asked again before anything is at stake is asked for that long. */
const patienceMs = 30_000

/** A batch of a partition, transactional and not stamped yet. */
export interface Batch {
  readonly topic: string
  readonly partition: number
  readonly records: number
  readonly bytes: Buffer
}
export type { Offset } from "./transaction-requests.ts"
export { PartitionRefused } from "./transaction-requests.ts"

/** Whether somebody else has taken the transactional id over, or the broker has ended the transaction meanwhile. */
export const isFenced = (cause: unknown): boolean =>
  /^(INVALID_PRODUCER_EPOCH|PRODUCER_FENCED|INVALID_PRODUCER_ID_MAPPING|INVALID_TXN_STATE)$/.test(typeOf(cause)) ||
  (cause as { readonly code?: unknown }).code === producerFenced
/** Newer than kafkajs, which has no name for it. */
const producerFenced = 90

const isBusy = (cause: unknown) => /^(CONCURRENT_TRANSACTIONS|UNSTABLE_OFFSET_COMMIT)$/.test(typeOf(cause))
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
/** The transaction before is being ended: soon is better than seldom. */
const busyPauseMs = (attempt: number) => Math.min(2 + attempt, 20)

/** The owner of a transactional id. One transaction at a time. */
export class TransactionalProducer {
  readonly client: Client
  private readonly id: string
  private readonly requestMs: number
  private identity: Wire.Identity = { id: -1n, epoch: -1 }
  /** By purpose and name: the node that coordinates. */
  private readonly coordinators = new Map<string, number>()
  /** The number of the next record, by partition. */
  private readonly sequences = new Map<string, number>()

  private constructor(client: Client, id: string) {
    this.client = client
    this.id = id
    // a request that takes longer than its transaction may is of no use
    this.requestMs = Math.min(client.requestMs, transactionMs)
  }

  /**
   * Takes the id over: whoever had it is fenced, what he had under way is aborted, and what he committed is committed. Rejects with the
   * driver's errors.
   */
  static async take(options: Options, id: string): Promise<TransactionalProducer> {
    const producer = new TransactionalProducer(new Client(options), id)
    try {
      await producer.patiently(async () => {
        producer.identity = await producer.coordinated("transaction", id, (broker) =>
          Wire.initProducerId(broker, id, transactionMs, producer.requestMs)
        )
      })
      return producer
    } catch (cause) {
      producer.close()
      throw cause
    }
  }
  /** Gives all its connections up at once; a transaction under way is left to its end by time, or by the next owner. */
  close(): void {
    this.client.close()
  }

  private async coordinated<A>(purpose: "transaction" | "group", name: string, run: (broker: Broker) => Promise<A>) {
    const key = `${purpose} ${name}`
    let node = this.coordinators.get(key)
    if (node === undefined) {
      const coordinatorType = purpose === "group" ? 0 : 1
      const { coordinator } = await this.client.any((broker) =>
        broker.findGroupCoordinator({ groupId: name, coordinatorType })
      )
      this.client.learn(coordinator.nodeId, coordinator.host, coordinator.port)
      node = coordinator.nodeId
      this.coordinators.set(key, node)
    }
    try {
      return await this.client.use(node, purpose, run, this.requestMs)
    } catch (cause) {
      if (isMoved(cause) || isLost(cause)) this.coordinators.delete(key)
      throw cause
    }
  }
  /** For what may be asked twice: waits for brokers, and for a transaction that is being ended. */
  private async patiently<A>(run: () => Promise<A>): Promise<A> {
    const until = Date.now() + Math.min(patienceMs, this.client.requestMs * 2)
    for (let attempt = 0; ; attempt++) {
      try {
        return await run()
      } catch (cause) {
        const busy = isBusy(cause)
        if (!(busy || isMoved(cause) || isLost(cause)) || Date.now() > until) throw cause
        await sleep(busy ? busyPauseMs(attempt) : Math.min(10 * 2 ** attempt, 500))
      }
    }
  }
  /** Waits only for the transaction before, which is being ended. */
  private async whenFree<A>(run: () => Promise<A>): Promise<A> {
    const until = Date.now() + transactionMs
    for (let attempt = 0; ; attempt++) {
      try {
        return await run()
      } catch (cause) {
        if (!isBusy(cause) || Date.now() > until) throw cause
        await sleep(busyPauseMs(attempt))
      }
    }
  }

  /** Committed offsets of a group, once no transaction with one of them is being ended. Partitions without one are left out. */
  offsets(
    group: string,
    partitions: ReadonlyArray<{ readonly topic: string; readonly partition: number }>
  ): Promise<ReadonlyArray<Wire.Offset>> {
    return this.patiently(() =>
      this.coordinated("group", group, (broker) => Wire.fetchOffsets(broker, group, partitions, this.requestMs))
    )
  }

  /**
   * One transaction: appends the batches, those of a partition in their order, and commits the groups' offsets. Resolved, all of it
   * holds; rejected, nobody knows, and the producer is of no more use. Rejects with `PartitionRefused` where a broker refused one
   * partition, else with the driver's errors.
   */
  async commit(batches: ReadonlyArray<Batch>, offsets: ReadonlyMap<string, ReadonlyArray<Wire.Offset>>): Promise<void> {
    const { id, identity, requestMs } = this
    const partitions = new Map(batches.map((batch) => [`${batch.topic}/${batch.partition}`, batch]))
    const begin: Array<Promise<void>> = []
    const add = (run: (broker: Broker) => Promise<void>) =>
      begin.push(this.whenFree(() => this.coordinated("transaction", id, run)))
    if (partitions.size > 0)
      add((broker) => Wire.addPartitions(broker, id, identity, [...partitions.values()], requestMs))
    for (const group of offsets.keys()) add((broker) => Wire.addOffsets(broker, id, identity, group, requestMs))
    await Promise.all(begin)
    await this.append(batches)
    // one after another: a broker that is asked to check the transaction for two requests at once refuses one of them
    for (const [group, list] of offsets)
      await this.coordinated("group", group, (broker) =>
        Wire.commitOffsets(broker, id, identity, group, list, requestMs)
      )
    await this.coordinated("transaction", id, (broker) => Wire.endTransaction(broker, id, identity, true, requestMs))
  }

  private async append(batches: ReadonlyArray<Batch>): Promise<void> {
    const rounds: Array<Map<string, Batch>> = []
    const counts = new Map<string, number>()
    for (const batch of batches) {
      const key = `${batch.topic}/${batch.partition}`
      const round = counts.get(key) ?? 0
      counts.set(key, round + 1)
      ;(rounds[round] ??= new Map()).set(key, batch)
      const sequence = this.sequences.get(key) ?? 0
      stamp(batch.bytes, this.identity.id, this.identity.epoch, sequence)
      // a number of 31 bits, which begins again at 0
      this.sequences.set(key, (sequence + batch.records) % 2 ** 31)
    }
    // a request takes one batch a partition
    for (const round of rounds) {
      const leaders = new Map<number, Array<Batch>>()
      for (const batch of round.values()) {
        const leader = await this.client.leader(batch.topic, batch.partition)
        const of = leaders.get(leader)
        if (of === undefined) leaders.set(leader, [batch])
        else of.push(batch)
      }
      await Promise.all(
        [...leaders].map(([leader, of]) =>
          this.client.use(
            leader,
            "produce",
            (broker) => Wire.produce(broker, this.id, of, this.requestMs),
            this.requestMs
          )
        )
      )
    }
  }
}
