// `promote` beside running builds and on a stopped system: the switch, the way back, refusals, and a promoter that ends after any step.
import { randomUUID } from "node:crypto"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Application, Event, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { query, transaction } from "../../../src/postgres/client/client.ts"
import { createBuild } from "../../../src/postgres/store/builds.ts"
import { closeGates, openGate, promotionSession, readOpenGates } from "../../../src/postgres/store/gate.ts"
import { freeze } from "../../../src/postgres/store/promotion.ts"
import { readViewFacts } from "../../../src/postgres/store/views.ts"
import { planRebuild } from "../../../src/system/rebuild-plan.ts"
import { promote, type PromoteRequest, type PromotionStep } from "../../../src/system/promote.ts"
import { openSystem, runProjections, runRelay, type System } from "../../../src/system/system.ts"
import { recordOf } from "../../support/engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const partitions = 2
const Moved = Event.make("moved", { id: Schema.String, user: Schema.String })
const source = Topic.events("moves", { events: [Moved], id: "id", key: "user", partitions })
const moves = ReadModel.table("moves_seen", {
  columns: { id: Schema.String, user: Schema.String },
  primaryKey: ["id"]
})
const done = Topic.records("done", { value: { id: Schema.String }, id: "id", key: "id", partitions })
const projection = Projection.make({
  name: "accounts",
  version: 1,
  source,
  writes: [moves, done],
  handle: ({ id, user }, out) => {
    out.upsert(moves, { id, user })
    out.publish(done, { id })
  }
})
const application = Application.make({ name: "bank", projections: [Projection.async(projection)] })

const opened = Effect.gen(function* () {
  const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
  const system = yield* openSystem(application, database)
  const run = (text: string) => query("test", () => database.sql.unsafe<Array<Record<string, unknown>>>(text))
  const build = transaction(database.sql, (tx) =>
    createBuild(tx, projection, { partitionsOf: () => partitions, startOf: () => 0 })
  )
  const promoting = (
    request: Partial<PromoteRequest> = {},
    onStep: (step: PromotionStep) => Effect.Effect<void> = () => Effect.void
  ) =>
    promote(
      { application, sql: database.sql, log: system.log, on: "PostgreSQL", onStep },
      { name: "accounts", rollback: false, dryRun: false, timeoutMs: 20_000, ...request }
    )
  const live = Effect.map(run("select version from millrace.live"), ([row]) => row!["version"])
  return { system, run, build, promoting, live, sql: database.sql }
})
type Opened = Effect.Success<typeof opened>
const test = (title: string, body: (one: Opened) => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(Effect.flatMap(opened, body)), 60_000)

let fed = 0
const feed = ({ log }: System, count: number) =>
  log.append(
    source.name,
    Array.from({ length: count }, () => {
      const id = `m${fed++}`
      return recordOf(source, { type: "moved", id, user: `u${fed % 7}` }, partitions)
    })
  )
const until = ({ run }: Opened, what: string, condition: string): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    for (let i = 0; i < 1500; i++) {
      if ((yield* run(`select (${condition}) as ok`))[0]!["ok"] === true) return
      yield* Effect.sleep(10)
    }
    return yield* Effect.fail(new Error(`never: ${what}`))
  })
const rows = (table: string) => `(select count(*) from ${table})`
/** The ids that the derived topic has, in the order of its partitions. */
const published = ({ run }: Opened) =>
  Effect.map(
    run(
      `select b.vals from millrace.log_batch b join millrace.log_topic t using (topic_id) where t.name = 'done' order by b.partition, base_position`
    ),
    (batches) =>
      batches.flatMap(({ vals }) =>
        String(vals)
          .split("\n")
          .map((value) => String((JSON.parse(value) as { id: string }).id))
      )
  )
const shownBuilds = ({ sql }: Opened) =>
  Effect.map(readViewFacts(sql, "accounts"), ({ views }) => views.map(({ builds, isGated }) => [builds, isGated]))

