// What happens to the events of a batch that fail: parked or skipped as dead letters, or the partition stops before them.
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { maySeal } from "../erasure/sealed.ts"
import { isUnreadablePersonal } from "../erasure/unreadable.ts"
import {
  describeError,
  EarlierParked,
  isEarlierParked,
  placeInApplication,
  withHiddenMessage
} from "../dead-letter/event-failure.ts"
import { isRetry } from "../dead-letter/retry-record.ts"
import type { LogRecord } from "../log/log.ts"
import type { Projection } from "../model/projection.ts"
import type { Topic } from "../model/topic.ts"
import { BatchDeadLetters, type FailedEvent } from "./batch-dead-letters.ts"
import { KeyOrder } from "./key-order.ts"
import { LiveDecisions } from "./live-decisions.ts"
import { Retries, type RetryRequest } from "./retries.ts"
import { BatchOutcomes, defaultHaltAfter, streakReason } from "./failure-streak.ts"
import {
  Mismatch,
  StoreError,
  Unstorable,
  type Changes,
  type Claim,
  type FailureStreak,
  type ProjectionPartition,
  type Store
} from "./store.ts"

/** The failure policy stops the partition before the record at `position`. Earlier records of the batch may still be committed. */
export class Stopped extends Data.TaggedError("Stopped")<{ readonly position: number; readonly reason: Mismatch }> {}

/** The server lacks the time or the memory for a single event: it is tried again later, and not blamed. */
export const busy = ({ code, reason }: Unstorable): StoreError =>
  new StoreError({ operation: "commit an event", retryable: true, reason: `${reason} (SQLSTATE ${code})` })

/** The failure of an event with personal fields, by its name and where it was thrown: what is stored and published of it must not quote the fields. */
const withoutPersonalText = (failed: FailedEvent): FailedEvent => {
  const { error, record } = failed
  if (record.value === null || !maySeal(record.value) || isEarlierParked(error) || isUnreadablePersonal(error))
    return failed
  return { ...failed, error: withHiddenMessage(error), thrownAt: placeInApplication(error) }
}
/** Applies a projection's failure policy to the events of one partition, a batch at a time. */
export class FailedEvents {
  private readonly deadLetters: BatchDeadLetters
  private readonly retries: Retries
  private readonly keyOrder: KeyOrder
  private readonly decisions: LiveDecisions
  private readonly outcomes = new BatchOutcomes()
  private readonly at: ProjectionPartition & Pick<Claim, "owner">
  private readonly policy: Projection.Any["failure"]

  constructor(
    projection: Projection.Any,
    source: Topic.Any,
    at: ProjectionPartition & Pick<Claim, "owner">,
    store: Store["Service"]
  ) {
    const isOrdered = projection.failure.order === "key"
    this.at = at
    this.policy = projection.failure
    this.deadLetters = new BatchDeadLetters(projection, source, at)
    this.retries = new Retries(isOrdered, at, store)
    this.keyOrder = new KeyOrder(isOrdered, at, store)
    this.decisions = new LiveDecisions(isOrdered, at, store)
  }

  /** Begins a batch, or another attempt at one. Returns the records to process: those given, or the dead letters that they retry. */
  readonly begin = Effect.fnUntraced(function* (
    this: FailedEvents,
    records: ReadonlyArray<LogRecord>,
    mode: Claim["mode"]
  ) {
    this.deadLetters.reset()
    this.retries.reset()
    this.keyOrder.reset()
    this.outcomes.reset()
    this.decisions.reset()
    if (isRetry(records[0], this.at.owner)) {
      const retried = yield* this.retries.load(records)
      for (const { by, record } of this.retries.blocked) this.deadLetters.retryBlocked(record, by)
      return retried
    }
    yield* this.keyOrder.load(records)
    if (mode === "follower") yield* this.decisions.load(records)
    return records
  })
  /** The batch is committed. */
  onCommitted(): void {
    this.retries.onCommitted()
  }
  /** Lets the next attempt retry half as many dead letters. False if the batch is no retry, or one of a single dead letter. */
  halveRetries(): boolean {
    return this.retries.halve()
  }
  /** Retry records of the batch that bring nothing back. */
  get ignoredRetries(): number {
    return this.retries.ignored
  }

