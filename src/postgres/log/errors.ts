// What PostgreSQL's and postgres.js's errors mean to a user of the log: whether to try again, and what to do.
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
  "ENOENT" // a socket's file, while the server is down
])
const known: Readonly<Record<string, readonly [retryable: boolean, reason: string]>> = {
  CONNECTION_ENDED: [false, "the connections to PostgreSQL were closed by this process"],
  "22012": [true, "another process cleaned the topic at the same time"], // see `log-compact.ts`
  "23503": [true, "the topic was removed, or made anew, since this process first saw it"],
  "25006": [true, "the server takes no writes: it is a standby, or set to read only"],
  "42501": [false, "the database user may not use the log's tables: grant it, or run 'millrace migrate' as this user"],
  "3D000": [false, "the database is not there: create it"],
  "3F000": [false, "the log's tables are missing: run 'millrace migrate'"],
  "42P01": [false, "the log's tables are missing: run 'millrace migrate'"],
  "42703": [false, "the log's tables are of another version: run 'millrace migrate'"],
  "53100": [true, "the disk of the PostgreSQL server is full: make room, then try again"],
  "53200": [true, "the PostgreSQL server is out of memory: try again, or give it more"],
  "53300": [true, "the PostgreSQL server has no connection left: raise max_connections, or run fewer processes"],
  "55P03": [true, "another process holds the partition: it stopped in the middle of an append"],
  "57P01": [true, "the PostgreSQL server ended the connection"],
  "57P02": [true, "the PostgreSQL server crashed"],
  "57P03": [true, "the PostgreSQL server is starting or stopping"]
}

/** The code of a driver's error, wherever it is wrapped. */
export const codeOf = (cause: unknown): string | undefined => {
  const error = cause as { readonly code?: unknown; readonly cause?: unknown } | null | undefined
  if (typeof error?.code === "string") return error.code
  return error?.cause === undefined ? undefined : codeOf(error.cause)
}

/** Translates a driver's error. Transactions that PostgreSQL rolled back or cancelled, and lost connections, are retryable. */
export const logError = (operation: LogError["operation"], topic: string) => (cause: unknown) => {
  const code = codeOf(cause)
  const message = cause instanceof SqlError ? cause.reason : cause instanceof Error ? cause.message : String(cause)
  if (code !== undefined && lost.has(code)) {
    const reason = `the connection to PostgreSQL was lost, or not made (${code}); try again`
    return new LogError({ operation, topic, retryable: true, reason, cause })
  }
  const [retryable, reason] = known[code ?? ""] ?? [
    /^(08|40|53|57|58)/.test(code ?? ""),
    `${message}${code === undefined ? "" : ` (${code})`}`
  ]
  return new LogError({ operation, topic, retryable, reason, cause })
}

/** Runs a query for the log. */
export const attempt = <A>(operation: LogError["operation"], topic: string, run: () => PromiseLike<A>) =>
  Effect.mapError(query(operation, run), logError(operation, topic))
