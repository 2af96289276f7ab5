// Lists, retries and discards dead letters of all kinds: for the command line, a console and HTTP routes.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { query, SqlError } from "../../postgres/client/client.ts"
import * as StoredDeadLetters from "../../postgres/store/dead-letters.ts"
import { lockRetries } from "../../postgres/store/dead-letter-decisions.ts"
import { type DeadLetterKind, kinds } from "./kinds.ts"
import { type WaitingRetries, waitingRetriesOf } from "./projections.ts"
import { DeadLettersFailed, DecisionsBusy, NotMigrated } from "./errors.ts"
import type { DeadLetterSelection } from "./selection.ts"
import type {
  DeadLettersContext,
  DeadLetterSource,
  ListedDeadLetter,
  ListPurpose,
  RefusedDeadLetter,
  SourceRetryResult
} from "./source.ts"

export { DeadLettersFailed, DecisionsBusy, NotMigrated } from "./errors.ts"
export type { WaitingRetries } from "./projections.ts"
export { type DeadLetterKind, kindNames } from "./kinds.ts"
export {
  bulkSelectionOf,
  type DeadLetterRequest,
  type DeadLetterSelection,
  InvalidSelection,
  selectionOf
} from "./selection.ts"
export {
  type DeadLettersContext,
  type DeadLetterStatus,
  deadLetterStatuses,
  type ListedDeadLetter,
  openStatuses,
  type RefusedDeadLetter
} from "./source.ts"

/** A kind whose dead letters are missing in a result because the system that has them does not answer. */
export interface LeftOutKind {
  readonly kind: DeadLetterKind
  readonly reason: string
}
/** Dead letters that a retry or a discard would decide about. */
export interface DeadLetterPreview {
  readonly deadLetters: ReadonlyArray<ListedDeadLetter>
  readonly leftOut: ReadonlyArray<LeftOutKind>
}
/** Dead letters that a retry or a discard would decide about, at most as many as its limit. */
export interface BulkPreview extends DeadLetterPreview {
  /** How many others match, because there are more than the selection's limit. */
  readonly beyondLimit: number
}
/** Dead letters that a selection matches. */
export interface DeadLetterList extends DeadLetterPreview {
  /** Whether there are more than the selection's limit. */
  readonly hasMore: boolean
}
/** What a retry did. */
export interface RetryResult {
  /** How many dead letters were sent again. */
  readonly retried: number
  /** How many others match that were not tried, because there are more than the selection's limit. */
  readonly notTried: number
  /** Those that are still refused, and stay as they are. */
  readonly refused: ReadonlyArray<RefusedDeadLetter>
  readonly leftOut: ReadonlyArray<LeftOutKind>
  /** What ended the retry of a kind before its last dead letter; those of other kinds were retried all the same. */
  readonly failures: ReadonlyArray<DeadLettersFailed | NotMigrated>
}
/** What became of the events of projections that were retried, as far as they were processed. */
export interface RetryOutcome {
  readonly processed: number
  /** Those that waited behind these, for their keys, and were processed after them. */
  readonly behind: number
  /** All that failed again, those that had waited included. */
  readonly failedAgain: number
  /** How many of the retried ones are processed or failed again. */
  readonly decided: number
  /** Some of those that failed again. */
  readonly failed: ReadonlyArray<{ readonly id: number; readonly error: string; readonly message: string }>
  /** Those that a running process is about to process. */
  readonly waiting: number
  /** The ids of all that are not processed yet: those that wait for a process that runs their build included. */
  readonly pending: ReadonlyArray<number>
  /** Contributions to windows that were too late; they are in `millrace.late_events`. */
  readonly late: number
}
/** What a discard did. */
export interface DiscardResult {
  readonly discarded: number
  /** How many others match, because there are more than the selection's limit. */
  readonly notDiscarded: number
  readonly leftOut: ReadonlyArray<LeftOutKind>
}

const isUndefinedTableOrColumn = (error: Error) =>
  error instanceof SqlError && (error.code === "42P01" || error.code === "42703")
const failureOf = (kind: DeadLetterKind, cause: Error): DeadLettersFailed | NotMigrated => {
  if (isUndefinedTableOrColumn(cause)) {
    const message = "this database has no dead letters of this version yet"
    return new NotMigrated({ message, try: "millrace migrate" })
  }
  const { retryable, try: advice } = cause as { readonly retryable?: unknown; readonly try?: string }
  const shared = { kind, message: cause.message, retryable: retryable === true, cause }
  return new DeadLettersFailed(advice === undefined ? shared : { ...shared, try: advice })
}

