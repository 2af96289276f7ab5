// Looks for a projection by the name that a person gave.
import * as Effect from "effect/Effect"
import type { Sql } from "../postgres/client/client.ts"
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
