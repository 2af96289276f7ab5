// Sends the load to Kafka as foreign clients do: in plain batches and in transactions, some of which are aborted. What is in the log counts.
import { setTimeout as sleep } from "node:timers/promises"
import { type Admin, Kafka, type Message, Partitioners, type Producer, type Transaction } from "kafkajs"
import { configOf } from "../../../src/kafka/protocol/kafkajs.ts"
import { features, type Load, type Made, marker, phantoms, records } from "./load.ts"

const input = "events.raw.v1"
const lookup = "features.entity.v1"
const slice = 500
/** The same if there is much to send. */
const largeSlice = 2_000
/** Of so many slices one is sent in a transaction, and one has an aborted transaction beside it. */
const every = 4

const messageOf = ({ headers, key, value }: Made): Message => ({ key, value, headers: { ...headers } })
const quiet = { initialRetryTime: 30, retries: 40, maxRetryTime: 500 }
/** A call of kafkajs that takes longer hangs, as it sometimes does after a broker was lost. */
const hungMs = 15_000
const within = async <A>(run: Promise<A>): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`kafkajs did not answer within ${hungMs} ms`)), hungMs)
  })
  try {
    return await Promise.race([run, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Sends the load of one run. Calls wait for one another. */
export class Feeder {
  readonly load: Load
  /** Events sent so far, without markers and repetitions. */
  fed = 0
  aborted = 0
  private marked = 0
  private readonly kafka: Kafka
  private plain: Producer
  private readonly transactional: Array<Producer | undefined> = [undefined, undefined]
  private readonly admin: Admin
  private slices = 0
  private keys: ReadonlyArray<string> | undefined
  private last: Promise<unknown> = Promise.resolve()

  constructor(brokers: ReadonlyArray<string>, load: Load) {
    this.load = load
    this.kafka = new Kafka({ ...configOf({ brokers, clientId: "feeder" }), retry: quiet })
    this.plain = this.producer()
    this.admin = this.kafka.admin()
  }

  /** Connects, and sends the lookup records of the entities. */
  async open() {
    await Promise.all([this.plain.connect(), this.admin.connect()])
    await this.deliver(lookup, features(this.load).map(messageOf))
  }
  /** Resolves when everything that was asked for is sent. */
  get settled(): Promise<unknown> {
    return this.last
  }
  async close() {
    const all = [this.plain, ...this.transactional, this.admin]
    await Promise.all(all.map((one) => one?.disconnect().catch(() => undefined)))
  }

  /** Sends the next events. When this resolves all of them are in the log, whatever happened to the broker meanwhile. */
  feed(count: number): Promise<void> {
    return this.behind(async () => {
      const size = count > 2 * largeSlice ? largeSlice : slice
      for (let left = count; left > 0; left -= size) await this.next(Math.min(left, size))
    })
  }
  /** The same without transactions. */
  drip(count: number): Promise<void> {
    return this.behind(async () => {
      await this.send(records(this.load, this.fed, this.fed + count))
      this.fed += count
    })
  }
  /** Runs after everything that was asked for before. */
  private behind(run: () => Promise<void>): Promise<void> {
    const before = this.last
    const done = (async () => {
      await before
      await run()
    })()
    this.last = done.catch(() => undefined)
    return done
  }
  private async next(count: number) {
    const made = records(this.load, this.fed, this.fed + count)
    const number = this.slices++
    const half = made.length >> 1
    const aborting = number % every === 1 ? await this.begin(number) : undefined
    if (aborting !== undefined) await this.leak(aborting, number)
    if (number % every === 3 && (await this.committed(number, made.slice(0, half)))) {
      // the same producer aborts what it sends next, so that one fetch contains both
      const next = await this.begin(number)
      if (next !== undefined) await this.leak(next, number)
      if (next !== undefined) await within(next.abort()).catch(() => this.drop(number))
      await this.send(made.slice(half))
    } else {
      await this.send(made.slice(0, half))
      // aborted and plain records alternate within a partition
      if (aborting !== undefined) await this.leak(aborting, number)
      await this.send(made.slice(half))
    }
    if (aborting !== undefined) await within(aborting.abort()).catch(() => this.drop(number))
    this.fed += count
  }
  private async send(made: ReadonlyArray<Made>) {
    if (made.length > 0) await this.deliver(input, made.map(messageOf))
  }
  private producer() {
    return this.kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  }
  /** Sends until the broker confirms. Records may then be in the log twice, as from any client. */
  private async deliver(topic: string, messages: Array<Message>): Promise<void> {
    for (let left = 8; ; left--) {
      try {
        await within(this.plain.send({ topic, acks: -1, messages }))
        return
      } catch (cause) {
        if (left === 0) throw cause
        void this.plain.disconnect().catch(() => undefined)
        this.plain = this.producer()
        await within(this.plain.connect()).catch(() => undefined)
      }
    }
  }
  /** The index of the transactional producer of a slice. */
  private of(number: number): number {
    return Math.floor(number / every) % this.transactional.length
  }
  private async begin(number: number): Promise<Transaction | undefined> {
    const i = this.of(number)
    try {
      let producer = this.transactional[i]
      if (producer === undefined) {
        producer = this.kafka.producer({
          createPartitioner: Partitioners.DefaultPartitioner,
          transactionalId: `feeder-${i}`,
          transactionTimeout: 10_000,
          idempotent: true,
          maxInFlightRequests: 1
        })
        this.transactional[i] = producer
        await within(producer.connect())
      }
      return await within(producer.transaction())
    } catch {
      this.drop(number)
      return undefined
    }
  }
  private async leak(transaction: Transaction, number: number) {
    try {
      const messages = phantoms(this.load, number * 50, 30).map(messageOf)
      await within(transaction.send({ topic: input, messages }))
      this.aborted += messages.length
    } catch {
      this.drop(number)
    }
  }
  private async committed(number: number, made: ReadonlyArray<Made>): Promise<boolean> {
    const transaction = await this.begin(number)
    if (transaction === undefined) return false
    try {
      await within(transaction.send({ topic: input, messages: made.map(messageOf) }))
      await within(transaction.commit())
      return true
    } catch {
      // it may be committed all the same: then what is sent again is a duplicate, as from any client
      this.drop(number)
      return false
    }
  }
  /** Drops a transactional producer, which kafkajs cannot use after an error. The next one with its id fences it. */
  private drop(number: number) {
    const i = this.of(number)
    void this.transactional[i]?.disconnect().catch(() => undefined)
    this.transactional[i] = undefined
  }

  /** Sends events to one partition, in one batch. */
  async only(count: number): Promise<void> {
    this.keys ??= await this.keyOfEach()
    const [key = ""] = this.keys
    const made = Array.from({ length: count }, (_, i) => marker(this.load, this.fed + i, key, `only-${this.marked++}`))
    await this.last
    await this.send(made)
  }
  /** Sends a marker with this id to every partition, behind everything sent before. */
  async mark(id: string): Promise<void> {
    this.keys ??= await this.keyOfEach()
    await this.last
    const messages = this.keys.map((key, i) => messageOf(marker(this.load, this.fed + i, key, `${id}-${i}`)))
    await this.deliver(input, messages)
  }
  /** The ends of a topic. A broker that was just restarted may not lead its partitions yet. */
  private async offsetsOf(topic: string) {
    for (let tries = 1; ; tries++) {
      try {
        return await this.admin.fetchTopicOffsets(topic)
      } catch (error) {
        if (tries === 50 || (error as { readonly retriable?: boolean }).retriable !== true) throw error
        await sleep(200)
      }
    }
  }
  private async keyOfEach(): Promise<ReadonlyArray<string>> {
    const partitions = (await this.offsetsOf(input)).length
    const place = Partitioners.DefaultPartitioner()
    const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
      partitionErrorCode: 0,
      partitionId,
      leader: 1,
      replicas: [1],
      isr: [1]
    }))
    const keys = new Map<number, string>()
    for (let entity = 0; keys.size < partitions; entity++) {
      const key = `e-${entity}`
      const partition = place({ topic: input, partitionMetadata, message: { key, value: null } })
      if (!keys.has(partition)) keys.set(partition, key)
    }
    return [...keys].toSorted(([a], [b]) => a - b).map(([, key]) => key)
  }

  /** The end of every partition of a topic, behind control records. */
  async ends(topic: string = input): Promise<ReadonlyArray<{ readonly partition: number; readonly end: number }>> {
    const offsets = await this.offsetsOf(topic)
    return offsets
      .map(({ high, partition }) => ({ partition, end: Number(high) }))
      .toSorted((a, b) => a.partition - b.partition)
  }
  /** Deletes records of the input before an offset, as retention does. */
  async cut(partition: number, offset: number): Promise<void> {
    await this.admin.deleteTopicRecords({ topic: input, partitions: [{ partition, offset: String(offset) }] })
  }
  /** Ends each partition of a topic with a record whose value is `text`. */
  async seal(topic: string, text: string): Promise<void> {
    const ends = await this.ends(topic)
    await this.deliver(
      topic,
      ends.map(({ partition }) => ({ partition, value: text }))
    )
  }
}
