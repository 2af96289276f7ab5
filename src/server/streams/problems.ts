// The problems of requests that read the log, and reads that reject with them.
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { ReadError } from "../../log/log.ts"
import type { Catalog } from "../http/catalog.ts"
import { adviceFor } from "../../text/similar-names.ts"
import { Problem, retryAfterSeconds } from "../http/problem.ts"

/** The problem of a request whose read failed. */
export const readProblem = (error: ReadError): Problem => {
  if (error._tag === "UnknownTopic")
    return new Problem(503, "topic_not_ready", error.message, "run 'millrace migrate'", retryAfterSeconds)
  if (error._tag === "OutOfRange") return new Problem(410, "position_gone", error.message, "request from=earliest")
  return new Problem(
    503,
    "log_unavailable",
    error.message,
    "send the request again after Retry-After seconds",
    retryAfterSeconds
  )
}

/** The value of an effect that reads the log. Rejects with the `Problem` of its error. */
export const answerOf = async <A, E>(
  context: Context.Context<never>,
  effect: Effect.Effect<A, E>,
  problemOf: (error: E) => Problem
): Promise<A> => {
  const found = await Effect.runPromiseWith(context)(
    Effect.match(effect, { onSuccess: (value) => ({ value }), onFailure: problemOf })
  )
  if (found instanceof Problem) throw found
  return found.value
}

/** Returns the name of a topic. Throws a `Problem` 404 if the application has no such topic. */
export const knownTopic = (catalog: Catalog, name: string): string => {
  if (catalog.topics.has(name)) return name
  const advice = adviceFor(name, [...catalog.topics.keys()]) ?? "declare a topic"
  throw new Problem(404, "unknown_topic", `the application has no topic ${JSON.stringify(name)}`, advice)
}
