// Translates errors of PostgreSQL and postgres.js to the log's: whether the call may succeed later, and what to do.
import * as Effect from "effect/Effect"
import { LogError } from "../../log/log.ts"
import { query, SqlError } from "../client/errors.ts"

const lost = new Set([
  "CONNECTION_CLOSED",
  "CONNECTION_DESTROYED",
  "CONNECT_TIMEOUT",
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ENOENT" // the file of a Unix socket, while the server is down
])
const known: Readonly<Record<string, readonly [retryable: boolean, reason: string]>> = {
  CONNECTION_ENDED: [false, "this process has closed its connections to PostgreSQL"],
  "22012": [true, "another process cleaned the topic at the same time"], // see `replaceQuery` in `compact.ts`
  "23503": [true, "the topic was deleted, or recreated, after this process first used it; try again"],
  "25006": [true, "the server accepts no writes: it is a standby, or set to read-only; use the primary server"],
  "42501": [
    false,
    "the database user has no privileges on the log's tables: grant them, or run 'millrace migrate' as this user"
  ],
  "3D000": [false, "the database does not exist: create it (createdb)"],
  "3F000": [false, "the log's tables are missing: run 'millrace migrate'"],
  "42P01": [false, "the log's tables are missing: run 'millrace migrate'"],
  "42703": [false, "the log's tables are those of another version: run 'millrace migrate'"],
  "53100": [true, "the disk of the PostgreSQL server is full: free space, then try again"],
  "53200": [true, "the PostgreSQL server is out of memory: try again, or give it more memory"],
  "53300": [true, "the PostgreSQL server has no free connection: raise max_connections, or run fewer processes"],
  "55P03": [true, "another process, which stopped in the middle of an append, holds the partition's lock; try again"],
  "57P01": [true, "the PostgreSQL server ended the connection"],
  "57P02": [true, "the PostgreSQL server crashed"],
  "57P03": [true, "the PostgreSQL server is starting or stopping"]
}

/** The code of an error of the driver, or of one of its causes. */
export const codeOf = (cause: unknown): string | undefined => {
  const error = cause as { readonly code?: unknown; readonly cause?: unknown } | null | undefined
  if (typeof error?.code === "string") return error.code
  return error?.cause === undefined ? undefined : codeOf(error.cause)
}

/** Translates an error of the driver. Lost connections, and transactions that PostgreSQL rolled back or cancelled, are retryable. */
export const logError = (operation: LogError["operation"], topic: string) => (cause: unknown) => {
  const code = codeOf(cause)
  const message = cause instanceof SqlError ? cause.reason : cause instanceof Error ? cause.message : String(cause)
  if (code !== undefined && lost.has(code)) {
    const reason = `the connection to PostgreSQL was lost, or could not be opened (${code}); try again`
    return new LogError({ operation, topic, retryable: true, reason, cause })
  }
  const [retryable, reason] = known[code ?? ""] ?? [
    /^(08|40|53|57|58)/.test(code ?? ""),
    `${message}${code === undefined ? "" : ` (${code})`}`
  ]
  return new LogError({ operation, topic, retryable, reason, cause })
}

/** Runs a query and translates its error to the log's. */
export const logQuery = <A>(operation: LogError["operation"], topic: string, run: () => PromiseLike<A>) =>
  Effect.mapError(query(operation, run), logError(operation, topic))
