// A database that refuses what some events write: who is parked, who is halted, who is tried again, and that all go on by themselves.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Event, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { Log } from "../../../src/log/log.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import * as Runner from "../../../src/runner/runner.ts"
import { Store } from "../../../src/runner/store.ts"
import { recordOf } from "../../support/engine.ts"
import { memoryEngine, parked, type MemoryEngine } from "../../support/memory-engine.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const Put = Event.make("put", { id: Schema.String, k: Schema.String, v: Schema.String })
const source = Topic.events("puts", { events: [Put], id: "id", key: "k", partitions: 12 })
const table = ReadModel.table("rows", { columns: { k: Schema.String, v: Schema.String }, primaryKey: ["k"] })
const projectionOf = (failure: Projection.Any["failure"] = {}) =>
  Projection.make({
    name: "p",
    version: 1,
    source,
    writes: [table],
    failure,
    handle: ({ k, v }, out) => out.upsert(table, { k, v })
  })
const puts = (keys: ReadonlyArray<string>, v = "v") => keys.map((k, i) => Put.make({ id: `${v}${i}`, k, v }))
const k0to9 = Array.from({ length: 10 }, (_, i) => `k${i}`)
const partitionOf = (k: string) => recordOf(source, Put.make({ id: "", k, v: "" }), 12).partition

/** Makes the rows of some keys fail with what the SQL raises. */
const refusing = (sql: Sql, raise: string, when = "new.k = 'k3'") =>
  query("create a trigger", () =>
    sql.unsafe(`create or replace function refuse() returns trigger language plpgsql as $$
      begin if ${when} then ${raise}; end if; return new; end $$;
      create or replace trigger refuse before insert or update on p_v1.rows for each row execute function refuse()`)
  )
const execute = (sql: Sql, text: string) => query("change", () => sql.unsafe(text))
const raising = (code: string) => `raise exception 'refused' using errcode = '${code}'`
const rows = (sql: Sql) =>
  Effect.map(
    query("read", () => sql<Array<{ k: string }>>`select k from p_v1.rows order by k`),
    (found) => found.map(({ k }) => k)
  )
/** Why partitions are halted or being tried again, by partition. */
const reasons = Effect.fnUntraced(function* (sql: Sql) {
  const found = yield* query(
    "read reasons",
    () => sql<Array<{ partition: number; halted: string | null; waiting: string | null }>>`
      select partition, halted, waiting from millrace.progress where halted is not null or waiting is not null order by partition`
  )
  return found.map(({ halted, partition, waiting }) => ({ partition, halted, waiting }))
})
/** Waits until a condition holds. The test's timeout limits it. */
const until = <E>(holds: Effect.Effect<boolean, E>) =>
  Effect.gen(function* () {
    while (!(yield* holds)) yield* Effect.sleep(5)
  })
const waits = { waiting: { firstMs: 5, mostMs: 30 }, halted: { firstMs: 20, mostMs: 50 } }
/** Runs a projection that no longer stops at the events of a partition for the rest of the test. */
const running = ({ log, store }: MemoryEngine, projection: Projection.Any) =>
  Effect.forkScoped(
    Runner.run(projection).pipe(
      Effect.provideService(Log, log),
      Effect.provideService(Store, store),
      Effect.provideService(Runner.RetryWaits, waits)
    ) as Effect.Effect<void>
  )
const test = (
  title: string,
  play: (engine: MemoryEngine, projection: Projection.Any) => Effect.Effect<void, unknown, Scope.Scope>,
  failure?: Projection.Any["failure"]
) =>
  it.live(title, () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projection = projectionOf(failure) as Projection.Any
        const engine = yield* memoryEngine(root, projection, [source], { partitions: 12 })
        yield* play(engine, projection)
      })
    )
  )

describe("an event that the database refuses is parked, and no other", () => {
  for (const [what, raise] of [
    ["by a trigger's exception", "raise exception 'no %', new.k"],
    ["for a limit", raising("54000")],
    ["with a SQLSTATE of the user", raising("MY001")],
    [
      "for a unique constraint of the user",
      "create temporary table if not exists one (k text unique); insert into one values ('a'), ('a')"
    ]
  ] as const) {
    test(what, (engine, projection) =>
      Effect.gen(function* () {
        const { append, sql } = engine
        yield* refusing(sql, raise)
        yield* append(source, [...puts(k0to9), ...puts(k0to9, "w")])
        yield* running(engine, projection)
        yield* until(Effect.map(parked(sql), (found) => found.length === 2))
        yield* until(Effect.map(rows(sql), (found) => found.length === 9))
        assert.deepStrictEqual(
          yield* rows(sql),
          k0to9.filter((k) => k !== "k3")
        )
        assert.deepStrictEqual(yield* reasons(sql), [])
      })
    )
  }
})

