// Corrected lookup values, applied by a build that sees today's: what changes, what later rebuilds see, and what is refused.
import { randomUUID } from "node:crypto"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Application, Projection } from "../../../src/index.ts"
import { flip, freeze } from "../../../src/postgres/store/promotion.ts"
import { drained } from "../../support/drained.ts"
import { beginRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { planRebuild } from "../../../src/system/rebuild-plan.ts"
import { diff } from "../../../src/system/diff.ts"
import { openSystem, runBuild } from "../../../src/system/system.ts"
import { caughtUp, event, person, projectionOf, seen, userIn } from "../../support/lookups.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const noLimits = { rate: undefined, maxLiveLagMs: undefined }
const noReport = { report: () => Effect.void, onRetry: () => Effect.void }

it.live("a corrected value reaches earlier events by millrace reenrich alone, and later rebuilds repeat it", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const projection = projectionOf() as Projection.Of<never, never>
      const application = Application.make({ name: "shop", projections: [Projection.async(projection)] })
      const database = { ...(yield* databaseOn(url, 8)), embedded: false, failed: Effect.never }
      const system = yield* openSystem(application as never, database)
      const { log } = system
      const { sql } = database
      const user = userIn(0)
      const processed = (build: Projection.Any) =>
        Effect.scoped(
          Effect.andThen(Effect.forkScoped(runBuild(system, build)), caughtUp({ log, sql } as never, build))
        )
      const own = (number: number) => Effect.map(seen({ sql } as never, number), (rows) => rows.map((row) => row.own))
      yield* log.append("people", [person(user, 1)])
      yield* log.append("source", [event("a", user)])
      yield* processed(projection)
      yield* log.append("people", [person(user, 2)])
      const build = yield* beginRebuild(system, "p", noLimits)
      yield* rebuild(system, build, noReport)
      assert.deepStrictEqual(yield* own(2), [1])
      const refused = yield* Effect.flip(planRebuild({ ...system, sql }, "p", undefined, { lookups: "today" }))
      assert.include(
        refused.message,
        "build 2 of projection p, which is there to be promoted, sees what the live build saw"
      )
      yield* Effect.promise(() => sql`update millrace.projection set retired_at = now() where version = 2`)
      const plan = yield* planRebuild({ ...system, sql }, "p", undefined, { lookups: "today" })
      assert.deepInclude(plan, {
        build: 3,
        not_reproduced: ["all events see today's values of lookups, also those that were appended after them"]
      })
      const corrected = yield* beginRebuild(system, "p", noLimits, { lookups: "today" })
      yield* rebuild(system, corrected, noReport)
      assert.deepStrictEqual(yield* own(3), [2])
      const context = { application: application as never, sql, log, on: "PostgreSQL" as const }
      const { lookups, tables } = yield* diff(context, { name: "p", samples: 0, exact: false, timeoutMs: 20_000 })
      assert.deepStrictEqual(
        [lookups, tables.map(({ changed }) => changed)],
        [["all events see today's values of lookups, also those that were appended after them"], [1]]
      )
      const token = randomUUID()
      const switching = { projection: "p", live: 1, follower: 3, token }
      yield* freeze(sql, switching, 5_000)
      assert.isTrue((yield* drained(sql, switching)).isDrained)
      yield* flip(sql, switching)
      yield* log.append("people", [person(user, 3)])
      yield* log.append("source", [event("b", user)])
      yield* processed(corrected)
      yield* log.append("people", [person(user, 4)])
      const later = yield* beginRebuild(system, "p", noLimits)
      yield* rebuild(system, later, noReport)
      assert.deepStrictEqual(
        [yield* own(3), yield* own(4)],
        [
          [2, 3],
          [2, 3]
        ]
      )
    })
  )
)
