// The error of a statement or a connection, from what PostgreSQL and its driver report.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { maskSecrets } from "../../text/secrets.ts"

/** A statement, or a connection, failed. The message names the operation and, where one is known, ends with what to try. */
export class SqlError extends Schema.TaggedError<SqlError>()("SqlError", {
  /** The operation that failed, as given to `query`. */
  operation: Schema.String,
  /** The SQLSTATE, or the driver's or the system's code, such as `CONNECTION_CLOSED` or `ECONNREFUSED`; empty if there is none. */
  code: Schema.String,
  /** The same call may succeed later without a person's help. */
  retryable: Schema.Boolean,
  /** The reply was lost: the statement may or may not have been executed. */
  inDoubt: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.operation}: ${this.reason}`
  }
}

// The server never received a statement that failed with one of these …
const unreached = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ETIMEDOUT",
  "CONNECT_TIMEOUT"
])
// … and may have executed one that failed with one of these.
const lost = new Set([
  "NO_ANSWER",
  "CONNECTION_CLOSED",
  "CONNECTION_DESTROYED",
  "ECONNRESET",
  "EPIPE",
  "40003",
  "08007"
])
// Lost connections, rollbacks by the server, a primary that became a standby, too many connections, lock timeouts, a server that stops or starts. Not all of
// class 53: a full disk (53100) needs a person.
const transient = /^(08...|40...|53300|53200|53400|55P03|57P0[1-5]|25006|25P03|25P04)$/

const hints: Readonly<Record<string, string>> = {
  "28P01": "check the user and the password in the database's URL",
  "28000": "check the user in the database's URL, and what pg_hba.conf allows it",
  "3D000": "create the database (createdb), or correct its name in the database's URL",
  "25006": "name the primary in the database's URL; this server is a standby or was made read-only",
  "42501":
    "use another role, or grant this one the privilege; to create schemas and views: grant create on database NAME to ROLE, grant create on schema public to ROLE",
  "53100": "free space on the database's disk",
  "53300": "raise max_connections, or run fewer processes",
  NO_ANSWER: "look in pg_stat_activity and pg_locks for what its session waits for",
  ECONNREFUSED: "start the server there, or correct the host and port in the database's URL",
  ENOTFOUND: "correct the host in the database's URL",
  EAI_AGAIN: "correct the host in the database's URL, or try again later",
  CONNECT_TIMEOUT: "check that a PostgreSQL server runs at that address and that no firewall blocks it"
}

const poolerHint = "set ignore_startup_parameters = options in the configuration of PgBouncer"

/** The constraint of one of Millrace's own tables that a row violates which is there already; undefined if the error is another one. */
const ownConstraint = (code: string, cause: unknown): string | undefined => {
  if (code !== "23505") return undefined
  const { constraint_name: name, schema_name: schema } = (cause ?? {}) as {
    readonly schema_name?: unknown
    readonly constraint_name?: unknown
  }
  return schema === "millrace" ? String(name) : undefined
}
const ownHint = (constraint: string) =>
  `. No event is at fault: this table is Millrace's own${
    constraint === "outbox_pkey"
      ? ", and the stream's sequence numbers begin again. try: set outbox_seq in millrace.progress to the last sequence number of the stream in millrace.outbox (first_seq + messages - 1) and in millrace.relay_position (seq), whichever is greater"
      : ". try: look for what else writes to it, or restored it"
  }`

/** Translates an error of the driver. An `SqlError` is returned as it is. */
export const toSqlError = (operation: string, cause: unknown): SqlError => {
  if (cause instanceof SqlError) return cause
  const { code: given, message: text = String(cause) } = cause as { readonly code?: unknown; readonly message?: string }
  const code = typeof given === "string" ? given : ""
  const message = text === "" ? code : text
  const hint = message.startsWith("unsupported startup parameter") ? poolerHint : hints[code]
  const own = ownConstraint(code, cause)
  return new SqlError({
    operation,
    code,
    retryable: unreached.has(code) || lost.has(code) || transient.test(code),
    inDoubt: lost.has(code),
    reason: maskSecrets(
      hint === undefined ? message + (own === undefined ? "" : ownHint(own)) : `${message}. try: ${hint}`
    ),
    cause
  })
}

/**
 * Who can help when a statement was refused that was sent by itself:
 * - `moment`: nobody has to. The server or the connection could not do it now: lost connections, deadlocks, timeouts, a full disk, a
 *   server that starts, stops or is read-only.
 * - `size`: the statement took too much time, memory or text. A smaller one may pass; the smallest may pass later.
 * - `data`: the values are refused, by a type, a constraint, a trigger, a limit, or before they could be sent. Other values may pass.
 * - `person`: a definition, a privilege or the server's configuration must change.
 *
 * A row that one of Millrace's own tables has already is no event's fault: `person`.
 *
 * A SQLSTATE that PostgreSQL does not define comes from a function of the user, and so from a trigger: `data`.
 */
export type Blame = "moment" | "size" | "data" | "person"
/** Who can help with an error of a statement that was sent by itself: see `Blame`. */
export const blameOf = ({ cause, code, inDoubt, retryable }: SqlError): Blame => {
  if (ownConstraint(code, cause) !== undefined) return "person"
  if (inDoubt || code === "CONNECTION_ENDED") return "moment"
  // XX000 is any internal error, among them a text that is too long to be allocated
  if (code === "57014" || code === "53200" || code === "25P04" || code === "XX000" || unsendable.has(code))
    return "size"
  if (retryable || moment.test(code)) return "moment"
  if (unsendable.has(code)) return "data"
  return code.length !== 5 || person.test(code) ? "person" : "data"
}
// no code, or one of Node's or the driver's: a value could not be written out, or there were too many
const unsendable = new Set([
  "",
  "UNDEFINED_VALUE",
  "ERR_INVALID_ARG_TYPE",
  "ERR_INVALID_ARG_VALUE",
  "MAX_PARAMETERS_EXCEEDED",
  "ERR_STRING_TOO_LONG",
  "ERR_OUT_OF_RANGE"
])
// besides `transient`: all of class 53 (resources), 57 (an operator intervened), 58 (the system), a server that is read-only after a
// failover, an object that is in use, a prepared statement that a pooler lost, a foreign server that does not answer
const moment = /^(53|57|58|25|26|55006|HV00N)/
// authorization, catalogs and schemas, definitions, features, configuration, foreign data, damaged data; 44 (`with check option`) is data
const person = /^(0A|0L|0P|28|2B|2D|2F|34|3B|3D|3F|42|55|F0|HV|XX)/

/**
 * Runs a query of postgres.js as an Effect: `query("read heads", () => sql\`select …\`)`. An interruption ends the waiting, not the
 * statement.
 */
export const query = <A>(operation: string, run: () => PromiseLike<A>): Effect.Effect<A, SqlError> =>
  Effect.tryPromise({ try: async () => run(), catch: (cause) => toSqlError(operation, cause) })
