// How a command fails: a message, what to try, and a stable exit code.
import * as Data from "effect/Data"

/** Exit codes. They are relied upon by scripts: 0 is success, and these do not change. */
export const exitCodes = { failed: 1, usage: 2, unhealthy: 3, rejected: 4 } as const

/** A command cannot do what it was asked. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{
  readonly message: string
  readonly try?: string
  readonly exitCode?: number
}> {}

/** An error of any kind as lines for a person. `MILLRACE_DEBUG` adds where it came from. */
export const explain = (error: unknown): string => {
  const {
    message,
    stack,
    try: hint
  } = (error ?? {}) as { readonly message?: string; readonly stack?: string; readonly try?: string }
  const lines = [`millrace: ${message === undefined || message === "" ? String(error) : message}`]
  if (hint !== undefined) lines.push(`try: ${hint}`)
  if (process.env["MILLRACE_DEBUG"] !== undefined && stack !== undefined) lines.push(stack)
  return lines.join("\n")
}
/** Whether writing failed because whoever read has gone, as `head` does once it has enough. */
export const isNobodyReads = (error: unknown): boolean => (error as { readonly code?: string }).code === "EPIPE"
/** The exit code of an error. */
export const exitCodeOf = (error: unknown): number =>
  error instanceof CommandFailed ? (error.exitCode ?? exitCodes.failed) : exitCodes.failed
