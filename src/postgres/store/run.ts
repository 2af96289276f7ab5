// Runs the statements of the store, and tells their failures as the store does.
import * as Effect from "effect/Effect"
import { StoreError } from "../../runner/store.ts"
import { answered } from "../client/answer.ts"
import { blameOf, query, type SqlError } from "../client/errors.ts"

/** The store's error for one of PostgreSQL. The same call may succeed later if the server lacks time, memory or a connection at the moment. */
export const storeError = (error: SqlError): StoreError =>
  new StoreError({
    operation: error.operation,
    retryable: /^(moment|size)$/.test(blameOf(error)),
    reason: error.reason,
    cause: error
  })

/** Runs a statement, and waits `ms` for its answer (default: `answered`). `operation` names it in errors. */
export const run = <A>(operation: string, statement: () => PromiseLike<A>, ms?: number): Effect.Effect<A, StoreError> =>
  Effect.mapError(
    query(operation, () => answered(statement(), ms)),
    storeError
  )
