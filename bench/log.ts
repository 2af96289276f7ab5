// How fast the log on PostgreSQL appends and reads: `node bench/log.ts [--records N] [database url]`, an embedded server where none is given.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import type { Log, NewRecord } from "../src/log/log.ts"
import { partitionOf } from "../src/model/partitioner.ts"
import { connect, query, type Sql } from "../src/postgres/client/client.ts"
import { migrate } from "../src/postgres/client/migrate.ts"
import * as PostgresLog from "../src/postgres/log/log.ts"
import { server } from "../test/support/postgres.ts"
import { percentile } from "./percentile.ts"

const { positionals, values } = parseArgs({
  options: { records: { type: "string", default: "300000" } },
  allowPositionals: true
})
const partitions = 12
const spec = (name: string) => ({ name, partitions, compacted: false, retentionMs: undefined })

/** An event as the reference application has it: 12,000 keys, about 180 bytes. */
const event = (i: number): NewRecord => {
  const key = `N${(i * 7919) % 12_000}`
  const value =
    `{"type":"raw_event","event_id":"${i}-${key}-20130101","entity_id":"${key}","amount":${(i % 1500) / 7},` +
    `"occurred_at":${1_357_000_000_000 + i * 100},"tenant":"nyc","carrier":"UA","origin":"EWR","dest":"IAH"}`
  return {
    partition: partitionOf(key, partitions),
    key,
    value,
    eventTime: 1_357_000_000_000 + i * 100,
    eventId: `${i}-${key}-20130101`,
    tenant: "nyc",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    schemaVersion: 1,
    headers: {}
  }
}
const eventsOf = (from: number, count: number) => Array.from({ length: count }, (_, i) => event(from + i))
/** What was measured so far. */
const figures: Array<{ readonly of: string } & Readonly<Record<string, string | number>>> = []
const note = (of: string, found: Readonly<Record<string, number>>) => {
  figures.push({ of, ...found })
  process.stderr.write(`${of.padEnd(58)} ${JSON.stringify(found)}\n`)
}
const rate = (count: number, ms: number) => ({ recordsPerSecond: Math.round((count / ms) * 1000) })
const timed = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const began = performance.now()
  const value = yield* effect
  return [value, performance.now() - began] as const
})

const appending = Effect.fnUntraced(function* (
  log: Log["Service"],
  topic: string,
  count: number,
  size: number,
  callers: number
) {
  yield* log.declare([spec(topic)])
  const batches = Array.from({ length: count / size }, (_, i) => eventsOf(i * size, size))
  const [, ms] = yield* timed(
    Effect.forEach(batches, (batch) => log.append(topic, batch), { concurrency: callers, discard: true })
  )
  note(`append ${size} at once, ${callers} callers`, rate(count, ms))
})

const reading = Effect.fnUntraced(function* (log: Log["Service"], topic: string, count: number) {
  const readPartition = (partition: number, end: number) =>
    Effect.scoped(
      Effect.gen(function* () {
        const reader = yield* log.open(topic, partition, 0)
        let records = 0
        while (records < end) records += (yield* reader.take).records.length
      })
    )
  for (const concurrency of [1, partitions]) {
    const bounds = yield* log.bounds(topic)
    const [, ms] = yield* timed(
      Effect.forEach(bounds, ({ end, partition }) => readPartition(partition, end), { concurrency, discard: true })
    )
    note(`read ${topic}, ${partitions} partitions through take, ${concurrency} at a time`, rate(count, ms))
  }
})

const latencies = (what: string, samples: ReadonlyArray<number>) => {
  const sorted = samples.toSorted((a, b) => a - b)
  note(what, { p50Ms: percentile(sorted, 0.5), p99Ms: percentile(sorted, 0.99) })
}

const single = Effect.fnUntraced(function* (log: Log["Service"]) {
  yield* log.declare([spec("single")])
  const samples: Array<number> = []
  for (let i = 0; i < 1_000; i++) samples.push((yield* timed(log.append("single", [event(i)])))[1])
  latencies("append one, one caller", samples)
  const paced: Array<number> = []
  const one = (i: number) =>
    Effect.map(timed(Effect.delay(timed(log.append("single", [event(i)])), i * 2)), ([[, ms]]) => void paced.push(ms))
  yield* Effect.forEach(
    Array.from({ length: 2_500 }, (_, i) => i),
    one,
    { concurrency: "unbounded", discard: true }
  )
  latencies("append one, 500 a second", paced)
})

const endToEnd = Effect.fnUntraced(function* (log: Log["Service"], other: Log["Service"]) {
  yield* log.declare([spec("wake")])
  for (const [what, reading] of [
    ["in this process", log],
    ["through another's LISTEN", other]
  ] as const) {
    const samples: Array<number> = []
    yield* Effect.scoped(
      Effect.gen(function* () {
        const [, , , bounds] = yield* log.bounds("wake")
        const reader = yield* reading.open("wake", 3, bounds!.end)
        for (let i = 0; i < 300; i++) {
          const began = performance.now()
          const append = Effect.andThen(Effect.sleep(5), log.append("wake", [{ ...event(i), partition: 3 }]))
          yield* Effect.all([append, reader.take], { concurrency: 2 })
          samples.push(performance.now() - began - 5)
        }
      })
    )
    latencies(`append to a waiting reader ${what}`, samples)
  }
})

const sizes = (sql: Sql, count: number) =>
  Effect.map(
    query("size", () => sql`select pg_total_relation_size('millrace.log_batch')::float8 as bytes`),
    ([row]) => note("on disk", { bytesPerRecord: Math.round(Number(row!["bytes"]) / count) })
  )

const main = Effect.gen(function* () {
  const sql = yield* connect(positionals[0] ?? (yield* server))
  yield* migrate(sql)
  const { log } = yield* PostgresLog.make(sql)
  const { log: other } = yield* PostgresLog.make(sql)
  const count = Number(values.records)
  // whole batches
  const few = Math.ceil(count / 3_000) * 500
  yield* appending(log, "warm", few, 500, 4)
  yield* appending(log, "bulk-1", count, 500, 1)
  yield* appending(log, "bulk-8", count, 500, 8)
  yield* appending(log, "large", count, 5_000, 2)
  yield* appending(log, "small", few, 10, 64)
  yield* sizes(sql, 3 * count + 2 * few)
  yield* reading(log, "bulk-8", count)
  yield* reading(log, "bulk-1", count)
  yield* reading(log, "small", few)
  yield* single(log)
  yield* endToEnd(log, other)
  process.stdout.write(`${JSON.stringify({ figures })}\n`)
})
await Effect.runPromise(Effect.scoped(main))
