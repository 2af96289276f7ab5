// Appends to Kafka, idempotently: what many callers append while a request is under way goes into the next one. A batch that was not
// acknowledged is sent again under its old number, so that the broker knows it, until it is or the time is over.
import { LogError, type NewRecord, type LogPosition, type UnknownTopic } from "../../log/log.ts"
import { checkRecords } from "../../log/rules.ts"
import { type Client, isLost, isMoved } from "../protocol/client.ts"
import { errorFromCode } from "../protocol/kafkajs.ts"
import { encode, stamp } from "../protocol/batch-encode.ts"
import { logError, typeOf } from "../protocol/errors.ts"
import { type Appended, produce } from "../protocol/produce-request.ts"
import { sizeOf } from "../protocol/record-size.ts"

/** A request takes callers up to here, but at least one, whole. */
const roundCharacters = 4 << 20
const roundRecords = 20_000
/** So many callers may wait, at most. */
const waiting = 20_000
/** What Millrace's own topics take in a batch, with some to spare; others take a mebibyte unless told. */
const largeBatch = (8 << 20) - 1024
const smallBatch = 1_000_000

interface Caller {
  readonly topic: string
  readonly records: ReadonlyArray<NewRecord>
  readonly characters: number
  readonly places: Array<LogPosition>
  /** Records that have no place yet. */
  left: number
  readonly resolve: (places: ReadonlyArray<LogPosition>) => void
  readonly reject: (error: LogError | UnknownTopic) => void
}
/** A record and whose it is. */
interface Item {
  readonly record: NewRecord
  readonly caller: Caller
  readonly index: number
}
/** One batch of one partition. */
interface Chunk {
  readonly items: ReadonlyArray<Item>
  readonly bytes: Buffer
  /** How often it was sent and not refused for certain. */
  sent: number
}
/** A partition's batches of a round, first to last. */
interface Lane {
  readonly topic: string
  readonly partition: number
  readonly chunks: Array<Chunk>
}
/** Who writes a partition, and the number that its next record gets. */
interface Writer {
  readonly id: bigint
  readonly epoch: number
  sequence: number
}
type Failure = LogError | UnknownTopic

const produced = { REQUEST_TIMED_OUT: true, NOT_ENOUGH_REPLICAS: true, NOT_ENOUGH_REPLICAS_AFTER_APPEND: true } as const
const forgotten =
  /^(OUT_OF_ORDER_SEQUENCE_NUMBER|UNKNOWN_PRODUCER_ID|INVALID_PRODUCER_EPOCH|INVALID_PRODUCER_ID_MAPPING)$/
const tooLarge = /^(MESSAGE_TOO_LARGE|RECORD_LIST_TOO_LARGE)$/

const keyOf = (topic: string, partition: number) => `${topic}/${partition}`

/** Takes records of any topics. */
export class Producer {
  private readonly client: Client
  private readonly deliveryMs: number
  private queue: Array<Caller> = []
  private running = false
  private readonly writers = new Map<string, Writer>()
  /** Topics that refused a large batch. */
  private readonly small = new Set<string>()
  private shared: Promise<{ readonly id: bigint; readonly epoch: number }> | undefined

  constructor(client: Client) {
    this.client = client
    this.deliveryMs = client.options.deliveryMs ?? 30_000
  }

  /** Resolves to each record's place once all are durable; rejects with the port's errors. Takes its turn at once. */
  append(topic: string, records: ReadonlyArray<NewRecord>): Promise<ReadonlyArray<LogPosition>> {
    return new Promise((resolve, reject) => {
      if (this.queue.length >= waiting) {
        const reason = `${waiting} appends are waiting already; try again when some are done`
        return reject(new LogError({ operation: "append", topic, retryable: true, reason }))
      }
      let characters = 0
      for (const record of records) characters += sizeOf(record)
      const places: Array<LogPosition> = []
      this.queue.push({ topic, records, characters, places, left: records.length, resolve, reject })
      if (!this.running) void this.run()
    })
  }

  private async run() {
    this.running = true
    let sending: Promise<void> = Promise.resolve()
    while (this.queue.length > 0) {
      const lanes = await this.encode(this.take())
      await sending
      sending = this.deliver(lanes)
      // nothing to encode meanwhile: what comes until the answer goes together
      if (this.queue.length === 0) await sending
    }
    this.running = false
  }

  private take(): ReadonlyArray<Caller> {
    let characters = 0
    let records = 0
    const at = this.queue.findIndex((caller, i) => {
      characters += caller.characters
      records += caller.records.length
      return i > 0 && (characters > roundCharacters || records > roundRecords)
    })
    return this.queue.splice(0, at < 0 ? this.queue.length : at)
  }

