// Publishes the load of a run: commits to the outbox on several streams, for topics of two tenants, all of it from the seed.
import type postgres from "postgres"
import { setTimeout as sleep } from "node:timers/promises"
import type { NewRecord } from "../../../src/log/log.ts"
import { pack } from "../../../src/postgres/log/batch-codec.ts"
import { randomOf } from "../../support/random.ts"
import { type Tenant, tenants, type TopicName, topics } from "./services.ts"

/** A message that must arrive in its topic, or must be parked if it is too large (`poison`). */
export interface Fed {
  readonly stream: string
  readonly seq: number
  readonly key: string
  readonly tenant: Tenant
  readonly topic: TopicName
  readonly poison: boolean
  /** What Pulsar cannot take: then the message must be parked, too. */
  readonly odd?: Partial<NewRecord> | undefined
}

export const projection = "fanned"
const source = "events"
const partitions = 3
const keys = 7
/** Where in its commit the message is that is too large. */
type Poison = "anywhere" | "last"
const names = Object.keys(topics) as ReadonlyArray<TopicName>
const incarnation = "00000000-0000-4000-8000-000000000001"
/** More than the broker accepts. */
const poisonText = "x".repeat(160_000)

export const streamOf = (partition: number) => `${projection}/${source}/${partition}`

/** Publishes one commit after another, each once, even if a connection is lost. */
export class Feeder {
  readonly fed: Array<Fed> = []
  readonly next: Array<number> = Array.from({ length: partitions }, () => 1)
  private readonly sql: postgres.Sql
  private readonly random: ReturnType<typeof randomOf>
  private waiting: Promise<void> = Promise.resolve()

  constructor(sql: postgres.Sql, seed: number) {
    this.sql = sql
    this.random = randomOf(seed)
  }
  /** How many messages are published on each stream. */
  get ends(): ReadonlyMap<string, number> {
    return new Map(this.next.map((seq, partition) => [streamOf(partition), seq - 1]))
  }
  /** Publishes at least so many messages, in commits of up to 40. With `poison` one message of the first commit is too large for every topic. */
  feed(messages: number, poison?: Poison): Promise<void> {
    const feeding = this.feedAfter(this.waiting, messages, poison)
    this.waiting = feeding.catch(() => undefined)
    return feeding
  }
  private async feedAfter(others: Promise<void>, messages: number, poison: Poison | undefined) {
    await others
    const end = this.fed.length + messages
    for (let first = poison; this.fed.length < end; first = undefined) await this.commit(first)
  }
  private async commit(poison: Poison | undefined) {
    const { random } = this
    const partition = random.int(0, partitions - 1)
    const topic = random.pick(names)
    const count = random.int(1, 40)
    const firstSeq = this.next[partition]!
    const bad = poison === undefined ? -1 : poison === "last" ? count - 1 : random.int(0, count - 1)
    const stream = streamOf(partition)
    const all = Array.from({ length: count }, (_, i): Fed => {
      const tenant = random.pick(tenants)
      const key = `${partition}-${random.int(1, keys)}`
      const odd = random.chance(1 / 150) ? random.pick(oddities) : undefined
      return {
        stream,
        seq: firstSeq + i,
        key: odd?.key == null ? key : JSON.stringify(odd.key),
        tenant,
        topic,
        poison: i === bad || odd !== undefined,
        odd
      }
    })
    const { meta, vals } = pack(all.map(recordOf))
    await patiently(
      async () =>
        void (await this.sql`
          insert into millrace.outbox
            (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
          values (${projection}, ${source}, ${partition}, ${firstSeq}, ${count}, ${incarnation}, ${topic}, null, ${meta}, ${vals})
          on conflict do nothing`)
    )
    this.next[partition] = firstSeq + count
    this.fed.push(...all)
  }
}

/** What Pulsar or its clients cannot take as it is: NUL, half of a pair, names that no tenant can have, and a time that is no date. */
const oddities: ReadonlyArray<Partial<NewRecord>> = [
  { tenant: "no\0rth" },
  { tenant: "\ud800" },
  { tenant: "x".repeat(10_000) },
  { key: "nul \0" },
  { eventId: "e\0" },
  { headers: { "he\0ader": "x" } },
  { headers: { header: "\udcff" } }
]

const recordOf = ({ key, odd, poison, seq, stream, tenant }: Fed): NewRecord => ({
  partition: 0,
  key,
  value: JSON.stringify({ key, seq, ...(poison && odd === undefined && { text: poisonText }) }),
  eventTime: 1_000 + seq,
  eventId: `${stream}-${seq}`,
  tenant,
  traceparent: `00-0af7651916cd43dd8448eb211c80319c-${String(seq).padStart(16, "0")}-01`,
  schemaVersion: 1,
  headers: {},
  ...odd
})

/** Repeats a statement for about ten seconds if the server is down. */
const patiently = async (run: () => Promise<void>): Promise<void> => {
  for (let n = 1; ; n++) {
    try {
      return await run()
    } catch (error) {
      if (n === 50) throw error
      await sleep(200)
    }
  }
}
