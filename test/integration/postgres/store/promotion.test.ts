// What commits of the live build and of followers may do around a promotion, each protection removed once.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Agg, Application, Projection, ReadModel, Topic, Window } from "../../../../src/index.ts"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import { flip, freeze, type Promotion, thaw } from "../../../../src/postgres/store/promotion.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import type { Changes, Claim, Store } from "../../../../src/runner/store.ts"
import {
  application,
  assertCaught,
  assertOutbox,
  batchOf,
  counting,
  events,
  failureOf
} from "../../../fault/commits.ts"
import { watched } from "../../../fault/mutants.ts"
import * as Without from "../../../fault/promotions.ts"
import { engine } from "../../../support/engine.ts"
import { server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const [one, two] = [counting(1), counting(2)]
interface Builds {
  readonly sql: Sql
  readonly store: Store["Service"]
  readonly promotion: Promotion
  /** The claims of partition 0. */
  readonly live: Claim
  readonly follower: Claim
}
/** Two builds whose partition 0 is claimed. */
const twoBuilds = Effect.fnUntraced(function* (removed: ReadonlyArray<Without.RemovedProtection> = []) {
  const { sql } = yield* engine(root, application)
  yield* Without.removeFrom(sql, removed)
  const store = PostgresStore.make(Without.commitsWithout(sql, removed))
  yield* store.prepare([two], () => 4)
  const live = yield* store.claim(one, events.name, 0, 1)
  const follower = yield* store.claim(two, events.name, 0, 1)
  const promotion = { projection: "counting", live: 1, follower: 2, token: randomUUID() }
  return { sql, store, promotion, live, follower } satisfies Builds
})
const tagOf = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.exit(effect), failureOf)
/** A commit that must not wait for long, as for the end of a freeze. */
const atOnce = <A, E extends { readonly _tag: string }>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.timeoutOption(Effect.exit(effect), "3 seconds"), (exit) =>
    exit._tag === "None" ? "waits" : failureOf(exit.value)
  )
const rowsOf = (sql: Sql, table: string) =>
  query("rows", async () =>
    (await sql.unsafe(`select key from ${table} order by key`)).map((row) => String(row["key"]))
  )

/** The same check with each of its protections removed fails by an assertion. */
const check = (
  title: string,
  body: (removed: ReadonlyArray<Without.RemovedProtection>) => Effect.Effect<void, unknown, Scope.Scope>,
  ...mutants: ReadonlyArray<ReadonlyArray<Without.RemovedProtection>>
) => {
  it.live(title, () => Effect.scoped(body([])))
  for (const removed of mutants)
    it.live(`caught: ${removed.map(({ name }) => name).join(", and ")}`, () =>
      Effect.map(Effect.exit(Effect.scoped(body(removed))), assertCaught)
    )
}

