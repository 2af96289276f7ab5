// Dead letters for a screen: grouped by their error, and listed page by page.
import * as Effect from "effect/Effect"
import {
  eachKind,
  list,
  type DeadLetterList,
  type DeadLettersFailed,
  type LeftOutKind,
  type NotMigrated
} from "./dead-letters.ts"
import { type DeadLetterKind, kindNames } from "./kinds.ts"
import type { DeadLetterSelection } from "./selection.ts"
import type { DeadLetterGroup, DeadLettersContext, ListedDeadLetter } from "./source.ts"

/** Where a page ends: the next one begins after it. */
export interface PageEnd {
  /** When the last dead letter of the page failed, in epoch milliseconds. */
  readonly failedMs: number
  readonly kind: DeadLetterKind
  readonly id: string
}
/** A page of dead letters, the newest first. */
export interface DeadLetterPage extends Pick<DeadLetterList, "deadLetters" | "leftOut"> {
  /** Where the next page begins; undefined if this is the last one. */
  readonly next: PageEnd | undefined
}

const numberOf = (id: string): number => Number(id.replace(/^relay:/, ""))
/** Compares ids of one kind: numbers by their size. */
const byId = (a: string, b: string): number => {
  const difference = numberOf(a) - numberOf(b)
  return Number.isNaN(difference) ? (a < b ? -1 : a > b ? 1 : 0) : difference
}
const endOf = ({ details, failedAt, id }: ListedDeadLetter): PageEnd => ({
  failedMs: Math.floor(failedAt),
  kind: details["kind"] as DeadLetterKind,
  id: String(id)
})
/** The order of pages: the newest first; of one millisecond by kind, and by id, the highest first. */
const byEnd = (a: PageEnd, b: PageEnd): number =>
  b.failedMs - a.failedMs || kindNames.indexOf(a.kind) - kindNames.indexOf(b.kind) || byId(b.id, a.id)

/** How many dead letters of one millisecond are looked through at most for those that come after the end of a page. */
const mostRead = 100_000

/**
 * The page of a selection's dead letters after another one. Each dead letter that is there all the time, and does not fail again, is on one page,
 * whatever becomes of others meanwhile.
 */
export const page = Effect.fnUntraced(function* (
  context: DeadLettersContext,
  selection: DeadLetterSelection,
  after: PageEnd | undefined
): Effect.fn.Return<DeadLetterPage, DeadLettersFailed | NotMigrated> {
  const { limit } = selection.filter
  for (let read = limit; ; read = Math.min(read * 4, mostRead)) {
    const filter = { ...selection.filter, until: after?.failedMs, limit: read }
    const { deadLetters, hasMore, leftOut } = yield* list(context, { ...selection, filter })
    const found = deadLetters
      .map((deadLetter) => ({ deadLetter, end: endOf(deadLetter) }))
      .toSorted((a, b) => byEnd(a.end, b.end))
      .filter(({ end }) => after === undefined || byEnd(after, end) < 0)
    if (found.length < limit && hasMore && read < mostRead) continue
    const some = found.slice(0, limit)
    const isLast = found.length <= limit && !hasMore
    return {
      deadLetters: some.map(({ deadLetter }) => deadLetter),
      leftOut,
      next: isLast ? undefined : some.at(-1)?.end
    }
  }
})

/** A group of dead letters of a kind. */
export interface DeadLetterGroupOfKind extends DeadLetterGroup {
  readonly kind: DeadLetterKind
}
/** The groups of a selection. */
export interface DeadLetterGroups {
  /** Root causes first, those with the most dead letters first. */
  readonly groups: ReadonlyArray<DeadLetterGroupOfKind>
  /** Whether a kind has more groups or keys than are counted. */
  readonly isPartial: boolean
  readonly leftOut: ReadonlyArray<LeftOutKind>
}

/** Groups all dead letters of a selection by what could not process them and their error, whatever the selection's limit. */
export const groups = (
  context: DeadLettersContext,
  selection: DeadLetterSelection
): Effect.Effect<DeadLetterGroups, DeadLettersFailed | NotMigrated> =>
  Effect.scoped(
    Effect.gen(function* () {
      const all: Array<DeadLetterGroupOfKind> = []
      let isPartial = false
      const leftOut = yield* eachKind(context, selection, (kind, source, ids) =>
        Effect.map(source.groups(ids, selection.filter), (found) => {
          for (const group of found.groups) all.push({ ...group, kind })
          isPartial ||= found.isPartial
        })
      )
      const size = ({ count, waiting }: DeadLetterGroup) => count + waiting
      return {
        groups: all.toSorted((a, b) => Number(a.waits) - Number(b.waits) || size(b) - size(a)),
        isPartial,
        leftOut
      }
    })
  )
