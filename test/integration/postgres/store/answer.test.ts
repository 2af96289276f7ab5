// A commit that is not answered: the wait ends, and what was committed is looked up before anything is sent again.
import type net from "node:net"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { answered } from "../../../../src/postgres/client/answer.ts"
import { connect, query, transaction, type Sql } from "../../../../src/postgres/client/client.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import type { StoreError } from "../../../../src/runner/store.ts"
import { application, batchOf, counted, counting, events } from "../../../fault/commits.ts"
import { engine, type Engine } from "../../../support/engine.ts"
import { server } from "../../../support/postgres.ts"
import { TcpProxy } from "../../../support/tcp-proxy.ts"

const scope = Scope.makeUnsafe()
let engineOf: Engine
beforeAll(async () => {
  engineOf = await Effect.runPromise(
    Effect.flatMap(server, (root) => engine(root, application)).pipe(Scope.provide(scope))
  )
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const one = counting()
const answerMs = 400
/** A proxy that loses what the server sends on connections which exist when it becomes silent. */
class SilentProxy extends TcpProxy {
  private readonly joined = new Set<readonly [net.Socket, net.Socket]>()
  protected override join(client: net.Socket, backend: net.Socket): void {
    super.join(client, backend)
    this.joined.add([client, backend])
  }
  silence(): void {
    for (const [client, backend] of this.joined) backend.unpipe(client).resume()
  }
}
const throughProxy = Effect.gen(function* () {
  const url = new URL(engineOf.url)
  const proxy = new SilentProxy(Number(url.port))
  yield* Effect.acquireRelease(
    Effect.promise(() => proxy.open()),
    () => Effect.promise(() => proxy.close())
  )
  url.port = String(proxy.port)
  return { proxy, sql: yield* connect(url.href, { max: 3 }) }
})

it.live("a commit that waits for a lock fails as one to be tried again, leaves nothing behind, and passes later", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { sql } = engineOf
      const store = PostgresStore.make(sql, { answerMs })
      const claim = yield* store.claim(one, events.name, 0, 1)
      const error = yield* transaction(sql, (tx) =>
        Effect.gen(function* () {
          yield* query("lock", () => tx.unsafe("lock table counting_v1.notes in access exclusive mode"))
          const failed = yield* Effect.flip(store.commit(one, claim, batchOf(claim, ["a"])))
          // the session that waited for the lock was ended, so that such sessions do not pile up
          assert.strictEqual(yield* waiting(sql), 0)
          return failed
        })
      )
      assert.strictEqual(error._tag, "StoreError")
      const { reason, retryable } = error as StoreError
      assert.isTrue(retryable)
      assert.include(reason, "PostgreSQL has not answered within 0.4 s")
      assert.include(reason, "pg_locks")
      assert.notProperty(yield* counted(sql), "a")
      yield* store.commit(one, claim, batchOf(claim, ["a"]))
      assert.property(yield* counted(sql), "a")
    })
  )
)
const waiting = (sql: Sql) =>
  query(
    "count the sessions that wait",
    () => sql`select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`
  ).pipe(Effect.map(({ length }) => length))

it.live("a commit whose answer is lost without an error is found to be committed, and is not made twice", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const { proxy, sql } = yield* throughProxy
      const store = PostgresStore.make(sql, { answerMs })
      const first = yield* store.claim(one, events.name, 1, 1)
      // prepares the statement, so that the next one is executed at once
      const claim = yield* store.commit(one, first, batchOf(first, ["b0"]))
      proxy.silence()
      const next = yield* store.commit(one, claim, batchOf(claim, ["b"]))
      assert.strictEqual(next.commitNo, claim.commitNo + 1)
      yield* store.commit(one, next, batchOf(next, ["c"]))
      const found = yield* counted(engineOf.sql)
      assert.containsAllKeys(found, ["b0", "b", "c"])
    })
  )
)

it.live("a statement that waits for a connection is not sent after its wait ended", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const sql = yield* connect(engineOf.url, { max: 1 })
      yield* query("create", () => sql.unsafe("create table late (a int)"))
      const slow = sql.unsafe("select pg_sleep(0.3)").execute()
      const error = yield* Effect.flip(
        query("insert", () => answered(sql.unsafe("insert into late values ($1::int)", [1]), 100))
      )
      assert.deepStrictEqual([error.code, error.inDoubt, error.retryable], ["NO_ANSWER", true, true])
      yield* query("sleep", () => slow)
      assert.strictEqual((yield* query("count", () => sql`select from late`)).length, 0)
    })
  )
)
