// The error of everything in `stack/`.
import * as Data from "effect/Data"

/**
 * A service cannot be started or reached. The message ends with what to try.
 * - `Missing`: a program that it needs is not installed.
 * - `Download`: its jars could not be fetched.
 * - `Start`: it was started and did not answer; the message includes the end of its log.
 * - `Refused`: the command asks for something that does not exist or is not allowed.
 */
export class StackError extends Data.TaggedError("StackError")<{
  readonly reason: "Missing" | "Download" | "Start" | "Refused"
  readonly message: string
  readonly cause?: unknown
}> {}
