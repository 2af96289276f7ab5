// Why an event failed: errors of the runner's own, and the name and message that any error has in a dead letter. Pure.
import * as Data from "effect/Data"
import { pathToFileURL } from "node:url"
import { maskSecrets } from "../text/secrets.ts"
import { storable } from "../text/text.ts"

/** A handler produced a row or a message that cannot be stored. The event fails, as if its handler had thrown. */
export class UnstorableValue extends Data.TaggedError("UnstorableValue")<{
  readonly where: string
  readonly reason: string
}> {
  override get message() {
    return `${this.where}: ${this.reason}`
  }
}
/** An event changed a row that does not belong to its key. `modify` and published totals need rows that only one partition writes. */
export class KeyNotOwned extends Data.TaggedError("KeyNotOwned")<{ readonly target: string; readonly key: string }> {
  override get message() {
    return (
      `${this.target}: no column of the row's key holds the event's key ${JSON.stringify(this.key)}, so events of other partitions ` +
      `could change the same row; add the event's key to the row's key, or re-key the events with \`Projection.rekey\``
    )
  }
}
/** The projection keeps the order of each key (`order: "key"`), and an earlier event of this one's key is parked. */
export class EarlierParked extends Data.TaggedError("EarlierParked")<{ readonly key: string }> {
  override get message() {
    return `an earlier event of the key ${JSON.stringify(this.key)} is parked; this event is processed after that one is retried`
  }
}
/** Whether what was thrown is of a class. Asking a revoked proxy for its class throws, and that may be what was thrown. */
export const isOfClass = <E>(thrown: unknown, kind: new (...args: ReadonlyArray<never>) => E): thrown is E => {
  try {
    return thrown instanceof kind
  } catch {
    return false
  }
}
/** Whether an error is `EarlierParked`. */
export const isEarlierParked = (error: unknown): boolean => isOfClass(error, EarlierParked)
/** Throws `KeyNotOwned` if none of the key's `columns` has the event's key as its value. */
export const assertOwned = (
  target: string,
  columns: ReadonlyArray<string>,
  row: Readonly<Record<string, unknown>>,
  key: string
): void => {
  if (!columns.some((column) => row[column] === key)) throw new KeyNotOwned({ target, key })
}

/** The key of a row is longer than an index of PostgreSQL can surely hold. */
export class KeyTooLong extends Data.TaggedError("KeyTooLong")<{ readonly target: string; readonly bytes: number }> {
  override get message() {
    return (
      `${this.target}: the row's key has ${this.bytes} bytes, and an index can hold ${mostKeyBytes}; ` +
      "use a shorter key, such as a hash of the text, and keep the text in another column"
    )
  }
}
/**
 * How many bytes a row's key may have: the texts in UTF-8, and 16 more for each column. PostgreSQL's limit for an entry of an index is 2,704
 * bytes after compression; with this one the same keys are refused whether they can be compressed or not.
 */
export const mostKeyBytes = 2_696
const columnBytes = 16
/** The bytes of a key that is too long; undefined if it is not. */
export const tooLongKey = (
  columns: ReadonlyArray<string>,
  row: Readonly<Record<string, unknown>>
): number | undefined => {
  let most = columns.length * columnBytes
  for (const column of columns) most += 3 * textOf(row[column]).length
  if (most <= mostKeyBytes) return undefined
  const bytes = columns.reduce((sum, column) => sum + columnBytes + Buffer.byteLength(textOf(row[column])), 0)
  return bytes > mostKeyBytes ? bytes : undefined
}
const textOf = (value: unknown): string => (typeof value === "string" ? value : "")
/** Throws `KeyTooLong`. */
export const assertKeyFits = (
  target: string,
  columns: ReadonlyArray<string>,
  row: Readonly<Record<string, unknown>>
): void => {
  const bytes = tooLongKey(columns, row)
  if (bytes !== undefined) throw new KeyTooLong({ target, bytes })
}

/**
 * The name and the message of any error, as texts; of Effect's `UnknownError` those of its cause. An object with a `_tag` that is no `Error` is shown as JSON. Never throws, whatever
 * was thrown: an event whose error could not be described could not be parked. Texts are cut: the message at 100,000 characters,
 * and passwords in it are masked.
 */
