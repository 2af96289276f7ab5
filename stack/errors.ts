// What can go wrong with the services of the stack; it starts nothing.
import * as Data from "effect/Data"

/**
 * A service cannot be had. The message ends with what to try.
 * - `Missing`: a program that it needs is not installed.
 * - `Download`: its jars could not be fetched.
 * - `Start`: it was started and did not answer; the message has the end of its log.
 * - `Refused`: the command asks for something that is not there.
 */
export class StackError extends Data.TaggedError("StackError")<{
  readonly reason: "Missing" | "Download" | "Start" | "Refused"
  readonly message: string
  readonly cause?: unknown
}> {}
