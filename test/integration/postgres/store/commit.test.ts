// Claims and commits under faults and races. Each check also runs against mutants that lack one protection, and must fail for them.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { connect, query } from "../../../../src/postgres/client/client.ts"
import type { Claim, Store } from "../../../../src/runner/store.ts"
import {
  application,
  assertCaught,
  assertOutbox,
  batchOf,
  blocking,
  counted,
  counting,
  events,
  failureOf,
  stateOf,
  statementsWait
} from "../../../fault/commits.ts"
import { lossy, type Loss } from "../../../fault/lossy.ts"
import * as Mutant from "../../../fault/mutants.ts"
import { engine, type Engine } from "../../../support/engine.ts"
import { server } from "../../../support/postgres.ts"
import { isLong } from "../../../support/size.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

type Check = (engine: Engine, make: Mutant.MakeStore) => Effect.Effect<void, unknown, Scope.Scope>
const test = (name: string, check: Check, timeout = 60_000) =>
  it.live(
    name,
    () => Effect.scoped(Effect.flatMap(engine(root, application), (made) => check(made, Mutant.real))),
    timeout
  )
const caught = (name: string, check: Check, make: Mutant.MakeStore, timeout = 60_000) =>
  it.live(
    name,
    () =>
      Effect.scoped(Effect.flatMap(engine(root, application), (made) => check(made, make))).pipe(
        Effect.exit,
        Effect.map(assertCaught)
      ),
    timeout
  )
const one = counting()
const claim = (store: Store["Service"], generation = 1, partition = 0) =>
  store.claim(one, events.name, partition, generation)

const zombie: Check = Effect.fnUntraced(function* ({ sql }, make) {
  const store = make(sql)
  const first = yield* claim(store)
  const held = yield* store.commit(one, first, batchOf(first, ["a", "b"]))
  const other = yield* claim(store)
  assert.strictEqual(other.position, held.position)
  assert.strictEqual(other.commitNo, held.commitNo)
  const before = yield* stateOf(sql)
  const late = yield* Effect.exit(store.commit(one, held, batchOf(held, ["a", "c"])))
  assert.deepStrictEqual(yield* stateOf(sql), before)
  assert.strictEqual(failureOf(late), "Fenced")
  const next = yield* store.commit(one, other, batchOf(other, ["b", "c"]))
  assert.strictEqual(next.position, 4)
  // once more, after the other claimant has committed
  assert.strictEqual(failureOf(yield* Effect.exit(store.commit(one, held, batchOf(held, ["a"])))), "Fenced")
  assert.deepStrictEqual(yield* counted(sql), { a: 1, b: 2, c: 1 })
  // both publish a message and a window's row for each key
  yield* assertOutbox(sql, 8)
})
const standing: Check = Effect.fnUntraced(function* ({ sql }, make) {
  const store = make(sql)
  const held = yield* claim(store)
  const changes = batchOf(held, ["a"], 0)
  const once = yield* store.commit(one, held, changes)
  const twice = yield* store.commit(one, held, changes)
  assert.deepStrictEqual(yield* counted(sql), { a: 1 })
  assert.deepStrictEqual(twice, once)
  yield* assertOutbox(sql, 2)
  const again = yield* store.commit(one, once, batchOf(once, ["a"], 0))
  assert.deepStrictEqual(yield* counted(sql), { a: 2 })
  yield* assertOutbox(sql, 4)
  // how long records wait is measured until the position moves, not until a commit that has none
  const moved = query("read", () => sql`select count(moved_at)::int as moved from millrace.progress`)
  assert.deepStrictEqual([...(yield* moved)], [{ moved: 0 }])
  yield* store.commit(one, again, batchOf(again, ["a"]))
  assert.deepStrictEqual([...(yield* moved)], [{ moved: 1 }])
})
/** A reply is lost. Whether or not the statement was executed, the commit is applied once, and its claimant continues. */
const lostReply = (loss: Loss): Check =>
  Effect.fnUntraced(function* ({ sql, url }, make) {
    const proxy = yield* lossy(url)
    const store = make(yield* connect(proxy.url, { max: 1 }))
    let held = yield* claim(store)
    // the statement is prepared now, so its next use is one message
    for (let i = 0; i < 2; i++) held = yield* store.commit(one, held, batchOf(held, ["a", "b"]))
    proxy.arm(loss)
    // the statement waits here until its outcome is checked, or until it is sent again
    const blocker = loss === "running" ? yield* blocking(sql, statementsWait(sql, 2)) : undefined
    const committing = yield* Effect.forkChild(Effect.exit(store.commit(one, held, batchOf(held, ["a", "c"]))))
    const exit = yield* Fiber.join(committing)
    if (blocker !== undefined) yield* Fiber.join(blocker)
    assert.strictEqual(proxy.lost(), 1)
    assert.strictEqual(failureOf(exit), "none")
    if (exit._tag === "Success") held = exit.value
    held = yield* store.commit(one, held, batchOf(held, ["c"]))
    assert.deepStrictEqual(yield* counted(sql), { a: 3, b: 2, c: 2 })
    yield* assertOutbox(sql, 14)
    assert.strictEqual(held.position, 7)
  })
