// The gate of a projection's views: readers see no error, no mixture and no missing view while builds replace each other, whatever they hold open.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import postgres from "postgres"
import { Projection, ReadModel, Topic } from "../../../../src/index.ts"
import type { Fields } from "../../../../src/model/fields.ts"
import { reader, readerPassword } from "../../../../src/postgres/embedded/roles.ts"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import { holdersText } from "../../../../src/postgres/store/gate-holders.ts"
import {
  closeGate,
  closeGates,
  openGate,
  promotionSession,
  readOpenGates
} from "../../../../src/postgres/store/gate.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import { readViewFacts } from "../../../../src/postgres/store/views.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))
const test = (name: string, body: (sql: Sql, url: string) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(name, () => Effect.scoped(Effect.flatMap(databaseOn(root, 4), ({ sql, url }) => body(sql, url))), 30_000)

const source = Topic.records("s", { value: { id: Schema.String }, key: "id" })
const projectionOf = (version: number, more: Fields = {}) =>
  Projection.make({
    name: "p",
    version,
    source,
    writes: ["t", "u"].map((name) =>
      ReadModel.table(name, { columns: { id: Schema.Int, n: Schema.Int, ...more }, primaryKey: ["id"] })
    ),
    handle: () => {}
  })
const rows = 500
/** Two builds whose tables have the number of the build in every row. */
const prepared = Effect.fnUntraced(function* (sql: Sql, more: Fields = {}) {
  for (const projection of [projectionOf(1), projectionOf(2, more)])
    yield* PostgresStore.make(sql).prepare([projection], () => 1)
  yield* run(sql, "insert into millrace.live (projection, version) values ('p', 1) on conflict do nothing")
  for (const build of [1, 2])
    for (const table of ["t", "u"])
      yield* run(sql, `insert into p_v${build}.${table} (id, n) select i, ${build} from generate_series(1, ${rows}) i`)
})
const run = (sql: Sql, text: string) => query("run", () => sql.unsafe<Array<Record<string, unknown>>>(text))
const soon = (ms = 5000) => performance.now() + ms
/** What the switch changes of what readers see. */
const flip = (sql: Sql, from: number, to: number) =>
  run(
    sql,
    `with flipped as (update millrace.live set version = ${to} where projection = 'p' and version = ${from} returning 1)
    insert into millrace.promotion (token, projection, old, new) select gen_random_uuid(), 'p', ${from}, ${to} from flipped`
  )

/** A session of a reader, which is not Millrace's. */
const readerOf = (url: string) =>
  Effect.acquireRelease(
    Effect.sync(() => postgres(url, { max: 1, fetch_types: false, onnotice: () => {} })),
    (client) => Effect.promise(() => client.end({ timeout: 1 }))
  )
interface Seen {
  reads: number
  readonly faults: Array<string>
}
/** Reads both views again and again in transactions until `isDone`, and notes what is not one whole build. */
const reading = async (client: postgres.Sql, level: string, seen: Seen, isDone: () => boolean) => {
  const read = (view: string) =>
    client.unsafe(`select min(n) as least, max(n) as most, count(*)::int as rows from ${view} where id > $1`, [0], {
      prepare: true
    })
  while (!isDone()) {
    try {
      await client.unsafe(`begin isolation level ${level}`)
      const [first] = await read("t")
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 25))
      const [second] = await read("u")
      await client.unsafe("commit")
      seen.reads++
      for (const one of [first, second]) {
        if (one!["rows"] !== rows) seen.faults.push(`${one!["rows"]} rows`)
        if (one!["least"] !== one!["most"]) seen.faults.push("a mixture of builds in one view")
      }
      if (level === "repeatable read" && first!["least"] !== second!["least"]) seen.faults.push("a mixture of views")
    } catch (error) {
      seen.faults.push(String(error))
      await client.unsafe("rollback").catch(() => {})
    }
  }
}

test("ten switches under readers with open transactions, prepared statements and repeatable read: no error, no mixture, no missing view", (sql, url) =>
  Effect.gen(function* () {
    yield* prepared(sql, { late: Schema.NullOr(Schema.String) })
    const seen: Seen = { reads: 0, faults: [] }
    let isDone = false
    const readers = yield* Effect.forEach(
      ["read committed", "read committed", "repeatable read", "repeatable read"],
      (level) => Effect.map(readerOf(url), (client) => reading(client, level, seen, () => isDone))
    )
    for (let i = 0; i < 10; i++) {
      const [from, to] = i % 2 === 0 ? [1, 2] : [2, 1]
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* promotionSession(sql, "p")
          yield* openGate(sql, "p", { live: from, next: to }, soon())
          yield* flip(sql, from, to)
        })
      )
      assert.deepStrictEqual(yield* closeGate(sql, "p", soon()), { isClosed: true, holders: [] })
      assert.deepStrictEqual(
        (yield* readViewFacts(sql, "p")).views.map(({ builds, isGated }) => [builds, isGated]),
        [
          [[to], false],
          [[to], false]
        ]
      )
    }
    isDone = true
    yield* Effect.promise(() => Promise.all(readers))
    assert.deepStrictEqual([...new Set(seen.faults)], [])
    assert.isAbove(seen.reads, 20)
  }))

