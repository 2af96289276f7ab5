// Dead letters that are messages of topics, where the topic is the list: what subscriptions gave up, and what bridges could not mirror. The database
// has decisions about them only.
import { createHash } from "node:crypto"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { BridgeDeadLetter } from "../../bridge/dead-letter.ts"
import type { DeadLetterSender } from "../../dead-letter/resend.ts"
import { resend } from "../../dead-letter/resend.ts"
import { query, type Sql } from "../../postgres/client/client.ts"
import * as Decisions from "../../postgres/store/dead-letter-decisions.ts"
import { localName } from "../../pulsar/client/topic-names.ts"
import type { DeadLetterTopics, SubscriptionDeadLetter } from "../../subscription/dead-letter.ts"
import { discardEach, type Entry, type Filter, fits, iso, retryEach, type Source, traceOf } from "./source.ts"

/** The topics of one kind, and what is to be known of their letters. */
interface Topics<L> {
  readonly names: Effect.Effect<ReadonlyArray<string>, unknown>
  /** From the first letter to the last that is there now. */
  readonly each: (topic: string, take: (letter: L) => void) => Effect.Effect<void, unknown>
  /** What tells a letter from the topic's others; one that a crash had written twice has the same. */
  readonly originOf: (letter: L) => string
  readonly describe: (letter: L) => Omit<Entry, "id" | "status" | "key">
  readonly keyOf: (letter: L) => string | null
  readonly sender: Effect.Effect<DeadLetterSender<L, unknown>, unknown, Scope.Scope>
}
interface Known<L> {
  readonly letter: L
  readonly topic: string
  readonly origin: string
}

const entryOf = <L>(topics: Topics<L>, id: string, letter: L, decision: Decisions.Decision | undefined): Entry => {
  const status = decision?.status ?? "parked"
  const described = topics.describe(letter)
  const decided = { decided_by: decision?.decided_by ?? null, decided_at: iso(decision?.decided_at ?? null) }
  return {
    ...described,
    id,
    status,
    key: topics.keyOf(letter),
    all: { id, kind: described.all["kind"], status, ...described.all, ...decided }
  }
}

/** Letters of topics. Reads them from the first message on, and keeps what is asked for. Ids are `<topic>@<origin>`. */
const topicLetters = <L>(sql: Sql, topics: Topics<L>): Source => {
  const letters = new Map<string, Known<L>>()
  const read = Effect.fnUntraced(function* (
    topic: string,
    ids: ReadonlySet<string> | undefined,
    filter: Filter,
    oldestFirst: boolean
  ) {
    const made = yield* query("read decisions", () => Decisions.decisions(sql, topic))
    const decided = new Map(made.map((one) => [one.origin, one]))
    const seen = new Set<string>()
    let found: Array<Entry> = []
    yield* topics.each(topic, (letter) => {
      const origin = topics.originOf(letter)
      const id = `${topic}@${origin}`
      if (seen.has(origin) || (ids !== undefined && !ids.has(id)) || (oldestFirst && found.length >= filter.limit))
        return
      const entry = entryOf(topics, id, letter, decided.get(origin))
      if (ids === undefined ? !fits(entry, filter) : !filter.statuses.includes(entry.status)) return
      seen.add(origin)
      found.push(entry)
      letters.set(id, { letter, topic, origin })
      if (found.length < filter.limit * 2) return
      for (const { id } of found.slice(0, -filter.limit)) letters.delete(String(id))
      found = found.slice(-filter.limit)
    })
    return oldestFirst ? found : found.toReversed()
  })
  return {
    list: Effect.fnUntraced(function* (ids, filter, purpose) {
      const oldestFirst = purpose !== "show"
      const named = ids && [...new Set(ids.map((id) => id.slice(0, id.lastIndexOf("@"))))]
      const wanted = ids && new Set(ids)
      const found: Array<Entry> = []
      for (const topic of named ?? (yield* topics.names))
        found.push(...(yield* read(topic, wanted, filter, oldestFirst)))
      return oldestFirst ? found.slice(0, filter.limit) : found
    }),
    retry: Effect.fnUntraced(function* (entries, by) {
      if (entries.length === 0) return { retried: 0, refused: [] }
      const sender = yield* topics.sender
      return yield* retryEach(entries, ({ id }) => {
        const { letter, origin, topic } = letters.get(String(id))!
        return resend(letter, sender, Decisions.topicNotes(sql, topic, origin, by))
      })
    }),
    discard: (entries, by) =>
      discardEach(entries, ({ id }) => {
        const { origin, topic } = letters.get(String(id))!
        return query("discard a dead letter", () => Decisions.discard(sql, topic, origin, by))
      })
  }
}

const describeSubscription = (letter: SubscriptionDeadLetter): Omit<Entry, "id" | "status" | "key"> => {
  const { eventTime, failedAt, key, origin, properties, reason, redeliveries, source, subscription, value } = letter
  const error = reason.startsWith("redelivered") ? "Redelivered" : "Refused"
  const what = { key, error, message: reason, attempts: redeliveries + 1, value, properties, ...traceOf(properties) }
  const times = { event_time: iso(eventTime), failed_at: iso(failedAt) }
  return {
    of: `subscription ${subscription}`,
    record: `${localName(source)}@${origin}`,
    // the number of attempts has a column of its own
    error: `${error}: ${reason.replace(/^redelivered \d+ times, and failed: /, "")}`,
    attempts: redeliveries + 1,
    failedAt,
    all: { kind: "subscription", subscription, topic: source, place: origin, ...what, ...times }
  }
}
const hashOf = (...parts: ReadonlyArray<string>) =>
  createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 16)
/** The place; in a topic that has several subscriptions' letters also whose it is. */
const originOf = ({ origin, source, subscription, topic }: SubscriptionDeadLetter) =>
  localName(topic) === `${localName(source)}.${subscription}.dlq`
    ? origin
    : `${origin}.${hashOf(localName(source), subscription)}`
/** What subscriptions gave up. */
export const subscriptionLetters = (sql: Sql, topics: DeadLetterTopics<unknown>): Source =>
  topicLetters<SubscriptionDeadLetter>(sql, {
    names: topics.names,
    each: topics.each,
    originOf,
    describe: describeSubscription,
    keyOf: ({ key }) => key,
    sender: Effect.succeed(topics.sender)
  })

const describeBridge = (letter: BridgeDeadLetter): Omit<Entry, "id" | "status" | "key"> => {
  const { bridge, errors, failedAt, offset, partition, reason, record, rule, side, topic } = letter
  const { eventTime, headers, key, value } = record
  const what = { key, error: "Refused", message: reason, attempts: 1, value, headers, ...traceOf(headers) }
  const times = { event_time: iso(eventTime), failed_at: iso(failedAt) }
  return {
    of: `bridge ${bridge}/${rule}`,
    record: `${side}:${localName(topic)}/${partition}@${offset}`,
    error: `Refused: ${reason}`,
    attempts: 1,
    failedAt,
    all: { kind: "bridge", bridge, rule, from: side, topic, partition, offset, errors_topic: errors, ...what, ...times }
  }
}
/** Topics of errors, and what sends their letters through their rules. */
export interface BridgeTopics extends Pick<Topics<BridgeDeadLetter>, "names" | "each" | "sender"> {}
/** What bridges could not mirror. */
export const bridgeLetters = (sql: Sql, topics: BridgeTopics): Source =>
  topicLetters<BridgeDeadLetter>(sql, {
    ...topics,
    originOf: ({ bridge, offset, rule, stream }) => hashOf(bridge, rule, stream, offset),
    describe: describeBridge,
    keyOf: ({ record: { key } }) => key
  })
