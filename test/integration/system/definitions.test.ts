// What a person sees of changed code and of new versions: the log of a start, the status, and `migrate --accept`.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Application, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { acceptFunctions } from "../../../src/postgres/store/definitions.ts"
import type { Database } from "../../../src/system/database.ts"
import { openObserved, readStatus } from "../../../src/system/observed.ts"
import { openSystem, runProjections } from "../../../src/system/system.ts"
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

const events = Topic.records("events", { value: { id: Schema.String }, key: "id" })
const ids = ReadModel.table("ids", { columns: { id: Schema.String }, primaryKey: ["id"] })
const projectionOf = (version: number, handle: () => void = () => {}) =>
  Projection.make({ name: "p", version, source: events, writes: [ids], handle })
type One = ReturnType<typeof projectionOf>
const applicationOf = (...projections: ReadonlyArray<One>) =>
  Application.make({ name: "shop", projections: projections.map((one) => Projection.async(one)) })
const statusOf = (database: Database) => Effect.scoped(Effect.flatMap(openObserved(database), (one) => readStatus(one)))
/** Starts an application, runs it for a moment, and returns what it logged and the status meanwhile. */
const started = (database: Database, ...projections: ReadonlyArray<One>) =>
  Effect.suspend(() => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => void lines.push([message].flat().join(" ")))
    return Effect.scoped(
      Effect.gen(function* () {
        const system = yield* openSystem(applicationOf(...projections), database, { relaysHere: false })
        yield* Effect.forkScoped(runProjections(system))
        yield* Effect.sleep("300 millis")
        return { lines, status: yield* statusOf(database) }
      })
    ).pipe(Effect.provide(Logger.layer([logger])))
  })

test("a start says how a new version is deployed and what to do next, and so does the status", (database) =>
  Effect.gen(function* () {
    const first = yield* started(database, projectionOf(1))
    assert.deepStrictEqual(first.lines, [])
    assert.deepStrictEqual(first.status.notices, [])
    const inPlace = yield* started(database, projectionOf(2))
    const next = "Next: when it has caught up, millrace"
    assert.deepStrictEqual(inPlace.lines, [
      `projection p: no process runs version 1, which readers see, so nothing of p is published until the switch. version 2 catches up to where it stopped. ${next} promote p`
    ])
    assert.deepStrictEqual(
      inPlace.status.notices.map(({ kind, try: advice }) => [kind, advice]),
      [["building", "millrace promote p"]]
    )
    const together = yield* started(database, projectionOf(1), projectionOf(2))
    assert.deepStrictEqual(together.lines, [
      `projection p: version 2 follows version 1, which readers see and this process runs, too. ${next} diff p, then millrace promote p, then remove version 1 from the configuration`
    ])
    assert.match(together.status.notices[0]!.message, /^version 2 follows version 1, .* runs; it has caught up$/)
  }))

test("a changed handler is logged at each start and in the status until it is accepted", (database) =>
  Effect.gen(function* () {
    yield* started(database, projectionOf(1))
    const changed = projectionOf(1, () => void 1)
    for (let n = 0; n < 2; n++) {
      const { lines, status } = yield* started(database, changed)
      assert.lengthOf(lines, 1)
      assert.match(
        lines[0]!,
        /^projection p v1: the handler changed since it was accepted\. If the results stay the same: millrace migrate --accept p; if not/
      )
      assert.deepStrictEqual(
        status.notices.map(({ kind }) => kind),
        ["changed"]
      )
      assert.isTrue(status.healthy)
    }
    assert.deepStrictEqual(yield* acceptFunctions(database.sql, changed), ["the handler changed"])
    const { lines, status } = yield* started(database, changed)
    assert.deepStrictEqual([lines, status.notices], [[], []])
  }))
