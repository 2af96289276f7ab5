// What a projection costs in this process alone: fetched bytes to records, records to changes, changes to a commit's statement. No I/O.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { features, rawEvents, signals } from "../projections/signals.ts"
import { Handling } from "../src/runner/partition-processor.ts"
import { decode } from "../src/kafka/protocol/batch-decode.ts"
import { encode, stamp } from "../src/kafka/protocol/batch-encode.ts"
import type { LogRecord } from "../src/log/log.ts"
import { partitionOf } from "../src/model/partitioner.ts"
import { CommitBuilder } from "../src/postgres/store/commit.ts"
import type { Projection } from "../src/model/projection.ts"
import { LookupTable } from "../src/runner/lookup-tables.ts"
import type { Claim, Store } from "../src/runner/store.ts"
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
  outboxSeq: 0,
  mode: "live",
  seenChunk: 0,
  seenFill: 0
})

/** Fetched bytes, a batch at a time, by partition. */
const fetched = (): Array<{ readonly partition: number; readonly bytes: Buffer; readonly count: number }> => {
  const open: Array<Array<Parameters<typeof encode>[0][number]>> = Array.from({ length: partitions }, () => [])
  const found: Array<{ readonly partition: number; readonly bytes: Buffer; readonly count: number }> = []
  for (let i = 0; i < load.events; i++) {
    const { key, text, time } = eventOf(load, i)
    const partition = partitionOf(key, partitions)
    const traceparent = `00-${(i + 1).toString(16).padStart(32, "0")}-00f067aa0ba902b7-01`
    const rest = { eventTime: time, eventId: undefined, tenant: undefined, schemaVersion: undefined, headers: {} }
    open[partition]!.push({ partition, key, value: text, traceparent, ...rest })
    if (open[partition]!.length < Number(values.batch)) continue
    const bytes = encode(open[partition]!, "none", Date.now())
    stamp(bytes, 0n, 0, 0)
    found.push({ partition, bytes, count: open[partition]!.length })
    open[partition] = []
  }
  return found
}

const store = { seenIds: () => Effect.succeed([]) } as unknown as Store["Service"]
const projection = signals as unknown as Projection.Of<never, never>
const reference = new LookupTable(
  {
    ends: () => Effect.succeed([1]),
    bounds: () => Effect.succeed([{ partition: 0, start: 0, end: 1 }]),
    read: () =>
      Effect.succeed({
        records: featuresOf(load).map(
          ({ key, text }) => ({ key, value: text, partition: 0, position: 0 }) as LogRecord
        ),
        next: 1,
        end: 1
      })
  } as never,
  features as never,
  () => Effect.void
)
Effect.runSync(reference.catchUp)
const lookupTables = new Map([[features.name, reference]])
const handlings = Array.from(
  { length: partitions },
  (_, partition) => new Handling(projection, rawEvents as never, partitions, claimOf(partition), lookupTables, store)
)
const claims = Array.from({ length: partitions }, (_, partition) => claimOf(partition))
const builder = new CommitBuilder(signals as never)
const batches = fetched()
const spent = { decode: 0, handle: 0, statement: 0 }
/** Adds the CPU time of all threads, the collector's included: others on the machine disturb it least. */
const timed = <A>(part: keyof typeof spent, run: () => A): A => {
  const from = process.cpuUsage()
  const result = run()
  const { system, user } = process.cpuUsage(from)
  spent[part] += system + user
  return result
}
let events = 0
let parameterBytes = 0
for (const [i, { bytes, count, partition }] of batches.entries()) {
  // the first tenth is for the compiler
  if (i === Math.floor(batches.length / 10)) {
    spent.decode = spent.handle = spent.statement = 0
    events = 0
  }
  events += count
  const { next, records } = timed("decode", () => decode(bytes, partition, 0, []))
  const handling = handlings[partition]!
  const claim = claims[partition]!
  const changes = timed("handle", () => Effect.runSync(handling.changes(claim, records, claim.position + next)))
  const { parameters } = timed("statement", () => builder.build([{ claim, changes }]))
  for (const parameter of parameters) if (typeof parameter === "string") parameterBytes += Buffer.byteLength(parameter)
  handling.settle()
  claims[partition] = { ...claim, streamTime: changes.streamTime, position: claim.position + next }
}
const micros = (of: number) => Number((of / events).toFixed(2))
const { decode: decoding, handle, statement } = spent
process.stdout.write(
  `${JSON.stringify({ events, microsPerEvent: { decode: micros(decoding), handle: micros(handle), statement: micros(statement), all: micros(decoding + handle + statement) }, peakMiB: Math.round(process.resourceUsage().maxRSS / 1024), parameterBytesPerEvent: Math.round(parameterBytes / events) })}\n`
)
