// What a request is answered when an operation is refused or fails. Pure.
import { InvalidBridge } from "../../bridge/rule.ts"
import { mayPass } from "../../postgres/client/retrying.ts"
import { PromotionUnderWay } from "../../postgres/store/gate.ts"
import { InvalidSelection } from "../../system/dead-letters/dead-letters.ts"
import { DeadLettersFailed, DecisionsBusy, NotMigrated } from "../../system/dead-letters/errors.ts"
import {
  BridgeRulesError,
  InvalidEnvironment,
  InvalidOperation,
  NoCandidate,
  NotCaughtUp,
  NotCorrected,
  NotExplained,
  NotPromoted,
  NotRetired,
  RebuildRefused,
  RebuildStopped,
  UnknownName,
  UnknownRow
} from "../../system/errors.ts"
import { maskSecrets } from "../../text/secrets.ts"
import { Problem, retryAfterSeconds } from "../http/problem.ts"

const refusals = [
  BridgeRulesError,
  InvalidBridge,
  InvalidEnvironment,
  NoCandidate,
  NotCorrected,
  NotExplained,
  NotMigrated,
  NotRetired,
  RebuildRefused,
  RebuildStopped
]

/** PostgreSQL's codes for a table or a schema that does not exist, as that of a build that another request has cancelled or retired. */
const goneRelations: ReadonlySet<unknown> = new Set(["42P01", "3F000"])

/** The problem of an operation for which the database or a broker has not answered. The request may be sent again after Retry-After seconds. */
export const unanswered = (message: string, advice = "send the request again after Retry-After seconds"): Problem =>
  new Problem(503, "database_unavailable", message, advice, retryAfterSeconds)

/** The problem of an operation that failed with an error. */
export const operationProblem = (error: unknown): Problem => {
  if (error instanceof Problem) return error
  if (error instanceof DeadLettersFailed && error.cause !== error) {
    const cause = operationProblem(error.cause)
    if (cause.status < 500) return cause
  }
  const { message: raw = String(error), try: advice } = (error ?? {}) as {
    readonly message?: string
    readonly try?: string
  }
  const message = maskSecrets(raw === "" ? String(error) : raw)
  if (error instanceof UnknownName || error instanceof UnknownRow)
    return new Problem(404, "unknown_name", message, advice ?? "list what there is, and use one of these names")
  if (error instanceof InvalidSelection)
    return error.field === "bulk"
      ? new Problem(422, "invalid_operation", message, 'send ids, a filter, or {"all": true}')
      : new Problem(422, "invalid_operation", message, `correct ${error.field}`)
  if (error instanceof InvalidOperation)
    return new Problem(422, "invalid_operation", message, advice ?? "correct the request")
  if (error instanceof DecisionsBusy || error instanceof PromotionUnderWay)
    return new Problem(409, "busy", message, advice ?? "send the request again when it has finished")
  if (error instanceof NotCaughtUp || error instanceof NotPromoted)
    return error.timedOut
      ? new Problem(504, "timed_out", message, advice ?? "send the request again")
      : new Problem(409, "refused", message, advice ?? "see /v1/operations/projections")
  if (refusals.some((known) => error instanceof known))
    return new Problem(409, "refused", message, advice ?? "see /v1/operations/status")
  if (goneRelations.has((error as { readonly code?: unknown } | null)?.code))
    return new Problem(
      409,
      "busy",
      `a build that this is about was deleted meanwhile: ${message}`,
      "look at /v1/operations/projections, and send the request again"
    )
  if (error instanceof Error && mayPass(error)) return unanswered(message, advice)
  return new Problem(500, "operation_failed", message, advice ?? "see the log of the server")
}
