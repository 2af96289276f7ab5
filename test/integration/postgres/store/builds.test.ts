// Builds of projections: which number they get, which of them run, what a promotion changes, and when it is refused.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Projection, ReadModel, Topic } from "../../../../src/index.ts"
import { buildOf, declarationOf } from "../../../../src/model/build.ts"
import { query, type Sql, transaction } from "../../../../src/postgres/client/client.ts"
import { candidateOf, createBuild, readBuilds, readPrevious } from "../../../../src/postgres/store/builds.ts"
import { flip, freeze, thaw } from "../../../../src/postgres/store/promotion.ts"
import { drained } from "../../../support/drained.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const source = Topic.records("s", { value: { user: Schema.String }, key: "user" })
const table = ReadModel.table("t", { columns: { user: Schema.String }, primaryKey: ["user"] })
const projectionOf = (version = 1) => Projection.make({ name: "p", version, source, writes: [table], handle: () => {} })
const sources = (partitions: number, start = 0) => ({ partitionsOf: () => partitions, startOf: () => start })
const prepare = (sql: Sql, partitions: number, ...projections: ReadonlyArray<Projection.Any>) =>
  PostgresStore.make(sql).prepare(projections, () => partitions)
const rebuilt = (sql: Sql, projection: Projection.Any, partitions = 2) =>
  transaction(sql, (tx) => createBuild(tx, projection, sources(partitions)))
const numbers = (builds: ReadonlyArray<Projection.Any>) => builds.map(({ version }) => version)
const progress = (sql: Sql) =>
  query("progress", async () =>
    (
      await sql<Array<{ line: string }>>`
        select concat_ws(' ', version, partition, mode, next_position, outbox_seq, muted) as line from millrace.progress order by version, partition`
    ).map(({ line }) => line)
  )
const test = (name: string, body: (sql: Sql) => Effect.Effect<void, unknown>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(databaseOn(root, 4), ({ sql }) => body(sql))))

describe("the object of a build", () => {
  it("is one for each number, and the declaration for its own", () => {
    const one = projectionOf(1)
    assert.strictEqual(buildOf(one, 1), one)
    const build = buildOf(one, 3)
    assert.strictEqual(build.version, 3)
    assert.strictEqual(buildOf(one, 3), build)
    assert.strictEqual(buildOf(build, 3), build)
    assert.strictEqual(buildOf(build, 1), one)
    assert.strictEqual(declarationOf(build), one)
    assert.notStrictEqual(buildOf(projectionOf(1), 3), build)
  })
})

describe("builds", () => {
  test(
    "are numbered on, whatever the declared versions are, and all that are not retired run",
    Effect.fnUntraced(function* (sql) {
      const [one, two] = [projectionOf(1), projectionOf(2)]
      assert.deepStrictEqual(yield* prepare(sql, 2, one), [one])
      assert.strictEqual(yield* rebuilt(sql, one), buildOf(one, 2))
      assert.deepStrictEqual(yield* prepare(sql, 2, one), [one, buildOf(one, 2)])
      assert.deepStrictEqual(numbers(yield* prepare(sql, 2, two)), [3])
      assert.strictEqual((yield* rebuilt(sql, buildOf(one, 2))).version, 4)
      const stored = yield* readBuilds(sql, "p")
      assert.deepStrictEqual(
        stored.map(({ declared, live, number }) => [number, declared, live]),
        [
          [1, 1, true],
          [2, 1, false],
          [3, 2, false],
          [4, 1, false]
        ]
      )
      assert.strictEqual(candidateOf(stored)?.number, 4)
      yield* query("retire", () => sql`update millrace.projection set retired_at = now() where version in (2, 4)`)
      assert.strictEqual(candidateOf(yield* readBuilds(sql, "p"))?.number, 3)
      assert.deepStrictEqual(numbers(yield* prepare(sql, 2, two, one)), [1, 3])
      // a retired number is not given again
      assert.strictEqual((yield* rebuilt(sql, two)).version, 5)
    })
  )

  test(
    "of a version that was retired are refused while another build is live",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, 1, projectionOf(1))
      yield* prepare(sql, 1, projectionOf(2))
      yield* query("retire", () => sql`update millrace.projection set retired_at = now() where version = 2`)
      const refused = yield* Effect.flip(prepare(sql, 1, projectionOf(2)))
      assert.strictEqual(
        refused.message,
        "projection p: version 2 was retired, and build 1 of version 1 is live; if this is old code, deploy version 1; if it was changed, give it version 3"
      )
      assert.deepStrictEqual(yield* progress(sql), ["1 0 live 0 0 0", "2 0 follower 0 0 0"])
    })
  )

  test(
    "all get a position for a new partition, whichever of them a process runs",
    Effect.fnUntraced(function* (sql) {
      yield* prepare(sql, 1, projectionOf(1))
      yield* prepare(sql, 1, projectionOf(2))
      yield* prepare(sql, 2, projectionOf(2))
      assert.deepStrictEqual(yield* progress(sql), [
        "1 0 live 0 0 0",
        "1 1 live 0 0 0",
        "2 0 follower 0 0 0",
        "2 1 follower 0 0 0"
      ])
    })
  )
})

