// Dead letters that are messages of topics: the topic is the list, and the database only has the decisions about them.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type DeadLetterSender, resend } from "../../dead-letter/resend.ts"
import { query, type Sql } from "../../postgres/client/client.ts"
import * as Decisions from "../../postgres/store/dead-letter-decisions.ts"
import { GroupCounter } from "./groups.ts"
import {
  type DeadLetterFilter,
  type DeadLetterSource,
  discardEach,
  iso,
  type ListedDeadLetter,
  matches,
  retryEach
} from "./source.ts"

/** Topics that hold dead letters of one kind, and what a dead letter of type `L` of them is like. */
export interface TopicsOfKind<L> {
  /** The names of the topics. */
  readonly names: Effect.Effect<ReadonlyArray<string>, Error>
  /** Calls `take` with the dead letters of a topic, from the first to the last that it has now. */
  readonly each: (topic: string, take: (deadLetter: L) => void) => Effect.Effect<void, Error>
  /** Identifies a dead letter within its topic. One that a crash caused to be written twice has the same origin both times. */
  readonly originOf: (deadLetter: L) => string
  readonly describe: (deadLetter: L) => Omit<ListedDeadLetter, "id" | "status" | "key">
  readonly keyOf: (deadLetter: L) => string | null
  /** Opens what sends dead letters again. */
  readonly openSender: Effect.Effect<DeadLetterSender<L, Error>, Error, Scope.Scope>
}
interface KnownDeadLetter<L> {
  readonly deadLetter: L
  readonly topic: string
  readonly origin: string
}

const listedOf = <L>(
  topics: TopicsOfKind<L>,
  id: string,
  deadLetter: L,
  decision: Decisions.DeadLetterDecision | undefined
): ListedDeadLetter => {
  const status = decision?.status ?? "parked"
  const described = topics.describe(deadLetter)
  const decided = { decided_by: decision?.decided_by ?? null, decided_at: iso(decision?.decided_at ?? null) }
  const details = { id, kind: described.details["kind"], status, ...described.details, ...decided }
  return { ...described, id, status, key: topics.keyOf(deadLetter), details }
}

/** Calls `take` once for each dead letter of a topic that matches, as `list` finds them. */
const eachOf = Effect.fnUntraced(function* <L>(
  sql: Sql,
  topics: TopicsOfKind<L>,
  topic: string,
  ids: ReadonlySet<string> | undefined,
  filter: DeadLetterFilter,
  take: (listed: ListedDeadLetter) => void
) {
  const decisions = yield* query("read decisions", () => Decisions.decisions(sql, topic))
  const decided = new Map(decisions.map((decision) => [decision.origin, decision]))
  const seen = new Set<string>()
  yield* topics.each(topic, (deadLetter) => {
    const origin = topics.originOf(deadLetter)
    const id = `${topic}@${origin}`
    if (seen.has(origin) || (ids !== undefined && !ids.has(id))) return
    const listed = listedOf(topics, id, deadLetter, decided.get(origin))
    if (ids === undefined ? !matches(listed, filter) : !filter.statuses.includes(listed.status)) return
    seen.add(origin)
    take(listed)
  })
})

/** The topics that ids name. */
const topicsOf = (ids: ReadonlyArray<string> | undefined) =>
  ids && [...new Set(ids.map((id) => id.slice(0, id.lastIndexOf("@"))))]
/** The same for all topics, or those of the ids. */
const eachOfAll = Effect.fnUntraced(function* <L>(
  sql: Sql,
  topics: TopicsOfKind<L>,
  ids: ReadonlyArray<string> | undefined,
  filter: DeadLetterFilter,
  take: (listed: ListedDeadLetter) => void
) {
  const wanted = ids && new Set(ids)
  for (const topic of topicsOf(ids) ?? (yield* topics.names)) yield* eachOf(sql, topics, topic, wanted, filter, take)
})

/** The dead letters of topics, which are read from their first message on. Ids are `<topic>@<origin>`. */
export const topicDeadLetters = <L>(sql: Sql, topics: TopicsOfKind<L>): DeadLetterSource => {
  const known = new Map<string, KnownDeadLetter<L>>()
  const read = Effect.fnUntraced(function* (
    topic: string,
    ids: ReadonlySet<string> | undefined,
    filter: DeadLetterFilter,
    oldestFirst: boolean
  ) {
    const decisions = yield* query("read decisions", () => Decisions.decisions(sql, topic))
    const decided = new Map(decisions.map((decision) => [decision.origin, decision]))
    const seen = new Set<string>()
    let found: Array<ListedDeadLetter> = []
    yield* topics.each(topic, (deadLetter) => {
      const origin = topics.originOf(deadLetter)
      const id = `${topic}@${origin}`
      if (seen.has(origin) || (ids !== undefined && !ids.has(id)) || (oldestFirst && found.length >= filter.limit))
        return
      const listed = listedOf(topics, id, deadLetter, decided.get(origin))
      if (ids === undefined ? !matches(listed, filter) : !filter.statuses.includes(listed.status)) return
      seen.add(origin)
      found.push(listed)
      known.set(id, { deadLetter, topic, origin })
      // of the newest ones as many as are asked for are kept, so that memory stays bounded
      if (found.length < filter.limit * 2) return
      for (const { id } of found.slice(0, -filter.limit)) known.delete(String(id))
      found = found.slice(-filter.limit)
    })
    return oldestFirst ? found : found.toReversed()
  })
  const all = (
    ids: ReadonlyArray<string> | undefined,
    filter: DeadLetterFilter,
    take: (listed: ListedDeadLetter) => void
  ) => eachOfAll(sql, topics, ids, filter, take)
  return {
    count: Effect.fnUntraced(function* (ids, filter) {
      let counted = 0
      yield* all(ids, filter, () => counted++)
      return counted
    }),
    groups: Effect.fnUntraced(function* (ids, filter) {
      const counter = new GroupCounter()
      yield* all(ids, filter, (listed) => counter.add(listed))
      return counter.result
    }),
    list: Effect.fnUntraced(function* (ids, filter, purpose) {
      const oldestFirst = purpose !== "show"
      const wanted = ids && new Set(ids)
      const found: Array<ListedDeadLetter> = []
      for (const topic of topicsOf(ids) ?? (yield* topics.names))
        found.push(...(yield* read(topic, wanted, filter, oldestFirst)))
      return oldestFirst ? found.slice(0, filter.limit) : found
    }),
    retry: Effect.fnUntraced(function* (deadLetters, by) {
      if (deadLetters.length === 0) return { retried: 0, refused: [] }
      const sender = yield* topics.openSender
      return yield* retryEach(deadLetters, ({ id }) => {
        const { deadLetter, origin, topic } = known.get(String(id))!
        return resend(deadLetter, sender, Decisions.topicJournal(sql, topic, origin, by))
      })
    }),
    discard: (deadLetters, by) =>
      discardEach(deadLetters, ({ id }) => {
        const { origin, topic } = known.get(String(id))!
        return query("discard a dead letter", () => Decisions.discard(sql, topic, origin, by))
      })
  }
}
