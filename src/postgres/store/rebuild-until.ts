// Where investigation builds stop, which `millrace rebuild --until` creates.
import type * as Effect from "effect/Effect"
import { query, type Session, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import type { BuildId } from "./rebuild.ts"

/** Where an investigation build stops. */
export interface BuildEnd {
  /** It has what the log stored before this time, in epoch milliseconds. */
  readonly untilMs: number
  /** For each partition of its sources the first position that is not processed. */
  readonly stops: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly position: number }>
}

/** Notes where a build stops that was just created, at most where the live build is now. */
export const noteEnd = (
  tx: Session,
  { projection, version }: BuildId,
  { stops, untilMs }: BuildEnd
): Effect.Effect<void, SqlError> =>
  query("note where the build stops", () =>
    tx`insert into millrace.rebuild_until (projection, version, topic, partition, position, until_ms)
      select ${projection}, ${version}, s.topic, s.partition, least(s.position, g.next_position), ${untilMs}
      from unnest(${arrayOf(stops.map(({ topic }) => topic))}::text[], ${arrayOf(stops.map(({ partition }) => partition))}::int4[],
        ${arrayOf(stops.map(({ position }) => position))}::bigint[]) as s (topic, partition, position)
      left join (select g.* from millrace.progress g join millrace.live l using (projection, version) where g.projection = ${projection}) g
        using (topic, partition)`.then(() => undefined)
  )
