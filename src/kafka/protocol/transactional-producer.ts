// A transactional producer: batches of several partitions and offsets of groups become visible together, or not at all. After any failure of a
// transaction it must be closed and replaced, because the outcome is unknown.
import { Client, isLost, isMoved } from "./client.ts"
import type { Broker } from "./kafkajs.ts"
import { failureOf, type TopicPartition } from "./errors.ts"
import { stamp } from "./batch-encode.ts"
import type { KafkaOptions } from "./options.ts"
import * as Wire from "./transaction-requests.ts"

/** After so long the broker ends a transaction by itself, in milliseconds. */
export const transactionMs = 10_000
/** How long requests are repeated that change nothing, in milliseconds. */
const patienceMs = 30_000

/** A transactional batch for a partition, not stamped yet. */
export interface TransactionBatch {
  readonly topic: string
  readonly partition: number
  readonly records: number
  readonly bytes: Buffer
}
export type { GroupOffset } from "./transaction-requests.ts"

/** Whether another process took the transactional id over, or the broker ended the transaction. */
export const isFenced = (cause: unknown): boolean => failureOf(cause).kind === "fenced"
const isBusy = (cause: unknown) => failureOf(cause).kind === "busy"
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
/** Short pauses: ending the previous transaction takes milliseconds. */
const busyPauseMs = (attempt: number) => Math.min(2 + attempt, 20)

/** The owner of a transactional id. One transaction at a time. */
export class TransactionalProducer {
  readonly client: Client
  private readonly id: string
  private readonly requestMs: number
  private identity: Wire.ProducerIdentity = { id: -1n, epoch: -1 }
  /** The number of the coordinating broker, by purpose and name. */
  private readonly coordinators = new Map<string, number>()
  /** The sequence number of the next record, by partition. */
  private readonly sequences = new Map<string, number>()

  private constructor(client: Client, id: string) {
    this.client = client
    this.id = id
    // a request that takes longer than its transaction may last has no effect
    this.requestMs = Math.min(client.requestMs, transactionMs)
  }

  /**
   * Takes a transactional id over: its previous owner is fenced, and that owner's open transaction aborted; what it committed stays. Rejects
   * with `KafkaFailure`.
   */
  static async take(options: KafkaOptions, id: string): Promise<TransactionalProducer> {
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
  /** Closes its connections at once. An open transaction ends by its timeout, or when the next owner takes the id over. */
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
  /** Repeats a request that may be sent twice, while brokers are away or the previous transaction is being ended. */
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
  /** Repeats a request only while the previous transaction is being ended. */
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

  /** A group's committed offsets, once no transaction with one of them is being ended. Partitions without one are left out. */
  offsets(group: string, partitions: ReadonlyArray<TopicPartition>): Promise<ReadonlyArray<Wire.GroupOffset>> {
    return this.patiently(() =>
      this.coordinated("group", group, (broker) => Wire.fetchOffsets(broker, group, partitions, this.requestMs))
    )
  }

  /**
   * One transaction: appends the batches, those of a partition in their order, and commits the groups' offsets. When it resolves all of it is
   * committed; when it rejects the outcome is unknown, and the producer must be closed. Rejects with `KafkaFailure`, which names the
   * `partition` that a broker refused, if it refused one.
   */
  async commit(
    batches: ReadonlyArray<TransactionBatch>,
    offsets: ReadonlyMap<string, ReadonlyArray<Wire.GroupOffset>>
  ): Promise<void> {
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
    // one after another: a broker that has to check the transaction for two requests at once refuses one of them
    for (const [group, list] of offsets)
      await this.coordinated("group", group, (broker) =>
        Wire.commitOffsets(broker, id, identity, group, list, requestMs)
      )
    await this.coordinated("transaction", id, (broker) => Wire.endTransaction(broker, id, identity, true, requestMs))
  }

  private async append(batches: ReadonlyArray<TransactionBatch>): Promise<void> {
    const rounds: Array<Map<string, TransactionBatch>> = []
    const counts = new Map<string, number>()
    for (const batch of batches) {
      const key = `${batch.topic}/${batch.partition}`
      const round = counts.get(key) ?? 0
      counts.set(key, round + 1)
      ;(rounds[round] ??= new Map()).set(key, batch)
      const sequence = this.sequences.get(key) ?? 0
      stamp(batch.bytes, this.identity.id, this.identity.epoch, sequence)
      // sequence numbers have 31 bits and start again at 0
      this.sequences.set(key, (sequence + batch.records) % 2 ** 31)
    }
    // a request takes at most one batch of a partition
    for (const round of rounds) {
      const leaders = new Map<number, Array<TransactionBatch>>()
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
