// What a projection costs in this process alone: fetched bytes to records, records to changes, changes to a commit's statement. No I/O.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { features, rawEvents, signals } from "../projections/signals.ts"
import { PartitionProcessor } from "../src/runner/partition-processor.ts"
import { decodeRecords, encodeRecords } from "../src/kafka/log/records.ts"
import { stamp } from "../src/kafka/protocol/batch-encode.ts"
import type { LogRecord } from "../src/log/log.ts"
import { partitionOf } from "../src/model/partitioner.ts"
import { CommitBuilder } from "../src/postgres/store/commit.ts"
import type { Projection } from "../src/model/projection.ts"
import { LookupTable } from "../src/runner/lookup-tables.ts"
import type { Changes, Claim, Store } from "../src/runner/store.ts"
import { eventOf, featuresOf, type Load } from "./workload.ts"

const { values } = parseArgs({
  options: {
    events: { type: "string", default: "600000" },
    batch: { type: "string", default: "5000" },
    entities: { type: "string", default: "10000" }
  }
})
const load: Load = { events: Number(values.events), entities: Number(values.entities), seed: 1 }
const partitions = 12
const claimOf = (partition: number): Claim => ({
  projection: "signals",
  version: 1,
  topic: rawEvents.name,
  partition,
  incarnation: "00000000-0000-4000-8000-000000000001",
  commitNo: 0,
  epoch: 1,
  identity: undefined,
  position: 0,
  fingerprint: undefined,
  streamTime: undefined,
  streamTimes: undefined,
  announced: undefined,
  outboxSeq: 0,
  mode: "live",
  lookups: "asSeen",
  journal: 1,
  seenChunk: 0,
  seenFill: 0,
  newestSeen: undefined,
  hasSucceeded: false
})

/** Fetched bytes, a batch at a time, by partition. */
const fetched = (): Array<{ readonly partition: number; readonly bytes: Buffer; readonly count: number }> => {
  const open: Array<Array<Parameters<typeof encodeRecords>[0][number]>> = Array.from({ length: partitions }, () => [])
  const found: Array<{ readonly partition: number; readonly bytes: Buffer; readonly count: number }> = []
  for (let i = 0; i < load.events; i++) {
    const { key, text, time } = eventOf(load, i)
    const partition = partitionOf(key, partitions)
    const traceparent = `00-${(i + 1).toString(16).padStart(32, "0")}-00f067aa0ba902b7-01`
    const rest = { eventTime: time, eventId: undefined, tenant: undefined, schemaVersion: undefined, headers: {} }
    open[partition]!.push({ partition, key, value: text, traceparent, ...rest })
    if (open[partition]!.length < Number(values.batch)) continue
    const bytes = encodeRecords(open[partition]!, "none", Date.now())
    stamp(bytes, 0n, 0, 0)
    found.push({ partition, bytes, count: open[partition]!.length })
    open[partition] = []
  }
  return found
}

const spent = { decode: 0, process: 0, statement: 0 }
/** Adds the CPU time of all threads, the collector's included: others on the machine disturb it least. */
const timed = <A>(part: keyof typeof spent, run: () => A): A => {
  const from = process.cpuUsage()
  const result = run()
  const { system, user } = process.cpuUsage(from)
  spent[part] += system + user
  return result
}
let parameterBytes = 0
const builder = new CommitBuilder(signals as never)
/** Builds the statement of each commit, and sends it nowhere. */
const store = {
  seenIds: () => Effect.succeed([]),
  commit: (_: Projection.Any, claim: Claim, changes: Changes) =>
    Effect.sync((): Claim => {
      const { parameters } = timed("statement", () => builder.build([{ claim, changes }]))
      for (const parameter of parameters)
        if (typeof parameter === "string") parameterBytes += Buffer.byteLength(parameter)
      return { ...claim, streamTime: changes.streamTime, position: changes.position }
    })
} as unknown as Store["Service"]
const projection = signals as unknown as Projection.Of<never, never>
const table = new LookupTable(
  {
    ends: () => Effect.succeed([1]),
    bounds: () => Effect.succeed([{ partition: 0, start: 0, end: 1 }]),
    read: () =>
      Effect.succeed({
        records: featuresOf(load).map(
          ({ key, text }) => ({ key, value: text, partition: 0, position: 0, headers: {} }) as LogRecord
        ),
        next: 1,
        end: 1
      })
  } as never,
  features as never
)
Effect.runSync(table.catchUp)
const lookupTables = new Map([[features.name, table]])
const processors = Array.from(
  { length: partitions },
  (_, partition) =>
    new PartitionProcessor({
      projection,
      source: rawEvents as never,
      partitions,
      claim: claimOf(partition),
      lookupTables,
      store
    })
)
const claims = Array.from({ length: partitions }, (_, partition) => claimOf(partition))
const batches = fetched()
let events = 0
for (const [i, { bytes, count, partition }] of batches.entries()) {
  // the first tenth is for the compiler
  if (i === Math.floor(batches.length / 10)) {
    spent.decode = spent.process = spent.statement = 0
    events = 0
  }
  events += count
  const { next, records } = timed("decode", () => decodeRecords(bytes, partition, 0, []))
  const { position } = claims[partition]!
  const batch = { records, next: position + next }
  claims[partition] = timed("process", () => Effect.runSync(processors[partition]!.process(batch)))
}
const micros = (of: number) => Number((of / events).toFixed(2))
const { decode: decoding, statement } = spent
// the statement is built while a batch is processed
const handle = spent.process - statement
process.stdout.write(
  `${JSON.stringify({ events, microsPerEvent: { decode: micros(decoding), handle: micros(handle), statement: micros(statement), all: micros(decoding + handle + statement) }, peakMiB: Math.round(process.resourceUsage().maxRSS / 1024), parameterBytesPerEvent: Math.round(parameterBytes / events) })}\n`
)