describe("a claim fences earlier claims", () => {
  test("a zombie with the same position and commit number changes nothing", zombie)
  caught("caught: no fence", zombie, Mutant.withoutFence)
  caught("caught: the position alone", zombie, Mutant.positionAlone)

  test(
    "a claim that waits for a commit in flight knows the ids that this commit stored",
    Effect.fnUntraced(function* ({ sql }, make) {
      const store = make(sql)
      const first = yield* claim(store)
      const held = yield* store.commit(one, first, batchOf(first, ["a"]))
      const blocker = yield* blocking(sql, statementsWait(sql, 2))
      const seen = { minTime: 3_600_001, maxTime: 3_600_007, count: 1, packed: new Uint8Array(20) }
      const committing = yield* Effect.forkChild(store.commit(one, held, { ...batchOf(held, ["a"]), seen }))
      yield* statementsWait(sql, 1)
      const waited = yield* claim(store)
      yield* Fiber.join(blocker)
      yield* Fiber.join(committing).pipe(Effect.exit)
      assert.deepStrictEqual([waited.position, waited.newestSeen], [2, 3_600_007])
    })
  )
  test(
    "of two claimants that take turns at random, one commit at a time is applied",
    Effect.fnUntraced(function* ({ sql }, make) {
      const store = make(sql)
      let applied = 0
      const claimant = (name: string) =>
        Effect.gen(function* () {
          for (let round = 0; round < 12; round++) {
            let held: Claim = yield* claim(store)
            for (let i = 0; i < 5; i++) {
              const exit = yield* Effect.exit(store.commit(one, held, batchOf(held, [name, "both"])))
              if (exit._tag === "Success") {
                applied++
                held = exit.value
              } else {
                assert.strictEqual(failureOf(exit), "Fenced")
                break
              }
            }
          }
        })
      yield* Effect.all([claimant("a"), claimant("b"), claimant("c")], { concurrency: "unbounded" })
      const sums = yield* counted(sql)
      assert.strictEqual(sums["both"], applied)
      assert.strictEqual((sums["a"] ?? 0) + (sums["b"] ?? 0) + (sums["c"] ?? 0), applied)
      yield* assertOutbox(sql, 4 * applied)
    })
  )
  test(
    "an older generation is refused, and the newer one keeps its claim",
    Effect.fnUntraced(function* ({ sql, store }) {
      const held = yield* claim(store, 5)
      assert.strictEqual(failureOf(yield* Effect.exit(claim(store, 4))), "Fenced")
      yield* store.commit(one, held, batchOf(held, ["a"]))
      assert.deepStrictEqual(yield* counted(sql), { a: 1 })
      const next = yield* claim(store, 6)
      assert.isAbove(next.epoch, held.epoch)
      assert.deepInclude(next, { position: 1, commitNo: 1, streamTime: 3_600_000, outboxSeq: 2, seenFill: 1 })
    })
  )
  test(
    "a session that stalls with the row's lock is ended",
    Effect.fnUntraced(function* ({ sql, store, url }) {
      const stalled = yield* connect(url, { max: 1 })
      const held = yield* claim(store)
      yield* query("stall", () => stalled.unsafe("begin"))
      const [backend] = yield* query(
        "stall",
        () => stalled`select pg_backend_pid() as pid, incarnation from millrace.progress where partition = 0 for update`
      )
      // it does not wait longer than the test does
      const next = yield* claim(store)
      assert.notStrictEqual(next.incarnation, held.incarnation)
      const left = yield* query("look", () => sql`select from pg_stat_activity where pid = ${backend!["pid"]}`)
      assert.strictEqual(left.length, 0)
      assert.strictEqual(failureOf(yield* Effect.exit(store.commit(one, held, batchOf(held, ["a"])))), "Fenced")
    })
  )
  test(
    "a commit that runs while the partition is claimed counts once, or not at all",
    Effect.fnUntraced(function* ({ sql, store }) {
      let held = yield* claim(store)
      held = yield* store.commit(one, held, batchOf(held, ["a"]))
      const claiming = yield* Deferred.make<void>()
      const blocker = yield* blocking(sql, Effect.andThen(Deferred.await(claiming), statementsWait(sql, 2)))
      const committing = yield* Effect.forkChild(Effect.exit(store.commit(one, held, batchOf(held, ["a"]))))
      yield* statementsWait(sql)
      // it holds the progress row and waits for the other row; a claim must wait for it, or read outdated state
      yield* Deferred.succeed(claiming, undefined)
      const next = yield* claim(store)
      yield* Fiber.join(blocker)
      assert.strictEqual(failureOf(yield* Fiber.join(committing)), "none")
      assert.deepInclude(next, { position: 2, commitNo: 2, outboxSeq: 4 })
      yield* store.commit(one, next, batchOf(next, ["a"]))
      assert.deepStrictEqual(yield* counted(sql), { a: 3 })
    })
  )
})

