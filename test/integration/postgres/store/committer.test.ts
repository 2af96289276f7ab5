// Commits of several partitions in one statement: each succeeds or fails by itself, and writes what it would write alone.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import type { Changes, Claim, Store } from "../../../../src/runner/store.ts"
import {
  application,
  assertCaught,
  assertOutbox,
  batchOf,
  counted,
  counting,
  events,
  failureOf
} from "../../../fault/commits.ts"
import { watched } from "../../../fault/mutants.ts"
import { engine } from "../../../support/engine.ts"
import { server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const one = counting()
const partitions = [0, 1, 2, 3]
const claims = (store: Store["Service"]) =>
  Effect.forEach(partitions, (partition) => store.claim(one, events.name, partition, 1))
/** A pool that records how many fences each commit statement has, and can rewrite it. */
const spied = (sql: Sql, fences: Array<number>, rewrite: (text: string) => string = (text) => text) =>
  watched(sql, {
    statement: (text) => {
      if (!text.includes("update millrace.progress")) return text
      fences.push(text.includes("held as materialized") ? 2 : 1)
      return rewrite(text)
    }
  })
/** Commits all partitions at once; the first two are sent alone, because nothing is under way. */
const together = (store: Store["Service"], held: ReadonlyArray<Claim>, changesOf: (claim: Claim) => Changes) =>
  Effect.forEach(held, (claim) => Effect.exit(store.commit(one, claim, changesOf(claim))), { concurrency: "unbounded" })
const ownKeys = (claim: Claim) => batchOf(claim, [`a${claim.partition}`, `b${claim.partition}`])

it.live("small commits that wait share a statement, and write what each would write alone", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql } = yield* engine(root, application)
      const fences: Array<number> = []
      const store = PostgresStore.make(spied(sql, fences))
      let held: ReadonlyArray<Claim> = yield* claims(store)
      for (let round = 0; round < 5; round++) {
        const exits = yield* together(store, held, ownKeys)
        held = exits.map((exit) => (Exit.isSuccess(exit) ? exit.value : assert.fail("a commit failed")))
      }
      assert.isTrue(fences.includes(2), "no statement had several commits")
      assert.deepStrictEqual(
        yield* counted(sql),
        Object.fromEntries(
          partitions
            .flatMap((p) => [`a${p}`, `b${p}`])
            .toSorted()
            .map((key) => [key, 5])
        )
      )
      yield* assertOutbox(sql, 4 * 5 * 4)
      // each published line of a window belongs to the row that its metadata names, and to its own partition
      const published = yield* query(
        "read what windows published",
        () => sql<Array<{ partition: number; meta: string; vals: string }>>`
        select partition, meta, vals from millrace.outbox where target = 'c.sums' order by partition, first_seq`
      )
      for (const { meta, partition, vals } of published) {
        const keys = (JSON.parse(meta) as ReadonlyArray<ReadonlyArray<unknown>>).map(([key]) => key)
        const lines = vals.split("\n").map((line) => (JSON.parse(line) as { readonly key: string }).key)
        assert.deepStrictEqual(lines, keys)
        assert.deepStrictEqual(keys, [`a${partition}`, `b${partition}`])
      }
      const [late] = yield* query(
        "count",
        () => sql`select count(*) as n, count(distinct partition) as partitions from millrace.late_events`
      )
      assert.deepStrictEqual({ ...late }, { n: 20, partitions: 4 })
    })
  )
)

const oneFenced = (rewrite?: (text: string) => string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql } = yield* engine(root, application)
      const store = PostgresStore.make(spied(sql, [], rewrite))
      const held = yield* claims(store)
      // another claimant has taken partition 2 in the meantime
      yield* PostgresStore.make(sql).claim(one, events.name, 2, 1)
      const exits = yield* together(
        store,
        [3, 1, 2, 0].map((partition) => held[partition]!),
        ownKeys
      )
      assert.deepStrictEqual(exits.map(failureOf), ["none", "none", "Fenced", "none"])
      assert.deepStrictEqual(Object.keys(yield* counted(sql)), ["a0", "a1", "a3", "b0", "b1", "b3"])
      yield* assertOutbox(sql, 3 * 4)
    })
  )
it.live("a fenced commit writes nothing, and does not affect the others", () => oneFenced())
const mutants: ReadonlyArray<readonly [string, (text: string) => string]> = [
  [
    "rows are written if any fence of the statement holds",
    (text) =>
      text.replaceAll(
        /fence join (\w+) r on r\._part = fence\.part/g,
        "(select from fence limit 1) f join $1 r on true"
      )
  ],
  [
    "fences do not compare claims",
    (text) => text.replaceAll("p.incarnation = c.incarnation and p.commit_no = c.commit_no", "true")
  ]
]
for (const [name, rewrite] of mutants) {
  it.live(`caught: ${name}`, () => Effect.map(Effect.exit(oneFenced(rewrite)), assertCaught))
}

it.live("a commit that PostgreSQL refuses fails alone", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql } = yield* engine(root, application)
      const store = PostgresStore.make(sql)
      const held = yield* claims(store)
      const exits = yield* together(store, held.toReversed(), (claim) => {
        const changes = ownKeys(claim)
        const [change] = changes.tables
        const at = 1e17 // no instant that PostgreSQL has
        return claim.partition === 0
          ? { ...changes, tables: [{ ...change!, upserts: [{ key: "a0", n: 1, at }] }] }
          : changes
      })
      assert.deepStrictEqual(exits.map(failureOf), ["none", "none", "none", "Unstorable"])
      assert.deepStrictEqual(Object.keys(yield* counted(sql)), ["a1", "a2", "a3", "b1", "b2", "b3"])
    })
  )
)

it.live("commits that write a row in common do not share a statement", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql } = yield* engine(root, application)
      const store = PostgresStore.make(sql)
      let held: ReadonlyArray<Claim> = yield* claims(store)
      for (let round = 0; round < 10; round++) {
        const exits = yield* together(store, held, (claim) => batchOf(claim, ["same", `own${claim.partition}`]))
        held = exits.map((exit) => (Exit.isSuccess(exit) ? exit.value : assert.fail("a commit failed")))
      }
      const found = yield* counted(sql)
      assert.strictEqual(found["same"], 40)
      yield* assertOutbox(sql, 10 * 4 * 4)
    })
  )
)
