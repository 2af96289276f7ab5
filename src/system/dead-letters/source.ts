// What `dlq` needs of each kind of dead letters: to list, retry and discard them. The kinds are projections, subscriptions, relays and bridges.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { envelopeHeaders } from "../../log/envelope.ts"
import { localName } from "../../pulsar/client/topic-names.ts"
import { DeadLetterRejected } from "../../dead-letter/resend.ts"

/** Which letters, beyond their ids. What is undefined does not matter. */
export interface Filter {
  readonly projection: string | undefined
  readonly subscription: string | undefined
  readonly rule: string | undefined
  /** By name, or on Pulsar by the full name. */
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
  /** Everything that is known, for programs: `topic`, `error` and who could not handle it among them. */
  readonly all: Readonly<Record<string, unknown>>
}
/** What letters are listed for: for people the newest ones, the newest first; else the oldest, in the order in which they are retried. */
export type Purpose = "show" | "retry" | "discard"
/** What became of letters that were to be retried. */
export interface Retried {
  /** How many were sent. */
  readonly retried: number
  /** Those that are still refused, and why. They stay as they are. */
  readonly refused: ReadonlyArray<{ readonly id: number | string; readonly reason: string }>
  /** What ended it before the last one. */
  readonly failure?: unknown
}
/** Letters of one kind. */
export interface Source {
  readonly list: (
    ids: ReadonlyArray<string> | undefined,
    filter: Filter,
    purpose: Purpose
  ) => Effect.Effect<ReadonlyArray<Entry>, unknown, Scope.Scope>
  /** Sends letters that it listed again, one after another. */
  readonly retry: (entries: ReadonlyArray<Entry>, by: string) => Effect.Effect<Retried, unknown, Scope.Scope>
  /** How many of those that it listed were not decided on before. */
  readonly discard: (entries: ReadonlyArray<Entry>, by: string) => Effect.Effect<number, unknown>
}

/** A time as programs read it; null: there is none, or it is no date. */
export const iso = (time: number | null) =>
  time === null || !Number.isFinite(time) ? null : new Date(time).toISOString()
/** What an envelope's headers say of where a message came from. */
export const traceOf = (headers: Readonly<Record<string, string>>) => ({
  event_id: headers[envelopeHeaders.eventId] ?? null,
  tenant: headers[envelopeHeaders.tenant] ?? null,
  trace_id: headers[envelopeHeaders.traceId] ?? null
})
/** Whether a letter is one that a filter asks for. */
export const fits = ({ all, failedAt, key: its, status }: Entry, filter: Filter): boolean => {
  const { error, key, rule, since, statuses, subscription, topic } = filter
  const of = String(all["topic"])
  return (
    statuses.includes(status) &&
    (subscription === undefined || all["subscription"] === subscription) &&
    (rule === undefined || all["rule"] === rule) &&
    (topic === undefined || of === topic || localName(of) === topic) &&
    (key === undefined || its === key) &&
    (error === undefined || all["error"] === error) &&
    (since === undefined || failedAt >= since)
  )
}

/** Discards letters one by one; `one` says whether it was not decided on before. How many were not. */
export const discardEach = Effect.fnUntraced(function* <E, R>(
  entries: ReadonlyArray<Entry>,
  one: (entry: Entry) => Effect.Effect<boolean, E, R>
): Effect.fn.Return<number, E, R> {
  let discarded = 0
  for (const entry of entries) if (yield* one(entry)) discarded += 1
  return discarded
})

/** Retries letters one by one, until one fails; `one` says whether it was not decided on before. */
export const retryEach = Effect.fnUntraced(function* <E, R>(
  entries: ReadonlyArray<Entry>,
  one: (entry: Entry) => Effect.Effect<boolean, E, R>
): Effect.fn.Return<Retried, never, R> {
  let retried = 0
  const refused: Array<Retried["refused"][number]> = []
  for (const entry of entries) {
    const result = yield* Effect.result(one(entry))
    if (Result.isSuccess(result)) retried += result.success ? 1 : 0
    else if (result.failure instanceof DeadLetterRejected) refused.push({ id: entry.id, reason: result.failure.reason })
    else return { retried, refused, failure: result.failure }
  }
  return { retried, refused }
})