describe("a follower", () => {
  check(
    "commits up to where the live build is, and nothing beyond, alone and in a statement with others",
    Effect.fnUntraced(function* (removed) {
      const { follower, live, sql, store } = yield* twoBuilds(removed)
      yield* store.commit(one, live, batchOf(live, ["a", "b"]))
      assert.strictEqual(yield* store.bound(follower), 2)
      const next = yield* store.commit(two, follower, batchOf(follower, ["a"]))
      assert.deepInclude(next, { mode: "follower", position: 1, outboxSeq: 0 })
      // three wait for the first one, and share a statement
      const others = yield* Effect.forEach([1, 2, 3], (partition) => store.claim(two, events.name, partition, 1))
      yield* query(
        "ahead",
        () => sql`update millrace.progress set next_position = 9 where version = 1 and partition = 2`
      )
      const claims = [next, ...others]
      const fibers = yield* Effect.forEach(claims, (claim) =>
        Effect.forkChild(
          atOnce(store.commit(two, claim, batchOf(claim, [`k${claim.partition}`, "x" + claim.partition])))
        )
      )
      assert.deepStrictEqual(yield* Effect.forEach(fibers, Fiber.join), ["waits", "waits", "none", "waits"])
      assert.deepStrictEqual(yield* rowsOf(sql, "counting_v2.notes"), ["a", "k2", "x2"])
      const [muted] = yield* query(
        "muted",
        () => sql`select sum(muted)::int8 as n from millrace.progress where version = 2`
      )
      assert.strictEqual(muted!["n"], 6)
      yield* query("one build", () => sql`delete from millrace.progress where version = 2`)
      yield* query("as it was", () => sql`update millrace.progress set next_position = 0 where partition = 2`)
      yield* assertOutbox(sql, 4)
    }),
    [Without.noBound]
  )

  check(
    "gets to where a frozen build was frozen",
    Effect.fnUntraced(function* (removed) {
      const { follower, live, promotion, sql, store } = yield* twoBuilds(removed)
      yield* store.commit(one, live, batchOf(live, ["a", "b"]))
      yield* freeze(sql, promotion, 60_000)
      assert.strictEqual(yield* store.bound(follower), 2)
      assert.strictEqual(yield* atOnce(store.commit(two, follower, batchOf(follower, ["a", "b"]))), "none")
      assert.strictEqual(
        yield* flip(sql, promotion).pipe(Effect.catch(({ message }) => Effect.succeed(message))),
        "now"
      )
    }),
    [Without.boundOfLive]
  )

  check(
    "writes no shared tables and windows",
    Effect.fnUntraced(function* (removed) {
      const source = Topic.records("shared.events", { value: { key: Schema.String }, key: "key", partitions: 4 })
      const table = ReadModel.table("shared_rows", {
        columns: { key: Schema.String, n: Schema.Int },
        primaryKey: ["key"],
        shared: true
      })
      const all = Window.global("shared_counts", {
        key: { key: Schema.String },
        aggregate: { n: Agg.count },
        shared: true
      })
      const made = (version: number) =>
        Projection.make({ name: "sharing", version, source, writes: [table, all], handle: () => undefined })
      const on = yield* engine(root, Application.make({ name: "sharing", projections: [Projection.async(made(1))] }))
      const store = PostgresStore.make(Without.commitsWithout(on.sql, removed))
      const second = made(2)
      yield* store.prepare([second], () => 4)
      yield* query("ahead", () => on.sql`update millrace.progress set next_position = 9 where version = 1`)
      const row = (key: string, n: number) => ({ key, n })
      const add = (key: string) => ({
        row: row(key, 1),
        key,
        partition: 0,
        eventTime: 0,
        tenant: undefined,
        traceparent: undefined
      })
      const changes = (claim: Claim, change: Partial<Changes["tables"][number]> = {}): Changes => ({
        position: claim.position + 1,
        fingerprint: undefined,
        streamTime: undefined,
        events: 1,
        duplicates: 0,
        tables: [{ table, upserts: [row(`t${claim.partition}`, claim.version)], updates: [], deletes: [], ...change }],
        windows: [{ window: all, deltas: [add(`w${claim.partition}`)] }],
        segments: [],
        late: [],
        deadLetters: [],
        seen: undefined
      })
      const state = query("state", async () =>
        [
          ...(await on.sql`select key, n from millrace_shared.shared_rows union all select key, n from millrace_shared.shared_counts order by 1`)
        ].map(({ key, n }) => `${key} ${n}`)
      )
      const first = made(1)
      for (const partition of [0, 1, 2, 3]) {
        const claim = yield* store.claim(first, source.name, partition, 1)
        yield* store.commit(first, claim, changes(claim))
      }
      const before = yield* state
      assert.strictEqual(before.length, 8)
      const claims = yield* Effect.forEach([0, 1, 2, 3], (partition) => store.claim(second, source.name, partition, 1))
      const after = yield* Effect.forEach(claims, (claim) => store.commit(second, claim, changes(claim)), {
        concurrency: 4
      })
      const [alone] = after
      // an upsert among updates and deletes, and these without one
      const some = { upserts: [row("t9", 2)], updates: [row("t1", 2)], deletes: [{ key: "t2" }] }
      const more = yield* store.commit(second, alone!, changes(alone!, some))
      yield* store.commit(second, more, changes(more, { ...some, upserts: [] }))
      assert.deepStrictEqual(yield* state, before)
    }),
    [Without.writesShared]
  )
})

