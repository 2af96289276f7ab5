// What a connection to PostgreSQL refuses, and what it sets for itself: encodings, poolers, settings of roles and databases, standbys.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { connect, query, type Sql } from "../../../../src/postgres/client/client.ts"
import { checkConnections } from "../../../../src/postgres/client/server-check.ts"
import { migrate } from "../../../../src/postgres/client/migrate.ts"
import { PoolingProxy, type PoolingOptions } from "../../../support/pooling-proxy.ts"
import { server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(effect.pipe(Scope.provide(scope)))
let url: string
let sql: Sql
beforeAll(async () => {
  url = await inScope(server)
  sql = await inScope(connect(url, { max: 1 }))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const urlWith = (change: (url: URL) => void) => {
  const other = new URL(url)
  change(other)
  return other.href
}
const refusal = (of: string) => Effect.runPromise(Effect.scoped(Effect.flip(connect(of))))

describe("A database's encoding", () => {
  for (const encoding of ["LATIN1", "SQL_ASCII", "EUC_JP"]) {
    it(`${encoding} is refused with what to do`, async () => {
      const name = `in_${encoding.toLowerCase()}`
      await sql.unsafe(
        `create database ${name} template template0 encoding '${encoding}' locale 'C' locale_provider libc`
      )
      const error = await refusal(urlWith((other) => (other.pathname = `/${name}`)))
      assert.strictEqual(
        error.message,
        `connect: the database ${name} is encoded in ${encoding}, which cannot hold every text; Millrace needs UTF8. ` +
          `try: create database NAME encoding 'UTF8' template template0, and name that one in the database's URL`
      )
      assert.isFalse(error.retryable)
    })
  }
})

describe("A server or a role that cannot write", () => {
  it("a standby is refused with what to do", async () => {
    await sql.unsafe(
      `create schema standby; create function standby.pg_is_in_recovery() returns boolean language sql as $$ select true $$`
    )
    const error = await refusal(urlWith((other) => other.searchParams.set("search_path", "standby,pg_catalog")))
    assert.strictEqual(
      error.message,
      "connect: the server is a standby, which cannot write. try: name the primary in the database's URL, or promote this server"
    )
    const standby = urlWith((other) => other.searchParams.set("search_path", "standby,pg_catalog"))
    await Effect.runPromise(Effect.scoped(connect(standby, { readOnly: true })))
  })
  it("a role without the right to create schemas is told which right it lacks", async () => {
    await sql.unsafe("create database readable")
    await sql.unsafe("revoke create on database readable from current_user")
    const other = urlWith((own) => (own.pathname = "/readable"))
    const error = await Effect.runPromise(
      Effect.scoped(Effect.flip(Effect.flatMap(connect(other), (own) => migrate(own))))
    )
    assert.match(
      error.message,
      /permission denied for database readable\. try: .*grant create on database NAME to ROLE/
    )
  })
  it("a collation by language works, because keys are ordered by their bytes", async () => {
    await sql.unsafe(
      `create database swedish template template0 locale_provider icu icu_locale 'sv-SE' locale 'C' encoding 'UTF8'`
    )
    const other = urlWith((own) => (own.pathname = "/swedish"))
    const applied = await Effect.runPromise(Effect.scoped(Effect.flatMap(connect(other), (own) => migrate(own))))
    assert.include(applied, "0001_log.sql")
  })
})

describe("A pooler", () => {
  const through = async <A>(options: PoolingOptions, use: (url: string) => Promise<A>): Promise<A> => {
    const proxy = new PoolingProxy(Number(new URL(url).port), options)
    await proxy.open()
    try {
      return await use(urlWith((other) => (other.port = String(proxy.port))))
    } finally {
      await proxy.close()
    }
  }
  for (const order of ["last", "turns"] as const) {
    it(`that shares sessions by transaction, giving out ${order === "last" ? "the last one" : "each in turn"}, is refused`, async () => {
      const error = await through({ mode: "transaction", order }, refusal)
      assert.match(
        error.message,
        /^connect: a pooler .* gives each transaction to another session.*pool_mode = session/
      )
      assert.isFalse(error.retryable)
    })
  }
  it("that keeps a session for each client works", async () => {
    await through({ mode: "session" }, (pooled) =>
      Effect.runPromise(
        Effect.scoped(
          Effect.gen(function* () {
            const client = yield* connect(pooled, { max: 2 })
            const [row] = yield* query("read", () => client`select ${1}::int + 1 as sum`)
            assert.deepStrictEqual(row, { sum: 2 })
          })
        )
      )
    )
  })
})

describe("A limit of connections", () => {
  const check = (needed: number) =>
    Effect.runPromise(Effect.flip(query("connect", () => checkConnections(sql, needed))))
  it("of the server or the database is refused if it is below what one process needs", async () => {
    const [row] = await sql`select current_database() as name, current_setting('max_connections') as max`
    const { max, name } = row as unknown as Record<string, string>
    assert.match(
      (await check(Number(max))).message,
      /^connect: max_connections of the server .* leaves \d+ connections/
    )
    await sql.unsafe(`alter database "${name}" connection limit 5`)
    assert.include(
      (await check(10)).message,
      `the connection limit of the database ${name} leaves 5 connections, and one process`
    )
    await checkConnections(sql, 5)
    await sql.unsafe(`alter database "${name}" connection limit -1`)
  })
})

describe("Settings of a role or a database", () => {
  const odd: Readonly<Record<string, string>> = {
    TimeZone: "'Asia/Kathmandu'",
    DateStyle: "'SQL, DMY'",
    IntervalStyle: "'iso_8601'",
    bytea_output: "'escape'",
    standard_conforming_strings: "off",
    extra_float_digits: "-4",
    array_nulls: "off",
    default_transaction_isolation: "'serializable'",
    default_transaction_read_only: "on",
    statement_timeout: "1",
    idle_in_transaction_session_timeout: "1",
    transaction_timeout: "60000",
    idle_session_timeout: "1",
    search_path: "nowhere",
    synchronous_commit: "off"
  }
  it("do not reach the sessions: values, migrations and commits are as anywhere", async () => {
    await sql.unsafe("create database odd")
    for (const [name, value] of Object.entries(odd)) {
      await sql.unsafe(`alter role current_user in database odd set ${name} = ${value}`)
      await sql.unsafe(`alter database odd set ${name} = ${value}`)
    }
    const oddUrl = urlWith((other) => (other.pathname = "/odd"))
    await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const client = yield* connect(oddUrl, { max: 2, searchPath: `"$user",public` })
          yield* migrate(client)
          const [row] = yield* query(
            "read",
            () => client`
              select '\\d'::text as text, timestamptz '2026-01-31 12:00+00' as time, '\\x01ff'::bytea as bytes, 0.1::float8 + 0.2 as sum,
                ('{a,NULL}'::text[])[2] is null as null, interval '1 day'::text as day, current_setting('search_path') as path,
                current_setting('synchronous_commit') as durable, current_setting('transaction_timeout') as patience, current_setting('transaction_isolation') as isolation`
          )
          assert.deepStrictEqual(row, {
            text: String.raw`\d`,
            time: Date.UTC(2026, 0, 31, 12),
            bytes: Buffer.from([1, 255]),
            sum: 0.1 + 0.2,
            null: true,
            day: "1 day",
            path: `"$user",public`,
            durable: "on",
            patience: "0",
            isolation: "read committed"
          } as never)
        })
      )
    )
  })
  it("that the database's URL overrides are refused by name", async () => {
    const error = await refusal(urlWith((other) => other.searchParams.set("bytea_output", "escape")))
    assert.match(
      error.message,
      /the setting bytea_output is 'escape', although 'hex' was asked for: .*take it out of the URL/
    )
  })
  it("that skip triggers, as for replication, are refused", async () => {
    await sql.unsafe(`create schema replaying; create function replaying.current_setting(name text) returns text language sql
      as $$ select case name when 'session_replication_role' then 'replica' else pg_catalog.current_setting(name) end $$`)
    const error = await refusal(urlWith((other) => other.searchParams.set("search_path", "replaying,pg_catalog")))
    assert.match(error.message, /session_replication_role is 'replica', although 'origin'/)
  })
})