/**
 * Calls `use` with the source of each kind of a selection, and the ids of that kind. If several kinds are selected, one whose system does not answer is
 * left out: returns those.
 */
export const eachKind = Effect.fnUntraced(function* (
  context: DeadLettersContext,
  { ids, isAskedFor, kinds: selected }: DeadLetterSelection,
  use: (
    kind: DeadLetterKind,
    source: DeadLetterSource,
    ids: ReadonlyArray<string> | undefined
  ) => Effect.Effect<void, Error, Scope.Scope>
): Effect.fn.Return<ReadonlyArray<LeftOutKind>, DeadLettersFailed | NotMigrated, Scope.Scope> {
  const leftOut: Array<LeftOutKind> = []
  for (const kind of selected) {
    const { idPattern, open } = kinds[kind]
    const read = Effect.gen(function* () {
      const source = yield* open(context, isAskedFor)
      if (source === undefined) return
      yield* use(
        kind,
        source,
        ids?.filter((id) => idPattern.test(id))
      )
    }).pipe(Effect.mapError((error) => failureOf(kind, error)))
    const isAway = (error: DeadLettersFailed | NotMigrated) => error._tag === "DeadLettersFailed" && error.retryable
    const leaveOut = ({ message }: { readonly message: string }) =>
      Effect.sync(() => void leftOut.push({ kind, reason: message }))
    yield* selected.length === 1 ? read : Effect.catchIf(read, isAway, leaveOut)
  }
  return leftOut
})

interface SelectedOfKind {
  readonly kind: DeadLetterKind
  readonly source: DeadLetterSource
  readonly deadLetters: ReadonlyArray<ListedDeadLetter>
}
/** Dead letters of each kind of a selection. */
const select = Effect.fnUntraced(function* (
  context: DeadLettersContext,
  selection: DeadLetterSelection,
  purpose: ListPurpose
): Effect.fn.Return<
  {
    readonly selected: ReadonlyArray<SelectedOfKind>
    readonly leftOut: ReadonlyArray<LeftOutKind>
    readonly beyondLimit: number
  },
  DeadLettersFailed | NotMigrated,
  Scope.Scope
> {
  const { filter } = selection
  const selected: Array<SelectedOfKind> = []
  let beyondLimit = 0
  const leftOut = yield* eachKind(
    context,
    selection,
    Effect.fnUntraced(function* (kind, source, ids) {
      const deadLetters = yield* source.list(ids, filter, purpose)
      // in place of many events of a projection that wait behind others of their key, one is listed
      if (purpose !== "show" && (kind === "projection" || deadLetters.length >= filter.limit))
        beyondLimit += Math.max(0, (yield* source.count(ids, filter, purpose)) - filter.limit)
      selected.push({ kind, source, deadLetters })
    })
  )
  return { selected, leftOut, beyondLimit }
})

/** Claims the right to decide about dead letters of a database, until the scope closes. */
const claimDecisions = Effect.fnUntraced(function* ({ sql }: DeadLettersContext) {
  if (yield* lockRetries(sql)) return
  const message = "another process is retrying or discarding dead letters of this database"
  return yield* new DecisionsBusy({ message, try: "again when it has finished" })
})

/** Lists dead letters, the newest first, at most as many as the selection's limit in all. */
export const list = Effect.fnUntraced(function* (
  context: DeadLettersContext,
  selection: DeadLetterSelection
): Effect.fn.Return<DeadLetterList, DeadLettersFailed | NotMigrated> {
  const { limit } = selection.filter
  const oneMore = { ...selection, filter: { ...selection.filter, limit: limit + 1 } }
  const { leftOut, selected } = yield* Effect.scoped(select(context, oneMore, "show"))
  const all = selected.flatMap(({ deadLetters }) => deadLetters).toSorted((a, b) => b.failedAt - a.failedAt)
  return { deadLetters: all.slice(0, limit), hasMore: all.length > limit, leftOut }
})

/** Lists the dead letters that a retry or a discard of the selection would decide about, and changes nothing. */
export const preview = Effect.fnUntraced(function* (
  context: DeadLettersContext,
  selection: DeadLetterSelection,
  purpose: "retry" | "discard"
): Effect.fn.Return<BulkPreview, DeadLettersFailed | NotMigrated> {
  const { beyondLimit, leftOut, selected } = yield* Effect.scoped(select(context, selection, purpose))
  return { deadLetters: selected.flatMap(({ deadLetters }) => deadLetters), leftOut, beyondLimit }
})

/**
 * Retries dead letters: events of projections are appended to the end of their topic, messages and records are sent again. `by`: who decided it.
 * `onRetried` is called with the dead letters of each kind once they were sent. Fails with `DecisionsBusy` while another process retries or discards.
 */
