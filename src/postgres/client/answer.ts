// Bounds how long the answer to a statement is waited for. A lock, a stopped server or a lost route may keep it without any error.
import * as Effect from "effect/Effect"
import type { Sql } from "./client.ts"
import { query, type SqlError } from "./errors.ts"
import { endConnection } from "./socket.ts"

/** How long the store waits for the answer to one of its statements, in milliseconds. */
export const answerMs = 120_000

/** The parts of a statement of postgres.js that are used here, which its types lack. */
interface Statement {
  /** The session that it was sent to; null while it waits for a connection. */
  readonly state?: { readonly pid: number | null; readonly secret: number | null } | null
  readonly cancel?: () => void
}

/**
 * The answer to a statement of postgres.js. Rejects with the code `NO_ANSWER` after `ms` milliseconds: the statement may or may not have been
 * executed, and may still be. Its connection is closed, because an answer that comes later would be taken for another statement's.
 */
export const answered = async <A>(statement: PromiseLike<A>, ms = answerMs): Promise<A> => {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const sent = statement as Statement
      reject(noAnswer(ms, sent.state?.pid ?? undefined))
      if (sent.state) endConnection(sent.state)
      // it is taken out of the driver's queue
      else if (sent.state === null) sent.cancel?.()
    }, ms)
  })
  try {
    return await Promise.race([statement, late])
  } finally {
    clearTimeout(timer)
  }
}
const noAnswer = (ms: number, pid: number | undefined) =>
  Object.assign(new Error(`PostgreSQL has not answered within ${ms / 1_000} s, so the wait was ended`), {
    code: "NO_ANSWER",
    pid
  })

/**
 * Ends the server's session of a statement that was not answered, if it is still active: one that waits for a lock does not notice that its
 * connection was closed. Does nothing for other errors.
 */
export const endSession = (sql: Sql, { cause, code }: SqlError): Effect.Effect<void> => {
  const pid = code === "NO_ANSWER" ? (cause as { readonly pid?: number }).pid : undefined
  if (pid === undefined) return Effect.void
  return query(
    "end a session that does not answer",
    () => sql`select pg_terminate_backend(pid, 1000) from pg_stat_activity where pid = ${pid} and state = 'active'
      and usename = session_user and application_name = current_setting('application_name')`
  ).pipe(Effect.timeout("5 seconds"), Effect.ignore)
}