describe("a frozen build", () => {
  check(
    "waits, without sending the batch over and over, and goes on once the freeze is over, with its sequence",
    Effect.fnUntraced(function* (removed) {
      const { live, promotion, sql } = yield* twoBuilds(removed)
      let sent = 0
      const counted = watched(sql, {
        statement: (text) => {
          if (text.includes("fence as (update")) sent++
          return text
        }
      })
      const store = PostgresStore.make(Without.commitsWithout(counted, removed))
      yield* freeze(sql, promotion, 400)
      const committing = yield* Effect.forkChild(atOnce(store.commit(one, live, batchOf(live, ["a", "b"]))))
      yield* Effect.sleep("250 millis")
      assert.strictEqual(sent, 1)
      assert.strictEqual(yield* Fiber.join(committing), "none")
      assert.strictEqual(sent, 2)
      yield* query("one build", () => sql`delete from millrace.progress where version = 2`)
      yield* assertOutbox(sql, 4)
      const [row] = yield* query("row", () => sql`select mode, frozen_until from millrace.progress where partition = 0`)
      assert.deepStrictEqual({ ...row }, { mode: "live", frozen_until: null })
    }),
    [Without.forgetsSequence],
    [Without.staysFrozen]
  )

  it.live("can be claimed, keeps frozen, and goes on after a thaw or once the freeze is over", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { promotion, sql, store } = yield* twoBuilds()
        yield* freeze(sql, promotion, 60_000)
        const again = yield* store.claim(one, events.name, 0, 1)
        assert.strictEqual(again.mode, "frozen")
        const committing = yield* Effect.forkChild(store.commit(one, again, batchOf(again, ["a"])))
        yield* Effect.sleep("100 millis")
        yield* thaw(sql, promotion)
        const next = yield* Fiber.join(committing)
        assert.deepInclude(next, { mode: "live", outboxSeq: 2 })
        yield* freeze(sql, promotion, 100)
        const third = yield* store.claim(one, events.name, 0, 1)
        assert.deepInclude(yield* store.commit(one, third, batchOf(third, ["b"])), { mode: "live", outboxSeq: 4 })
        // a retired build is frozen for ever, and is not claimed
        yield* query(
          "retire",
          () => sql`update millrace.progress set mode = 'frozen', frozen_until = null where version = 1`
        )
        assert.strictEqual(yield* tagOf(store.claim(one, events.name, 0, 1)), "Fenced")
      })
    )
  )
})

describe("a switch", () => {
  check(
    "fences the old build at once, whose batch the new one processes, from the next sequence number on",
    Effect.fnUntraced(function* (removed) {
      const { follower, live, promotion, sql, store } = yield* twoBuilds(removed)
      const before = yield* store.commit(one, live, batchOf(live, ["a", "b"]))
      const drained = yield* store.commit(two, follower, batchOf(follower, ["a", "b"]))
      yield* freeze(sql, promotion, 60_000)
      const waiting = yield* Effect.forkChild(atOnce(store.commit(one, before, batchOf(before, ["c"]))))
      yield* Effect.sleep("100 millis")
      // relays have all of it: then no key in the outbox shows a sequence number that is used twice
      yield* query("collect", () => sql`delete from millrace.outbox`)
      yield* flip(sql, promotion)
      assert.strictEqual(yield* Fiber.join(waiting), "Fenced")
      assert.strictEqual(yield* atOnce(store.commit(one, before, batchOf(before, ["c"]))), "Fenced")
      assert.deepStrictEqual(yield* rowsOf(sql, "counting_v1.notes"), ["a", "b"])
      // it does not have to claim
      assert.deepInclude(yield* store.commit(two, drained, batchOf(drained, ["c"])), { mode: "live", outboxSeq: 6 })
      const old = yield* store.claim(one, events.name, 0, 1)
      assert.strictEqual(old.mode, "follower")
      assert.deepInclude(yield* store.commit(one, old, batchOf(old, ["c"])), { mode: "follower", outboxSeq: 4 })
      const segments = yield* query("outbox", () => sql`select first_seq, messages from millrace.outbox order by 1`)
      assert.deepStrictEqual(
        segments.map(({ first_seq, messages }) => [first_seq, messages]),
        [
          [5, 1],
          [6, 1]
        ]
      )
    }),
    [Without.keepsIncarnation, Without.noBound],
    [Without.noHandover]
  )

  check(
    "is refused while a follower is elsewhere, and when the freeze is over",
    Effect.fnUntraced(function* (removed) {
      const { live, promotion, sql, store } = yield* twoBuilds(removed)
      yield* store.commit(one, live, batchOf(live, ["a", "b", "c"]))
      yield* freeze(sql, promotion, 60_000)
      const reason = flip(sql, promotion).pipe(Effect.catchTag("FlipRefused", ({ reason }) => Effect.succeed(reason)))
      assert.strictEqual(yield* reason, "c.events/0 is at 0 of 3")
      yield* query(
        "drain",
        () => sql`update millrace.progress set next_position = 3 where version = 2 and partition = 0`
      )
      yield* query("wait", () => sql`update millrace.progress set frozen_until = clock_timestamp() where version = 1`)
      assert.include(yield* reason, "was frozen for too short a time")
    }),
    [Without.notEqual],
    [Without.noDeadline]
  )
})