export const retry = (
  context: DeadLettersContext,
  selection: DeadLetterSelection,
  by: string,
  onRetried: (kind: DeadLetterKind, deadLetters: ReadonlyArray<ListedDeadLetter>) => void = () => undefined
): Effect.Effect<RetryResult, DeadLettersFailed | NotMigrated | DecisionsBusy | SqlError> =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* claimDecisions(context)
      const { beyondLimit, leftOut, selected } = yield* select(context, selection, "retry")
      let retried = 0
      const refused: Array<RefusedDeadLetter> = []
      const failures: Array<RetryResult["failures"][number]> = []
      for (const { deadLetters, kind, source } of selected) {
        const result: SourceRetryResult = yield* source
          .retry(deadLetters, by)
          .pipe(Effect.catch((failure) => Effect.succeed({ retried: 0, refused: [], failure })))
        retried += result.retried
        onRetried(kind, deadLetters)
        refused.push(...result.refused)
        if (result.failure !== undefined) failures.push(failureOf(kind, result.failure))
      }
      return { retried, notTried: beyondLimit, refused, leftOut, failures }
    })
  )

/** What became of retried dead letters of projections, by their ids, since their retry. */
export const retryOutcome = (
  { sql }: DeadLettersContext,
  ids: ReadonlyArray<number>
): Effect.Effect<RetryOutcome, SqlError> =>
  query("read what became of retries", () => StoredDeadLetters.retryOutcome(sql, ids)).pipe(
    Effect.map(([row]) => {
      const { failed_again: again, failed_behind: behindAgain, ...counted } = row!
      return { ...counted, failedAgain: again + behindAgain, decided: counted.processed + again }
    })
  )

/** The builds whose retried dead letters wait because no process runs them, with what to do. Empty if the database does not answer. */
export const waitingRetries = (
  { sql }: DeadLettersContext,
  ids: ReadonlyArray<number>
): Effect.Effect<ReadonlyArray<WaitingRetries>> =>
  ids.length === 0
    ? Effect.succeed([])
    : query("look for retries that wait", () => StoredDeadLetters.notRun(sql, ids)).pipe(
        Effect.map((rows) => rows.map(waitingRetriesOf)),
        Effect.orElseSucceed(() => [])
      )

/** How long `awaitOutcome` waits for running processes to process what was sent, in milliseconds. */
const outcomeMs = 10_000
/** What became of retried events once running processes have processed them; undefined if there is none, or nothing was processed. */
export const awaitOutcome = Effect.fnUntraced(function* (
  context: DeadLettersContext,
  ids: ReadonlyArray<number>,
  waitMs = outcomeMs
): Effect.fn.Return<RetryOutcome | undefined> {
  if (ids.length === 0) return undefined
  // what was sent is sent: a database that fails now only takes the report away
  const look = Effect.orElseSucceed(retryOutcome(context, ids), () => undefined)
  const until = Date.now() + waitMs
  let outcome = yield* look
  while (outcome !== undefined && outcome.waiting > 0 && Date.now() < until) {
    yield* Effect.sleep("100 millis")
    outcome = yield* look
  }
  return outcome === undefined || outcome.decided === 0 ? undefined : outcome
})

/** How many dead letters of projections wait behind those of a preview, for their keys, and would be retried with them. */
export const countBehind = (
  { sql }: DeadLettersContext,
  { deadLetters }: DeadLetterPreview
): Effect.Effect<number, SqlError> => {
  const ids = deadLetters.filter(({ details }) => details["kind"] === "projection").map(({ id }) => Number(id))
  return ids.length === 0
    ? Effect.succeed(0)
    : query("count dead letters that wait behind others", () => StoredDeadLetters.countBehind(sql, ids))
}

/**
 * Discards dead letters: they are kept and count as decided. An event of a projection that is `retrying` is not discarded, because the log may
 * already have its retry record. Fails with `DecisionsBusy` while another process retries or discards.
 */
export const discard = (
  context: DeadLettersContext,
  selection: DeadLetterSelection,
  by: string
): Effect.Effect<DiscardResult, DeadLettersFailed | NotMigrated | DecisionsBusy | SqlError> =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* claimDecisions(context)
      const { beyondLimit, leftOut, selected } = yield* select(context, selection, "discard")
      let discarded = 0
      for (const { deadLetters, kind, source } of selected)
        discarded += yield* Effect.mapError(source.discard(deadLetters, by), (error) => failureOf(kind, error))
      return { discarded, notDiscarded: beyondLimit, leftOut }
    })
  )
