// Messages that relays parked because their target refuses them, as dead letters. It sends nothing itself.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { traceIdOf } from "../../log/envelope.ts"
import { query, type Sql } from "../../postgres/client/client.ts"
import * as Decisions from "../../postgres/store/dead-letter-decisions.ts"
import { resend, type DeadLetterSender } from "../../dead-letter/resend.ts"
import { discardEach, type Entry, iso, retryEach, type Source } from "./source.ts"

const prefix = "relay:"
const entryOf = (letter: Decisions.ParkedLetter): Entry => {
  const { decided_at, decided_by, id: number, key, meta, parked_at, partition, projection, reason } = letter
  const { seq, source, status, target, topic, val } = letter
  const id = `${prefix}${number}`
  const [[, eventTime, event_id = null, tenant = null, traceparent] = [null, 0]] = JSON.parse(meta) as ReadonlyArray<
    readonly [string | null, number, (string | null)?, (string | null)?, (string | null)?]
  >
  const stream = `${projection}/${source}/${partition}`
  const place = { stream, seq, incarnation: letter.incarnation }
  const what = { key, error: "Refused", message: reason, attempts: 1, value: val }
  const times = { event_time: iso(eventTime), failed_at: iso(parked_at), decided_by, decided_at: iso(decided_at) }
  const trace = { event_id, tenant, trace_id: traceIdOf(traceparent ?? undefined) ?? null }
  return {
    id,
    status,
    of: `relay to ${target}`,
    record: `${stream}#${seq} to ${topic}`,
    key,
    error: `Refused: ${reason}`,
    attempts: 1,
    failedAt: parked_at,
    all: { id, kind: "relay", status, target, projection, topic, ...place, ...what, ...trace, ...times }
  }
}

/** What relays parked. `open` opens what sends it, in the scope of the command. */
export const relayLetters = (
  sql: Sql,
  open: Effect.Effect<DeadLetterSender<Decisions.ParkedLetter, unknown>, unknown, Scope.Scope>
): Source => {
  const letters = new Map<string, Decisions.ParkedLetter>()
  const letterOf = ({ id }: Entry) => letters.get(String(id))!
  return {
    list: Effect.fnUntraced(function* (ids, { error, ...filter }, purpose) {
      if (error !== undefined && error !== "Refused") return []
      const numbers = ids?.map((id) => Number(id.slice(prefix.length)))
      const asked = { ...filter, ids: numbers, oldestFirst: purpose !== "show" }
      const found = yield* query("read parked messages", () => Decisions.parked(sql, asked))
      for (const letter of found) letters.set(`${prefix}${letter.id}`, letter)
      return found.map(entryOf)
    }),
    retry: Effect.fnUntraced(function* (entries, by) {
      if (entries.length === 0) return { retried: 0, refused: [] }
      const sender = yield* open
      return yield* retryEach(entries, (entry) => {
        const letter = letterOf(entry)
        const notes = Decisions.parkedNotes(sql, letter.id, by)
        return resend(letter, sender, notes)
      })
    }),
    discard: (entries, by) =>
      discardEach(entries, (entry) =>
        query("discard a dead letter", () => Decisions.discardParked(sql, letterOf(entry).id, by))
      )
  }
}
