// Appends to Kafka, idempotently. What callers append while a request is under way goes into the next one together. A batch that was not
// acknowledged is sent again with its old sequence number, so that the broker recognizes it, until it is acknowledged or the time is over.
import { LogError, type NewRecord, type LogPosition, type UnknownTopic } from "../../log/log.ts"
import { checkRecords } from "../../log/rules.ts"
import {
  type Appended,
  type Client,
  failureOf,
  failureOfNumber,
  isLost,
  isMoved,
  produce,
  stamp,
  type TopicPartition
} from "../protocol/protocol.ts"
import { encodeRecords } from "./records.ts"
import { topicError } from "./failures.ts"
import { sizeOf } from "./read-budget.ts"

/** One round takes the appends of several callers up to these limits, but at least one, each as a whole. */
const roundCharacters = 4 << 20
const roundRecords = 20_000
/** How many appends may wait at most. */
const maxWaiting = 20_000
/** What the topics that `declare` creates take in a batch, with some to spare; other topics take a mebibyte by default. */
const largeBatch = (8 << 20) - 1024
const smallBatch = 1_000_000

/** A call of `append` that has not been answered yet. */
interface PendingAppend {
  readonly topic: string
  readonly records: ReadonlyArray<NewRecord>
  readonly characters: number
  readonly places: Array<LogPosition>
  /** How many of its records have no position yet. */
  left: number
  readonly resolve: (places: ReadonlyArray<LogPosition>) => void
  readonly reject: (error: LogError | UnknownTopic) => void
}
/** A record, and the append that it belongs to. */
interface PendingRecord {
  readonly record: NewRecord
  readonly caller: PendingAppend
  readonly index: number
}
/** One batch of one partition. */
interface PendingBatch {
  readonly items: ReadonlyArray<PendingRecord>
  readonly bytes: Buffer
  /** How often it was sent. */
  sent: number
}
/** A partition's batches of a round, in order. */
interface PartitionBatches extends TopicPartition {
  readonly batches: Array<PendingBatch>
}
/** The idempotent producer of a partition, and the sequence number of its next record. */
interface SequencedProducer {
  readonly id: bigint
  readonly epoch: number
  sequence: number
}

const notEnoughReplicas = {
  REQUEST_TIMED_OUT: true,
  NOT_ENOUGH_REPLICAS: true,
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: true
} as const
const forgotten =
  /^(OUT_OF_ORDER_SEQUENCE_NUMBER|UNKNOWN_PRODUCER_ID|INVALID_PRODUCER_EPOCH|INVALID_PRODUCER_ID_MAPPING)$/

/** Kafka's number for an unknown error: the broker did not answer for a partition. */
const unknownError = -1
const keyOf = (topic: string, partition: number) => `${topic}/${partition}`

/** Appends records to any topics. */
export class Appender {
  private readonly client: Client
  private readonly deliveryMs: number
  private queue: Array<PendingAppend> = []
  private isRunning = false
  private readonly producers = new Map<string, SequencedProducer>()
  /** Topics that refused a large batch. */
  private readonly small = new Set<string>()
  private shared: Promise<{ readonly id: bigint; readonly epoch: number }> | undefined

  constructor(client: Client) {
    this.client = client
    this.deliveryMs = client.options.deliveryMs ?? 30_000
  }

  /** Resolves to each record's position once all are durable; rejects with the port's errors. Calls keep their order. */
  append(topic: string, records: ReadonlyArray<NewRecord>): Promise<ReadonlyArray<LogPosition>> {
    return new Promise((resolve, reject) => {
      if (this.queue.length >= maxWaiting) {
        const reason = `${maxWaiting} appends are waiting already; try again when some of them are done`
        return reject(new LogError({ operation: "append", topic, retryable: true, reason }))
      }
      let characters = 0
      for (const record of records) characters += sizeOf(record)
      const places: Array<LogPosition> = []
      this.queue.push({ topic, records, characters, places, left: records.length, resolve, reject })
      if (!this.isRunning) void this.run()
    })
  }

