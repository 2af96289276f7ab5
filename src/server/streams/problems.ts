// The problems of requests that read the log. Pure.
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

/** Returns the name of a topic. Throws a `Problem` 404 if the application has no such topic. */
export const knownTopic = (catalog: Catalog, name: string): string => {
  if (catalog.topics.has(name)) return name
  const advice = adviceFor(name, [...catalog.topics.keys()]) ?? "declare a topic"
  throw new Problem(404, "unknown_topic", `the application has no topic ${JSON.stringify(name)}`, advice)
}
