// The errors of listing, retrying and discarding dead letters.
import * as Data from "effect/Data"
import type { DeadLetterKind } from "./kinds.ts"

/** Another process is retrying or discarding dead letters of the same database. */
export class DecisionsBusy extends Data.TaggedError("DecisionsBusy")<{
  readonly message: string
  readonly try: string
}> {}
/** The database is older than this version of Millrace and has no tables for the dead letters. */
export class NotMigrated extends Data.TaggedError("NotMigrated")<{ readonly message: string; readonly try: string }> {}
/** Dead letters of one kind could not be read, retried or discarded. The message and the advice are those of `cause`. */
export class DeadLettersFailed extends Data.TaggedError("DeadLettersFailed")<{
  readonly kind: DeadLetterKind
  readonly message: string
  readonly try?: string
  /** The same call may succeed later, when a broker or the database answers again. */
  readonly retryable: boolean
  readonly cause: Error
}> {}
