// What goes wrong in the database while relays use it, as the relay port's error. It decides nothing about what to do then.
import * as Effect from "effect/Effect"
import { RelayError } from "../../relay/target.ts"
import { query, type SqlError } from "../client/client.ts"

const failed = (target: string, operation: RelayError["operation"]) => (error: SqlError) =>
  // a full disk waits for a person; meanwhile everything stays in the outbox
  new RelayError({
    target,
    operation,
    retryable: error.retryable || error.code === "53100",
    reason: error.reason,
    cause: error.cause ?? error
  })
/** Runs queries for a target's relay. */
export const attempter =
  (target: string) =>
  <A>(operation: RelayError["operation"], run: () => PromiseLike<A>): Effect.Effect<A, RelayError> =>
    query(operation, run).pipe(Effect.mapError(failed(target, operation)))
