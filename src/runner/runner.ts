// The loop: claims each partition of a projection's sources, takes its batches from the log, and has them processed. Start reading here.
//
// Nothing is kept between batches but the claim and caches, which can be read again. So recovery from any crash is to claim the
// partition and read on from the claim's position.
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import { describeError } from "../dead-letter/event-failure.ts"
import { fingerprintOf, Log, type Assignment, type Batch, type LogRecord } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import { LookupTable } from "./lookup-tables.ts"
import { PartitionProcessor } from "./partition-processor.ts"
import { type Claim, type DeadLetter, Mismatch, type ProjectionPartition, Store } from "./store.ts"

/** The lookup tables that the projections of a process share, by topic. */
export type LookupTables = Map<string, LookupTable>

/** The waits between attempts after the log or the database was unavailable. */
const retrySchedule = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("5 seconds")]).pipe(
  Schedule.jittered
)
/** After this long without a failure, the next one is retried with the short waits again. */
const steadyMs = 30_000
/** The wait before a partition is claimed again that another process has claimed, in case it is still assigned to this one. */
const afterFence = "500 millis"

/**
 * Runs a projection on all partitions that its group assigns to this process, until interrupted. Failures that may pass are retried
 * without end, with growing waits. What needs a person (a log that does not match the position, an event under a `stop` policy, a defect)
 * halts its partition alone: the reason is logged and shown in `status`, and the other partitions continue.
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
          // brokers may be unavailable for longer than a group tolerates
          Effect.tapError((error) =>
            "retryable" in error && error.retryable
              ? Effect.logWarning(`${group} ${source.name}: ${error.message}; retrying`)
              : Effect.void
          ),
          Effect.retry({ schedule: retrySchedule, while: (error) => "retryable" in error && error.retryable })
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
  const at: ProjectionPartition = { projection: projection.name, version: projection.version, topic, partition }
  const name = `${projection.name}_v${projection.version} ${topic}/${partition}`
  let since = 0
  return Effect.suspend(() => {
    since = performance.now()
    return Effect.scoped(claimAndProcess(projection, source, assignment, lookupTables))
  }).pipe(
    Effect.tapError((error) =>
      "retryable" in error && error.retryable ? Effect.logWarning(`${name}: ${error.message}; retrying`) : Effect.void
    ),
    // both end this series of retries, so that the next one begins with the short waits
    Effect.catchIf(
      (error) => "retryable" in error && error.retryable && performance.now() - since > steadyMs,
      () => Effect.void
    ),
    Effect.catchTag("Fenced", (fenced) =>
      Effect.logInfo(fenced.message).pipe(Effect.andThen(Effect.sleep(afterFence)))
    ),
    Effect.retry({ schedule: retrySchedule, while: (error) => "retryable" in error && error.retryable }),
    Effect.forever,
    // without this an error that nothing expects would end the loop, and neither the log nor `status` would show it
    Effect.catchDefect((cause) =>
      Effect.fail(new Mismatch({ what: name, reason: describeError(cause).message, cause }))
    ),
    Effect.catch((error) =>
      Effect.gen(function* () {
        const store = yield* Store
        yield* Effect.logError(`${name} is halted: ${error.message}`)
        yield* Effect.retry(store.halt(at, error.message), {
          schedule: retrySchedule,
          while: ({ retryable }) => retryable
        })
        return yield* Effect.never
      })
    ),
    Effect.catch((error) => Effect.logError(error.message).pipe(Effect.andThen(Effect.never))),
    Effect.annotateLogs({ projection: at.projection, topic, partition })
  )
}

const claimAndProcess = Effect.fnUntraced(function* <E, R>(
  projection: Projection.Of<E, R>,
  source: Topic.Any,
  assignment: Assignment,
  lookupTables: LookupTables
) {
  const log = yield* Log
  const store = yield* Store
  const { partition, topic } = assignment
  const claim = yield* store.claim(projection, topic, partition, assignment.generation, yield* log.identity(topic))
  yield* assertSameLog(claim)
  yield* addLookupTables(projection, lookupTables)
  const partitions = (yield* log.bounds(topic)).length
  const processor = new PartitionProcessor({ projection, source, partitions, claim, lookupTables, store })
  const reader = yield* assignment.open(claim.position)
  // a reader keeps to the topic that it was opened on: it is the one that was looked at
  yield* assertSameTopic(claim)
  const measure = measured(projection, topic, partition)
  while (true) {
    const batch = yield* reader.take
    const taken = performance.now()
    const { position } = yield* processor.process(batch)
    yield* measure(batch, position, performance.now() - taken)
  }
})

const records = Metric.counter("millrace_projection_records_total", {
  description: "Records of the log that were processed and committed, duplicates and parked ones included",
  incremental: true
})
const lag = Metric.gauge("millrace_projection_lag", {
  description: "Records of the partition that were not processed yet when the last batch was committed"
})
const batches = Metric.histogram("millrace_projection_batch_seconds", {
  description: "Time from taking a batch until it was committed",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})
/** Counts a batch in the metrics of its partition. */
const measured = ({ name, version }: Projection.Any, topic: string, partition: number) => {
  const attributes = { projection: `${name}_v${version}`, topic, partition: String(partition) }
  const [processed, behind, seconds] = [
    Metric.withAttributes(records, attributes),
    Metric.withAttributes(lag, attributes),
    Metric.withAttributes(batches, attributes)
  ]
  return (batch: Batch, position: number, millis: number) =>
    Effect.andThen(
      Metric.update(processed, batch.records.length),
      Effect.andThen(Metric.update(behind, Math.max(0, batch.end - position)), Metric.update(seconds, millis / 1000))
    )
}

