// What builds have that do not replay the whole log: what `millrace rebuild --from` creates.
import type * as Effect from "effect/Effect"
import { query, type Session, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import type { BuildId } from "./rebuild.ts"

/** Where a build begins that has only what the log stored from a time on. */
export interface BuildBegin {
  /** It has what the log stored at this time or later, in epoch milliseconds. */
  readonly fromMs: number
  /** For each partition of its sources the first position that is processed. */
  readonly starts: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly position: number }>
}

/** Notes of which build a build is a copy that was just created. */
export const noteCopy = (tx: Session, { projection, version }: BuildId, base: number): Effect.Effect<void, SqlError> =>
  query("note what the build is a copy of", () =>
    tx`insert into millrace.build_scope (projection, version, base) values (${projection}, ${version}, ${base})`.then(
      () => undefined
    )
  )

/**
 * Moves a build that was just created to where it begins, at most to where the live build is now: what the live build has not processed would otherwise be
 * published by none of both.
 */
export const noteBegin = (
  tx: Session,
  { projection, version }: BuildId,
  { fromMs, starts }: BuildBegin
): Effect.Effect<void, SqlError> =>
  query("note where the build begins", () =>
    tx`with noted as (
        insert into millrace.build_scope (projection, version, from_ms) values (${projection}, ${version}, ${fromMs})
      ), begun as (
        select s.topic, s.partition, least(s.position, g.next_position) as position
        from unnest(${arrayOf(starts.map(({ topic }) => topic))}::text[], ${arrayOf(starts.map(({ partition }) => partition))}::int4[],
          ${arrayOf(starts.map(({ position }) => position))}::bigint[]) as s (topic, partition, position)
        left join (select g.* from millrace.progress g join millrace.live l using (projection, version) where g.projection = ${projection}) g
          using (topic, partition)
      )
      update millrace.progress n set first_position = b.position, next_position = b.position from begun b
      where n.projection = ${projection} and n.version = ${version} and (n.topic, n.partition) = (b.topic, b.partition)
        and b.position > n.first_position`.then(() => undefined)
  )