/** Two builds of two partitions, the live one at these positions, and the follower. */
const twoBuilds = Effect.fnUntraced(function* (sql: Sql) {
  const one = projectionOf()
  yield* prepare(sql, 2, one)
  yield* rebuilt(sql, one)
  yield* moveTo(sql, 1, 10)
  yield* query("publish", () => sql`update millrace.progress set outbox_seq = 7 where version = 1`)
  yield* query("claim", () => sql`update millrace.progress set incarnation = gen_random_uuid()`)
  return { projection: "p", live: 1, follower: 2, token: randomUUID() }
})
const moveTo = (sql: Sql, version: number, position: number) =>
  query("move", () => sql`update millrace.progress set next_position = ${position} where version = ${version}`)
const incarnations = (sql: Sql, version: number) =>
  query(
    "incarnations",
    () =>
      sql<
        Array<{ incarnation: string }>
      >`select incarnation from millrace.progress where version = ${version} order by partition`
  )

describe("a promotion", () => {
  test(
    "freezes, waits for equal positions, and switches once, with the stream's sequence and a new incarnation for the old build",
    Effect.fnUntraced(function* (sql) {
      const promotion = yield* twoBuilds(sql)
      assert.deepStrictEqual(yield* freeze(sql, promotion, 60_000), [
        { topic: "s", partition: 0, position: 10 },
        { topic: "s", partition: 1, position: 10 }
      ])
      assert.deepStrictEqual(yield* drained(sql, promotion), { isDrained: false, behind: 20, halted: null })
      const [old, followers] = [yield* incarnations(sql, 1), yield* incarnations(sql, 2)]
      yield* moveTo(sql, 2, 10)
      assert.isTrue((yield* drained(sql, promotion)).isDrained)
      assert.strictEqual(yield* flip(sql, promotion), "now")
      assert.strictEqual(yield* flip(sql, promotion), "before")
      assert.deepStrictEqual(yield* progress(sql), [
        "1 0 follower 10 7 0",
        "1 1 follower 10 7 0",
        "2 0 live 10 7 0",
        "2 1 live 10 7 0"
      ])
      assert.deepStrictEqual(yield* incarnations(sql, 2), followers)
      for (const [i, { incarnation }] of (yield* incarnations(sql, 1)).entries())
        assert.notStrictEqual(incarnation, old[i]!.incarnation)
      assert.strictEqual(yield* readPrevious(sql, "p"), 1)
      assert.deepStrictEqual(
        (yield* readBuilds(sql, "p")).map(({ live }) => live),
        [false, true]
      )
      // back again is the same
      const back = { projection: "p", live: 2, follower: 1, token: randomUUID() }
      yield* freeze(sql, back, 60_000)
      assert.strictEqual(yield* flip(sql, back), "now")
      assert.strictEqual(yield* readPrevious(sql, "p"), 2)
    })
  )

  test(
    "is refused and changes nothing if the follower is elsewhere, halted or lacks a partition, or the freeze is over or of another promotion",
    Effect.fnUntraced(function* (sql) {
      const promotion = yield* twoBuilds(sql)
      const reason = Effect.map(Effect.flip(flip(sql, promotion)), (error) => `${error._tag} ${error.message}`)
      yield* moveTo(sql, 2, 7)
      yield* freeze(sql, promotion, 60_000)
      assert.strictEqual(yield* reason, "FlipRefused projection p: s/0 is at 7 of 10; s/1 is at 7 of 10")
      yield* moveTo(sql, 2, 11)
      assert.include(yield* reason, "s/0 is at 11 of 10")
      yield* moveTo(sql, 2, 10)
      yield* query("halt", () => sql`update millrace.progress set halted = 'why' where version = 2 and partition = 1`)
      assert.strictEqual(yield* reason, "FlipRefused projection p: s/1 is halted in build 2")
      assert.strictEqual((yield* drained(sql, promotion)).halted, "why")
      yield* query("continue", () => sql`update millrace.progress set halted = null`)
      // a new partition appears during a promotion
      yield* prepare(sql, 3, projectionOf())
      assert.strictEqual(yield* reason, "FlipRefused projection p: s/2 is not frozen by this promotion")
      yield* query("lack", () => sql`delete from millrace.progress where partition = 2 and version = 1`)
      assert.strictEqual(yield* reason, "FlipRefused projection p: s/2 has no position in build 1")
      assert.isFalse((yield* drained(sql, promotion)).isDrained)
      yield* query("lack", () => sql`delete from millrace.progress where partition = 2`)
      const other = { ...promotion, token: randomUUID() }
      assert.include(String(yield* Effect.flip(flip(sql, other))), "is not frozen by this promotion")
      assert.isUndefined(yield* freeze(sql, other, 1_000))
      yield* query(
        "wait",
        () => sql`update millrace.progress set frozen_until = now() - interval '1 ms' where version = 1`
      )
      assert.include(yield* reason, "was frozen for too short a time")
      const before = ["1 0 frozen 10 7 0", "1 1 frozen 10 7 0", "2 0 follower 10 0 0", "2 1 follower 10 0 0"]
      assert.deepStrictEqual(yield* progress(sql), before)
      assert.isUndefined(yield* readPrevious(sql, "p"))
      // a freeze that is over is no hindrance for another promotion
      assert.lengthOf((yield* freeze(sql, other, 60_000)) ?? [], 2)
      assert.strictEqual(yield* flip(sql, other), "now")
    })
  )

  test(
    "leaves a build that it froze as it was after a thaw, and freezes only the live build, all of it or nothing",
    Effect.fnUntraced(function* (sql) {
      const promotion = yield* twoBuilds(sql)
      const before = yield* progress(sql)
      assert.isUndefined(yield* freeze(sql, { ...promotion, live: 2 }, 60_000))
      assert.isUndefined(yield* freeze(sql, { ...promotion, projection: "other" }, 60_000))
      yield* freeze(sql, promotion, 60_000)
      assert.strictEqual(yield* thaw(sql, { ...promotion, token: randomUUID() }), 0)
      assert.strictEqual(yield* thaw(sql, promotion), 2)
      assert.deepStrictEqual(yield* progress(sql), before)
      yield* query(
        "retire",
        () => sql`update millrace.progress set mode = 'frozen' where version = 1 and partition = 1`
      )
      assert.isUndefined(yield* freeze(sql, promotion, 60_000))
      assert.include(yield* progress(sql), "1 0 live 10 7 0")
    })
  )
})
