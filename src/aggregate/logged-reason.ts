// What logs and timers may say of a command that failed: if the aggregate has personal fields, no text that may quote them. An erasure reaches neither.
import { describeError, withHiddenMessage } from "../dead-letter/event-failure.ts"
import type { Aggregate } from "../model/aggregate.ts"
import { hasPersonalData } from "../model/erasures.ts"
import { isRejection } from "./command.ts"
import { InlineFailed } from "./errors.ts"
import { AggregateFailed, InvalidCommand } from "./failures.ts"

/** The JSON of a stored command does not fit the aggregate as it is now. Its message is that of the error. */
export class UnreadableCommand extends Error {
  override readonly name = "UnreadableCommand"
  constructor(cause: unknown) {
    super(describeError(cause).message, { cause })
  }
}

/**
 * Why a command was rejected or failed. If the aggregate has personal fields, what its functions throw and answer, and what is said of a command's own
 * values, is reduced to its name and place.
 */
export const loggedReason = (error: unknown, aggregate: Aggregate.Any | undefined): string => {
  const mayQuote =
    isRejection(error) ||
    error instanceof AggregateFailed ||
    error instanceof InlineFailed ||
    error instanceof InvalidCommand ||
    error instanceof UnreadableCommand
  if (aggregate === undefined || !hasPersonalData(aggregate) || !mayQuote) return describeError(error).message
  const { message, name } = withHiddenMessage(
    (error instanceof AggregateFailed || error instanceof UnreadableCommand) && error.cause !== undefined
      ? error.cause
      : error
  )
  return `${name}: ${message}`
}

/** The message of an error of an aggregate's code or of its inline projection, for the log: which stream and command it was, and `loggedReason`. */
export const loggedMessage = (
  error: { readonly aggregate: string; readonly message: string },
  aggregate: Aggregate.Any | undefined
): string => {
  if (aggregate === undefined || !hasPersonalData(aggregate)) return error.message
  const reason = loggedReason(error, aggregate)
  if (error instanceof AggregateFailed) return new AggregateFailed({ ...error, reason }).message
  return error instanceof InlineFailed ? new InlineFailed({ ...error, reason }).message : error.message
}