describe("a commit is applied once", () => {
  test("that does not move the position and is sent twice", standing)
  caught("caught: the position alone", standing, Mutant.positionAlone)
  caught("caught: the incarnation alone", standing, Mutant.incarnationAlone)

  for (const loss of ["executed", "unsent", "running"] as const) test(`whose reply is lost: ${loss}`, lostReply(loss))
  caught("caught: a plain re-send, the statement had been executed", lostReply("executed"), Mutant.plainResend)
  caught("caught: a plain re-send, the statement still runs", lostReply("running"), Mutant.plainResend)
  caught("caught: a re-send that says not which commit it is", lostReply("executed"), Mutant.resendUnnumbered)

  test(
    "while its backend is terminated over and over",
    Effect.fnUntraced(function* ({ sql, url }, make) {
      const store = make(yield* connect(url, { max: 2, applicationName: "victim" }))
      const killed = { backends: 0 }
      const killer = Effect.forever(
        Effect.gen(function* () {
          yield* Effect.sleep(20 + Math.random() * 100)
          const rows = yield* query(
            "terminate",
            () => sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'victim'`
          )
          killed.backends += rows.length
        })
      )
      const fiber = yield* Effect.forkChild(killer)
      // as the runner does: after a retryable failure it claims again
      const claimed = Effect.retry(claim(store), { while: ({ _tag }) => _tag === "StoreError" })
      let held = yield* claimed
      while (killed.backends < (isLong ? 25 : 8)) {
        const changes = batchOf(held, ["a", `k${held.position % 7}`])
        held = yield* Effect.catchTag(store.commit(one, held, changes), "StoreError", () => claimed)
      }
      yield* Fiber.interrupt(fiber)
      const commits = held.position / 2
      const { a, ...others } = yield* counted(sql)
      assert.strictEqual(a, commits)
      assert.strictEqual(
        Object.values(others).reduce((sum, n) => sum + n, 0),
        commits
      )
      yield* assertOutbox(sql, 4 * commits)
      const [count] = yield* query(
        "count",
        () =>
          sql`select (select count(*) from millrace.late_events) as late, (select count(*) from millrace.dead_letters) as dead`
      )
      assert.deepStrictEqual({ ...count }, { late: commits, dead: commits })
    })
  )
  test(
    "that a deadlock rolled back is sent again",
    Effect.fnUntraced(function* ({ sql, url }, make) {
      const codes: Array<string> = []
      const pool = Mutant.watched(yield* connect(url, { max: 2 }), {
        failed: (code) => void codes.push(code)
      })
      const store = make(pool)
      let held = yield* claim(store)
      held = yield* store.commit(one, held, batchOf(held, ["a", "b"]))
      // the store's commit waits first, so PostgreSQL looks for a deadlock in it first and rolls it back
      const other = yield* Effect.acquireRelease(
        query("reserve", () => sql.reserve()),
        (reserved) => Effect.sync(() => reserved.release())
      )
      yield* query("begin", () => other`begin`)
      yield* query("lock", () => other`update counting_v1.sums set n = n where key = 'b'`)
      const committing = yield* Effect.forkChild(Effect.exit(store.commit(one, held, batchOf(held, ["a", "b"]))))
      yield* statementsWait(sql)
      yield* query("cross", () => other`update counting_v1.sums set n = n where key = 'a'`)
      yield* query("commit", () => other`commit`)
      const exit = yield* Fiber.join(committing)
      assert.strictEqual(failureOf(exit), "none")
      assert.include(codes, "40P01")
      assert.deepStrictEqual(yield* counted(sql), { a: 2, b: 2 })
      yield* assertOutbox(sql, 8)
    })
  )
  test(
    "or not at all, if PostgreSQL refuses one of its values",
    Effect.fnUntraced(function* ({ sql, store }) {
      const held = yield* claim(store)
      const changes = batchOf(held, ["a", "b"])
      const before = yield* stateOf(sql)
      const wrong = { ...changes.tables[0]!, upserts: [{ key: "nul \u0000", n: 1, at: 0 }] }
      const exit = yield* Effect.exit(store.commit(one, held, { ...changes, tables: [wrong] }))
      assert.strictEqual(failureOf(exit), "Unstorable")
      assert.deepStrictEqual(yield* stateOf(sql), before)
      // an index entry can hold about 2,700 bytes
      const long = Array.from({ length: 4_000 }, () => String.fromCharCode(33 + Math.random() * 90)).join("")
      const tooLong = { ...changes.tables[0]!, upserts: [{ key: long, n: 1, at: 0 }] }
      assert.strictEqual(
        failureOf(yield* Effect.exit(store.commit(one, held, { ...changes, tables: [tooLong] }))),
        "Unstorable"
      )
      assert.deepStrictEqual(yield* stateOf(sql), before)
      yield* store.commit(one, held, changes)
      assert.deepStrictEqual(yield* counted(sql), { a: 1, b: 1 })
    })
  )
})

describe("the mode", () => {
  test(
    "a follower writes rows and publishes nothing, and a frozen version commits nothing",
    Effect.fnUntraced(function* ({ sql, store }) {
      const next = counting(2)
      yield* store.prepare([next], () => 4)
      const held = yield* store.claim(next, events.name, 0, 1)
      assert.strictEqual(held.mode, "follower")
      yield* query("move the live build", () => sql`update millrace.progress set next_position = 2 where version = 1`)
      const after = yield* store.commit(next, held, batchOf(held, ["a", "b"]))
      assert.deepInclude(after, { outboxSeq: 0, position: 2, mode: "follower" })
      assert.strictEqual((yield* query("count", () => sql`select from counting_v2.sums`)).length, 2)
      assert.strictEqual((yield* query("count", () => sql`select from counting_v1.sums`)).length, 0)
      assert.strictEqual((yield* query("count", () => sql`select from millrace.outbox`)).length, 0)
      yield* assertOutbox(sql, 0)
      const live = yield* claim(store)
      yield* query("freeze", () => sql`update millrace.progress set mode = 'frozen' where version = 1`)
      const before = yield* stateOf(sql)
      const committing = yield* Effect.forkChild(Effect.exit(store.commit(one, live, batchOf(live, ["a"]))))
      yield* Effect.sleep(150)
      assert.deepStrictEqual(yield* stateOf(sql), before)
      // the promotion was cancelled, so the waiting commit continues
      yield* query("thaw", () => sql`update millrace.progress set mode = 'live' where version = 1`)
      assert.strictEqual(failureOf(yield* Fiber.join(committing)), "none")
      assert.deepStrictEqual(yield* counted(sql), { a: 1 })
    })
  )
})

const rounds = 25
const keyCount = 120
const keys = Array.from({ length: keyCount }, (_, i) => `k${i}`)
const shuffled = () =>
  keys
    .map((key) => ({ key, at: Math.random() }))
    .toSorted((a, b) => a.at - b.at)
    .map(({ key }) => key)
/** Commits rows of the same keys from four partitions at once, and returns the number of deadlocks. */
const writers = Effect.fnUntraced(function* (
  { sql, url }: Engine,
  make: Mutant.MakeStore,
  changesOf: (held: Claim) => ReturnType<typeof batchOf>
) {
  let deadlocks = 0
  const pool = Mutant.watched(yield* connect(url, { max: 4 }), {
    failed: (code) => void (deadlocks += code === "40P01" ? 1 : 0)
  })
  const store = make(pool)
  const writer = (partition: number) =>
    Effect.gen(function* () {
      let held = yield* claim(store, 1, partition)
      for (let i = 0; i < rounds; i++) {
        held = yield* store.commit(one, held, changesOf(held))
        // one is enough to fail, and each takes a second
        if (deadlocks > 0) return
      }
    })
  yield* Effect.all([0, 1, 2, 3].map(writer), { concurrency: "unbounded" })
  if (deadlocks > 0) return deadlocks
  assert.deepStrictEqual([...new Set(Object.values(yield* counted(sql)))], [4 * rounds])
  yield* assertOutbox(sql, 4 * rounds * keyCount * 2)
  return deadlocks
})
/** Half of the commits have their rows in one order, half in the opposite order. */
const crossing: Check = Effect.fnUntraced(function* (made, make) {
  const changesOf = (held: Claim) => batchOf(held, held.partition % 2 === 0 ? keys : keys.toReversed())
  assert.strictEqual(yield* writers(made, make, changesOf), 0, "deadlocks")
})
/** Each batch replaces, updates and deletes rows of a table, with the same keys for all three. */
const mixing: Check = Effect.fnUntraced(function* (made, make) {
  const mixed = (held: Claim) => {
    const changes = batchOf(held, shuffled())
    const [change] = changes.tables
    const third = keyCount / 3
    const kinds = {
      upserts: change!.upserts.slice(0, third),
      updates: change!.upserts.slice(third, 2 * third).map(({ key, n }) => ({ key, n })),
      deletes: change!.upserts.slice(2 * third).map(({ key }) => ({ key }))
    }
    // every other batch inserts the deleted rows again
    return held.commitNo % 2 === 0 ? changes : { ...changes, tables: [{ ...change!, ...kinds }] }
  }
  assert.strictEqual(yield* writers(made, make, mixed), 0, "deadlocks")
})

describe("writers of the same rows", () => {
  test("wait for each other and never deadlock", crossing, 60_000)
  test("never deadlock when they replace, update and delete", mixing, 60_000)
  test(
    "one batch replaces, updates and deletes rows of a table",
    Effect.fnUntraced(function* ({ sql, store }) {
      let held = yield* claim(store)
      held = yield* store.commit(one, held, batchOf(held, ["a", "b", "c", "d"]))
      const changes = batchOf(held, ["x"])
      const { table } = changes.tables[0]!
      const upserts = ["a", "new"].map((key) => ({ key, n: 7, at: 0 }))
      const updates = ["b", "missing"].map((key) => ({ key, n: 8 }))
      const deletes = ["c", "gone"].map((key) => ({ key }))
      held = yield* store.commit(one, held, { ...changes, tables: [{ table, upserts, updates, deletes }] })
      const read = () => query("read", () => sql`select key, n from counting_v1.notes order by key`)
      const after = { a: 7, b: 8, d: 0, new: 7 }
      assert.deepStrictEqual(Object.fromEntries((yield* read()).map(({ key, n }) => [key, n])), after)
      const both = { table, upserts: [], updates: [{ key: "a", n: 9 }], deletes: [{ key: "b" }] }
      yield* store.commit(one, held, { ...batchOf(held, ["x"]), tables: [both] })
      const { b: _, ...left } = { ...after, a: 9 }
      assert.deepStrictEqual(Object.fromEntries((yield* read()).map(({ key, n }) => [key, n])), left)
    })
  )
  caught("caught: unordered", crossing, Mutant.unordered, 60_000)
})
