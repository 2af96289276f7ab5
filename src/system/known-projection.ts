// Looks for a projection or an aggregate by the name that a person gave.
import * as Effect from "effect/Effect"
import { query, type Sql } from "../postgres/client/client.ts"
import { projectionNames } from "../postgres/store/identity.ts"
import { adviceFor } from "../text/similar-names.ts"
import { UnknownName } from "./errors.ts"

const assertKnown = (kind: "projection" | "aggregate", name: string, known: ReadonlyArray<string>) => {
  if (known.includes(name)) return Effect.void
  const advice = adviceFor(name, known)
  const message = `this database has no ${kind} called '${name}'`
  return Effect.fail(new UnknownName({ message, ...(advice !== undefined && { try: advice }) }))
}

/** Fails with `UnknownName` if the database has no projection of this name. */
export const assertKnownProjection = Effect.fnUntraced(function* (sql: Sql, name: string) {
  yield* assertKnown("projection", name, yield* projectionNames(sql))
})

/** Fails with `UnknownName` if the database has no aggregate of this name. */
export const assertKnownAggregate = Effect.fnUntraced(function* (sql: Sql, name: string) {
  const rows = yield* query(
    "read the aggregates",
    () => sql<Array<{ readonly name: string }>>`select name from millrace.log_topic where aggregate order by name`
  )
  yield* assertKnown(
    "aggregate",
    name,
    rows.map((row) => row.name)
  )
})
/** Fails with `UnknownName` if the database has no projection or no aggregate of a name that is given. */
export const assertKnownNames = Effect.fnUntraced(function* (
  sql: Sql,
  { aggregate, projection }: { readonly projection: string | undefined; readonly aggregate: string | undefined }
) {
  if (projection !== undefined) yield* assertKnownProjection(sql, projection)
  if (aggregate !== undefined) yield* assertKnownAggregate(sql, aggregate)
})
