// The loop: claims each partition of a projection's sources, takes its batches from the log, and has them processed. Start reading here.
//
// Nothing is kept between batches but the claim and caches, which can be read again. So recovery from any crash is to claim the
// partition and read on from the claim's position.
import * as Context from "effect/Context"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import { describeError } from "../dead-letter/event-failure.ts"
import { fingerprintOf, Log, type Assignment, type LogRecord, type ReadOptions, startOver } from "../log/log.ts"
import { type CommitStages, commitStages } from "../log/stages.ts"
import type { Projection } from "../model/projection.ts"
import { type Chains, noChains } from "../model/chains.ts"
import type { Topic } from "../model/topic.ts"
import { CurrentFailures, projectionSubject } from "../monitor/ongoing-failures.ts"
import { linksOf } from "./chain.ts"
import { CurrentFollowerTurns } from "./follower-turns.ts"
import { Follower, type PartOfBatch } from "./follower.ts"
import { LookupTable } from "./lookup-tables.ts"
import { inOwnFiber } from "./own-fiber.ts"
import { paced } from "./pacing.ts"
import { BatchSize } from "./batch-size.ts"
import { BehaviourSamplers } from "./behaviour.ts"
import { PartitionProcessor } from "./partition-processor.ts"
import { takerOf } from "./take-within.ts"
import { type Claim, Mismatch, type ProjectionPartition, Store, type StoreError } from "./store.ts"

/** The lookup tables that the projections of a process share, by topic. */
export type LookupTables = Map<string, LookupTable>

/** The consumer groups of a database's projections. */
export interface GroupNames {
  /** What the groups' names start with. */
  readonly prefix: string
  /** Grows when the prefix changes: a claim by a member of the newest group supersedes those by members of earlier ones, for good. */
  readonly epoch: number
}
/** More than any generation of a group: on Kafka these are epoch milliseconds. */
const generationsPerEpoch = 10_000_000_000_000

/** The waits between attempts of a group after the log was unavailable. */
const retrySchedule = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("5 seconds")]).pipe(
  Schedule.jittered
)
/** How long a partition waits before it is tried again: first `firstMs`, then longer and longer, `mostMs` at most. A commit starts it over. */
export interface Waits {
  readonly firstMs: number
  readonly mostMs: number
}
/** The waits of a partition after a failure that passes without a person's help (`waiting`), and while it is halted. */
export const RetryWaits = Context.Reference<{ readonly waiting: Waits; readonly halted: Waits }>(
  "millrace/RetryWaits",
  {
    defaultValue: () => ({ waiting: { firstMs: 50, mostMs: 5_000 }, halted: { firstMs: 1_000, mostMs: 60_000 } })
  }
)
/** The wait before a partition is claimed again that another process has claimed, in case it is still assigned to this one. */
const afterFence = "500 millis"

/**
 * Runs a projection on all partitions that its group assigns to this process, until interrupted. Failures that may pass are retried
 * without end, with growing waits. What needs a person (a missing privilege or table, a log that does not match the position, an event
 * under a `stop` policy, a defect) halts its partition alone: the reason is logged and shown in `status`, and the other partitions
 * continue. A halted partition is tried again from time to time, and continues by itself once the cause is gone; see `Mismatch.retry`.
 */
export const run = Effect.fn("Runner.run")(function* <E, R>(
  projection: Projection.Of<E, R>,
  lookupTables: LookupTables = new Map(),
  chains: Chains = noChains,
  groups: GroupNames = { prefix: "", epoch: 0 }
) {
  const log = yield* Log
  const { version } = projection
  // before anything waits: the projections of a process start together, and each is to get the dead letters of its lookup topics
  yield* Effect.acquireRelease(addLookupTables(projection, lookupTables), () =>
    // a build that was retired has no dead letters any more
    Effect.sync(() => {
      for (const { topic } of Object.values(projection.enrich))
        lookupTables.get(topic.name)?.removeReader(`${projection.name}_v${version}`)
    })
  )
  const group = `${groups.prefix}${projection.name}_v${version}`
  const inEpoch = (assignment: Assignment): Assignment => ({
    ...assignment,
    generation: assignment.generation + groups.epoch * generationsPerEpoch
  })
  yield* Effect.forEach(
    projection.sources as ReadonlyArray<Topic.Any>,
    (source) =>
      log
        .assign(source.name, group, (assignment) =>
          // what another process has from now on does not fail here any more
          Effect.ensuring(
            runPartition(projection, source, inEpoch(assignment), { lookupTables, chains }),
            clearFailure({ projection: projection.name, version, topic: source.name, partition: assignment.partition })
          )
        )
        .pipe(
          // brokers may be unavailable for longer than a group tolerates
          Effect.tapError((error) =>
            "retryable" in error && error.retryable
              ? Effect.andThen(
                  reportFailure({ projection: projection.name, version, topic: source.name }, error.message),
                  Effect.logWarning(`${group} ${source.name}: ${error.message}; retrying`)
                )
              : Effect.void
          ),
          Effect.retry({ schedule: retrySchedule, while: (error) => "retryable" in error && error.retryable })
        ),
    { concurrency: "unbounded", discard: true }
  )
}, Effect.scoped)

