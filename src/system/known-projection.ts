// Looks for a projection or an aggregate by the name that a person gave.
import * as Effect from "effect/Effect"
import { query, type Sql } from "../postgres/client/client.ts"
import { projectionNames } from "../postgres/store/identity.ts"
import { adviceFor } from "../text/similar-names.ts"
import { UnknownName } from "./errors.ts"

/** Fails with `UnknownName` if the database has no projection of this name. */
export const assertKnownProjection = Effect.fnUntraced(function* (sql: Sql, name: string) {
  const known = yield* projectionNames(sql)
  if (known.includes(name)) return
  const advice = adviceFor(name, known)
  const message = `this database has no projection called '${name}'`
  return yield* new UnknownName({ message, ...(advice !== undefined && { try: advice }) })
})

/** Fails with `UnknownName` if the database has no aggregate of this name. */
export const assertKnownAggregate = Effect.fnUntraced(function* (sql: Sql, name: string) {
  const rows = yield* query(
    "read the aggregates",
    () => sql<Array<{ readonly name: string }>>`select name from millrace.log_topic where aggregate order by name`
  )
  if (rows.some((row) => row.name === name)) return
  const advice = adviceFor(
    name,
    rows.map((row) => row.name)
  )
  const message = `this database has no aggregate called '${name}'`
  return yield* new UnknownName({ message, ...(advice !== undefined && { try: advice }) })
})
/** Fails with `UnknownName` if the database has no projection or no aggregate of a name that is given. */
export const assertKnownNames = Effect.fnUntraced(function* (
  sql: Sql,
  { aggregate, projection }: { readonly projection: string | undefined; readonly aggregate: string | undefined }
) {
  if (projection !== undefined) yield* assertKnownProjection(sql, projection)
  if (aggregate !== undefined) yield* assertKnownAggregate(sql, aggregate)
})
