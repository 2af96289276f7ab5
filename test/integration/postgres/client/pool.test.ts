// A pool of connections: which one a statement gets, and that it has the connection for itself.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { connect, type Sql } from "../../../../src/postgres/client/client.ts"
import { server } from "../../../support/postgres.ts"

const sessionOf = async (pool: Sql) => (await pool<Array<{ pid: number }>>`select pg_backend_pid() as pid`)[0]!.pid
const sessions = async (pool: Sql, count: number) => {
  const found: Array<number> = []
  for (let i = 0; i < count; i++) found.push(await sessionOf(pool))
  return found
}

describe("a pool", () => {
  it.live("uses the connection again that was used last, also after a connection was lost", () =>
    Effect.gen(function* () {
      const url = yield* server
      const pool = yield* connect(url, { max: 4 })
      const other = yield* connect(url, { max: 1 })
      const asleep = () => pool<Array<{ pid: number }>>`select pg_backend_pid() as pid, pg_sleep(0.02)`
      const distinct = (answers: ReadonlyArray<ReadonlyArray<{ pid: number }>>) =>
        new Set(answers.map(([row]) => row!.pid)).size
      yield* Effect.promise(async () => {
        assert.strictEqual(distinct(await Promise.all(Array.from({ length: 4 }, asleep))), 4)
        assert.strictEqual(new Set(await sessions(pool, 8)).size, 1)
        // the connection that is idle again last is used next
        const [slow] = await Promise.all([
          pool<Array<{ pid: number }>>`select pg_backend_pid() as pid, pg_sleep(0.1)`,
          sessionOf(pool)
        ])
        const { pid: last } = slow[0]!
        assert.strictEqual(await sessionOf(pool), last)
        await other`select pg_terminate_backend(${last})`
        // the server ends it a moment later, and a statement that is under way then fails
        let next: number | undefined
        while (next === undefined || next === last) next = await sessionOf(pool).catch(() => undefined)
        assert.deepStrictEqual([...new Set(await sessions(pool, 8))], [next])
        // the connection that was lost is opened again; the driver may answer its first statement with why the server ended it
        await Promise.allSettled(Array.from({ length: 4 }, asleep))
        assert.strictEqual(distinct(await Promise.all(Array.from({ length: 4 }, asleep))), 4)
      })
    }).pipe(Effect.scoped)
  )

  it.live("has one statement at a time on each connection", () =>
    Effect.gen(function* () {
      const pool = yield* connect(yield* server, { max: 2 })
      yield* Effect.promise(async () => {
        await sessions(pool, 2)
        const all = Array.from({ length: 6 }, () => pool`select pg_sleep(0.05)`.execute())
        // a statement has the state of the session that it was sent to; they are sent in the next turn of the event loop
        await new Promise((resolve) => void setImmediate(resolve))
        const sent = all.filter((one) => (one as unknown as { readonly state: unknown }).state !== null)
        assert.isAtMost(sent.length, 2)
        await Promise.all(all)
      })
    }).pipe(Effect.scoped)
  )
})
