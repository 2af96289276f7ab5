// The error of a statement or a connection, from what PostgreSQL and its driver report.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

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
const lost = new Set(["CONNECTION_CLOSED", "CONNECTION_DESTROYED", "ECONNRESET", "EPIPE", "40003", "08007"])
// Lost connections, rollbacks by the server, too many connections, lock timeouts, a server that stops or starts. Not all of
// class 53: a full disk (53100) needs a person.
const transient = /^(08...|40...|53300|53200|53400|55P03|57P0[1-5]|25P03|25P04)$/

const hints: Readonly<Record<string, string>> = {
  "28P01": "check the user and the password in the database's URL",
  "28000": "check the user in the database's URL, and what pg_hba.conf allows it",
  "3D000": "create the database (createdb), or correct its name in the database's URL",
  "42501": "grant the role the privilege, or use another role",
  "53100": "free space on the database's disk",
  "53300": "raise max_connections, or run fewer processes",
  ECONNREFUSED: "start the server there, or correct the host and port in the database's URL",
  ENOTFOUND: "correct the host in the database's URL",
  EAI_AGAIN: "correct the host in the database's URL, or try again later",
  CONNECT_TIMEOUT: "check that a PostgreSQL server runs at that address and that no firewall blocks it"
}

/** Translates an error of the driver. An `SqlError` is returned as it is. */
export const toSqlError = (operation: string, cause: unknown): SqlError => {
  if (cause instanceof SqlError) return cause
  const { code: given, message: text = String(cause) } = cause as { readonly code?: unknown; readonly message?: string }
  const code = typeof given === "string" ? given : ""
  const message = text === "" ? code : text
  const hint = hints[code]
  return new SqlError({
    operation,
    code,
    retryable: unreached.has(code) || lost.has(code) || transient.test(code),
    inDoubt: lost.has(code),
    reason: hint === undefined ? message : `${message}. try: ${hint}`,
    cause
  })
}

/**
 * Runs a query of postgres.js as an Effect: `query("read heads", () => sql\`select …\`)`. An interruption ends the waiting, not the
 * statement.
 */
export const query = <A>(operation: string, run: () => PromiseLike<A>): Effect.Effect<A, SqlError> =>
  Effect.tryPromise({ try: async () => run(), catch: (cause) => toSqlError(operation, cause) })
