// What a person sees of changed code and of new versions: the log of a start, the status, and `migrate --accept`.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Application, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { acceptFunctions } from "../../../src/postgres/store/definitions.ts"
import type { Database } from "../../../src/system/database.ts"
import { openObserved, readStatus } from "../../../src/system/observed.ts"
import { openSystem, runProjections } from "../../../src/system/system.ts"
import { eventOf } from "../../support/named-applications.ts"
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
type One = Projection.Of<never, never>
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
      `projection p: no process runs version 1, which readers see, so nothing of p is published until the switch. Version 2 catches up to where it stopped. ${next} promote p`
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

test("a handler that does something else under the same text is noticed by the sample of what it recorded, until it is accepted", (database) =>
  Effect.gen(function* () {
    let suffix = ""
    const same = Projection.make({
      name: "p",
      version: 1,
      source: events,
      writes: [ids],
      handle: ({ id }, out) => out.upsert(ids, { id: id + suffix })
    })
    yield* Effect.scoped(
      Effect.gen(function* () {
        const { log } = yield* openSystem(applicationOf(same), database, { relaysHere: false })
        yield* log.append(
          "events",
          ["a", "b"].map((id) => Object.assign(eventOf(id), { partition: 0 }))
        )
      })
    )
    // what was taken is stored as the process stops
    assert.deepStrictEqual((yield* started(database, same)).lines, [])
    const sampleOf = Effect.map(
      query("count", () => database.sql`select cardinality(sample) as n from millrace.projection`),
      ([row]) => row!["n"]
    )
    assert.strictEqual(yield* sampleOf, 2)
    suffix = "!"
    const { lines, status } = yield* started(database, same)
    assert.lengthOf(lines, 1)
    assert.match(
      lines[0]!,
      /^projection p v1: the handler records something else for 2 of 2 sampled events, such as events\/0 position 0, although its text is the same: what it uses changed\. If/
    )
    assert.match(status.notices[0]!.message, /^the handler records something else for 2 of 2/)
    const ids2 = yield* query("rows", () => database.sql`select id from ids order by id`)
    assert.deepStrictEqual(
      ids2.map((row) => row["id"]),
      ["a", "b"]
    )
    suffix = ""
    assert.deepStrictEqual((yield* started(database, same)).status.notices, [])
    suffix = "!"
    yield* started(database, same)
    assert.match((yield* acceptFunctions(database.sql, same))[0]!, /^the handler records something else/)
    assert.isNull(yield* sampleOf)
    assert.deepStrictEqual((yield* started(database, same)).lines, [])
  }))