test("a build is promoted beside running processes and back again under traffic, and every event is published once and in both builds", (one) =>
  Effect.gen(function* () {
    const { build, live, promoting, run, system } = one
    const before = fed
    yield* feed(system, 100)
    yield* Effect.forkScoped(runProjections(system))
    yield* Effect.forkScoped(runRelay(system))
    yield* until(one, "the first events", `${rows("accounts_v1.moves_seen")} = 100`)
    yield* build
    const feedSome = Effect.suspend(() => feed(system, 10))
    const feeding = yield* Effect.forkScoped(Effect.forever(Effect.andThen(feedSome, Effect.sleep(20))))
    const ready = yield* promoting({ dryRun: true })
    assert.deepInclude(ready, { projection: "accounts", from: 1, to: 2, state: "ready", gate: "closed" })
    assert.strictEqual(yield* live, 1)
    assert.deepStrictEqual(yield* shownBuilds(one), [[[1], false]])
    const first = yield* promoting()
    assert.deepInclude(first, { from: 1, to: 2, state: "promoted", gate: "closed", holders: [], stale: [] })
    assert.deepStrictEqual(first.next, [
      "build 1 follows build 2 from now on, so that you can go back: millrace promote accounts --rollback",
      "end it once you no longer need it: millrace retire accounts 1"
    ])
    assert.deepStrictEqual(yield* shownBuilds(one), [[[2], false]])
    const back = yield* promoting({ rollback: true })
    assert.deepInclude(back, { from: 2, to: 1, state: "promoted" })
    assert.strictEqual(
      back.next[0],
      "build 2 follows build 1 from now on, so that you can go forward again: millrace promote accounts --build 2"
    )
    const repeated = yield* Effect.flip(promoting({ rollback: true }))
    assert.deepInclude(repeated, {
      message: "build 1 of projection accounts is live since a rollback of build 2",
      try: "to go forward again: millrace promote accounts --build 2",
      timedOut: false
    })
    assert.deepInclude(yield* promoting(), { from: 1, to: 2 })
    yield* Fiber.interrupt(feeding)
    const count = fed - before
    yield* until(
      one,
      "both builds",
      `${rows("accounts_v1.moves_seen")} = ${count} and ${rows("accounts_v2.moves_seen")} = ${count}`
    )
    yield* until(
      one,
      "the relay",
      `(select sum(records) from millrace.log_batch b join millrace.log_topic t using (topic_id) where t.name = 'done') = ${count}`
    )
    const ids = yield* published(one)
    assert.deepStrictEqual([ids.length, new Set(ids).size], [count, count])
    const history = yield* run("select old, new, pause_ms > 0 as paused from millrace.promotion order by at")
    assert.deepStrictEqual(history, [
      { old: 1, new: 2, paused: true },
      { old: 2, new: 1, paused: true },
      { old: 1, new: 2, paused: true }
    ] as never)
  }))

test("on a stopped system the command runs the candidate until it is where the live build is, and says that no process runs it", (one) =>
  Effect.gen(function* () {
    const { build, live, promoting, run, system } = one
    yield* feed(system, 50)
    const running = yield* Effect.forkScoped(runProjections(system))
    yield* until(one, "the events", `${rows("accounts_v1.moves_seen")} = 50`)
    yield* Fiber.interrupt(running)
    yield* feed(system, 5)
    yield* build
    const promoted = yield* promoting()
    assert.deepInclude(promoted, { from: 1, to: 2, state: "promoted", gate: "closed" })
    assert.deepStrictEqual(promoted.next, [
      "no process runs build 2: start one whose configuration has version 1",
      "no process runs build 1, so going back (millrace promote accounts --rollback) first processes what it has missed",
      "end it once you no longer need it: millrace retire accounts 1"
    ])
    assert.strictEqual(yield* live, 2)
    assert.isTrue((yield* run("select count(*) >= 50 as ok from moves_seen"))[0]!["ok"])
  }))

test("what cannot be promoted is refused with what to do, and nothing changes", (one) =>
  Effect.gen(function* () {
    const { build, live, promoting, run, sql, system } = one
    const refusal = (request: Partial<PromoteRequest> = {}) =>
      Effect.map(Effect.flip(promoting(request)), (error) => {
        const { message, timedOut, try: advice } = error as { message: string; try: string; timedOut: boolean }
        return [message, advice, timedOut]
      })
    assert.deepStrictEqual(yield* refusal(), [
      "projection accounts has no candidate: no build is newer than the live one, build 1",
      "millrace rebuild accounts builds one",
      false
    ])
    yield* build
    assert.deepStrictEqual(yield* refusal({ build: 7 }), [
      "projection accounts has no build 7 that follows the live one, build 1",
      "one of 2",
      false
    ])
    assert.deepStrictEqual(yield* refusal({ rollback: true }), [
      "projection accounts has no build to go back to: none was replaced by build 1, or it is retired",
      "millrace promote accounts --build N with one of 2",
      false
    ])
    yield* run(
      'alter table accounts_v2.moves_seen alter column "user" type bigint using 0; create view mine as select "user" from moves_seen'
    )
    // a text can show a number, so this is no obstacle; the other way round it is one
    yield* run('alter table accounts_v2.moves_seen alter column "user" type text')
    yield* run(
      'drop view mine; drop view moves_seen; alter table accounts_v1.moves_seen alter column "user" type bigint using 0; create view moves_seen as select * from accounts_v1.moves_seen; create view mine as select "user" from moves_seen'
    )
    assert.match(
      String((yield* refusal())[0]),
      /not every text can be converted to bigint; .*; on the view depend: view mine$/
    )
    // the plan of a rebuild says so before anything is replayed
    const plan = yield* planRebuild({ application, sql, log: system.log }, "accounts", undefined)
    assert.deepStrictEqual(
      plan.refused_views.map(({ dependents, view }) => ({ view, dependents })),
      [{ view: "moves_seen", dependents: ["view mine"] }]
    )
    yield* run("drop view mine")
    assert.strictEqual(yield* live, 1)
    assert.deepStrictEqual(yield* shownBuilds(one), [[[1], false]])
  }))

