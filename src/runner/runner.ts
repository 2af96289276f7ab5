// The loop: claims each partition of a projection's sources, handles its batches, and commits them. Start reading here.
//
// A batch goes: read from the log → decode → drop duplicates → look up → hand to the handler → fold into changes → one commit.
// Nothing is kept between batches but what a claim and the caches can be made from again, so any crash is a claim and a re-read.
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import { Handling } from "./partition-processor.ts"
import { fingerprintOf, Log, type Assignment, type Batch, type LogRecord } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import { LookupTable } from "./lookup-tables.ts"
import {
  type Changes,
  type Claim,
  type Fenced,
  Mismatch,
  type ProjectionPartition,
  Store,
  type StoreError,
  type Unstorable
} from "./store.ts"
import type { Topic } from "../model/topic.ts"
import { runOf } from "./retries.ts"

/** The caches of lookups that projections of a process share, by topic. */
export type LookupTables = Map<string, LookupTable>

/** How long a partition waits before it is tried again after the log or the database was away. */
const again = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("5 seconds")]).pipe(Schedule.jittered)
/** Trouble after this long without any begins with the short waits again. */
const steadyMs = 30_000
/** A partition that was lost to another claimant asks again after so long, in case it is still assigned here. */
const afterFence = "500 millis"

/**
 * Runs a projection on all partitions that its group gives this process, until interrupted. What may pass is tried again, for
 * ever and ever further apart. What needs a person (a log that does not fit, an event under a `stop` policy) halts its partition
 * alone: the reason is logged and in `status`, and the others flow on.
 */
export const run = Effect.fn("Runner.run")(function* <E, R>(
  projection: Projection.Of<E, R>,
  lookupTables: LookupTables = new Map()
) {
  const log = yield* Log
  const group = `${projection.name}_v${projection.version}`
  yield* Effect.forEach(
    projection.sources as ReadonlyArray<Topic.Any>,
    (source) =>
      log
        .assign(source.name, group, (assignment) => runPartition(projection, source, assignment, lookupTables))
        .pipe(
          // brokers may be away for longer than a membership bears
          Effect.tapError((error) =>
            "retryable" in error && error.retryable
              ? Effect.logWarning(`${group} ${source.name}: ${error.message}; trying again`)
              : Effect.void
          ),
          Effect.retry({ schedule: again, while: (error) => "retryable" in error && error.retryable })
        ),
    { concurrency: "unbounded", discard: true }
  )
})

const runPartition = <E, R>(
  projection: Projection.Of<E, R>,
  source: Topic.Any,
  assignment: Assignment,
  lookupTables: LookupTables
): Effect.Effect<void, never, R | Log | Store> => {
  const { partition, topic } = assignment
  const place: ProjectionPartition = { projection: projection.name, version: projection.version, topic, partition }
  const name = `${projection.name}_v${projection.version} ${topic}/${partition}`
  let since = 0
  return Effect.suspend(() => {
    since = performance.now()
    return Effect.scoped(claimAndHandle(projection, source, assignment, lookupTables))
  }).pipe(
    Effect.tapError((error) =>
      "retryable" in error && error.retryable
        ? Effect.logWarning(`${name}: ${error.message}; trying again`)
        : Effect.void
    ),
    // both end the round of tries below, so that the next one begins with the short waits
    Effect.catchIf(
      (error) => "retryable" in error && error.retryable && performance.now() - since > steadyMs,
      () => Effect.void
    ),
    Effect.catchTag("Fenced", (fenced) =>
      Effect.logInfo(fenced.message).pipe(Effect.andThen(Effect.sleep(afterFence)))
    ),
    Effect.retry({ schedule: again, while: (error) => "retryable" in error && error.retryable }),
    Effect.forever,
    Effect.catch((error) =>
      Effect.gen(function* () {
        const store = yield* Store
        yield* Effect.logError(`${name} stands still: ${error.message}`)
        yield* Effect.retry(store.halt(place, error.message), { schedule: again, while: ({ retryable }) => retryable })
        return yield* Effect.never
      })
    ),
    Effect.catch((error) => Effect.logError(error.message).pipe(Effect.andThen(Effect.never))),
    Effect.annotateLogs({ projection: place.projection, topic, partition })
  )
}

const claimAndHandle = Effect.fnUntraced(function* <E, R>(
  projection: Projection.Of<E, R>,
  source: Topic.Any,
  assignment: Assignment,
  lookupTables: LookupTables
) {
  const log = yield* Log
  const store = yield* Store
  const { partition, topic } = assignment
  let claim: Claim = yield* store.claim(projection, topic, partition, assignment.generation, yield* log.identity(topic))
  yield* assertSameLog(claim)
  const partitions = (yield* log.bounds(topic)).length
  const handling = new Handling(projection, source, partitions, claim, yield* lookups(projection, lookupTables), store)
  const reader = yield* assignment.open(claim.position)
  // a reader keeps to the topic that it was opened on: it is the one that was looked at
  yield* assertSameTopic(claim)
  const measure = measured(projection, topic, partition)
  while (true) {
    const batch = yield* reader.take
    const taken = performance.now()
    yield* Effect.forEach(handling.lookupTables, (table) => table.catchUp, { discard: true })
    claim = yield* handle(projection, handling, claim, batch)
    yield* measure(batch, claim.position, performance.now() - taken)
  }
})