export const describeError = (thrown: unknown): { readonly error: string; readonly message: string } => {
  const { error, message } = describe(thrown)
  return { error: cut(error, mostNameCharacters), message: maskSecrets(cut(message, mostMessageCharacters)) }
}
const mostNameCharacters = 200
const mostMessageCharacters = 100_000
const cut = (text: string, most: number): string =>
  text.length <= most ? text : `${text.slice(0, most).toWellFormed()}… (${text.length - most} more characters)`
const describe = (error: unknown): { readonly error: string; readonly message: string } => {
  try {
    if (error instanceof Error) {
      const {
        _tag: tag,
        cause,
        message,
        name
      } = error as { readonly [F in "_tag" | "cause" | "message" | "name"]: unknown }
      // what `Effect.tryPromise` and `Effect.try` put around an error: its message does not say what happened
      if (tag === "UnknownError" && cause instanceof Error && cause !== error) return describe(cause)
      return { error: typeof tag === "string" ? tag : String(name ?? "Error"), message: String(message) }
    }
    if (typeof error === "object" && error !== null && "_tag" in error) {
      return { error: String(error._tag), message: jsonOf(error) ?? "the error has no JSON form" }
    }
    return { error: "Error", message: String(error) }
  } catch {
    return { error: "Error", message: "it has no text" }
  }
}

const jsonOf = (error: object): string | undefined => {
  try {
    return JSON.stringify(error)
  } catch {
    return undefined
  }
}

const mostPlaceCharacters = 300
/** The frames of an error's stack, without its message; none if they are not known. */
const framesOf = (thrown: unknown): ReadonlyArray<string> => {
  if (!(thrown instanceof Error) || typeof thrown.stack !== "string") return []
  const { message, stack } = thrown
  // without a message the first line is the error's name
  const head = message === "" ? (/^[\w$.]+(?=(?:: )?\n)/.exec(stack)?.[0] ?? message) : message
  const from = stack.indexOf(head)
  // the message may have been changed since the stack was made: then it is not known where it ends
  if (from === -1) return []
  const [frames] = stack.slice(from + head.length).match(/^:?\s*\n\s+at [^\n]+(?:\n\s+at [^\n]+)*/) ?? []
  return (
    frames
      ?.trim()
      .split("\n")
      .map((frame) => frame.trim().slice("at ".length)) ?? []
  )
}
/** Where an error was thrown, as `handle (/app/projections.ts:12:5)`: the first frame of its stack, and nothing of its message. Undefined if that is not known. */
export const thrownAt = (thrown: unknown): string | undefined => {
  try {
    return framesOf(thrown)[0]?.slice(0, mostPlaceCharacters)
  } catch {
    return undefined
  }
}

/** Where this package's code is: what throws there was called by the application. */
const ownCode = new URL("..", import.meta.url)
/** Whether a frame is of the application: not of a library, of the runtime, or of this package. */
const isOfApplication = (frame: string): boolean =>
  /:\d+\)?$/.test(frame) &&
  !/[\\/]node_modules[\\/]|\b(?:node|ext|https?):|<anonymous>/.test(frame) &&
  !frame.includes(ownCode.href) &&
  !frame.includes(`(${ownCode.pathname}`)
/**
 * The place in the application's code where an error comes from, as `handle (projections/orders.ts:12:5)`: the first frame of its stack that is of no library, with
 * the path from the directory of the process. Undefined if no frame is, as for an event that could not be decoded.
 */
export const placeInApplication = (thrown: unknown): string | undefined => {
  try {
    const { _tag: tag, cause } = thrown as { readonly _tag?: unknown; readonly cause?: unknown }
    if (tag === "UnknownError" && cause instanceof Error && cause !== thrown) return placeInApplication(cause)
    const place = framesOf(thrown).find(isOfApplication)
    if (place === undefined) return undefined
    const here = [`${pathToFileURL(process.cwd()).href}/`, `${process.cwd()}/`]
    const shown = here.reduce((text, start) => text.replace(start, ""), place).replace("file://", "")
    return storable(shown.slice(0, mostPlaceCharacters))
  } catch {
    return undefined
  }
}
/** An error with the name of another one and where it was thrown, without its message, which may quote personal fields. */
export const withHiddenMessage = (thrown: unknown): Error => {
  const at = thrownAt(thrown)
  const hidden = new Error(
    `its message is hidden, because it may quote personal fields of the event${at === undefined ? "" : `; it was thrown at ${at}`}`
  )
  hidden.name = describeError(thrown).error
  return hidden
}