/** Fails if the topic is not the one that the claim's position belongs to. */
const assertSameTopic = Effect.fnUntraced(function* ({ identity, partition, topic }: Claim) {
  const log = yield* Log
  const now = yield* log.identity(topic)
  if (identity === undefined || now === undefined || identity === now) return
  const reason =
    "the topic was recreated: the events that were processed are of the deleted one. Rebuild the projection"
  return yield* new Mismatch({ what: `${topic}/${partition}`, reason })
})

/**
 * Fails if the log is not the one that the claim's position belongs to. A log that has no identities of topics is recognised by the
 * last record that was processed, for as long as it is kept.
 */
const assertSameLog = Effect.fnUntraced(function* (claim: Claim) {
  const { fingerprint, partition, position, topic } = claim
  const log = yield* Log
  yield* assertSameTopic(claim)
  if (position === 0) return
  const bounds = (yield* log.bounds(topic)).find((other) => other.partition === partition)
  const what = `${topic}/${partition}`
  if (bounds === undefined) return yield* new Mismatch({ what, reason: "the log no longer has this partition" })
  if (position > bounds.end) {
    const reason = `it ends at ${bounds.end}, and records up to ${position} were processed: it was recreated or restored to an older state`
    return yield* new Mismatch({ what, reason })
  }
  // a deleted record cannot be compared; if retention deleted records that were not processed, the reader fails
  if (fingerprint === undefined || position - 1 < bounds.start) return
  const { records } = yield* log.read(topic, partition, position - 1, { maxBytes: 1 })
  const last: LogRecord | undefined = records[0]
  if (last?.position === position - 1 && fingerprintOf(last) !== fingerprint) {
    const reason = `the record at ${position - 1} is not the one that was processed: the topic was recreated. Rebuild the projection`
    return yield* new Mismatch({ what, reason })
  }
})

/** Adds a table for each lookup topic of the projection that has none yet. */
const addLookupTables = Effect.fnUntraced(function* (projection: Projection.Any, lookupTables: LookupTables) {
  const log = yield* Log
  const store = yield* Store
  const { enrich, name, version } = projection
  for (const { topic } of Object.values(enrich)) {
    if (lookupTables.has(topic.name)) continue
    const park = (partition: number, deadLetter: DeadLetter) =>
      store.park({ projection: name, version, topic: topic.name, partition }, deadLetter)
    lookupTables.set(topic.name, new LookupTable(log, topic, park))
  }
})
