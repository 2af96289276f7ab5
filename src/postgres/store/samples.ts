// The samples of what handlers recorded, by which another behaviour under the same text is noticed: see `runner/behaviour.ts`.
import type * as Effect from "effect/Effect"
import type { Projection } from "../../model/projection.ts"
import { type SampledEvent, sampleSize } from "../../runner/behaviour.ts"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { textArray } from "../client/columns.ts"

type BuildId = Pick<Projection.Any, "name" | "version">
const textsOf = (events: ReadonlyArray<SampledEvent>) => textArray(events.map((event) => JSON.stringify(event)))

/** A build's sample; undefined if the texts of its functions differ from those that were accepted, so that it compares nothing. */
export const readSample = (
  sql: Sql,
  { name, version }: BuildId
): Effect.Effect<ReadonlyArray<SampledEvent> | undefined, SqlError> =>
  query("read the sample of a handler's behaviour", async () => {
    const [row] = await sql<Array<{ readonly sample: ReadonlyArray<string>; readonly isSame: boolean }>>`
      select to_jsonb(coalesce(sample, '{}')) as sample, warnings is null as "isSame" from millrace.projection
      where (name, version) = (${name}, ${version})`
    return row?.isSame === true ? row.sample.map((text) => JSON.parse(text) as SampledEvent) : undefined
  })

/** Adds events to a build's sample, as many as it lacks. */
export const addToSample = (sql: Sql, { name, version }: BuildId, events: ReadonlyArray<SampledEvent>) =>
  query(
    "store a sample of a handler's behaviour",
    () => sql`update millrace.projection set sample = (coalesce(sample, '{}') || ${textsOf(events)}::text[])[1:${sampleSize}::int4]
      where (name, version) = (${name}, ${version}) and warnings is null and behaviour is null`
  )

/** Replaces a build's sample by what is left of it, and notes how it compares with the handler: null if nothing differs. */
export const noteBehaviour = (
  sql: Sql,
  { name, version }: BuildId,
  sample: ReadonlyArray<SampledEvent>,
  changed: string | null
) =>
  query(
    "note whether a handler's behaviour changed",
    () => sql`update millrace.projection set sample = ${textsOf(sample)}::text[], behaviour = ${changed}
      where (name, version) = (${name}, ${version})`
  )
