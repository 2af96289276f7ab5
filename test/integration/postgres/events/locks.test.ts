// What the statements of the event store do while another transaction has the rows that they need, and after one was refused.
import { assert, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type { Append } from "../../../../src/aggregate/event-store.ts"
import { sealing } from "../../../../src/aggregate/sealing-store.ts"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import * as PostgresEvents from "../../../../src/postgres/events/events.ts"
import { boundaryStatement, loadStatement } from "../../../../src/postgres/events/read-sql.ts"
import { makeSubjectKeys } from "../../../../src/postgres/store/subject-keys.ts"
import { appendOf, event, events, numbers } from "../../../contract/event-store-support.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

class Server extends Context.Service<Server, { readonly url: string }>()("test/Server") {
  static readonly layer = Layer.effect(
    Server,
    Effect.map(server, (url) => Server.of({ url }))
  )
}
type Row = Readonly<Record<string, unknown>>
const setUpWith = Effect.fnUntraced(function* (judgesAll: boolean) {
  const { sql } = yield* databaseOn((yield* Server).url)
  const { statements, store } = PostgresEvents.make(sql, { judgesAll })
  yield* store.declare([{ name: "cases", partitions: 1 }])
  const append = (...given: Parameters<typeof appendOf>) => store.append(appendOf(...given), crypto.randomUUID())
  return { append, sql, statements, store }
})
/** How many sessions of the database wait for a lock. */
const waiting = (sql: Sql) =>
  Effect.map(
    query(
      "count",
      () => sql<Array<{ n: number }>>`
      select count(*)::int4 as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
    ),
    ([row]) => row!.n
  )
/** Runs a statement in a transaction, then effects one after another until each waits for its lock; commits, and returns how they ended. */
const whileUncommitted = Effect.fnUntraced(function* <A, E>(
  sql: Sql,
  statement: string,
  effects: ReadonlyArray<Effect.Effect<A, E>>
) {
  const session = yield* Effect.promise(() => sql.reserve())
  yield* query("begin", () => session.unsafe(`begin; ${statement}`).simple())
  const fibers: Array<Fiber.Fiber<A, E>> = []
  for (const [i, effect] of effects.entries()) {
    fibers.push(yield* Effect.forkChild(effect))
    // a statement that does not wait is missing here, and the assertions after it say so
    for (let tries = 0; tries < 100 && (yield* waiting(sql)) < i + 1; tries++) yield* Effect.promise(() => pause(10))
  }
  yield* query("commit", () => session.unsafe("commit"))
  session.release()
  return yield* Effect.forEach(fibers, (fiber) => Effect.result(Fiber.join(fiber)))
})
const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms))

const locks = (name: string, judgesAll: boolean) =>
  it.layer(Server.layer, { timeout: "60 seconds", excludeTestServices: true })(name, (it) => {
    const setUp = setUpWith(judgesAll)
    it.effect(
      "a refused append leaves no row of its stream behind, and takes one statement if it is sent by itself",
      Effect.fnUntraced(function* () {
        const { append, sql, statements } = yield* setUp
        assert.strictEqual((yield* Effect.flip(append("cases", "a", 3)))._tag, "VersionConflict")
        assert.strictEqual((yield* Effect.flip(append("cases", "b", "exists")))._tag, "VersionConflict")
        assert.strictEqual(statements(), 2)
        assert.deepStrictEqual(
          [...(yield* query("read", () => sql<Array<Row>>`select * from millrace.event_stream`))],
          []
        )
      }, Effect.scoped)
    )
    it.effect(
      "a conflict that is found under the lock says the version that was committed meanwhile",
      Effect.fnUntraced(function* () {
        const { append, sql, store } = yield* setUp
        yield* store.append(appendOf("cases", "a", 0), "first")
        // what follows another command is not sent again at a conflict
        const one = store.append(appendOf("cases", "a", 1, [event(2)], { follows: "first" }), "second")
        const beside = append("cases", "b", 0)
        const both = Effect.all([Effect.flip(one), beside], { concurrency: 2 })
        const found = yield* whileUncommitted(sql, "update millrace.event_stream set version = version + 3", [both])
        assert.strictEqual(found[0]!._tag, "Success")
        if (found[0]!._tag === "Success")
          assert.deepInclude(found[0]!.success[0], { _tag: "VersionConflict", expected: 1, actual: 4 })
      }, Effect.scoped)
    )
    it.effect(
      "one command that two processes send while they wait for the same lock appends once",
      Effect.fnUntraced(function* () {
        const { append, sql, store } = yield* setUp
        yield* append("cases", "a", 0)
        const other = PostgresEvents.make(sql).store
        const one = (of: typeof store) => of.append(appendOf("cases", "a", "any", events(2)), "one")
        const locked = "select from millrace.event_stream where stream = 'a' for update"
        const found = yield* whileUncommitted(sql, locked, [one(store), one(other)])
        const answers = found.map((result) => (result._tag === "Success" ? result.success : undefined))
        assert.deepStrictEqual(
          answers.map((answer) => [answer?.version, answer?.repeated]),
          [
            [3, false],
            [3, true]
          ]
        )
        assert.strictEqual((yield* store.load("cases", "a")).version, 3)
      }, Effect.scoped)
    )
    it.effect(
      "appends to several streams lock them in one order, whichever order they name them in",
      Effect.fnUntraced(function* () {
        const { append, sql, statements, store } = yield* setUp
        yield* append("cases", "a", 0)
        yield* append("cases", "b", 0)
        const before = statements()
        const both = (names: ReadonlyArray<string>) =>
          store.appendAll(
            names.map((name): Append => appendOf("cases", name, "any")),
            crypto.randomUUID()
          )
        const locked = "select from millrace.event_stream where stream = 'b' for update"
        const found = yield* whileUncommitted(sql, locked, [both(["b", "a"]), both(["a", "b"])])
        assert.isTrue(found.every(({ _tag }) => _tag === "Success"))
        // a deadlock would end one of them, and it would be sent again
        assert.strictEqual(statements() - before, 2)
      }, Effect.scoped)
    )
    it.effect(
      "a tag that a boundary only reads is checked under its lock",
      Effect.fnUntraced(function* () {
        const { append, sql, store } = yield* setUp
        yield* append("cases", "a", "any", [event(1, { tags: ["course"] })])
        const { boundary } = yield* store.readBoundary("cases", { tags: ["course"] })
        const late = store.appendAll([appendOf("cases", "b", "any")], "late", boundary)
        const [found] = yield* whileUncommitted(sql, "update millrace.event_tag set version = version + 1", [late])
        assert.isTrue(found!._tag === "Failure" && found!.failure._tag === "BoundaryMoved", JSON.stringify(found))
      }, Effect.scoped)
    )
    it.effect(
      "a boundary is not newer than the events that were read with it",
      Effect.fnUntraced(function* () {
        const { append, sql } = yield* setUp
        const tagged = append("cases", "a", "any", [event(1, { tags: ["course"] })])
        yield* tagged
        // the same again between the first statement of the read and whatever comes after it
        let reads = 0
        const between = new Proxy(sql, {
          get: (target, name, receiver) =>
            name !== "unsafe"
              ? (Reflect.get(target, name, receiver) as unknown)
              : async (...args: Parameters<Sql["unsafe"]>) => {
                  const answer: unknown = await target.unsafe(...args)
                  if (args[0] === boundaryStatement && reads++ === 0) await Effect.runPromise(tagged)
                  return answer
                }
        })
        const { boundary, events: read } = yield* PostgresEvents.make(between).store.readBoundary("cases", {
          tags: ["course"]
        })
        assert.deepStrictEqual(numbers(read), [1])
        assert.strictEqual(reads, 1)
        assert.deepStrictEqual(boundary.tags, [{ aggregate: "cases", tag: "course", version: 1 }])
      }, Effect.scoped)
    )
    it.effect(
      "an append that waits for an erasure of its subject is refused, and nothing is stored",
      Effect.fnUntraced(function* () {
        const { sql, store: open } = yield* setUp
        const store = sealing(open, makeSubjectKeys(sql))
        const personal = (n: number) => [event(n, { personal: ["n"], subjects: ["ada"] })]
        yield* store.append(appendOf("cases", "a", 0, personal(1)), "one")
        const late = store.append(appendOf("cases", "a", 1, personal(2)), "two")
        const erase = "update millrace.subject_key set key = null, destroyed_at = now() where subject = 'ada'"
        const [found] = yield* whileUncommitted(sql, erase, [late])
        assert.isTrue(found!._tag === "Failure" && found!.failure._tag === "SubjectErased", JSON.stringify(found))
        assert.strictEqual((yield* open.load("cases", "a")).version, 1)
      }, Effect.scoped)
    )
    it.effect(
      "a snapshot that waits for an erasure of its subject is not stored",
      Effect.fnUntraced(function* () {
        const { sql, store: open } = yield* setUp
        const store = sealing(open, makeSubjectKeys(sql))
        yield* store.append(appendOf("cases", "a", 0, [event(1, { personal: ["n"], subjects: ["ada"] })]), "one")
        const snapshot = store.saveSnapshot("cases", "a", {
          shape: "s",
          version: 1,
          state: '{"n":1}',
          subjects: ["ada"]
        })
        const erase = "update millrace.subject_key set key = null, destroyed_at = now() where subject = 'ada'"
        yield* whileUncommitted(sql, erase, [snapshot])
        assert.isUndefined((yield* open.load("cases", "a", { shape: "s" })).snapshot)
      }, Effect.scoped)
    )
    it.effect(
      "a load reads few pages of a stream that has most rows of the table, in any order",
      Effect.fnUntraced(function* () {
        const { append, sql } = yield* setUp
        yield* append("cases", "a", "any", events(1))
        yield* query(
          "fill",
          () => sql`
        insert into millrace.log_batch (topic_id, partition, base_position, next_position, records, bytes, meta, vals, entity, first_version, command_id)
        select topic_id, partition, i, i + 1, 1, bytes, meta, vals, entity, i + 1, gen_random_uuid()
        from millrace.log_batch cross join generate_series(1, 20000) i where entity = 'a' order by hashint4(i)`
        )
        yield* query("vacuum", () => sql`vacuum analyze millrace.log_batch`)
        const [head] = yield* query(
          "read",
          () => sql<Array<Row>>`select topic_id, partition from millrace.log_batch limit 1`
        )
        // from a late version, and from the first one for few events
        for (const [from, page] of [
          [19_990, 2_000],
          [1, 50]
        ] as const) {
          const parameters = [head!["topic_id"], head!["partition"], "a", null, from, 2 ** 53 - 1, null]
          const plan = yield* query("explain", () =>
            sql.unsafe<Array<Row>>(`explain (analyze, buffers) ${loadStatement(page)}`, parameters as never)
          )
          const text = plan.map((row) => String(Object.values(row)[0])).join("\n")
          assert.notMatch(text, /Seq Scan on log_batch|Bitmap Heap Scan on log_batch/)
          const [, hit, read] = /Buffers: shared hit=(\d+)(?: read=(\d+))?/.exec(text)!
          assert.isBelow(Number(hit) + Number(read ?? 0), 300, text)
        }
      }, Effect.scoped)
    )
  })
locks("locks of the event store", false)
locks("locks of the event store, where each command is judged", true)
