// How a command fails: what it prints to standard error, and a stable exit code.
import * as Data from "effect/Data"
import { InvalidBridge } from "../bridge/rule.ts"
import {
  InvalidOperation,
  NoCandidate,
  NotCaughtUp,
  NotCorrected,
  NotPromoted,
  NotRetired,
  PauseRefused,
  RebuildRefused,
  SharedSubject,
  SystemHalted,
  UnknownName
} from "../system/errors.ts"
import { DeadLettersFailed } from "../system/dead-letters/errors.ts"
import { mayPass } from "../postgres/client/retrying.ts"
import { maskSecrets } from "../text/secrets.ts"

/** Exit codes beside 0 for success. Scripts rely on them, so they do not change. */
export const exitCodes = { failed: 1, usage: 2, unhealthy: 3, refused: 3, rejected: 4, timedOut: 4 } as const

/** A command cannot do what it was asked. `try` says what to do; the default exit code is `exitCodes.failed`. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{
  readonly message: string
  readonly try?: string
  readonly exitCode?: number
}> {}

/** A command cannot be run as it was written. */
export const usageError = (message: string, advice?: string) =>
  new CommandFailed({ message, exitCode: exitCodes.usage, ...(advice !== undefined && { try: advice }) })

/** The text of any error, for people: its message, and what to do if the error says so. With `MILLRACE_DEBUG` also its stack. Passwords are masked. */
export const explain = (error: unknown): string => {
  const {
    message,
    stack,
    try: advice
  } = (error ?? {}) as { readonly message?: string; readonly stack?: string; readonly try?: string }
  const lines = [`millrace: ${message === undefined || message === "" ? String(error) : message}`]
  if (advice !== undefined) lines.push(`try: ${advice}`)
  if (process.env["MILLRACE_DEBUG"] !== undefined && stack !== undefined) lines.push(stack)
  return maskSecrets(lines.join("\n"))
}
/** Whether writing failed because the reader has closed the pipe, as `head` does when it has enough lines. */
export const isBrokenPipe = (error: unknown): boolean => (error as { readonly code?: string }).code === "EPIPE"
/** The exit code of any error. */
export const exitCodeOf = (error: unknown): number => {
  if (error instanceof CommandFailed) return error.exitCode ?? exitCodes.failed
  if (error instanceof DeadLettersFailed) return exitCodeOf(error.cause)
  if (error instanceof SystemHalted) return exitCodes.unhealthy
  if (error instanceof NotCaughtUp || error instanceof NotPromoted)
    return error.timedOut ? exitCodes.timedOut : exitCodes.refused
  if (
    error instanceof NoCandidate ||
    error instanceof RebuildRefused ||
    error instanceof PauseRefused ||
    error instanceof NotCorrected ||
    error instanceof NotRetired ||
    error instanceof SharedSubject
  )
    return exitCodes.refused
  const isUsage = [InvalidBridge, InvalidOperation, UnknownName].some((known) => error instanceof known)
  return isUsage ? exitCodes.usage : exitCodes.failed
}

/** Adds to the error of a database that was away, or of a lost connection, what holds then; any other error as it is. */
export const withAdviceIfAway =
  (advice: string) =>
  <E extends { readonly message: string }>(error: E): E | CommandFailed =>
    mayPass(error) && !(error instanceof CommandFailed)
      ? new CommandFailed({ message: error.message, try: advice })
      : error

/** What to do if an error says that a table of Millrace does not exist; any other error as it is. */
export const asUnprepared = <E extends { readonly message: string }>(error: E): E | CommandFailed =>
  /millrace\.\w+" does not exist/.test(error.message)
    ? new CommandFailed({
        message: "this database has no tables of Millrace yet",
        try: "millrace migrate, or millrace dev"
      })
    : error
