// The chains of an application as its database has them: which build of each projection publishes.
import * as Effect from "effect/Effect"
import type { Application } from "../model/application.ts"
import { type Chains, chainsOf } from "../model/chains.ts"
import type { Projection } from "../model/projection.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import { readKnownBuilds } from "../postgres/store/builds.ts"

/** The chains of an application's projections, by the builds that are live now. */
export const readChains = (
  { projections }: Pick<Application.Any, "projections">,
  sql: Sql
): Effect.Effect<Chains, SqlError> =>
  Effect.map(readKnownBuilds(sql), (known) =>
    chainsOf(
      projections.map(({ projection }) => projection as Projection.Any),
      known
    )
  )

/** What of the chains a running build depends on, as a text: if it changes, the build must be started again. */
export const chainsAround = ({ feeds }: Chains, { name, sources }: Projection.Any): string =>
  JSON.stringify(
    [...feeds].filter(
      ([topic, of]) =>
        sources.some((source) => source.name === topic) || of.some(({ projection }) => projection === name)
    )
  )
