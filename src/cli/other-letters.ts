// Dead letters that no projection has: messages that subscriptions gave up, and that relays parked. `dlq` lists, retries and discards them here.
import * as Effect from "effect/Effect"
import { FanOutError } from "../fanout.ts"
import { query, type Sql } from "../postgres/client.ts"
import * as Decisions from "../postgres/decisions.ts"
import { localName } from "../pulsar/parts.ts"
import type { DeadLetterTopics, SubscriptionLetter } from "../subscription-letter.ts"

/** Which letters, beyond their ids. What is undefined does not matter. */
export interface Filter {
  readonly projection: string | undefined
  readonly subscription: string | undefined
  readonly topic: string | undefined
  readonly key: string | undefined
  readonly error: string | undefined
  /** Epoch milliseconds. */
  readonly since: number | undefined
  readonly statuses: ReadonlyArray<string>
  readonly limit: number
}
/** A letter of any kind, as a list shows it. */
export interface Entry {
  readonly id: number | string
  readonly status: string
  /** Who could not handle it. */
  readonly of: string
  /** Which record, or message. */
  readonly record: string
  readonly key: string | null
  readonly error: string
  readonly attempts: number
  /** Epoch milliseconds. */
  readonly failedAt: number
  /** Everything that is known, for programs. */
  readonly all: Readonly<Record<string, unknown>>
}
/** Letters of one kind. */
export interface Kind {
  /** The newest ones first where they are for people, else the oldest, in which order they are retried. */
  readonly list: (
    ids: ReadonlyArray<string> | undefined,
    filter: Filter,
    oldestFirst: boolean
  ) => Effect.Effect<ReadonlyArray<Entry>, unknown>
  /** Sends them again, one after another. How many are there now. */
  readonly retry: (entries: ReadonlyArray<Entry>, by: string) => Effect.Effect<number, unknown>
  /** How many were not decided on before. */
  readonly discard: (entries: ReadonlyArray<Entry>, by: string) => Effect.Effect<number, unknown>
}

/** A time as programs read it; null: there is none, or it is no date. */
export const iso = (time: number | null) =>
  time === null || !Number.isFinite(time) ? null : new Date(time).toISOString()
const traceOf = (properties: Readonly<Record<string, string>>) => ({
  event_id: properties["event_id"] ?? null,
  tenant: properties["tenant"] ?? null,
  trace_id: properties["trace_id"] ?? null
})

const subscriptionEntry = (letter: SubscriptionLetter, decision: Decisions.Decision | undefined): Entry => {
  const { eventTime, failedAt, key, origin, properties, reason, redeliveries, source, subscription, topic, value } =
    letter
  const id = `${topic}@${origin}`
  const status = decision?.status ?? "parked"
  const error = reason.startsWith("redelivered") ? "Redelivered" : "Refused"
  const decided = { decided_by: decision?.decided_by ?? null, decided_at: iso(decision?.decided_at ?? null) }
  const what = { key, error, message: reason, attempts: redeliveries + 1, value, properties, ...traceOf(properties) }
  const times = { event_time: iso(eventTime), failed_at: iso(failedAt) }
  return {
    id,
    status,
    of: `subscription ${subscription}`,
    record: `${localName(source)}@${origin}`,
    key,
    error: `${error}: ${reason}`,
    attempts: redeliveries + 1,
    failedAt,
    all: { id, kind: "subscription", status, subscription, topic: source, place: origin, ...what, ...times, ...decided }
  }
}
const fits = (entry: Entry, letter: SubscriptionLetter, filter: Filter) => {
  const { error, key, since, statuses, subscription, topic } = filter
  return (
    statuses.includes(entry.status) &&
    (subscription === undefined || letter.subscription === subscription) &&
    (topic === undefined || letter.source === topic || localName(letter.source) === topic) &&
    (key === undefined || letter.key === key) &&
    (error === undefined || entry.all["error"] === error) &&
    (since === undefined || letter.failedAt >= since)
  )
}