describe("what needs a person halts its partition alone, and goes on by itself once the cause is gone", () => {
  const others = (k: string) => k0to9.filter((other) => partitionOf(other) !== partitionOf(k))
  for (const [what, raise, halted] of [
    ["a table that a trigger misses", "perform 1 from audit", 'relation "audit" does not exist'],
    ["a missing privilege of a trigger", raising("42501"), "the privilege"],
    ["a feature that is not supported", raising("0A000"), "refused"],
    [
      "a sequence number that the outbox has already",
      `insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, meta, vals)
        select 'p', 'puts', 0, 1, 1, gen_random_uuid(), 'd', '', '' from generate_series(1, 2)`,
      "the stream's sequence numbers begin again. try: set outbox_seq"
    ]
  ] as const) {
    test(what, (engine, projection) =>
      Effect.gen(function* () {
        const { append, sql } = engine
        yield* refusing(sql, raise)
        yield* append(source, puts(k0to9))
        yield* running(engine, projection)
        yield* until(Effect.map(reasons(sql), (found) => found.length > 0))
        yield* until(Effect.map(rows(sql), (found) => found.length === others("k3").length))
        assert.deepStrictEqual(yield* rows(sql), others("k3"))
        const [found, ...more] = yield* reasons(sql)
        assert.deepStrictEqual([found!.partition, found!.waiting, more], [partitionOf("k3"), null, []])
        assert.include(found!.halted, halted)
        yield* Effect.sleep(100)
        assert.deepStrictEqual(yield* parked(sql), [])
        yield* execute(sql, "drop trigger refuse on p_v1.rows")
        yield* until(Effect.map(rows(sql), (all) => all.length === 10))
        assert.deepStrictEqual(yield* reasons(sql), [])
      })
    )
  }
  for (const [what, take, give] of [
    [
      "a privilege is taken and given back",
      "revoke insert, update on p_v1.rows from current_user",
      "grant all on p_v1.rows to current_user"
    ],
    ["a table is renamed and back", "alter table p_v1.rows rename to away", "alter table p_v1.away rename to rows"],
    [
      "a table loses its key and gets it back",
      "alter table p_v1.rows drop constraint rows_pkey",
      "alter table p_v1.rows add primary key (k)"
    ],
    [
      "a rule is created and dropped",
      "create rule also as on insert to p_v1.rows do also select 1",
      "drop rule also on p_v1.rows"
    ]
  ] as const) {
    test(what, (engine, projection) =>
      Effect.gen(function* () {
        const { append, sql } = engine
        yield* execute(sql, take)
        yield* append(source, puts(k0to9))
        yield* running(engine, projection)
        const halted = new Set(k0to9.map(partitionOf)).size
        yield* until(
          Effect.map(reasons(sql), (found) => found.length === halted && found.every((one) => one.halted !== null))
        )
        assert.deepStrictEqual(yield* parked(sql), [])
        yield* execute(sql, give)
        yield* until(Effect.map(rows(sql), (all) => all.length === 10))
        assert.deepStrictEqual(yield* reasons(sql), [])
      })
    )
  }
})

describe("what may pass is tried again without end, and status has the reason", () => {
  for (const code of ["53100", "25006", "58030", "53200", "57014", "XX000"]) {
    test(`SQLSTATE ${code}`, (engine, projection) =>
      Effect.gen(function* () {
        const { append, sql } = engine
        yield* refusing(sql, raising(code))
        yield* append(source, puts(k0to9))
        yield* running(engine, projection)
        const partition = partitionOf("k3")
        yield* until(Effect.map(reasons(sql), (found) => found.some((one) => one.partition === partition)))
        // the reason stays while it is tried again
        for (let i = 0; i < 20; i++) {
          const [found] = yield* reasons(sql)
          assert.deepStrictEqual([found?.partition, found?.halted], [partition, null])
          assert.include(found!.waiting, "refused")
          yield* Effect.sleep(5)
        }
        assert.deepStrictEqual(yield* parked(sql), [])
        yield* execute(sql, "drop trigger refuse on p_v1.rows")
        yield* until(Effect.map(rows(sql), (all) => all.length === 10))
        assert.deepStrictEqual(yield* reasons(sql), [])
      }))
  }
  test("a deadlock that a trigger raises four times", (engine, projection) =>
    Effect.gen(function* () {
      const { append, sql } = engine
      yield* execute(sql, "create sequence tries")
      yield* refusing(sql, raising("40001"), "new.k = 'k3' and nextval('tries') < 5")
      yield* append(source, puts(k0to9))
      yield* running(engine, projection)
      yield* until(Effect.map(rows(sql), (all) => all.length === 10))
      assert.deepStrictEqual([yield* parked(sql), yield* reasons(sql)], [[], []])
    }))
})

describe("a policy that stops", () => {
  test(
    "waits for a person if the handler failed, and goes on by itself if the database refused the event",
    (engine, projection) =>
      Effect.gen(function* () {
        const { append, sql } = engine
        yield* refusing(sql, "raise exception 'no'")
        yield* append(source, puts(k0to9))
        yield* running(engine, projection)
        yield* until(Effect.map(reasons(sql), (found) => found.length === 1))
        yield* execute(sql, "drop trigger refuse on p_v1.rows")
        yield* until(Effect.map(rows(sql), (all) => all.length === 10))
        assert.deepStrictEqual(yield* reasons(sql), [])
      }),
    { then: "stop" }
  )
  it.live("calls a handler that failed once, and not again and again", () =>
    Effect.scoped(
      Effect.gen(function* () {
        let calls = 0
        const projection: Projection.Any = Projection.make({
          name: "p",
          version: 1,
          source,
          writes: [table],
          failure: { then: "stop" },
          handle: () => {
            calls++
            throw new Error("no")
          }
        })
        const engine = yield* memoryEngine(root, projection, [source], { partitions: 12 })
        yield* engine.append(source, puts(["k1"]))
        yield* running(engine, projection)
        yield* until(Effect.map(reasons(engine.sql), (found) => found.length === 1))
        yield* Effect.sleep(150)
        assert.strictEqual(calls, 1)
      })
    )
  )
})
