// Dead letters for a screen: grouped by their error, and listed page by page.
import * as Effect from "effect/Effect"
import { query, type SqlError } from "../../postgres/client/client.ts"
import * as StoredDeadLetters from "../../postgres/store/dead-letters.ts"
import {
  list,
  type DeadLetterList,
  type DeadLettersFailed,
  type LeftOutKind,
  type NotMigrated
} from "./dead-letters.ts"
import { type DeadLetterKind, kindNames } from "./kinds.ts"
import { buildText } from "./projections.ts"
import type { DeadLetterSelection } from "./selection.ts"
import type { DeadLettersContext, ListedDeadLetter } from "./source.ts"

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

/** Dead letters that failed in one place with errors of one name. Times are epoch milliseconds. */
export interface DeadLetterGroup {
  readonly kind: DeadLetterKind
  /** What could not process them: a projection, a subscription, a relay or a bridge's rule. */
  readonly failedIn: string
  /** The projection; undefined for other kinds. */
  readonly projection: string | undefined
  readonly error: string
  readonly count: number
  readonly keys: number
  readonly firstFailedAt: number
  readonly lastFailedAt: number
  /** The newest of them. */
  readonly sample: { readonly id: number | string; readonly message: string }
  /** How many others wait behind them because they have the same key. */
  readonly waiting: number
  /** Whether they wait behind others of their key, and have no error of their own. */
  readonly waits: boolean
}
/** The groups of a selection. */
export interface DeadLetterGroups {
  /** Root causes first, those with the most dead letters first. */
  readonly groups: ReadonlyArray<DeadLetterGroup>
  /** Whether a kind without a table in the database has more than were looked at, so that its counts are too low. */
  readonly isPartial: boolean
  readonly leftOut: ReadonlyArray<LeftOutKind>
}
/** How many dead letters of kinds other than projections are looked at, and how many groups of projections there are at most. */
const most = { read: 1_000, groups: 200 }

const groupsOfOthers = (deadLetters: ReadonlyArray<ListedDeadLetter>): ReadonlyArray<DeadLetterGroup> => {
  const groups = Map.groupBy(deadLetters, ({ details, failedIn }) =>
    JSON.stringify([details["kind"], failedIn, details["error"]])
  )
  return [...groups.values()].map((some): DeadLetterGroup => {
    const [newest] = some as [ListedDeadLetter]
    const times = some.map(({ failedAt }) => failedAt)
    return {
      kind: newest.details["kind"] as DeadLetterKind,
      failedIn: newest.failedIn,
      projection: undefined,
      error: String(newest.details["error"]),
      count: some.length,
      keys: new Set(some.map(({ key }) => key)).size,
      firstFailedAt: Math.min(...times),
      lastFailedAt: Math.max(...times),
      sample: { id: newest.id, message: String(newest.details["message"]) },
      waiting: 0,
      waits: false
    }
  })
}

/** Groups the dead letters of a selection by what could not process them and their error. */
export const groups = Effect.fnUntraced(function* (
  context: DeadLettersContext,
  selection: DeadLetterSelection
): Effect.fn.Return<DeadLetterGroups, DeadLettersFailed | NotMigrated | SqlError> {
  const others = selection.kinds.filter((kind) => kind !== "projection")
  const filter = { ...selection.filter, limit: most.read }
  const listed = others.length === 0 ? undefined : yield* list(context, { ...selection, kinds: others, filter })
  const ids = selection.ids?.filter((id) => /^\d+$/.test(id)).map(Number)
  const ofProjections = selection.kinds.includes("projection")
    ? yield* query("group dead letters", () =>
        StoredDeadLetters.groups(context.sql, { ...selection.filter, ids, limit: most.groups })
      )
    : []
  const found = ofProjections.map((group): DeadLetterGroup => ({
    kind: "projection",
    failedIn: buildText(group),
    projection: group.projection,
    error: group.error,
    count: group.count,
    keys: group.keys,
    firstFailedAt: group.first_failed_at,
    lastFailedAt: group.last_failed_at,
    sample: { id: group.sample, message: group.message },
    waiting: group.waiting,
    waits: group.error === "EarlierParked"
  }))
  const all = [...found, ...groupsOfOthers(listed?.deadLetters ?? [])]
  return {
    groups: all.toSorted((a, b) => Number(a.waits) - Number(b.waits) || b.count + b.waiting - a.count - a.waiting),
    isPartial: (listed?.hasMore ?? false) || ofProjections.length === most.groups,
    leftOut: listed?.leftOut ?? []
  }
})