/** Notes a failure that is tried again, for the readiness of the process. `repeatAfterMs`: after how long it is tried again. */
const reportFailure = (at: Parameters<typeof projectionSubject>[0], reason: string, repeatAfterMs?: number) =>
  Effect.map(CurrentFailures, (failures) => failures.report(projectionSubject(at), reason, repeatAfterMs))

const clearFailure = (at: Parameters<typeof projectionSubject>[0]) =>
  Effect.map(CurrentFailures, (failures) => failures.clear(projectionSubject(at)))

/** What is known of a partition from one attempt to the next. */
interface PartitionAttempts {
  /** How many attempts failed since the last commit, or since the last failure of the other kind. */
  failures: number
  /** Why the partition is halted, and when it may be tried again. */
  halt: { readonly reason: string; readonly retry: Mismatch["retry"] } | undefined
  /** Whether the last attempt failed to process a batch that it had read. */
  isProcessing: boolean
  /**
   * What the reason that `status` may show is about: a batch, until a commit, or what comes before it, which may be of an earlier process,
   * too; undefined if there is no reason.
   */
  reasonOf: "batch" | "start" | undefined
}

/** What the partitions of a process share. */
interface SharedParts {
  readonly lookupTables: LookupTables
  readonly chains: Chains
}

const runPartition = Effect.fnUntraced(function* <E, R>(
  projection: Projection.Of<E, R>,
  source: Topic.Any,
  assignment: Assignment,
  shared: SharedParts
): Effect.fn.Return<never, never, R | Log | Store> {
  const { partition, topic } = assignment
  const at: ProjectionPartition = { projection: projection.name, version: projection.version, topic, partition }
  const name = `${projection.name}_v${projection.version} ${topic}/${partition}`
  const waits = yield* RetryWaits
  const attempts: PartitionAttempts = { failures: 0, halt: undefined, isProcessing: false, reasonOf: "start" }
  const labels = { projection: at.projection, topic, partition }
  while (true) {
    attempts.isProcessing = false
    const error = yield* inOwnFiber(
      Effect.scoped(claimAndProcess(projection, source, assignment, shared, attempts))
    ).pipe(
      // if the partition was taken away, nothing from here on runs: a handler has got at the fiber
      Effect.catchCauseIf(Cause.hasInterruptsOnly, () =>
        Effect.fail(new Mismatch({ what: name, reason: "the code of an event interrupted the fiber of its partition" }))
      ),
      // without this an error that nothing expects would end the loop, and neither the log nor `status` would show it
      Effect.catchDefect((cause) =>
        Effect.fail(new Mismatch({ what: name, reason: describeError(cause).message, cause }))
      ),
      Effect.flip,
      Effect.annotateLogs(labels)
    )
    yield* Effect.annotateLogs(pause(at, name, error, attempts, waits), labels)
  }
})

