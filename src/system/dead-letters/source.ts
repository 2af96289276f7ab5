// What every kind of dead letters offers: to list, retry and discard them. Adapters of the four kinds lie beside this file.
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { envelopeHeaders } from "../../log/envelope.ts"
import type { Log } from "../../log/log.ts"
import { localName } from "../../pulsar/client/topic-names.ts"
import { DeadLetterRejected } from "../../dead-letter/resend.ts"
import type { Sql } from "../../postgres/client/client.ts"

/** The states of a dead letter. All kinds have them but `skipped`, which only projections have. */
export const deadLetterStatuses = ["parked", "skipped", "retrying", "retried", "discarded"] as const
export type DeadLetterStatus = (typeof deadLetterStatuses)[number]
/** The states of a dead letter that is neither retried nor discarded. */
export const openStatuses = ["parked", "skipped", "retrying"] as const satisfies ReadonlyArray<DeadLetterStatus>

/** What a dead letter must match, beside its id. Filters that are undefined match every dead letter. */
export interface DeadLetterFilter {
  readonly projection: string | undefined
  /** The number of the projection's build. */
  readonly build?: number | undefined
  readonly subscription: string | undefined
  /** The relay's target. */
  readonly target?: string | undefined
  /** The name of the bridge. */
  readonly bridge?: string | undefined
  /** The name of a bridge's rule. */
  readonly rule: string | undefined
  /** The topic's name; on Pulsar that without tenant and namespace, or the full one. */
  readonly topic: string | undefined
  readonly key: string | undefined
  /** The error's name, such as `TypeError`. */
  readonly error: string | undefined
  /** Failed at this time or later, epoch milliseconds. */
  readonly since: number | undefined
  /** Failed in this millisecond or earlier, epoch milliseconds. */
  readonly until?: number | undefined
  readonly statuses: ReadonlyArray<DeadLetterStatus>
  /** At most this many of each kind. */
  readonly limit: number
}
/** A dead letter of any kind, as a list shows it. */
export interface ListedDeadLetter {
  readonly id: number | string
  readonly status: DeadLetterStatus
  /** What could not process it: a projection's build, a subscription, a relay or a bridge's rule. */
  readonly failedIn: string
  /** Which record or message it is. */
  readonly record: string
  readonly key: string | null
  /** The error's name and message. */
  readonly error: string
  readonly attempts: number
  /** Epoch milliseconds. */
  readonly failedAt: number
  /** All that is known about it, as JSON for programs, with `kind`, `topic` and `error` (the error's name) among the fields. */
  readonly details: Readonly<Record<string, unknown>>
}
/** What dead letters are listed for. `show` lists the newest first. `retry` and `discard` list the oldest first, in the order of their retry. */
export type ListPurpose = "show" | "retry" | "discard"
/** What became of dead letters of one kind that were to be retried. */
export interface SourceRetryResult {
  /** How many were sent. */
  readonly retried: number
  /** Those that are still refused, and why. They stay parked. */
  readonly refused: ReadonlyArray<RefusedDeadLetter>
  /** The error that ended the retry before the last dead letter. */
  readonly failure?: Error
}
/** A dead letter that was refused once more. */
export interface RefusedDeadLetter {
  readonly id: number | string
  readonly reason: string
}
/** Dead letters that failed in one place with errors of one name. Times are epoch milliseconds. */
export interface DeadLetterGroup {
  /** What could not process them: a projection, a subscription, a relay or a bridge's rule. */
  readonly failedIn: string
  /** The projection; undefined for other kinds. */
  readonly projection: string | undefined
  /** The number of the projection's build, and whether it is the live one; undefined for other kinds. */
  readonly build?: number
  readonly live?: boolean
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
/** The groups of one kind. */
export interface GroupedDeadLetters {
  readonly groups: ReadonlyArray<DeadLetterGroup>
  /** Whether there are more groups or keys than are counted. */
  readonly isPartial: boolean
}
/** The dead letters of one kind. `retry` and `discard` take dead letters that `list` of the same source returned. */
export interface DeadLetterSource {
  /** `ids` limits the list to these; undefined: no limit by id. */
  readonly list: (
    ids: ReadonlyArray<string> | undefined,
    filter: DeadLetterFilter,
    purpose: ListPurpose
  ) => Effect.Effect<ReadonlyArray<ListedDeadLetter>, Error, Scope.Scope>
  /** How many match, beyond the filter's limit too. */
  readonly count: (
    ids: ReadonlyArray<string> | undefined,
    filter: DeadLetterFilter,
    purpose: ListPurpose
  ) => Effect.Effect<number, Error, Scope.Scope>
  /** Groups all that match, beyond the filter's limit too. */
  readonly groups: (
    ids: ReadonlyArray<string> | undefined,
    filter: DeadLetterFilter
  ) => Effect.Effect<GroupedDeadLetters, Error, Scope.Scope>
  /** Sends them again, one after another. `by`: who decided it. */
  readonly retry: (
    deadLetters: ReadonlyArray<ListedDeadLetter>,
    by: string
  ) => Effect.Effect<SourceRetryResult, Error, Scope.Scope>
  /** Returns how many were open until now and are discarded. */
  readonly discard: (
    deadLetters: ReadonlyArray<ListedDeadLetter>,
    by: string
  ) => Effect.Effect<number, Error, Scope.Scope>
}
/** What sources are opened with. */
export interface DeadLettersContext {
  /** The database that keeps the dead letters of projections and relays, and the decisions about those of subscriptions and bridges. */
  readonly sql: Sql
  /** Opens the log that retry and discard records of projections are appended to. Runs only if there is something to append. */
  readonly openLog: Effect.Effect<Log["Service"], Error, Scope.Scope>
  /** The file of the bridge's rules; undefined: the usual files. */
  readonly bridgeRules: string | undefined
}

/** A time in ISO 8601; null if there is none, or if it is out of a date's range. */
export const iso = (time: number | null) =>
  time === null || !Number.isFinite(time) ? null : new Date(time).toISOString()
/** The fields of an envelope's headers that say where a message comes from. */
export const traceOf = (headers: Readonly<Record<string, string>>) => ({
  event_id: headers[envelopeHeaders.eventId] ?? null,
  tenant: headers[envelopeHeaders.tenant] ?? null,
  trace_id: headers[envelopeHeaders.traceId] ?? null
})
/** Whether a dead letter matches a filter. */
export const matches = (deadLetter: ListedDeadLetter, filter: DeadLetterFilter): boolean => {
  const { details, failedAt, key: ownKey, status } = deadLetter
  const { bridge, error, key, rule, since, statuses, subscription, topic, until } = filter
  const ownTopic = String(details["topic"])
  return (
    statuses.includes(status) &&
    (subscription === undefined || details["subscription"] === subscription) &&
    (bridge === undefined || details["bridge"] === bridge) &&
    (rule === undefined || details["rule"] === rule) &&
    (topic === undefined || ownTopic === topic || localName(ownTopic) === topic) &&
    (key === undefined || ownKey === key) &&
    (error === undefined || details["error"] === error) &&
    (since === undefined || failedAt >= since) &&
    (until === undefined || failedAt < until + 1)
  )
}

/** Discards dead letters one by one and counts those that were open. `discard` returns whether its dead letter was. */
export const discardEach = Effect.fnUntraced(function* <E, R>(
  deadLetters: ReadonlyArray<ListedDeadLetter>,
  discard: (deadLetter: ListedDeadLetter) => Effect.Effect<boolean, E, R>
): Effect.fn.Return<number, E, R> {
  let discarded = 0
  for (const deadLetter of deadLetters) if (yield* discard(deadLetter)) discarded += 1
  return discarded
})

/** Retries dead letters one by one until one fails otherwise than by a refusal. `retry` returns whether its dead letter was open. */
export const retryEach = Effect.fnUntraced(function* <E extends Error, R>(
  deadLetters: ReadonlyArray<ListedDeadLetter>,
  retry: (deadLetter: ListedDeadLetter) => Effect.Effect<boolean, E, R>
): Effect.fn.Return<SourceRetryResult, never, R> {
  let retried = 0
  const refused: Array<RefusedDeadLetter> = []
  for (const deadLetter of deadLetters) {
    const result = yield* Effect.result(retry(deadLetter))
    if (Result.isSuccess(result)) retried += result.success ? 1 : 0
    else if (result.failure instanceof DeadLetterRejected)
      refused.push({ id: deadLetter.id, reason: result.failure.reason })
    else return { retried, refused, failure: result.failure }
  }
  return { retried, refused }
})
