// Translates errors of PostgreSQL to the event store's, and says which statements may be sent again.
import * as Effect from "effect/Effect"
import { EventStoreError } from "../../aggregate/errors.ts"
import { answered } from "../client/answer.ts"
import { query, type SqlError } from "../client/errors.ts"
import { retrying } from "../client/retrying.ts"

/** How long the event store waits for the answer to a statement, in milliseconds. */
export const answerMs = 10_000
/** How long it tries a statement again while the database is away, in milliseconds. */
export const patienceMs = 30_000

/** The event store's error for one of PostgreSQL. */
export const eventStoreError =
  (operation: EventStoreError["operation"], aggregate: string) =>
  (error: SqlError): EventStoreError =>
    new EventStoreError({
      operation,
      aggregate,
      retryable: isRepeatable(error),
      reason: /^(42P01|42703|42883|3F000)$/.test(error.code)
        ? `${error.reason}; the tables of the event store are missing or are those of another version: run 'millrace migrate'`
        : error.reason,
      cause: error
    })

/** Whether the same statement may succeed later. Sending it again is safe in any case, because a command id appends once. */
export const isRepeatable = ({ code, inDoubt, retryable }: SqlError): boolean =>
  retryable || inDoubt || /^(40|53|57|58)/.test(code)

/** Runs a statement that may run twice. It is tried again for a while if the database is away for a moment. */
export const run = <A>(
  operation: EventStoreError["operation"],
  aggregate: string,
  statement: () => PromiseLike<A>
): Effect.Effect<A, EventStoreError> =>
  retrying(
    Effect.mapError(
      query(operation, () => answered(statement(), answerMs)),
      eventStoreError(operation, aggregate)
    ),
    { forMs: patienceMs }
  )