type AttemptError = Effect.Error<ReturnType<typeof claimAndProcess>>
/** Notes why an attempt failed, and waits until the next one. Never returns if only a restart can help. */
const pause = Effect.fnUntraced(function* (
  at: ProjectionPartition,
  name: string,
  error: AttemptError,
  attempts: PartitionAttempts,
  waits: { readonly waiting: Waits; readonly halted: Waits }
): Effect.fn.Return<void, never, Store> {
  const store = yield* Store
  const { message } = error
  // nobody can do anything about it, and the runner of builds stops it within a second
  if (isLasting(error) && (yield* isGone(at))) return yield* Effect.sleep(afterFence)
  if (error._tag === "Fenced") {
    attempts.reasonOf = "start"
    attempts.failures = 0
    yield* Effect.logInfo(message)
    return error.isPromoted === true ? undefined : yield* Effect.sleep(afterFence)
  }
  const note = (noting: Effect.Effect<void, StoreError>) =>
    noting.pipe(
      Effect.timeoutOption(noteMs),
      Effect.catch((failed) => Effect.logWarning(`${name}: ${failed.message}`))
    )
  if (attempts.isProcessing) attempts.reasonOf = "batch"
  else attempts.reasonOf ??= "start"
  yield* reportFailure(at, message, isLasting(error) ? 2 * waits.halted.mostMs : waits.waiting.mostMs)
  if ("retryable" in error && error.retryable) {
    // a halted partition stays halted while the database or the log is away
    yield* Effect.logWarning(`${name}: ${message}; retrying`)
    if (attempts.halt === undefined) yield* note(store.waiting(at, message))
    return yield* Effect.sleep(waitMs(waits.waiting, attempts.failures++))
  }
  const retry = error._tag === "Mismatch" ? error.retry : undefined
  if (attempts.halt === undefined) attempts.failures = 0
  if (attempts.halt?.reason !== message) yield* Effect.logError(`${name} is halted: ${message}`)
  // what was noted may be gone: another process may have had the partition in the meantime
  yield* note(store.halt(at, message))
  attempts.halt = { reason: message, retry: retry ?? attempts.halt?.retry }
  if (retry === "never") return yield* Effect.never
  yield* Effect.sleep(waitMs(waits.halted, attempts.failures++))
})
/** Whether an error does not pass by itself. */
const isLasting = (error: AttemptError) => !("retryable" in error && error.retryable)
/** Whether the build of a partition was retired or deleted. False if the database does not say so in time. */
const isGone = (at: ProjectionPartition) =>
  Effect.flatMap(Store, (store) => store.isGone(at)).pipe(
    Effect.timeoutOption(noteMs),
    Effect.match({ onSuccess: Option.getOrElse(() => false), onFailure: () => false })
  )
/** `status` shows reasons; processing does not wait for them longer than this. */
const noteMs = 5_000
/** A wait that grows, and varies so that partitions do not all try at once. */
const waitMs = ({ firstMs, mostMs }: Waits, failures: number): number =>
  Math.min(mostMs, firstMs * 2 ** Math.min(failures, 30)) * (0.8 + 0.4 * Math.random())

const claimAndProcess = Effect.fnUntraced(function* <E, R>(
  projection: Projection.Of<E, R>,
  source: Topic.Any,
  assignment: Assignment,
  shared: SharedParts,
  attempts: PartitionAttempts
) {
  const log = yield* Log
  const store = yield* Store
  const { partition, topic } = assignment
  const { chains, lookupTables } = shared
  const claim = yield* store.claim(projection, topic, partition, assignment.generation, yield* log.identity(topic))
  yield* assertSameLog(claim, attempts.halt?.retry === "proven" ? attempts.halt.reason : undefined)
  const partitions = (yield* log.bounds(topic)).length
  const links = yield* linksOf(chains, projection, topic, partitions, log)
  const samplers = yield* BehaviourSamplers
  const turns = yield* CurrentFollowerTurns
  const parts = { projection, source, partitions, claim, lookupTables, store, links, samplers, turns }
  const processor = new PartitionProcessor(parts)
  const size = new BatchSize()
  const reader = yield* assignment.open(claim.position, readingOf(claim, partitions, size))
  // a reader keeps to the topic that it was opened on: it is the one that was looked at
  yield* assertSameTopic(claim)
  yield* clearReasons(claim, attempts)
  const measure = measured(projection, topic, partition)
  const takeWithin = takerOf(Effect.tap(reader.take, (batch) => Effect.sync(() => size.note(batch))))
  const inPace = paced(claim, (part) => processor.process(part))
  const process = Effect.fnUntraced(function* (part: PartOfBatch) {
    const taken = performance.now()
    attempts.isProcessing = true
    yield* inPace(part)
    attempts.isProcessing = false
    if (attempts.halt !== undefined) yield* Effect.logInfo(`${projection.name} ${topic}/${partition} continues`)
    Object.assign(attempts, { failures: 0, halt: undefined, reasonOf: undefined })
    const committed = performance.now()
    if (commitStages.hasSubscribers) {
      const { records } = part
      const of = { topic, partition, projection: projection.name, records }
      commitStages.publish({ ...of, taken, handled: processor.sentAt, committed } satisfies CommitStages)
    }
    yield* measure(part, committed - taken)
  })
  // once it is live, it is claimed again
  const follower = claim.mode === "follower" ? new Follower(store, claim) : undefined
  while (true) {
    const batch = yield* takeWithin(follower === undefined ? processor.announceDueMs : idleMs)
    if (batch === undefined) yield* follower === undefined ? processor.announce : follower.check
    else yield* follower === undefined ? process(batch) : follower.process(batch, process)
  }
})
/** How often a follower that has nothing to read looks whether it is live, in milliseconds. */
const idleMs = 1_000
/** How many bytes of values the batches of a build that follows hold together, and those of one partition at least and at most. */
const bulkBytes = { all: 64 << 20, least: 1 << 20, most: 16 << 20 }
/** A follower is mostly far behind, where large batches cost less for each event, and nobody waits for its commits. */
const readingOf = ({ mode }: Claim, partitions: number, size: BatchSize): ReadOptions => {
  if (mode !== "follower") return { maxBytes: () => size.maxBytes }
  return { maxBytes: Math.min(bulkBytes.most, Math.max(bulkBytes.least, Math.floor(bulkBytes.all / partitions))) }
}

