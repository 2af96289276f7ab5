// Why an event failed: errors of the runner's own, and the name and message that any error has in a dead letter. Pure.
import * as Data from "effect/Data"
import { maskSecrets } from "../text/secrets.ts"

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

/** Where an error was thrown, as `handle (/app/projections.ts:12:5)`: the first frame of its stack, and nothing of its message. Undefined if that is not known. */
export const thrownAt = (thrown: unknown): string | undefined => {
  try {
    if (!(thrown instanceof Error) || typeof thrown.stack !== "string") return undefined
    const { message, stack } = thrown
    const from = stack.indexOf(message)
    // the message may have been changed since the stack was made: then it is not known where it ends
    if (from === -1) return undefined
    const [first] = stack.slice(from + message.length).match(/^\s*\n\s+at [^\n]+/) ?? []
    return first?.trim().slice("at ".length, 300)
  } catch {
    return undefined
  }
}
