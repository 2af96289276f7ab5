// Counts events that fail one after another, so that a projection that cannot work halts instead of parking its whole log. Pure.
import { describeError } from "../dead-letter/event-failure.ts"
import type { FailureStreak } from "./store.ts"
import { counted } from "../text/counted.ts"

/** How many events may fail one after another for the same reason before the next one halts the partition. */
export const defaultHaltAfter = 1_000

const longestShape = 300
const longestMessage = 2_000

/**
 * The kind of an error and its message without values: quoted texts, numbers and long hexadecimal ids are replaced. Two errors are of one
 * reason if their kinds are the same and more than half of the words of their messages are; see `isSameReason`.
 */
export const failureShape = (error: unknown): string => {
  const { error: name, message } = describeError(error)
  const code = codeOf(error)
  const shape = message
    .slice(0, 4 * longestShape)
    .replaceAll(/"(?:[^"\\]|\\.)*"|'[^']*'|`[^`]*`/g, '"…"')
    .replaceAll(/\b[\da-f]{8}[\da-f-]*\b/gi, "#")
    .replaceAll(/\d+(?:[.,]\d+)*/g, "#")
  return `${name}${code}: ${shape.slice(0, longestShape)}`
}
/** The error's `code`, if it has one that is a text. Anything may have been thrown: a proxy, or a getter that throws. */
const codeOf = (error: unknown): string => {
  try {
    return typeof error === "object" && error !== null && "code" in error ? ` ${String(error.code)}` : ""
  } catch {
    return ""
  }
}
/** Whether two shapes are of the same reason, although their messages may have different words for values. */
export const isSameReason = (a: string, b: string): boolean => {
  if (a === b) return true
  const [kindA, textA] = divided(a)
  const [kindB, textB] = divided(b)
  if (kindA !== kindB) return false
  const [wordsA, wordsB] = [textA.split(/\s+/), textB.split(/\s+/)]
  const left = new Map<string, number>()
  for (const word of wordsA) left.set(word, (left.get(word) ?? 0) + 1)
  let common = 0
  for (const word of wordsB) {
    const count = left.get(word) ?? 0
    if (count === 0) continue
    left.set(word, count - 1)
    common++
  }
  return 4 * common > wordsA.length + wordsB.length
}
const divided = (shape: string): readonly [kind: string, text: string] => {
  const end = shape.indexOf(": ")
  return [shape.slice(0, end), shape.slice(end + 2)]
}

/** The streak of failures after a batch, and the position of the event at which the partition must halt instead. */
export interface StreakResult {
  readonly failing: FailureStreak | undefined
  readonly haltAt: number | undefined
}

/** The outcomes of a batch's events, in any order. */
export class BatchOutcomes {
  private successes: Array<number> = []
  private failures: Array<{ readonly position: number; readonly error: unknown }> = []

  /** Forgets the outcomes of the batch before. */
  reset(): void {
    this.successes = []
    this.failures = []
  }
  succeed(position: number): void {
    this.successes.push(position)
  }
  fail(position: number, error: unknown): void {
    this.failures.push({ position, error })
  }

  /**
   * The streak after the batch, in the order of positions. `before`: the one that the last commit left. `hasSucceeded`: whether any event of
   * the partition has; until one has, failures for different reasons count together.
   */
  result(before: FailureStreak | undefined, hasSucceeded: boolean, haltAfter: number): StreakResult {
    const { failures, successes } = this
    if (failures.length === 0) return { failing: successes.length === 0 ? before : undefined, haltAt: undefined }
    failures.sort((a, b) => a.position - b.position)
    successes.sort((a, b) => a - b)
    let failing = before
    let any = hasSucceeded
    let next = 0
    for (const { error, position } of failures) {
      if (next < successes.length && successes[next]! < position) {
        failing = undefined
        any = true
        while (next < successes.length && successes[next]! < position) next++
      }
      const reason = failureShape(error)
      const isSame = failing !== undefined && isSameReason(failing.reason, reason)
      const count = isSame ? failing!.count : any ? 0 : (failing?.total ?? 0)
      if (count >= haltAfter) return { failing, haltAt: position }
      failing = extended(failing, isSame, reason, position, error)
    }
    return { failing: next < successes.length ? undefined : failing, haltAt: undefined }
  }
}
const extended = (
  before: FailureStreak | undefined,
  isSame: boolean,
  reason: string,
  position: number,
  error: unknown
): FailureStreak => {
  const total = (before?.total ?? 0) + 1
  if (isSame) return { ...before!, count: before!.count + 1, total }
  const described = describeError(error)
  return {
    reason,
    count: 1,
    first: position,
    message: `${described.error}: ${described.message}`.slice(0, longestMessage),
    total
  }
}

/** Why a partition is halted at an event after a streak of failures, and what to do. */
export const streakReason = ({ count, first, message, total }: FailureStreak): string => {
  const [events, why] =
    count < total
      ? [total, "and none before them succeeded; the last reason began"]
      : [count, "for the same reason, the first"]
  return (
    `${counted(events, "event")} failed one after another, ${why} at position ${first}: ${message}. ` +
    "Later events wait and are not parked. Correct what is wrong and run `millrace dlq retry`, or raise `haltAfter` in the projection's `failure`"
  )
}