test("a repeatable read transaction from before the switch goes on seeing the old build in all views, and the gate stays open until it ends", (sql, url) =>
  Effect.gen(function* () {
    yield* prepared(sql)
    const [old, fresh] = [yield* readerOf(url), yield* readerOf(url)]
    const read = (client: postgres.Sql, view: string) =>
      Effect.promise(async () => Number((await client.unsafe(`select min(n) as n from ${view}`))[0]!["n"]))
    // it has a snapshot, and has not touched the views: nothing but the snapshot keeps it from seeing them replaced
    yield* Effect.promise(() => old.unsafe("begin isolation level repeatable read"))
    yield* Effect.promise(() => old.unsafe("select 1 from pg_class limit 1"))
    yield* openGate(sql, "p", { live: 1, next: 2 }, soon())
    yield* flip(sql, 1, 2)
    const { holders, isClosed } = yield* closeGate(sql, "p", soon(100))
    assert.isFalse(isClosed)
    assert.match(holdersText(holders), /^session \d+ of millrace \(.*\) for \d+ s$/)
    assert.deepStrictEqual([yield* read(old, "t"), yield* read(old, "u")], [1, 1])
    assert.deepStrictEqual([yield* read(fresh, "t"), yield* read(fresh, "u")], [2, 2])
    const [gate] = yield* readOpenGates(sql)
    assert.strictEqual(gate!.projection, "p")
    assert.isNotNull(gate!.holders[0]!.pid)
    assert.deepStrictEqual(yield* closeGates(sql), [])
    yield* Effect.promise(() => old.unsafe("commit"))
    assert.deepStrictEqual(yield* closeGates(sql), ["p"])
    assert.deepStrictEqual(yield* readOpenGates(sql), [])
  }))

test("the gate of the next promotion waits for readers of a build that it would not show", (sql, url) =>
  Effect.gen(function* () {
    yield* prepared(sql)
    yield* PostgresStore.make(sql).prepare([projectionOf(3)], () => 1)
    const old = yield* readerOf(url)
    yield* openGate(sql, "p", { live: 1, next: 2 }, soon())
    yield* Effect.promise(() => old.unsafe("begin isolation level repeatable read"))
    yield* Effect.promise(() => old.unsafe("select 1 from pg_class limit 1"))
    yield* flip(sql, 1, 2)
    const error = yield* Effect.flip(openGate(sql, "p", { live: 2, next: 3 }, soon(100)))
    assert.strictEqual(error._tag, "GateBusy")
    // going back needs no other gate than the one that is open
    yield* openGate(sql, "p", { live: 2, next: 1 }, soon())
    const [row] = yield* Effect.promise(() => old.unsafe("select min(n) as n, count(*)::int as rows from t"))
    assert.deepStrictEqual([Number(row!["n"]), row!["rows"]], [1, rows])
    yield* Effect.promise(() => old.unsafe("commit"))
    yield* openGate(sql, "p", { live: 2, next: 3 }, soon())
  }))

test("the gate is not opened while a reader holds a view in an open transaction, and other readers wait only a moment for the tries", (sql, url) =>
  Effect.gen(function* () {
    yield* prepared(sql)
    const [holding, other] = [yield* readerOf(url), yield* readerOf(url)]
    yield* Effect.promise(() => holding.unsafe("begin"))
    yield* Effect.promise(() => holding.unsafe("select 1 from u limit 1"))
    const state = { longest: 0, isDone: false }
    const reads = (async () => {
      while (!state.isDone) {
        const begun = performance.now()
        await other.unsafe("select 1 from t limit 1")
        state.longest = Math.max(state.longest, performance.now() - begun)
      }
    })()
    const error = yield* Effect.flip(openGate(sql, "p", { live: 1, next: 2 }, soon(400)))
    state.isDone = true
    yield* Effect.promise(() => reads)
    assert.strictEqual(error._tag, "GateBusy")
    assert.match(error.message, /^the views of projection p are in use by session \d+ of millrace/)
    assert.isBelow(state.longest, 300)
    assert.isFalse((yield* readViewFacts(sql, "p")).views[0]!.isGated)
    yield* Effect.promise(() => holding.unsafe("commit"))
    yield* openGate(sql, "p", { live: 1, next: 2 }, soon())
  }))

test("a gate is not closed while its promoter lives, and one that a promoter left before the switch is undone", (sql) =>
  Effect.gen(function* () {
    yield* prepared(sql)
    const promoter = yield* Scope.make()
    yield* Scope.provide(promotionSession(sql, "p"), promoter)
    const refused = yield* Effect.flip(Effect.scoped(promotionSession(sql, "p")))
    assert.match(refused.message, /^another process promotes projection p \(PostgreSQL's session \d+\)$/)
    yield* openGate(sql, "p", { live: 1, next: 2 }, soon())
    assert.deepStrictEqual(yield* closeGates(sql), [])
    assert.isTrue((yield* readViewFacts(sql, "p")).views[0]!.isGated)
    yield* Scope.close(promoter, Exit.void)
    assert.deepStrictEqual(yield* closeGates(sql), ["p"])
    const { views } = yield* readViewFacts(sql, "p")
    assert.deepStrictEqual([views[0]!.isGated, views[0]!.builds], [false, [1]])
  }))

test("a transaction of another role keeps the gate open, too, although its beginning may not be seen", (sql, url) =>
  Effect.gen(function* () {
    yield* prepared(sql)
    const own = new URL(url)
    own.username = reader
    own.password = readerPassword(decodeURIComponent(own.password))
    yield* run(sql, `grant select on t to ${reader}`)
    const client = yield* readerOf(own.href)
    yield* openGate(sql, "p", { live: 1, next: 2 }, soon())
    yield* Effect.promise(() => client.unsafe("begin isolation level repeatable read"))
    yield* Effect.promise(() => client.unsafe("select 1 from t limit 1"))
    yield* flip(sql, 1, 2)
    const { holders } = yield* closeGate(sql, "p", soon(50))
    assert.match(holdersText(holders), /^session \d+ of millrace_reader \(postgres\.js\)$/)
    yield* Effect.promise(() => client.unsafe("commit"))
    assert.isTrue((yield* closeGate(sql, "p", soon())).isClosed)
  }))
