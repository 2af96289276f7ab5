// How fast the relay copies the outbox into the log, and how long a committed message takes to a reader of the log.
//
// node bench/relay.ts [--messages N] [--rate N] [--seconds N]
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { Log } from "../src/log/log.ts"
import { query, type Sql } from "../src/postgres/client/client.ts"
import { pack } from "../src/postgres/log/batch-codec.ts"
import * as PostgresLog from "../src/postgres/log/log.ts"
import * as PostgresRelay from "../src/postgres/relay/to-log.ts"
import * as Relay from "../src/relay/relay.ts"
import { declare, incarnation } from "../test/support/outbox.ts"
import { database } from "../test/support/postgres.ts"

const { values } = parseArgs({
  options: {
    messages: { type: "string", default: "1000000" },
    rate: { type: "string", default: "500" },
    seconds: { type: "string", default: "10" }
  }
})
const partitions = 12
const perSegment = 1_000

const segmentOf = (firstSeq: number, messages: number) =>
  pack(
    Array.from({ length: messages }, (_, i) => ({
      partition: 0,
      key: `N${((firstSeq + i) * 7919) % 3322}`,
      value: JSON.stringify({
        event_id: `e${firstSeq + i}`,
        entity_id: `N${((firstSeq + i) * 7919) % 3322}`,
        score: ((firstSeq + i) * 31) % 1000,
        occurred_at: 1_357_000_000_000 + firstSeq + i
      }),
      eventTime: 1_357_000_000_000 + firstSeq + i,
      eventId: `e${firstSeq + i}`,
      tenant: "AA",
      traceparent: `00-${"0af7651916cd43dd8448eb211c80319c"}-${String(firstSeq + i).padStart(16, "0")}-01`,
      schemaVersion: 1,
      headers: {}
    }))
  )
const insert = (sql: Sql, partition: number, firstSeq: number, messages: number, target = "scores") => {
  const { meta, vals } = segmentOf(firstSeq, messages)
  return query(
    "publish",
    () => sql`
    insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
    values ('p', 'events', ${partition}, ${firstSeq}, ${messages}, ${incarnation}, ${target}, ${partition}, ${meta}, ${vals})`
  )
}
const percentile = (sorted: ReadonlyArray<number>, p: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0

const throughput = Effect.fnUntraced(function* (sql: Sql, messages: number) {
  const seqs = Array.from({ length: partitions }, () => 1)
  for (let i = 0; i < messages / perSegment; i++) {
    const partition = i % partitions
    yield* insert(sql, partition, seqs[partition]!, perSegment)
    seqs[partition]! += perSegment
  }
  const target = yield* PostgresRelay.make(sql)
  const from = performance.now()
  let shipped = 0
  let rounds = 0
  for (let more = true; more; rounds++) {
    const shipment = yield* target.publish
    shipped += shipment.messages
    more = shipment.more
  }
  const seconds = (performance.now() - from) / 1000
  return { messages: shipped, rounds, seconds, messagesPerSecond: Math.round(shipped / seconds) }
})

const latency = Effect.fnUntraced(function* (sql: Sql, rate: number, seconds: number) {
  const log = yield* Log
  const target = yield* PostgresRelay.make(sql)
  yield* Effect.forkScoped(Relay.run(target))
  const sent = new Map<string, number>()
  const latencies: Array<number> = []
  for (let partition = 0; partition < partitions; partition++) {
    const reader = yield* log.open("alerts", partition, 0)
    yield* Effect.forkScoped(
      Effect.forever(
        Effect.map(reader.take, ({ records }) => {
          for (const { headers } of records) {
            latencies.push(performance.now() - sent.get(`${headers["millrace-stream"]}:${headers["millrace-seq"]}`)!)
          }
        })
      )
    )
  }
  const seqs = Array.from({ length: partitions }, () => 0)
  const base = yield* query(
    "seq",
    () => sql`select partition, max(first_seq + messages) - 1 as seq from millrace.outbox group by 1`
  )
  for (const { partition, seq } of base) seqs[partition] = seq as number
  const from = performance.now()
  for (let i = 0; i < rate * seconds; i++) {
    const due = from + (i * 1000) / rate
    if (due > performance.now()) yield* Effect.sleep(due - performance.now())
    const partition = i % partitions
    const seq = ++seqs[partition]!
    // commits of one partition follow one another, those of several overlap
    yield* Effect.forkChild(
      Effect.gen(function* () {
        yield* insert(sql, partition, seq, 1, "alerts")
        sent.set(`p/events/${partition}:${seq}`, performance.now())
        target.signal()
        yield* query("notify", () => sql`select pg_notify('millrace_outbox', '')`)
      })
    )
  }
  yield* Effect.sleep(1_000)
  const sorted = latencies.toSorted((a, b) => a - b)
  return {
    messages: sorted.length,
    p50Ms: percentile(sorted, 0.5),
    p99Ms: percentile(sorted, 0.99),
    maxMs: sorted.at(-1)
  }
}, Effect.scoped)

const main = Effect.gen(function* () {
  const { sql } = yield* database
  for (const topic of ["scores", "alerts"]) yield* declare(sql, topic, partitions)
  const alone = yield* throughput(sql, Number(values.messages))
  const paced = yield* latency(sql, Number(values.rate), Number(values.seconds)).pipe(
    Effect.provide(PostgresLog.layer(sql))
  )
  process.stdout.write(`${JSON.stringify({ throughput: alone, latency: paced })}\n`)
})
await Effect.runPromise(Effect.scoped(main))
