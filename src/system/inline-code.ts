// Notices that the database has an inline projection whose code this process does not have: it then cannot take commands of the aggregate.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { InlineMissing } from "../aggregate/errors.ts"
import { aggregatesOf, type Application } from "../model/application.ts"
import { declaredVersion } from "../model/build.ts"
import { commandsSubject, type OngoingFailures } from "../monitor/ongoing-failures.ts"
import type { Sql } from "../postgres/client/client.ts"
import { type InlineBuild, readInlineBuilds } from "../postgres/store/lifecycles.ts"

/** How often the database is asked, in milliseconds. */
const everyMs = 5_000

/** The first inline projection of each aggregate that an application does not declare. Pure: no I/O. */
export const missingInline = (
  application: Pick<Application.Any, "projections">,
  aggregates: ReadonlyArray<string>,
  builds: ReadonlyArray<InlineBuild>
): ReadonlyArray<InlineMissing> =>
  aggregates.flatMap((aggregate) => {
    const missing = builds.find(
      (build) => build.aggregate === aggregate && declaredVersion(application, build.name, build.declared) === undefined
    )
    return missing === undefined
      ? []
      : [new InlineMissing({ aggregate, projection: missing.name, version: missing.declared })]
  })

/**
 * Reports, every few seconds until the scope closes, the aggregates whose commands this process has to refuse: its readiness and the status say so
 * before a client meets it. The first answer is there when this returns.
 */
export const watchInlineCode = Effect.fnUntraced(function* (
  application: Application.Any,
  sql: Sql,
  failures: OngoingFailures
): Effect.fn.Return<void, never, Scope.Scope> {
  const aggregates = aggregatesOf(application).map(({ name }) => name)
  if (aggregates.length === 0) return
  // a database that does not answer is a failure of its own
  const look = Effect.ignore(
    Effect.map(readInlineBuilds(sql), (builds) => {
      const missing = missingInline(application, aggregates, builds)
      for (const aggregate of aggregates) {
        const error = missing.find((one) => one.aggregate === aggregate)
        if (error === undefined) failures.clear(commandsSubject(aggregate))
        else failures.report(commandsSubject(aggregate), error.message, everyMs)
      }
    })
  )
  yield* look
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(everyMs), look)))
})
