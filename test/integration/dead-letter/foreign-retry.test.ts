// Retry records count for the database whose dlq command wrote them; other records with such a header are events or dead letters, never lost.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { retryRecord } from "../../../src/dead-letter/retry-record.ts"
import { Projection, ReadModel, Topic } from "../../../src/index.ts"
import { Log } from "../../../src/log/log.ts"
import * as MemoryLog from "../../../src/memory/log.ts"
import { query } from "../../../src/postgres/client/client.ts"
import * as Stored from "../../../src/postgres/store/dead-letters.ts"
import * as PostgresStore from "../../../src/postgres/store/store.ts"
import * as Runner from "../../../src/runner/runner.ts"
import { Store } from "../../../src/runner/store.ts"
import { appendRetryRecords } from "../../../src/system/dead-letters/projections.ts"
import { recordOf, settled } from "../../support/engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const source = Topic.records("source", {
  value: { id: Schema.String, tenant: Schema.String },
  key: "id",
  tenant: "tenant"
})
let isFixed = false
const projectionOf = (name: string) => {
  const rows = ReadModel.table(`${name}_rows`, { columns: { id: Schema.String }, primaryKey: ["id"] })
  return Projection.make({
    name,
    version: 1,
    source,
    writes: [rows],
    handle: ({ id }, out) => {
      if (id.startsWith("bad") && !isFixed) throw new Error("not yet")
      out.upsert(rows, { id })
    }
  }) as Projection.Of<never, never>
}
const event = (id: string, retry?: string, tenant = "t") => ({
  ...recordOf(source, { id, tenant }, 1),
  tenant: undefined,
  headers: retry === undefined ? {} : { "millrace-retry": retry }
})
const aLog = Effect.gen(function* () {
  const { log } = MemoryLog.make()
  yield* log.declare([{ name: "source", partitions: 1, compacted: false, retentionMs: undefined }])
  return log
})
/** A database with the projection `p` over the log. */
const databaseOver = Effect.fnUntraced(function* (log: Log["Service"]) {
  isFixed = false
  const { sql } = yield* databaseOn(root, 4)
  const store = PostgresStore.make(sql)
  const projection = projectionOf("p")
  yield* store.prepare([projection], () => 1)
  const handle = Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.forkScoped(Runner.run(projection))
      yield* settled({ log, sql } as Parameters<typeof settled>[0])
    })
  ).pipe(Effect.provideService(Log, log), Effect.provideService(Store, store))
  const retry = Effect.gen(function* () {
    const open = yield* query("read", () => Stored.retryable(sql, { statuses: ["parked", "retrying"], limit: 100 }))
    return yield* appendRetryRecords(sql, log, open, "tester")
  })
  const ids = Effect.map(
    query("ids", () => sql<Array<{ id: string }>>`select id from p_v1.p_rows order by id`),
    (found) => found.map(({ id }) => id)
  )
  const letters = Effect.map(
    query(
      "letters",
      () => sql<Array<{ position: number; status: string; message: string }>>`
        select position, status, message from millrace.dead_letters order by position`
    ),
    (found) => found.map(({ message, position, status }) => `${position} ${status} ${message}`)
  )
  return { sql, handle, retry, ids, letters }
})
const live = (name: string, test: Effect.Effect<void, unknown, Scope.Scope>) => it.live(name, () => Effect.scoped(test))