  /** What asked for the record, if it is a retried dead letter's. */
  retryOf(record: LogRecord): RetryRequest | undefined {
    return this.retries.requestOf(record)
  }
  /** With `order: "key"`: how the record fails because an earlier event of its key is parked; undefined if none is. */
  behindParked(record: LogRecord): EarlierParked | undefined {
    const isBehind = this.keyOrder.isBehindParked(record) || this.decisions.isBehindDiscarded(record)
    return isBehind ? new EarlierParked({ key: record.key! }) : undefined
  }
  /** Notes that an event was processed: if it is a dead letter, its retry succeeded. A duplicate says nothing of the handler. */
  succeed(record: LogRecord, isDuplicate = false): void {
    const request = this.retries.requestOf(record)
    if (request !== undefined) this.deadLetters.retrySucceeded(record, request.by)
    else if (!isDuplicate) this.outcomes.succeed(record.position)
  }
  /** Does what the policy says with a failed event. Returns `Stopped` if that stops the partition. */
  fail(given: FailedEvent): Stopped | undefined {
    const failed = withoutPersonalText(given)
    const { error, record } = failed
    const { then = "park" } = this.policy
    const request = this.retries.requestOf(record)
    const isDiscarded = request === undefined && this.decisions.discard(record)
    if (!isDiscarded) this.keyOrder.park(record)
    if (request !== undefined) {
      // a dead letter behind one whose retry failed stays as it is
      if (!isEarlierParked(error)) this.deadLetters.retryFailed(failed, request.by)
      return undefined
    }
    if (then !== "stop") {
      if (!isEarlierParked(error)) this.outcomes.fail(record.position, error)
      this.deadLetters.add(failed, isDiscarded ? "discarded" : then === "skip" ? "skipped" : "parked")
      return undefined
    }
    return new Stopped({
      position: record.position,
      // The handler would run again at each trial, with its side effects: a person continues, by a restart. What the store refuses may
      // have its cause in the database, and continues once that is gone.
      reason: new Mismatch({
        what: this.stoppedAt(record.position),
        reason: describeError(error).message,
        ...(failed.isOfStore !== true && { retry: "never" as const }),
        cause: error
      })
    })
  }

  /** Whether the next event that fails may halt the partition: then it is better tried alone. */
  isAtBound({ failing, hasSucceeded }: Claim): boolean {
    if (failing === undefined) return false
    return (hasSucceeded ? failing.count : failing.total) >= this.haltAfter
  }
  /** How the batch's last events failed, after those of earlier commits. Fails with `Stopped` if an event failed once too often. */
  streak({ failing, hasSucceeded }: Claim): Effect.Effect<FailureStreak | undefined, Stopped> {
    const result = this.outcomes.result(failing, hasSucceeded, this.haltAfter)
    if (result.haltAt === undefined || result.failing === undefined) return Effect.succeed(result.failing)
    const reason = new Mismatch({ what: this.stoppedAt(result.haltAt), reason: streakReason(result.failing) })
    return Effect.fail(new Stopped({ position: result.haltAt, reason }))
  }
  private stoppedAt(position: number): string {
    const { partition, projection, topic } = this.at
    return `${projection} stopped at ${topic}/${partition} position ${position}`
  }
  /** Commits past a failed event. If the store refuses the dead letter itself, only where its record is and why it failed are kept. */
  reducing<A, E>(commit: Effect.Effect<A, E | Unstorable>): Effect.Effect<A, E | Unstorable> {
    return Effect.catchIf(
      commit,
      (error) => error instanceof Unstorable && error.mayPass !== true,
      (error) => {
        this.deadLetters.reduce((error as Unstorable).message)
        return commit
      }
    )
  }
  private get haltAfter(): number {
    return this.policy.haltAfter ?? defaultHaltAfter
  }

  /** The batch's dead letters, and the segments that publish them. */
  changes(): Pick<Changes, "deadLetters" | "retried" | "discarded"> & Pick<Changes, "segments"> {
    const { added, retried } = this.deadLetters
    return { deadLetters: added, retried, discarded: this.retries.discarded, segments: this.deadLetters.segments() }
  }
}
