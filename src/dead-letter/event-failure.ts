// An event that failed: how errors of all kinds are named and told in a dead letter.
import * as Data from "effect/Data"

/** A handler asked for a row or a message that cannot be stored. The event is at fault, so it is parked like one whose handler threw. */
export class UnstorableValue extends Data.TaggedError("UnstorableValue")<{
  readonly where: string
  readonly reason: string
}> {
  override get message() {
    return `${this.where}: ${this.reason}`
  }
}
/** A row was written by another key's events than its own: read-modify-write and published totals need one partition as owner. */
export class KeyNotOwned extends Data.TaggedError("KeyNotOwned")<{ readonly target: string; readonly key: string }> {
  override get message() {
    return (
      `${this.target}: no column of the row's key holds the event's key ${JSON.stringify(this.key)}, so events of other partitions ` +
      `may write the row too and its total could go back; add the event's key to the row's key, or re-key through a topic`
    )
  }
}
/** The projection keeps the order of keys, and an earlier event of this one's key is parked. */
export class EarlierParked extends Data.TaggedError("EarlierParked")<{ readonly key: string }> {
  override get message() {
    return `an earlier event of the key ${JSON.stringify(this.key)} is parked; this one follows when that is retried`
  }
}
/** Refuses a row that no column of its key ties to the event's key. */
export const assertOwned = (
  target: string,
  columns: ReadonlyArray<string>,
  row: Readonly<Record<string, unknown>>,
  key: string
): void => {
  if (!columns.some((column) => row[column] === key)) throw new KeyNotOwned({ target, key })
}

/** The name and the message of anything that was thrown or failed with. */
export const describeError = (error: unknown): { readonly error: string; readonly message: string } => {
  if (error instanceof Error) {
    const tag = (error as { readonly _tag?: unknown })._tag
    return { error: typeof tag === "string" ? tag : error.name, message: error.message }
  }
  if (typeof error === "object" && error !== null && "_tag" in error) {
    return { error: String(error._tag), message: textOf(error) }
  }
  return { error: "Error", message: String(error) }
}

const textOf = (error: object): string => {
  try {
    return JSON.stringify(error)
  } catch {
    return "it says nothing that has a JSON form"
  }
}

/** Whether PostgreSQL can hold the text: no NUL, and no surrogate without its other half. */
export const isStorable = (text: string): boolean => !text.includes("\u0000") && text.isWellFormed()