describe("a retry record", () => {
  live(
    "of one database does nothing in another one that reads the same log",
    Effect.gen(function* () {
      const log = yield* aLog
      const [production, staging] = [yield* databaseOver(log), yield* databaseOver(log)]
      yield* log.append("source", [event("bad1"), event("a")])
      yield* production.handle
      yield* staging.handle
      isFixed = true
      assert.strictEqual(yield* staging.retry, 1)
      yield* production.handle
      yield* staging.handle
      assert.deepStrictEqual([yield* production.ids, yield* production.letters], [["a"], ["0 parked not yet"]])
      assert.deepStrictEqual([yield* staging.ids, yield* staging.letters], [["a", "bad1"], ["0 retried not yet"]])
      // what production discarded stays so, and its own retries count
      assert.strictEqual(yield* production.retry, 1)
      yield* production.handle
      assert.deepStrictEqual(yield* production.letters, ["0 retried not yet"])
    })
  )
  live(
    "from before databases had ids counts for each database",
    Effect.gen(function* () {
      const log = yield* aLog
      const database = yield* databaseOver(log)
      yield* log.append("source", [event("bad1")])
      yield* database.handle
      isFixed = true
      yield* log.append("source", [retryRecord(event("bad1"), "p", 0)])
      yield* database.handle
      assert.deepStrictEqual([yield* database.ids, yield* database.letters], [["bad1"], ["0 retried not yet"]])
    })
  )
  live(
    "of another projection, database or subscription is skipped",
    Effect.gen(function* () {
      const log = yield* aLog
      const { handle, ids, letters, sql } = yield* databaseOver(log)
      yield* PostgresStore.make(sql).prepare([projectionOf("q")], () => 1)
      // it is not run here
      yield* query("forget", () => sql`delete from millrace.progress where projection = 'q'`)
      const others = ["q/0", "q/0/01234567", "gone/0/01234567", "p/0/01234567", "subscription:s"]
      yield* log.append("source", [event("a"), ...others.map((header) => event(`copy ${header}`, header)), event("b")])
      yield* handle
      assert.deepStrictEqual([yield* ids, yield* letters], [["a", "b"], []])
    })
  )
})

describe("a header millrace-retry of another program", () => {
  const none = [
    "",
    "hello",
    "\udcff\0",
    "p",
    "p/",
    "p/abc",
    "/0",
    "p/-1",
    "p/0/xyz",
    "p/0/01234567/1",
    "relay",
    "__proto__"
  ]
  live(
    "is a header as any other",
    Effect.gen(function* () {
      const log = yield* aLog
      const { handle, ids, letters } = yield* databaseOver(log)
      yield* log.append(
        "source",
        none.map((header, i) => event(`e${String(i).padStart(2, "0")}`, header))
      )
      yield* handle
      assert.deepStrictEqual(yield* letters, [])
      assert.strictEqual((yield* ids).length, none.length)
    })
  )
  live(
    "that could be a retry record, of no projection or position that there is, makes the record a dead letter, which can be retried",
    Effect.gen(function* () {
      const log = yield* aLog
      const database = yield* databaseOver(log)
      yield* log.append("source", [event("a"), event("b", "gone/0"), event("c", "p/99"), event("d", "p/3")])
      yield* database.handle
      const advice =
        "if it is an event, retry this dead letter, which processes it without the header; if not, discard it"
      assert.deepStrictEqual(yield* database.letters, [
        `1 parked its header millrace-retry is "gone/0", and this database has no projection gone; ${advice}`,
        `2 parked its header millrace-retry is "p/99", and that position is not before its own; ${advice}`,
        `3 parked its header millrace-retry is "p/3", and that position is not before its own; ${advice}`
      ])
      assert.strictEqual(yield* database.retry, 3)
      yield* database.handle
      assert.deepStrictEqual(yield* database.ids, ["a", "b", "c", "d"])
    })
  )
})

live(
  "a tenant in the value is held to the rules of one in a header",
  Effect.gen(function* () {
    const log = yield* aLog
    const { handle, ids, letters } = yield* databaseOver(log)
    const tenants = ["x".repeat(1_024), "x".repeat(1_025), "é".repeat(512), "é".repeat(513), ""]
    yield* log.append(
      "source",
      tenants.map((tenant, i) => event(`e${i}`, undefined, tenant))
    )
    yield* handle
    const tooLong = "parked its tenant has more than 1024 bytes"
    assert.deepStrictEqual(yield* letters, [`1 ${tooLong}`, `3 ${tooLong}`, "4 parked its tenant is empty"])
    assert.deepStrictEqual(yield* ids, ["e0", "e2"])
  })
)
