// Why appends were refused: reads the detail of the statement's error, and makes the typed errors of it. Pure.
import { BoundaryMoved, EventStoreError, StreamClosed, TimerGone, VersionConflict } from "../../aggregate/errors.ts"
import type { Append, AppendError } from "../../aggregate/event-store.ts"
import { SubjectErased } from "../../erasure/errors.ts"
import type { KeyRef } from "../../erasure/sealed.ts"
import { isExpected } from "./inline.ts"
import type { AppendRow, Refusal } from "./append-sql.ts"

/** The error of an append whose stream is not as expected. */
export const conflictOf = (
  { aggregate, expected, stream }: Append,
  actual: number,
  closed: "archived" | null
): StreamClosed | VersionConflict =>
  closed === null
    ? new VersionConflict({ aggregate, stream, expected, actual })
    : new StreamClosed({ aggregate, stream, reason: closed })
/** The error of an append whose timer is gone. */
export const goneOf = ({ timer = "" }: Append) => new TimerGone({ timer })
/** The detail of an error of PostgreSQL. */
export const detailOf = (cause: unknown): string => (cause as { readonly detail: string }).detail
/** Why a statement was rolled back. */
export const refusalOf = (cause: unknown): Refusal => JSON.parse(detailOf(cause)) as Refusal
/** The error of an append that was tried for too long. */
export const notNow = (aggregate: string, reason: string) =>
  new EventStoreError({ operation: "append", aggregate, retryable: true, reason })
/** Whether one of an append's keys was destroyed. */
export const isErased = ({ keys }: Pick<AppendRow, "keys">, erased: ReadonlyArray<KeyRef>): boolean =>
  keys.some((key) => erased.some(({ number, subject }) => number === key.number && subject === key.subject))
/** The error of an append whose keys were destroyed. */
export const erasedError = ({ keys }: AppendRow, erased: ReadonlyArray<KeyRef>): SubjectErased =>
  new SubjectErased({
    subjects: [...new Set(keys.filter((key) => isErased({ keys: [key] }, erased)).map(({ subject }) => subject))]
  })
/**
 * Whether an append was refused although its stream is as it expects: one that takes the stream as it is was sent with the version of the rows
 * that it changes.
 */
export const isPinned = (
  { expected }: Append,
  { actual, closed }: Pick<NonNullable<Refusal["refused"]>[number], "actual" | "closed">
): boolean => closed === null && typeof expected !== "number" && isExpected(expected, actual)
/**
 * The error of an append that was refused. One whose version was pinned only by its inline rows conflicts with nothing that it expects: it
 * was tried for too long.
 */
export const refusedError = (append: Append, one: NonNullable<Refusal["refused"]>[number]): AppendError =>
  isPinned(append, one)
    ? notNow(append.aggregate, "others appended to its stream whenever it was tried; try again")
    : conflictOf(append, one.actual, one.closed)
/** The error of several appends that were refused together: the first stream that is not as expected, or else the tags. */
export const refusedAll = (
  appends: ReadonlyArray<Append>,
  { erased, gone, refused, tags }: Refusal,
  nameOf: (topicId: number) => string
): AppendError | BoundaryMoved => {
  if (gone !== undefined) return goneOf(appends[gone[0]! - 1]!)
  if (erased != null) return new SubjectErased({ subjects: [...new Set(erased.map(({ subject }) => subject))] })
  // a boundary that moved says more than a pin that is outdated
  const hasMoved = (tags ?? []).length > 0
  const [first] = (refused ?? [])
    .filter((one) => !hasMoved || !isPinned(appends[one.i - 1]!, one))
    .toSorted((a, b) => Number(isPinned(appends[a.i - 1]!, a)) - Number(isPinned(appends[b.i - 1]!, b)) || a.i - b.i)
  if (first !== undefined) return refusedError(appends[first.i - 1]!, first)
  return new BoundaryMoved({
    tags: (tags ?? []).map(({ actual, expected, tag, topic_id }) => ({
      aggregate: nameOf(topic_id),
      tag,
      expected,
      actual
    }))
  })
}