test("a promotion that is not done in time changes nothing: while another one is under way, or a reader holds a view", (one) =>
  Effect.gen(function* () {
    const { build, live, promoting, sql } = one
    yield* build
    const failure = Effect.map(
      Effect.flip(promoting({ timeoutMs: 300 })),
      (error) => error as { message: string; timedOut: boolean }
    )
    const other = yield* Scope.make()
    yield* Scope.provide(promotionSession(sql, "accounts"), other)
    const busy = yield* failure
    assert.isTrue(busy.timedOut)
    assert.match(
      busy.message,
      /^another process promotes projection accounts \(PostgreSQL's session \d+\); nothing was changed$/
    )
    yield* Scope.close(other, Exit.void)
    yield* transaction(sql, (tx) =>
      Effect.gen(function* () {
        yield* query("read", () => tx.unsafe("select 1 from moves_seen"))
        const held = yield* failure
        assert.isTrue(held.timedOut)
        assert.match(
          held.message,
          /^the views of projection accounts are in use by session \d+ of millrace.*; nothing was changed$/
        )
      })
    )
    assert.strictEqual(yield* live, 1)
    assert.deepStrictEqual(yield* shownBuilds(one), [[[1], false]])
  }))

for (const step of ["checked", "opened", "drained", "switched", "closed"] as const) {
  test(`a promoter that dies after "${step}" leaves nothing that readers notice, and the next promotion succeeds`, (one) =>
    Effect.gen(function* () {
      const { build, live, promoting, run, sql, system } = one
      yield* build
      const before = fed
      yield* feed(system, 20)
      yield* Effect.forkScoped(runProjections(system))
      yield* until(one, "the first events", `${rows("accounts_v2.moves_seen")} = 20`)
      // it dies without any of its finalizers: its sessions are ended, and what it would do afterwards fails
      const died = yield* Effect.exit(
        promoting({}, (at) =>
          at !== step
            ? Effect.void
            : Effect.orDie(
                Effect.gen(function* () {
                  yield* run(
                    "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid::int8 = (hashtext('accounts')::int8 & 4294967295)"
                  )
                  return yield* Effect.die("the process was killed")
                })
              )
        )
      )
      assert.isTrue(Exit.isFailure(died))
      // as a process that is killed leaves it: with the gate open, and the live build frozen
      if (step === "drained") {
        yield* freeze(sql, { projection: "accounts", live: 1, token: randomUUID() }, 300)
        yield* openGate(sql, "accounts", { live: 1, next: 2 }, performance.now() + 5_000)
      }
      yield* feed(system, 20)
      const count = fed - before
      yield* until(
        one,
        "both builds",
        `${rows("accounts_v1.moves_seen")} = ${count} and ${rows("accounts_v2.moves_seen")} = ${count}`
      )
      const expected = step === "switched" || step === "closed" ? 2 : 1
      assert.strictEqual(yield* live, expected)
      yield* closeGates(sql)
      assert.deepStrictEqual(yield* shownBuilds(one), [[[expected], false]])
      assert.deepInclude(yield* promoting({ rollback: expected === 2 }), {
        from: expected,
        to: 3 - expected,
        state: "promoted"
      })
    }))
}

test("a gate whose views are refused stays open with the reason, and is closed once the cause is gone", (one) =>
  Effect.gen(function* () {
    const { build, run, sql } = one
    yield* build
    yield* openGate(sql, "accounts", { live: 1, next: 2 }, performance.now() + 5_000)
    yield* run("create table accounts_v1.more (id text); create table public.more (id text)")
    assert.deepStrictEqual(yield* closeGates(sql), [])
    const [gate] = yield* readOpenGates(sql)
    assert.match(gate!.refusal!, /public\.more exists and is not a view of projection accounts; rename it/)
    yield* run("drop table public.more")
    assert.deepStrictEqual(yield* closeGates(sql), ["accounts"])
    assert.deepStrictEqual(yield* readOpenGates(sql), [])
  }))

test("a promotion whose connections are all lost before the switch is tried again, and is made", (one) =>
  Effect.gen(function* () {
    const { build, live, promoting, run, system } = one
    yield* feed(system, 10)
    yield* Effect.forkScoped(runProjections(system))
    yield* build
    let kills = 0
    const kill = (step: PromotionStep) =>
      step === "closed" || kills === 3
        ? Effect.void
        : Effect.suspend(() => {
            kills++
            return Effect.ignore(
              run(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
              )
            )
          })
    assert.deepInclude(yield* promoting({}, kill), { from: 1, to: 2, state: "promoted" })
    assert.strictEqual(kills, 3)
    assert.strictEqual(yield* live, 2)
  }))
