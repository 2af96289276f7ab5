// What a process does that runs a build which is retired or cancelled, until it notices that: it logs no error.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as Scope from "effect/Scope"
import { query } from "../../../src/postgres/client/client.ts"
import type { Database } from "../../../src/system/database.ts"
import { openSystem, runBuild } from "../../../src/system/system.ts"
import { applicationOf, eventOf } from "../../support/named-applications.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const test = (title: string, body: (database: Database) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(
    title,
    () =>
      Effect.scoped(
        Effect.flatMap(databaseOn(url, 6), (own) => body({ ...own, embedded: false, failed: Effect.never }))
      ),
    60_000
  )
const application = applicationOf("shop", "orders", { writesTopic: false })

test("a process that runs a build whose tables are dropped logs no error, and one whose table is missing halts", (database) =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${[message].flat().join(" ")}`))
    const system = yield* openSystem(application, database)
    yield* Effect.forkScoped(Effect.provide(runBuild(system, system.builds[0]!), Logger.layer([logger])))
    const sum = (column: string) =>
      Effect.map(
        query("progress", () => database.sql.unsafe(`select sum(${column})::int8 as n from millrace.progress`)),
        ([row]) => Number(row!["n"])
      )
    const append = (id: string) => system.log.append("orders.events", [eventOf(id)])
    yield* append("a")
    while ((yield* sum("events")) < 1) yield* Effect.sleep("20 millis")
    const before = yield* sum("epoch")
    const retired = (when: string) =>
      query("retire", () => database.sql.unsafe(`update millrace.projection set retired_at = ${when}`))
    yield* retired("now()")
    yield* query("drop", () => database.sql.unsafe("drop table orders_v1.orders_ids cascade"))
    yield* append("b")
    while ((yield* sum("epoch")) < before + 2) yield* Effect.sleep("20 millis")
    assert.deepStrictEqual(
      lines.filter((line) => !line.startsWith("Info")),
      []
    )
    // nobody retired it: somebody has to look at it
    yield* retired("null")
    while (!lines.some((line) => /^Error .* is halted: .*orders_ids.* does not exist/.test(line)))
      yield* Effect.sleep("20 millis")
  }))