  private async run() {
    this.isRunning = true
    let sending: Promise<void> = Promise.resolve()
    while (this.queue.length > 0) {
      const partitions = await this.encode(this.take())
      await sending
      sending = this.deliver(partitions)
      // nothing to encode meanwhile: what is appended until the answer arrives goes together
      if (this.queue.length === 0) await sending
    }
    this.isRunning = false
  }

  private take(): ReadonlyArray<PendingAppend> {
    let characters = 0
    let records = 0
    const at = this.queue.findIndex((caller, i) => {
      characters += caller.characters
      records += caller.records.length
      return i > 0 && (characters > roundCharacters || records > roundRecords)
    })
    return this.queue.splice(0, at < 0 ? this.queue.length : at)
  }

  private async encode(callers: ReadonlyArray<PendingAppend>): Promise<ReadonlyArray<PartitionBatches>> {
    const partitions = new Map<string, Array<PendingRecord>>()
    for (const caller of callers) {
      const { resolve, reject, topic } = caller
      try {
        const { leaders } = await this.client.topic(topic)
        const valid = checkRecords(topic, leaders.length, caller.records)
        if (!Array.isArray(valid)) reject(valid as LogError | UnknownTopic)
        else if (valid.length === 0) resolve([])
        else {
          for (const [index, record] of (valid as ReadonlyArray<NewRecord>).entries()) {
            const key = keyOf(topic, record.partition)
            const items = partitions.get(key)
            if (items === undefined) partitions.set(key, [{ record, caller, index }])
            else items.push({ record, caller, index })
          }
        }
      } catch (cause) {
        reject(topicError("append", topic)(cause))
      }
    }
    return [...partitions.values()].map((items) => {
      const { caller, record } = items[0]!
      const batches = this.pack(caller.topic, items)
      return { topic: caller.topic, partition: record.partition, batches }
    })
  }
  /** Batches that the topic takes; a single one if possible, because then all records become visible at once. */
  private pack(topic: string, items: ReadonlyArray<PendingRecord>): Array<PendingBatch> {
    const limit = this.small.has(topic) ? smallBatch : largeBatch
    let size = 0
    for (const { record } of items) size += sizeOf(record)
    if (items.length > 1 && size > limit * 2) return this.halves(topic, items)
    const records = items.map(({ record }) => record)
    const bytes = encodeRecords(records, this.client.options.compression ?? "none", Date.now())
    return items.length > 1 && bytes.length > limit ? this.halves(topic, items) : [{ items, bytes, sent: 0 }]
  }
  private halves(topic: string, items: ReadonlyArray<PendingRecord>): Array<PendingBatch> {
    const middle = items.length >> 1
    return [...this.pack(topic, items.slice(0, middle)), ...this.pack(topic, items.slice(middle))]
  }

  /** Sends all batches, those of a partition one after another, and answers every caller. Never rejects. */
  private async deliver(all: ReadonlyArray<PartitionBatches>): Promise<void> {
    const until = Date.now() + this.deliveryMs
    let left = all
    for (let pause = 10; left.length > 0;) {
      const again = await this.step(left, until)
      left = left.filter(({ batches }) => batches.length > 0)
      if (!again) pause = 10
      else {
        await new Promise((resolve) => setTimeout(resolve, pause))
        pause = Math.min(pause * 2, 500)
      }
    }
  }

