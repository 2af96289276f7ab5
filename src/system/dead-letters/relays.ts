// Dead letters of relays: messages that a relay parked because its target refuses them.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type DeadLetterSender, resend } from "../../dead-letter/resend.ts"
import { traceIdOf } from "../../log/envelope.ts"
import { query, type Sql } from "../../postgres/client/client.ts"
import * as Decisions from "../../postgres/store/dead-letter-decisions.ts"
import { mostGroups } from "./groups.ts"
import { type DeadLetterSource, discardEach, iso, type ListedDeadLetter, retryEach } from "./source.ts"

const idPrefix = "relay:"
const numbersOf = (ids: ReadonlyArray<string> | undefined) => ids?.map((id) => Number(id.slice(idPrefix.length)))

const listedOf = (parked: Decisions.ParkedDeadLetter): ListedDeadLetter => {
  const { decided_at, decided_by, id: number, key, meta, parked_at, partition, projection, reason } = parked
  const { seq, source, status, target, topic, val } = parked
  const id = `${idPrefix}${number}`
  const [[, eventTime, event_id = null, tenant = null, traceparent] = [null, 0]] = JSON.parse(meta) as ReadonlyArray<
    readonly [string | null, number, (string | null)?, (string | null)?, (string | null)?]
  >
  const stream = `${projection}/${source}/${partition}`
  const position = { stream, seq, incarnation: parked.incarnation }
  const content = { key, error: "Refused", message: reason, attempts: 1, value: val }
  const times = { event_time: iso(eventTime), failed_at: iso(parked_at), decided_by, decided_at: iso(decided_at) }
  const trace = { event_id, tenant, trace_id: traceIdOf(traceparent ?? undefined) ?? null }
  return {
    id,
    status,
    failedIn: `relay to ${target}`,
    record: `${stream}#${seq} to ${topic}`,
    key,
    error: `Refused: ${reason}`,
    attempts: 1,
    failedAt: parked_at,
    details: { id, kind: "relay", status, target, projection, topic, ...position, ...content, ...trace, ...times }
  }
}

/** The messages that relays parked. `openSender` opens what sends them again, and runs only if there are some to retry. */
export const relayDeadLetters = (
  sql: Sql,
  openSender: Effect.Effect<DeadLetterSender<Decisions.ParkedDeadLetter, Error>, Error, Scope.Scope>
): DeadLetterSource => {
  const known = new Map<string, Decisions.ParkedDeadLetter>()
  const parkedOf = ({ id }: ListedDeadLetter) => known.get(String(id))!
  return {
    list: Effect.fnUntraced(function* (ids, { error, ...filter }, purpose) {
      if (error !== undefined && error !== "Refused") return []
      const asked = { ...filter, ids: numbersOf(ids), oldestFirst: purpose !== "show" }
      const found = yield* query("read parked messages", () => Decisions.parked(sql, asked))
      for (const parked of found) known.set(`${idPrefix}${parked.id}`, parked)
      return found.map(listedOf)
    }),
    count: (ids, { error, ...filter }) => {
      if (error !== undefined && error !== "Refused") return Effect.succeed(0)
      return query("count parked messages", () => Decisions.countParked(sql, { ...filter, ids: numbersOf(ids) }))
    },
    groups: Effect.fnUntraced(function* (ids, { error, ...filter }) {
      if (error !== undefined && error !== "Refused") return { groups: [], isPartial: false }
      const asked = { ...filter, ids: numbersOf(ids), limit: mostGroups }
      const found = yield* query("group parked messages", () => Decisions.groupParked(sql, asked))
      const groups = found.map(({ count, first, keys, last, message, sample, target }) => ({
        failedIn: `relay to ${target}`,
        projection: undefined,
        error: "Refused",
        count,
        keys,
        firstFailedAt: first,
        lastFailedAt: last,
        sample: { id: `${idPrefix}${sample}`, message },
        waiting: 0,
        waits: false
      }))
      return { groups, isPartial: groups.length === mostGroups }
    }),
    retry: Effect.fnUntraced(function* (deadLetters, by) {
      if (deadLetters.length === 0) return { retried: 0, refused: [] }
      const sender = yield* openSender
      return yield* retryEach(deadLetters, (deadLetter) => {
        const parked = parkedOf(deadLetter)
        return resend(parked, sender, Decisions.parkedJournal(sql, parked.id, by))
      })
    }),
    discard: (deadLetters, by) =>
      discardEach(deadLetters, (deadLetter) =>
        query("discard a dead letter", () => Decisions.discardParked(sql, parkedOf(deadLetter).id, by))
      )
  }
}
