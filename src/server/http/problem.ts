// What the server answers where it refuses: a stable code, plain words and what to do. One form for a whole request, one for one event of it.

/** Codes of what is wrong with one event. Stable: clients may tell them apart. */
export type FaultCode =
  | "malformed_json"
  | "not_an_object"
  | "forbidden_key"
  | "forbidden_character"
  | "nesting_too_deep"
  | "event_too_large"
  | "missing_event_type"
  | "unknown_event_type"
  | "ambiguous_event_type"
  | "unknown_schema_version"
  | "schema_mismatch"
  | "invalid_key"
  | "empty_key"
  | "key_too_long"
  | "empty_event_id"
  | "event_id_too_long"
  | "tenant_too_long"
  | "event_time_out_of_range"
  | "event_time_ahead"
  | StorageCode

/** Codes of events that are sound, and that the log did not take. They may be sent again as they are, but for `log_refused`. */
export type StorageCode = "log_unavailable" | "not_attempted" | "topic_not_ready" | "overloaded" | "log_refused"

/** Why one event was not taken. */
export interface Fault {
  readonly code: FaultCode
  /** Plain words, for people. Not stable. */
  readonly message: string
  /** The field, as `attributes.delay`; absent where it is the whole event. */
  readonly path?: string
  /** What to do about it. */
  readonly try: string
}

/** A `Fault` as a value; `path` is left out where it is empty. */
export const fault = (code: FaultCode, message: string, advice: string, path?: string): Fault =>
  path === undefined || path === "" ? { code, message, try: advice } : { code, message, path, try: advice }

/** Codes of refused requests. Stable, as those of events. */
export type ProblemCode =
  | "malformed_json"
  | "empty_body"
  | "no_events"
  | "invalid_utf8"
  | "invalid_gzip"
  | "invalid_parameter"
  | "invalid_request"
  | "body_too_large"
  | "too_many_events"
  | "unsupported_media_type"
  | "unsupported_encoding"
  | "unknown_topic"
  | "derived_topic"
  | "position_gone"
  | "overloaded"
  | "rate_limited"
  | "log_unavailable"
  | "topic_not_ready"
  | "shutting_down"
  | "not_found"
  | "internal_error"

/** A request that is refused as a whole. `Fastify` handlers throw it; the server's error handler answers with `problemBody`. */
export class Problem extends Error {
  readonly status: number
  readonly code: ProblemCode
  readonly try: string
  /** Seconds after which the same request may be sent again. */
  readonly retryAfter: number | undefined

  constructor(status: number, code: ProblemCode, message: string, advice: string, retryAfter?: number) {
    super(message)
    this.name = "Problem"
    this.status = status
    this.code = code
    this.try = advice
    this.retryAfter = retryAfter
  }
}

/** The JSON of a refused request. */
export const problemBody = (problem: Problem, traceId: string | undefined) => ({
  error: { code: problem.code, message: problem.message, try: problem.try },
  ...(traceId === undefined ? {} : { trace_id: traceId })
})

/** A value as an error message shows it: JSON, cut after 60 characters. */
export const shown = (value: unknown): string => {
  const text = typeof value === "number" ? String(value) : (JSON.stringify(value) ?? String(value))
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

/** How many seconds a client is asked to wait before it sends a request again. */
export const retryAfterSeconds = 1