type Failure = StoreError | Fenced | Mismatch | Unstorable

/** One batch, or the half of one that PostgreSQL refused as a whole: the event at fault is found by halving, and parked alone. */
const handle = <E, R>(
  projection: Projection.Of<E, R>,
  handling: Handling<E, R>,
  claim: Claim,
  batch: Pick<Batch, "records" | "next">
): Effect.Effect<Claim, Failure, R | Store> =>
  Effect.gen(function* () {
    const store = yield* Store
    const { next, records } = batch
    const run = runOf(records)
    if (run < records.length) {
      const first = { records: records.slice(0, run), next: records[run - 1]!.position + 1 }
      const held = yield* handle(projection, handling, claim, first)
      return yield* handle(projection, handling, held, { records: records.slice(run), next })
    }
    return yield* handling.changes(claim, records, next).pipe(
      Effect.flatMap((changes: Changes) => store.commit(projection, claim, changes)),
      Effect.tap(() => Effect.sync(() => handling.settle())),
      Effect.catchTag("Unstorable", (refused) => {
        const less = records.length <= 1 && handling.narrow()
        handling.reset()
        if (less) return handle(projection, handling, claim, batch)
        if (records.length <= 1) {
          const past = handling.refuse(claim, records[0], next, refused)
          return Effect.catchTag(past, "Stopped", ({ reason }) => Effect.fail(reason))
        }
        const half = records.length >> 1
        const first = { records: records.slice(0, half), next: records[half - 1]!.position + 1 }
        const second = { records: records.slice(half), next }
        return Effect.flatMap(handle(projection, handling, claim, first), (held) =>
          handle(projection, handling, held, second)
        )
      }),
      Effect.catchTag("Stopped", ({ position, reason }) => {
        handling.reset()
        const before = records.filter((record) => record.position < position)
        const stop = Effect.fail(reason)
        return before.length === 0
          ? stop
          : Effect.andThen(handle(projection, handling, claim, { records: before, next: position }), stop)
      })
    )
  })

const handled = Metric.counter("millrace_projection_records_total", {
  description: "Records of the log that were handled and committed, duplicates and parked ones included",
  incremental: true
})
const lag = Metric.gauge("millrace_projection_lag", {
  description: "Records of the partition that were not handled yet when the last batch was committed"
})
const batches = Metric.histogram("millrace_projection_batch_seconds", {
  description: "Time from taking a batch until it was committed",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})
/** Notes what a batch came to in the metrics of its partition. */
const measured = ({ name, version }: Projection.Any, topic: string, partition: number) => {
  const attributes = { projection: `${name}_v${version}`, topic, partition: String(partition) }
  const [records, behind, seconds] = [
    Metric.withAttributes(handled, attributes),
    Metric.withAttributes(lag, attributes),
    Metric.withAttributes(batches, attributes)
  ]
  return (batch: Batch, position: number, millis: number) =>
    Effect.andThen(
      Metric.update(records, batch.records.length),
      Effect.andThen(Metric.update(behind, Math.max(0, batch.end - position)), Metric.update(seconds, millis / 1000))
    )
}

const anew = "the topic was deleted and made anew: what was handled was another one's. Rebuild the projection"

/** Halts where the topic is another one than its position is of. */
const assertSameTopic = Effect.fnUntraced(function* ({ identity, partition, topic }: Claim) {
  const log = yield* Log
  const now = yield* log.identity(topic)
  if (identity === undefined || now === undefined || identity === now) return
  return yield* new Mismatch({ what: `${topic}/${partition}`, reason: anew })
})

/**
 * Halts where the log is not the one that the position is of. Where the log tells no topics of one name apart, only the last record
 * that was handled can tell, for as long as it is there.
 */
const assertSameLog = Effect.fnUntraced(function* (claim: Claim) {
  const { fingerprint, partition, position, topic } = claim
  const log = yield* Log
  yield* assertSameTopic(claim)
  if (position === 0) return
  const bounds = (yield* log.bounds(topic)).find((other) => other.partition === partition)
  const what = `${topic}/${partition}`
  if (bounds === undefined) return yield* new Mismatch({ what, reason: "the log has no such partition any more" })
  if (position > bounds.end) {
    const reason = `it ends at ${bounds.end}, and records up to ${position} were handled: it was made anew or restored to an older state`
    return yield* new Mismatch({ what, reason })
  }
  // what retention took cannot be compared; if it took more than was handled, the reader fails
  if (fingerprint === undefined || position - 1 < bounds.start) return
  const { records } = yield* log.read(topic, partition, position - 1, { maxBytes: 1 })
  const last: LogRecord | undefined = records[0]
  if (last?.position === position - 1 && fingerprintOf(last) !== fingerprint) {
    const reason = `the record at ${position - 1} is another one than was handled: the topic was made anew. Rebuild the projection`
    return yield* new Mismatch({ what, reason })
  }
})

const lookups = Effect.fnUntraced(function* (projection: Projection.Any, lookupTables: LookupTables) {
  const log = yield* Log
  const store = yield* Store
  for (const { topic } of Object.values(projection.enrich)) {
    if (lookupTables.has(topic.name)) continue
    const { name, version } = projection
    const table = new LookupTable(log, topic, (partition, deadLetter) =>
      store.park({ projection: name, version, topic: topic.name, partition }, deadLetter)
    )
    lookupTables.set(topic.name, table)
  }
  return lookupTables
})