  /** Sends the first batch of every partition. Returns whether one of them must be sent again after a pause. */
  private async step(partitions: ReadonlyArray<PartitionBatches>, until: number): Promise<boolean> {
    let again = false
    const late = () => Date.now() > until
    const refuse = (partition: PartitionBatches, cause: unknown) =>
      (again = this.refused(partition, cause, late()) || again)
    const ready = await Promise.all(
      partitions.map(async (partition) => {
        try {
          const producer = await this.producer(partition)
          return { partition, producer, leader: await this.client.leader(partition.topic, partition.partition) }
        } catch (cause) {
          refuse(partition, cause)
          return undefined
        }
      })
    )
    const byLeader = Map.groupBy(
      ready.filter((one) => one !== undefined),
      ({ leader }) => leader
    )
    await Promise.all(
      [...byLeader].map(async ([leader, ones]) => {
        for (const { partition, producer } of ones) {
          const batch = partition.batches[0]!
          stamp(batch.bytes, producer.id, producer.epoch, producer.sequence)
          batch.sent++
        }
        try {
          const appended = await this.send(
            leader,
            ones.map(({ partition }) => partition)
          )
          const answers = new Map(appended.map((one) => [keyOf(one.topic, one.partition), one]))
          for (const { partition, producer } of ones) {
            const answer = answers.get(keyOf(partition.topic, partition.partition))
            const { base, errorCode } = answer ?? { errorCode: unknownError, base: -1 }
            if (errorCode === 0) this.accepted(partition, producer, base)
            else refuse(partition, failureOfNumber(errorCode))
          }
        } catch (cause) {
          for (const { partition } of ones) refuse(partition, cause)
        }
      })
    )
    return again
  }

  private send(leader: number, partitions: ReadonlyArray<PartitionBatches>): Promise<ReadonlyArray<Appended>> {
    const { requestMs } = this.client
    const sent = partitions.map(({ batches, partition, topic }) => ({ topic, partition, bytes: batches[0]!.bytes }))
    return this.client.use(
      leader,
      "produce",
      (broker) => produce(broker, null, sent, { copiesMs: requestMs, answerMs: requestMs * 2 }),
      requestMs + 5_000
    )
  }

  private async producer({ partition, topic }: TopicPartition): Promise<SequencedProducer> {
    const key = keyOf(topic, partition)
    const existing = this.producers.get(key)
    if (existing !== undefined) return existing
    const created = { ...(await this.identity()), sequence: 0 }
    this.producers.set(key, created)
    return created
  }
  private identity() {
    if (this.shared !== undefined) return this.shared
    const asked = this.client
      .any((broker) => broker.initProducerId({ transactionalId: null, transactionTimeout: 60_000 }))
      .then(({ producerEpoch, producerId }) => ({ id: BigInt(producerId), epoch: producerEpoch }))
    this.shared = asked
    asked.catch(() => (this.shared = undefined))
    return asked
  }
  /** Gives the partition's next batch another producer, because it is unknown whether this one's last batch was appended. */
  private replace({ partition, topic }: TopicPartition) {
    this.producers.delete(keyOf(topic, partition))
    this.shared = undefined
  }

  private accepted({ batches, partition }: PartitionBatches, producer: SequencedProducer, base: number) {
    const { items } = batches.shift()!
    // sequence numbers have 31 bits and start again at 0
    producer.sequence = (producer.sequence + items.length) % 2 ** 31
    for (const [i, { caller, index }] of items.entries()) {
      caller.places[index] = { partition, position: base + i }
      if (--caller.left === 0) caller.resolve(caller.places)
    }
  }
  /** Returns whether the partition's first batch must be sent again; if not, its callers are answered with the failure. */
  private refused(partition: PartitionBatches, cause: unknown, isLate: boolean): boolean {
    const { batches, topic } = partition
    const batch = batches[0]!
    const { code, kind } = failureOf(cause)
    if (kind === "tooLarge" && batch.items.length > 1) {
      this.small.add(topic)
      batches.splice(0, 1, ...this.halves(topic, batch.items))
      return true
    }
    if (forgotten.test(code)) {
      this.replace(partition)
      // nothing of it can have been appended, so another producer may send it
      if (batch.sent === 1 && !isLate) return true
    } else if (isMoved(cause) || isLost(cause) || code in notEnoughReplicas) {
      this.client.forget(topic)
      if (!isLate) return true
    }
    if (batch.sent > 0) this.replace(partition)
    batches.shift()
    const failure = topicError("append", topic)(cause)
    for (const { caller } of batch.items) caller.reject(failure)
    return false
  }
}