  private async encode(callers: ReadonlyArray<Caller>): Promise<ReadonlyArray<Lane>> {
    const lanes = new Map<string, Array<Item>>()
    for (const caller of callers) {
      const { resolve, reject, topic } = caller
      try {
        const { leaders } = await this.client.topic(topic)
        const fine = checkRecords(topic, leaders.length, caller.records)
        if (!Array.isArray(fine)) reject(fine as Failure)
        else if (fine.length === 0) resolve([])
        else {
          for (const [index, record] of (fine as ReadonlyArray<NewRecord>).entries()) {
            const key = keyOf(topic, record.partition)
            const items = lanes.get(key)
            if (items === undefined) lanes.set(key, [{ record, caller, index }])
            else items.push({ record, caller, index })
          }
        }
      } catch (cause) {
        reject(failureOf(topic, cause))
      }
    }
    return [...lanes.values()].map((items) => {
      const { caller, record } = items[0]!
      const chunks = this.pack(caller.topic, items)
      return { topic: caller.topic, partition: record.partition, chunks }
    })
  }
  /** Batches that the topic takes; one where that is possible, for then all becomes visible at once. */
  private pack(topic: string, items: ReadonlyArray<Item>): Array<Chunk> {
    const limit = this.small.has(topic) ? smallBatch : largeBatch
    let size = 0
    for (const { record } of items) size += sizeOf(record)
    if (items.length > 1 && size > limit * 2) return this.halves(topic, items)
    const records = items.map(({ record }) => record)
    const bytes = encode(records, this.client.options.compression ?? "none", Date.now())
    return items.length > 1 && bytes.length > limit ? this.halves(topic, items) : [{ items, bytes, sent: 0 }]
  }
  private halves(topic: string, items: ReadonlyArray<Item>): Array<Chunk> {
    const middle = items.length >> 1
    return [...this.pack(topic, items.slice(0, middle)), ...this.pack(topic, items.slice(middle))]
  }

  /** Sends all batches, those of a partition one after another, and settles every caller. Never rejects. */
  private async deliver(all: ReadonlyArray<Lane>): Promise<void> {
    const until = Date.now() + this.deliveryMs
    let lanes = all
    for (let pause = 10; lanes.length > 0;) {
      const again = await this.step(lanes, until)
      lanes = lanes.filter(({ chunks }) => chunks.length > 0)
      if (!again) pause = 10
      else {
        await new Promise((resolve) => setTimeout(resolve, pause))
        pause = Math.min(pause * 2, 500)
      }
    }
  }

  /** Sends the first batch of every lane. Whether one of them must be sent again. */
  private async step(lanes: ReadonlyArray<Lane>, until: number): Promise<boolean> {
    let again = false
    const late = () => Date.now() > until
    const refuse = (lane: Lane, cause: unknown) => (again = this.refused(lane, cause, late()) || again)
    const ready = await Promise.all(
      lanes.map(async (lane) => {
        try {
          const writer = await this.writer(lane)
          return { lane, writer, leader: await this.client.leader(lane.topic, lane.partition) }
        } catch (cause) {
          refuse(lane, cause)
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
        for (const { lane, writer } of ones) {
          const chunk = lane.chunks[0]!
          stamp(chunk.bytes, writer.id, writer.epoch, writer.sequence)
          chunk.sent++
        }
        try {
          const appended = await this.send(
            leader,
            ones.map(({ lane }) => lane)
          )
          const partitions = new Map(appended.map((one) => [keyOf(one.topic, one.partition), one]))
          for (const { lane, writer } of ones) {
            const { base, errorCode } = partitions.get(keyOf(lane.topic, lane.partition)) ?? { errorCode: -1, base: -1 }
            if (errorCode === 0) this.accepted(lane, writer, base)
            else refuse(lane, errorFromCode(errorCode))
          }
        } catch (cause) {
          for (const { lane } of ones) refuse(lane, cause)
        }
      })
    )
    return again
  }

  private send(leader: number, lanes: ReadonlyArray<Lane>): Promise<ReadonlyArray<Appended>> {
    const { requestMs } = this.client
    const batches = lanes.map(({ chunks, partition, topic }) => ({ topic, partition, bytes: chunks[0]!.bytes }))
    return this.client.use(
      leader,
      "produce",
      (broker) => produce(broker, null, batches, { copiesMs: requestMs, answerMs: requestMs * 2 }),
      requestMs + 5_000
    )
  }

  private async writer({ partition, topic }: Lane): Promise<Writer> {
    const key = keyOf(topic, partition)
    const there = this.writers.get(key)
    if (there !== undefined) return there
    const made = { ...(await this.identity()), sequence: 0 }
    this.writers.set(key, made)
    return made
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
  /** The next batch of the partition comes from another producer, for nobody knows what became of this one's. */
  private replace({ partition, topic }: Lane) {
    this.writers.delete(keyOf(topic, partition))
    this.shared = undefined
  }

  private accepted(lane: Lane, writer: Writer, base: number) {
    const { items } = lane.chunks.shift()!
    // a number of 31 bits, which begins again at 0
    writer.sequence = (writer.sequence + items.length) % 2 ** 31
    for (const [i, { caller, index }] of items.entries()) {
      caller.places[index] = { partition: lane.partition, position: base + i }
      if (--caller.left === 0) caller.resolve(caller.places)
    }
  }
  /** Whether the lane's first batch is to be sent again; else its callers were told. */
  private refused(lane: Lane, cause: unknown, late: boolean): boolean {
    const chunk = lane.chunks[0]!
    const type = typeOf(cause)
    if (tooLarge.test(type) && chunk.items.length > 1) {
      this.small.add(lane.topic)
      lane.chunks.splice(0, 1, ...this.halves(lane.topic, chunk.items))
      return true
    }
    if (forgotten.test(type)) {
      this.replace(lane)
      // nothing of it can be there, so it may come from another producer
      if (chunk.sent === 1 && !late) return true
    } else if (isMoved(cause) || isLost(cause) || type in produced) {
      this.client.forget(lane.topic)
      if (!late) return true
    }
    if (chunk.sent > 0) this.replace(lane)
    lane.chunks.shift()
    const failure = failureOf(lane.topic, cause)
    for (const { caller } of chunk.items) caller.reject(failure)
    return false
  }
}

const failureOf = (topic: string, cause: unknown): Failure =>
  (cause as { _tag?: unknown })._tag === "UnknownTopic" || cause instanceof LogError
    ? (cause as Failure)
    : logError("append", topic)(cause)
