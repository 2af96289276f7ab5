// The errors of the HTTP API, for a whole request (`Problem`) or for one event of it (`Fault`): a stable code, a message, and what to do.

/** The codes of rejected events. Stable: clients may depend on them. */
export type FaultCode =
  | "malformed_json"
  | "not_an_object"
  | "invalid_utf8"
  | "duplicate_key"
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
  | "empty_tenant"
  | "tenant_too_long"
  | "event_time_out_of_range"
  | "event_time_ahead"
  | "wrong_tenant"
  | "shared_topic"
  | StorageCode

/** The codes of valid events that were not appended. Except for `log_refused`, the same event may be sent again. */
export type StorageCode = "log_unavailable" | "not_attempted" | "topic_not_ready" | "overloaded" | "log_refused"

/** Why one event was rejected. */
export interface Fault {
  readonly code: FaultCode
  /** A text for people. Not stable. */
  readonly message: string
  /** The field, as `attributes.delay`; absent if the fault concerns the whole event. */
  readonly path?: string
  /** What to do about it. */
  readonly try: string
}

/** Creates a `Fault`. An empty `path` is left out. */
export const fault = (code: FaultCode, message: string, advice: string, path?: string): Fault =>
  path === undefined || path === "" ? { code, message, try: advice } : { code, message, path, try: advice }

/** The codes of refused requests. Stable, as those of events. */
export type ProblemCode =
  | "malformed_json"
  | "empty_body"
  | "no_events"
  | "invalid_utf8"
  | "invalid_gzip"
  | "invalid_parameter"
  | "invalid_url"
  | "invalid_request"
  | "body_too_large"
  | "request_timeout"
  | "headers_too_large"
  | "too_many_events"
  | "unsupported_media_type"
  | "unsupported_encoding"
  | "unknown_topic"
  | "derived_topic"
  | "aggregate_topic"
  | "position_gone"
  | "overloaded"
  | "rate_limited"
  | "disk_full"
  | "log_unavailable"
  | "topic_not_ready"
  | "shutting_down"
  | "starting"
  | "unknown_host"
  | "cross_site"
  | "unauthenticated"
  | "forbidden"
  | "wrong_tenant"
  | "access_unavailable"
  | "not_found"
  | "method_not_allowed"
  | "internal_error"
  | "unknown_view"
  | "view_not_ready"
  | "view_timeout"
  | "view_busy"
  | "not_followable"
  | "not_by_tenant"
  | "unknown_column"
  | "unknown_operator"
  | "invalid_cursor"
  | "not_yet"
  | AggregateCode
  | OperationCode
/** The codes of operations that are refused or fail. */
export type OperationCode =
  | "unknown_name"
  | "invalid_operation"
  | "refused"
  | "busy"
  | "timed_out"
  | "database_unavailable"
  | "operation_failed"
/** The codes of refused requests to aggregates; what is wrong with a command's JSON has the code that an event has. */
export type AggregateCode =
  | "unknown_aggregate"
  | "unknown_command"
  | "unknown_stream"
  | "unknown_version"
  | "invalid_id"
  | "id_mismatch"
  | "version_conflict"
  | "command_reused"
  | "append_too_large"
  | "stream_closed"
  | "subject_erased"
  | "contended"
  | "rejected"
  | "aggregate_failed"
  | "inline_failed"
  | "inline_missing"
  | "store_unavailable"
  | "store_refused"

/** The error of a request that is refused as a whole. Handlers throw it; the server's error handler responds with `problemBody`. */
export class Problem extends Error {
  readonly status: number
  readonly code: ProblemCode | FaultCode
  readonly try: string
  /** The field that the problem is about, as `attributes.delay`. */
  readonly path: string | undefined
  /** Seconds after which the same request may be sent again. */
  readonly retryAfter: number | undefined

  constructor(
    status: number,
    code: ProblemCode | FaultCode,
    message: string,
    advice: string,
    retryAfter?: number,
    path?: string
  ) {
    super(message)
    this.name = "Problem"
    this.status = status
    this.code = code
    this.try = advice
    this.retryAfter = retryAfter
    this.path = path
  }
}
/** The problem of a request whose only value has a fault. */
export const faultProblem = (status: number, { code, message, path, try: advice }: Fault): Problem =>
  new Problem(status, code, message, advice, undefined, path)

/** The JSON body of the response to a refused request. */
export const problemBody = (problem: Problem, traceId: string | undefined) => ({
  error: { code: problem.code, message: problem.message, try: problem.try },
  ...(traceId === undefined ? {} : { trace_id: traceId })
})

/** The media type of `problemDetails`. */
export const problemJson = "application/problem+json; charset=utf-8"
/**
 * The body of a problem in the form of RFC 9457. `error` is the same as in `problemBody`, so that clients need to know one form only.
 * `more`: members about this problem alone, which do not replace those of every problem.
 */
export const problemDetails = (
  { code, message, path, status, try: advice }: Pick<Problem, "code" | "message" | "path" | "status" | "try">,
  traceId: string,
  title: string = code,
  more: Readonly<Record<string, unknown>> = {}
) => {
  const error = { code, message, ...(path !== undefined && { path }), try: advice }
  const always = { type: "about:blank", title, status, detail: message }
  return { ...always, ...more, ...always, error, trace_id: traceId }
}

/** The value of Retry-After: how many seconds a client should wait before it sends a request again. */
export const retryAfterSeconds = 1