/**
 * The log is the right one and can be read. What `status` shows of earlier attempts is cleared, except for the reason of a batch that could
 * not be processed: a commit clears that.
 */
const clearReasons = Effect.fnUntraced(function* (at: ProjectionPartition, attempts: PartitionAttempts) {
  const store = yield* Store
  if (attempts.reasonOf !== "start") return
  yield* clearFailure(at)
  yield* store.halt(at, undefined)
  attempts.reasonOf = undefined
  attempts.halt = undefined
})

const records = Metric.counter("millrace_projection_records_total", {
  description: "Records of the log that were processed and committed, duplicates and parked ones included",
  incremental: true
})
const batches = Metric.histogram("millrace_projection_batch_seconds", {
  description: "Time from taking a batch until it was committed",
  boundaries: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
})
/** Counts a batch in the metrics of its partition. */
const measured = ({ name, version }: Projection.Any, topic: string, partition: number) => {
  const attributes = { projection: `${name}_v${version}`, topic, partition: String(partition) }
  const processed = Metric.withAttributes(records, attributes)
  const seconds = Metric.withAttributes(batches, attributes)
  return (part: PartOfBatch, millis: number) =>
    Effect.andThen(Metric.update(processed, part.records.length), Metric.update(seconds, millis / 1000))
}

/** Fails if the topic is not the one that the claim's position belongs to. */
const assertSameTopic = Effect.fnUntraced(function* ({ identity, partition, topic }: Claim) {
  const log = yield* Log
  const now = yield* log.identity(topic)
  if (identity === undefined || now === undefined || identity === now) return
  const reason = `the topic was recreated: the events that were processed are of the deleted one. ${startOver}`
  return yield* new Mismatch({ what: `${topic}/${partition}`, reason, retry: "proven" })
})

/**
 * Fails if the log is not the one that the claim's position belongs to. A log that has no identities of topics is recognised by the
 * last record that was processed, for as long as it is kept. `unless` is why the partition was halted: a log that was not the right one
 * becomes that again only if the record is there and the same. A log that merely grew past the position is still a wrong one.
 */
const assertSameLog = Effect.fnUntraced(function* (claim: Claim, unless: string | undefined) {
  const { fingerprint, partition, position, topic } = claim
  const log = yield* Log
  yield* assertSameTopic(claim)
  if (position === 0) return
  const bounds = (yield* log.bounds(topic)).find((other) => other.partition === partition)
  const what = `${topic}/${partition}`
  const retry = "proven"
  if (bounds === undefined) return yield* new Mismatch({ what, reason: "the log no longer has this partition", retry })
  if (position > bounds.end) {
    const reason = `it ends at ${bounds.end}, and records up to ${position} were processed: it was recreated or restored to an older state`
    return yield* new Mismatch({ what, reason, retry })
  }
  // a deleted record cannot be compared; if retention deleted records that were not processed, the reader fails
  const isKept = fingerprint !== undefined && position - 1 >= bounds.start
  const { records } = isKept ? yield* log.read(topic, partition, position - 1, { maxBytes: 1 }) : { records: [] }
  const last: LogRecord | undefined = records[0]?.position === position - 1 ? records[0] : undefined
  if (last !== undefined && fingerprintOf(last) !== fingerprint) {
    const reason = `the record at ${position - 1} is not the one that was processed: the topic was recreated. ${startOver}`
    return yield* new Mismatch({ what, reason, retry })
  }
  if (last === undefined && unless !== undefined) {
    const reason = unless.startsWith(`${what}: `) ? unless.slice(what.length + 2) : unless
    return yield* new Mismatch({ what, reason, retry })
  }
})

/** Adds a table for each lookup topic of the projection that has none yet, and the projection as one of its readers. */
const addLookupTables = Effect.fnUntraced(function* (projection: Projection.Any, lookupTables: LookupTables) {
  const log = yield* Log
  const store = yield* Store
  const { enrich, name, version } = projection
  for (const { topic } of Object.values(enrich)) {
    const table = lookupTables.get(topic.name) ?? new LookupTable(log, topic, store.lookups)
    table.addReader(`${name}_v${version}`, (partition, deadLetter) =>
      store.park({ projection: name, version, topic: topic.name, partition }, deadLetter)
    )
    lookupTables.set(topic.name, table)
  }
})
