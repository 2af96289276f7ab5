// What PostgreSQL and its driver report, as one typed error; it decides nothing about what to do then.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"

/** A statement, or a connection, failed. The message names the operation and, where one is known, ends with what to try. */
export class SqlError extends Schema.TaggedError<SqlError>()("SqlError", {
  /** What was being done, as given to `query`. */
  operation: Schema.String,
  /** SQLSTATE, or the driver's or the system's code, such as `CONNECTION_CLOSED` and `ECONNREFUSED`; empty where there is none. */
  code: Schema.String,
  /** The same call may succeed later, with nothing changed by hand. */
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

// The server may never have seen what failed with these …
const unreached = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ETIMEDOUT",
  "CONNECT_TIMEOUT"
])
// … and may have executed what failed with these.
const lost = new Set(["CONNECTION_CLOSED", "CONNECTION_DESTROYED", "ECONNRESET", "EPIPE", "40003", "08007"])
// Connection trouble, rollbacks by the server, too many connections, no lock in time, a server that stops or starts. Not all of
// class 53: a full disk (53100) waits for a person.
const transient = /^(08...|40...|53300|53200|53400|55P03|57P0[1-5]|25P03|25P04)$/

const hints: Readonly<Record<string, string>> = {
  "28P01": "check the user and the password in the database's URL",
  "28000": "check the user in the database's URL, and what pg_hba.conf allows it",
  "3D000": "create the database (createdb), or correct its name in the URL",
  "42501": "grant the role what it needs, or use another one",
  "53100": "free space on the database's disk",
  "53300": "raise max_connections, or run fewer processes",
  ECONNREFUSED: "start the server there, or correct the host and port in the database's URL",
  ENOTFOUND: "correct the host in the database's URL",
  EAI_AGAIN: "correct the host in the database's URL, or try later",
  CONNECT_TIMEOUT: "check that a PostgreSQL server, and no firewall, is at that address"
}

/** A foreign error, as ours. An `SqlError` stays what it is. */
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
 * Runs a query of postgres.js as an Effect: `query("read heads", () => sql\`select …\`)`. Interrupting stops the waiting, not the
 * statement.
 */
export const query = <A>(operation: string, run: () => PromiseLike<A>): Effect.Effect<A, SqlError> =>
  Effect.tryPromise({ try: async () => run(), catch: (cause) => toSqlError(operation, cause) })