/** What subscriptions gave up. Reads their dead-letter topics from the first message on, and keeps what is asked for. */
export const subscriptionLetters = (sql: Sql, topics: DeadLetterTopics): Kind => {
  const letters = new Map<string, SubscriptionLetter>()
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
      const entry = subscriptionEntry(letter, decided.get(letter.origin))
      if (ids === undefined ? !fits(entry, letter, filter) : !ids.has(String(entry.id))) return
      if (ids !== undefined && !filter.statuses.includes(entry.status)) return
      // a crash may have written it twice
      if (seen.has(letter.origin) || (oldestFirst && found.length >= filter.limit)) return
      seen.add(letter.origin)
      found.push(entry)
      letters.set(String(entry.id), letter)
      if (found.length < filter.limit * 2) return
      for (const { id } of found.slice(0, -filter.limit)) letters.delete(String(id))
      found = found.slice(-filter.limit)
    })
    return oldestFirst ? found : found.toReversed()
  })
  return {
    list: Effect.fnUntraced(function* (ids, filter, oldestFirst) {
      const named = ids && [...new Set(ids.map((id) => id.slice(0, id.lastIndexOf("@"))))]
      const wanted = ids && new Set(ids)
      const found: Array<Entry> = []
      for (const topic of named ?? (yield* topics.names))
        found.push(...(yield* read(topic, wanted, filter, oldestFirst)))
      return oldestFirst ? found.slice(0, filter.limit) : found
    }),
    retry: Effect.fnUntraced(function* (entries, by) {
      let retried = 0
      for (const { id } of entries) {
        const letter = letters.get(String(id))!
        const { origin, topic } = letter
        const decide = (status: Decisions.Status) =>
          Effect.tryPromise(() => Decisions.decide(sql, topic, origin, status, by))
        if (!(yield* decide("retrying"))) continue
        yield* topics.retry(letter)
        yield* decide("retried")
        retried += 1
      }
      return retried
    }),
    discard: Effect.fnUntraced(function* (entries, by) {
      let discarded = 0
      for (const { id } of entries) {
        const { origin, topic } = letters.get(String(id))!
        if (yield* Effect.tryPromise(() => Decisions.decide(sql, topic, origin, "discarded", by))) discarded += 1
      }
      return discarded
    })
  }
}

const parkedEntry = (letter: Decisions.ParkedLetter): Entry => {
  const { decided_at, decided_by, id: number, key, meta, parked_at, partition, projection, reason } = letter
  const { seq, source, status, target, topic, val } = letter
  const id = `relay:${number}`
  const [[, eventTime, event_id = null, tenant = null, traceparent] = [null, 0]] = JSON.parse(meta) as ReadonlyArray<
    readonly [string | null, number, (string | null)?, (string | null)?, (string | null)?]
  >
  const stream = `${projection}/${source}/${partition}`
  const place = { stream, seq, incarnation: letter.incarnation }
  const times = { event_time: iso(eventTime), failed_at: iso(parked_at), decided_by, decided_at: iso(decided_at) }
  const trace = { event_id, tenant, trace_id: traceparent?.split("-")[1] ?? null }
  return {
    id,
    status,
    of: `relay to ${target}`,
    record: `${stream}#${seq} to ${topic}`,
    key,
    error: `Refused: ${reason}`,
    attempts: 1,
    failedAt: parked_at,
    all: {
      id,
      kind: "relay",
      status,
      target,
      projection,
      topic,
      ...place,
      key,
      error: "Refused",
      message: reason,
      attempts: 1,
      value: val,
      ...trace,
      ...times
    }
  }
}

/** What relays parked. `send` brings one to its target by itself, in the scope of the command. */
export const relayLetters = (
  sql: Sql,
  send: Effect.Effect<(parked: Decisions.ParkedLetter) => Effect.Effect<void, FanOutError>, unknown>
): Kind => {
  const letters = new Map<string, Decisions.ParkedLetter>()
  const decide = (id: number, status: Decisions.Status, by: string, reason?: string) =>
    Effect.tryPromise(() => Decisions.decideParked(sql, id, status, by, reason))
  return {
    list: Effect.fnUntraced(function* (ids, { error, ...filter }, oldestFirst) {
      if (error !== undefined && error !== "Refused") return []
      const numbers = ids?.map((id) => Number(id.slice("relay:".length)))
      const asked = { ...filter, ids: numbers, oldestFirst }
      const found = yield* query("read parked messages", () => Decisions.parked(sql, asked))
      for (const letter of found) letters.set(`relay:${letter.id}`, letter)
      return found.map(parkedEntry)
    }),
    retry: Effect.fnUntraced(function* (entries, by) {
      if (entries.length === 0) return 0
      const sendOne = yield* send
      let retried = 0
      for (const { id } of entries) {
        const letter = letters.get(String(id))!
        if (!(yield* decide(letter.id, "retrying", by))) continue
        const refused = yield* sendOne(letter).pipe(
          Effect.as(undefined),
          Effect.catchIf(
            ({ retryable }) => !retryable,
            (failure) => Effect.succeed(failure.reason)
          )
        )
        yield* decide(letter.id, refused === undefined ? "retried" : "parked", by, refused)
        if (refused === undefined) retried += 1
      }
      return retried
    }),
    discard: Effect.fnUntraced(function* (entries, by) {
      let discarded = 0
      for (const { id } of entries) if (yield* decide(letters.get(String(id))!.id, "discarded", by)) discarded += 1
      return discarded
    })
  }
}
