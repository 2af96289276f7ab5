// What a request to an aggregate is answered when the event store refuses or fails, or the command is rejected. Pure.
import { SubjectErased } from "../../erasure/errors.ts"
import { isRejection, isRepeatedRejection, rejectionFields } from "../../aggregate/command.ts"
import * as Errors from "../../aggregate/errors.ts"
import {
  AppendTooLarge,
  CommandReused,
  EventStoreError,
  EventTimeRefused,
  InlineFailed,
  InlineMissing,
  InvalidCommandId,
  InvalidStream,
  StreamClosed,
  VersionConflict
} from "../../aggregate/errors.ts"
import * as Failures from "../../aggregate/failures.ts"
import { AggregateFailed, InvalidCommand, StreamBusy, UnreadableEvent } from "../../aggregate/failures.ts"
import { Problem, problemDetails, retryAfterSeconds } from "../http/problem.ts"

const again = "send the request again after Retry-After seconds, with the same Idempotency-Key"
const own = "see the log of the server, where the error is; the same command will fail again until that is fixed"

/** The problem of a request that the store refused or could not answer, or whose aggregate is at fault; undefined for any other error. */
export const problemOf = (error: unknown): Problem | undefined => {
  if (error instanceof VersionConflict)
    return new Problem(
      412,
      "version_conflict",
      error.message,
      `read the newest state, and send If-Match: "${error.actual}" if the command still makes sense`
    )
  if (error instanceof CommandReused)
    return new Problem(422, "command_reused", error.message, "send a new Idempotency-Key for a new command")
  if (error instanceof StreamClosed)
    return new Problem(410, "stream_closed", error.message, "send the command to another id")
  if (error instanceof SubjectErased)
    return new Problem(410, "subject_erased", error.message, "send nothing more about these persons")
  if (error instanceof AppendTooLarge)
    return new Problem(413, "append_too_large", error.message, "ask for less at once, in several commands")
  if (error instanceof EventTimeRefused)
    return new Problem(422, error.code, error.message, `send ${error.wanted}`, undefined, error.field)
  if (error instanceof InvalidStream)
    return new Problem(400, "invalid_id", error.message, "send 1 to 1,000 characters without NUL, percent-encoded")
  if (error instanceof InvalidCommandId)
    return new Problem(400, "invalid_parameter", error.message, "send an Idempotency-Key of 1 to 200 characters")
  if (error instanceof InvalidCommand)
    return new Problem(
      422,
      "schema_mismatch",
      error.message,
      error.field === undefined
        ? "compare the command with its schema in /openapi.json"
        : `correct ${error.field}; the schema of the command is in /openapi.json`,
      undefined,
      error.field
    )
  if (error instanceof StreamBusy) return new Problem(503, "contended", error.message, again, retryAfterSeconds)
  if (error instanceof EventStoreError)
    return error.retryable
      ? new Problem(503, "store_unavailable", error.message, again, retryAfterSeconds)
      : new Problem(500, "store_refused", error.message, own)
  if (error instanceof InlineMissing) return new Problem(503, "inline_missing", error.message, again, retryAfterSeconds)
  if (error instanceof InlineFailed)
    return new Problem(
      500,
      "inline_failed",
      `the inline projection ${error.projection} failed; nothing was appended`,
      own
    )
  if (error instanceof UnreadableEvent)
    return new Problem(500, "aggregate_failed", "an event of the stream cannot be read by the aggregate's code", own)
  if (error instanceof AggregateFailed) {
    const what = "the code of the aggregate failed"
    // without a command only the state was read
    const message = error.command === undefined ? what : `${what}; nothing was appended`
    return new Problem(500, "aggregate_failed", message, own)
  }
  const isStoreError = storeErrors.some((known) => error instanceof known)
  return isStoreError ? new Problem(500, "store_refused", (error as Error).message, own) : undefined
}
/** Every error of the event store and of executing commands. */
const storeErrors = Object.values({ ...Errors, ...Failures }).filter(
  (value) => typeof value === "function" && value.prototype instanceof Error
) as ReadonlyArray<abstract new (...args: never) => Error>
/** Whether the aggregate's own code is at fault, so that its error belongs into the log and not into the answer. */
export const isOwnFault = (error: unknown): error is AggregateFailed | UnreadableEvent | InlineFailed =>
  error instanceof AggregateFailed || error instanceof UnreadableEvent || error instanceof InlineFailed

/** A command or a read that took too long. */
export const timedOut = (ms: number): Problem =>
  new Problem(503, "store_unavailable", `there was no answer within ${ms / 1000} s`, again, retryAfterSeconds)

/** A rejection, as it is shown. */
export interface ShownRejection {
  readonly tag: string
  readonly fields: Readonly<Record<string, unknown>>
  readonly message: string
  /** Whether the same command was rejected before, and this is that answer. */
  readonly repeated: boolean
}
/** The error of a command as a rejection; undefined if `decide` did not return it. */
export const rejectionOf = (error: unknown): ShownRejection | undefined => {
  if (!isRejection(error)) return undefined
  const { _tag: tag, message } = error
  const fields = rejectionFields(error)
  const shown = message === "" || message === tag ? `${tag} ${JSON.stringify(fields)}` : message
  return { tag, fields, message: shown, repeated: isRepeatedRejection(error) }
}

/**
 * The body for a rejection: its tag is the title and `tag`, and its fields are members, unless a field has the name of another member.
 * `rejection` has all of them.
 */
export const rejectionDetails = ({ fields, message, repeated, tag }: ShownRejection, traceId: string) => {
  const problem = {
    status: 409,
    code: "rejected" as const,
    message,
    path: undefined,
    try: "see what the aggregate has now; the same command is rejected as long as it stays so"
  }
  const more = { ...fields, tag, rejection: { _tag: tag, ...fields }, repeated }
  return problemDetails(problem, traceId, tag, more)
}
