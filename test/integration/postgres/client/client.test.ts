// The PostgreSQL client: its errors, its conversions of values, and transactions outside of which nothing is executed.
import { spawnSync } from "node:child_process"
import { chownSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Embedded from "../../../../src/postgres/embedded/embedded.ts"
import { connect, query, SqlError, type Sql, transaction } from "../../../../src/postgres/client/client.ts"
import { toSqlError } from "../../../../src/postgres/client/errors.ts"
import { arrayLiteral } from "../../../../src/postgres/client/types.ts"
import { skipWithout } from "../../../support/stack.ts"

const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-client-"))
const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(effect.pipe(Scope.provide(scope)))
let server: Embedded.EmbeddedServer
let sql: Sql
beforeAll(async () => {
  server = await inScope(Embedded.start({ dataDir: join(directory, "state") }))
  sql = await inScope(connect(server.url))
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(directory, { recursive: true, force: true })
})

const urlWith = (change: (url: URL) => void) => {
  const url = new URL(server.url)
  change(url)
  return url.href
}
const refused = (url: string) => Effect.runPromise(Effect.scoped(Effect.flip(connect(url))))
const failure = <A>(run: () => PromiseLike<A>) => Effect.runPromise(Effect.flip(query("try", run)))
const kill = (pid: number) => sql`select pg_terminate_backend(${pid})`

describe("connect", () => {
  it("reports what to try when it cannot connect", async () => {
    for (const [change, code, text] of [
      [(url: URL) => (url.password = "wrong"), "28P01", "check the user and the password"],
      [(url: URL) => (url.port = "1"), "ECONNREFUSED", "start the server there"],
      [(url: URL) => (url.pathname = "/nowhere"), "3D000", "create the database"]
    ] as const) {
      const error = await refused(urlWith(change))
      assert.strictEqual(error.code, code)
      assert.include(error.message, text)
      assert.notInclude(error.message, "\n")
      assert.strictEqual(error.retryable, code === "ECONNREFUSED")
    }
    const malformed = await refused("mysql://user:secret@host/db")
    assert.include(malformed.message, "try: postgres://")
    assert.notInclude(malformed.message, "secret")
    for (const url of [
      "postgres://u:s%zzecret@host/db",
      "postgres://u%:secret@host/db",
      "postgres://u:secret@host/d%2"
    ]) {
      const { message } = await refused(url)
      assert.include(message, "has a % that is not followed by the two digits of a character. try: write %25 for a %")
      assert.notInclude(message, "ecret")
    }
  })

  it("refuses a server older than version 15", async () => {
    await sql.unsafe(`create schema old; create function old.current_setting(text) returns text language sql
      as $$ select '140012' $$`)
    const error = await refused(urlWith((url) => url.searchParams.set("search_path", "old,pg_catalog")))
    assert.include(error.message, "the server is PostgreSQL 14. try: use PostgreSQL 15 or newer, or the embedded one")
  })

  it("reads int8 as numbers and times as milliseconds, and with `asText` every value as text", async () => {
    const time = Date.UTC(2013, 0, 1, 10, 0, 0, 123)
    const statement = `select 9007199254740991::int8 as n, $1::timestamptz as t, 'infinity'::timestamptz as i,
      '0044-03-15 12:00:00+00 BC'::timestamptz as b, '2013-01-01'::date as d, $2::text[] is not null as a`
    const [row] = await sql.unsafe(statement, [time, "{}"])
    const ides = new Date(0).setUTCFullYear(-43, 2, 15) + 43_200_000
    assert.deepStrictEqual({ ...row }, { n: 2 ** 53 - 1, t: time, i: Infinity, b: ides, d: "2013-01-01", a: true })
    assert.include((await failure(() => sql`select 9007199254740993::int8`)).message, "9007199254740993 is beyond 2^53")
    assert.deepStrictEqual([...(await sql`select 1 as still`)], [{ still: 1 }])
    const shown = await inScope(connect(server.url, { asText: true, max: 1 }))
    const [texts] = await shown`select 1::int8 as n, true as b, '{"a": 1}'::jsonb as j, to_timestamp(0) as t, null as x`
    assert.deepStrictEqual({ ...texts }, { n: "1", b: "t", j: '{"a": 1}', t: "1970-01-01 00:00:00+00", x: null })
  })

  it("sends arrays of any texts and numbers", async () => {
    const texts = ["", "a b", 'q"uote', "back\\slash", "{}", "null", "NULL", "a,b", "ü\n", null]
    const rows =
      await sql`select * from unnest(${arrayLiteral(texts)}::text[]) with ordinality as t (value, n) order by n`
    assert.deepStrictEqual(
      rows.map((row) => row["value"]),
      texts
    )
    const numbers = [0, -1.5, 1e300, Number.NaN, Infinity, null]
    const back =
      await sql`select * from unnest(${arrayLiteral(numbers)}::float8[]) with ordinality as t (value, n) order by n`
    assert.deepStrictEqual(
      back.map((row) => row["value"]),
      numbers
    )
    assert.strictEqual(arrayLiteral([]), "{}")
  })
})

describe("rows", () => {
  const failing = "select repeat('x', 9000) as x, 1 / (5 - n) as y from generate_series(1, 9) as n"

  it("are those of the statement, also after one that failed, or lost its connection, after its first rows", async () => {
    const pool = await inScope(connect(server.url, { max: 1 }))
    assert.strictEqual((await failure(() => pool.unsafe(failing, [], { prepare: true }))).code, "22012")
    assert.deepEqual([...(await pool.unsafe("select 7 as n", [], { prepare: true }))], [{ n: 7 }])
    assert.strictEqual((await failure(() => pool.unsafe(failing))).code, "22012")
    assert.deepEqual([...(await pool`select 7 as n`)], [{ n: 7 }])
    await failure(() => pool.unsafe(failing))
    const several = (await pool.unsafe("select 7 as n; select 8 as n")) as unknown as ReadonlyArray<Iterable<object>>
    assert.deepEqual(
      several.map((rows) => Array.from(rows)),
      [[{ n: 7 }], [{ n: 8 }]]
    )
    await failure(() => pool.unsafe(failing))
    const delivered: Array<object> = []
    await pool.unsafe("select n from generate_series(7, 8) as n").cursor(1, (rows) => void delivered.push(...rows))
    assert.deepEqual(delivered, [{ n: 7 }, { n: 8 }])

    const lost =
      "select repeat('x', 9000) as x, case when n = 9 then pg_terminate_backend(pg_backend_pid()) end from generate_series(1, 9) as n"
    await failure(() => pool.unsafe(lost, [], { prepare: true }))
    // the first one may still be sent over the connection that ends
    const again = query("read", () => pool.unsafe("select 7 as n", [], { prepare: true }))
    assert.deepEqual([...(await Effect.runPromise(Effect.retry(again, { times: 3 })))], [{ n: 7 }])
    const found = await Effect.runPromise(
      transaction(sql, (tx) =>
        Effect.gen(function* () {
          yield* query("savepoint", () => tx.unsafe("savepoint s"))
          yield* Effect.flip(query("fail", () => tx.unsafe(failing)))
          yield* query("roll back", () => tx.unsafe("rollback to s"))
          return yield* query("read", () => tx`select 7 as n`)
        })
      )
    )
    assert.deepEqual([...found], [{ n: 7 }])
  })
})

describe("TLS", () => {
  it("is used as sslmode demands, and certificates are verified if it demands that", async ({ skip }) => {
    const cluster = join(directory, "state/postgres")
    const [certificate, key] = [join(cluster, "server.crt"), join(cluster, "server.key")]
    const subject = ["-subj", "/CN=millrace", "-addext", "subjectAltName=IP:127.0.0.1"]
    const files = ["-keyout", key, "-out", certificate, "-days", "2", "-nodes"]
    if (spawnSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", ...subject, ...files]).status !== 0) {
      return skipWithout("openssl", "openssl is not installed. try: apt-get install openssl", skip)
    }
    const encrypted = async (mode: string, root?: string) => {
      const url = urlWith(({ searchParams }) => {
        searchParams.set("sslmode", mode)
        if (root !== undefined) searchParams.set("sslrootcert", root)
      })
      const pool = await inScope(connect(url, { max: 1 }))
      return (await pool`select ssl from pg_stat_ssl where pid = pg_backend_pid()`)[0]?.["ssl"]
    }
    assert.strictEqual(await encrypted("prefer"), false)
    assert.include(
      (await refused(urlWith((url) => url.searchParams.set("sslmode", "require")))).message,
      "127.0.0.1 offers no TLS, and sslmode=require requires it"
    )
    const { gid, uid } = statSync(cluster)
    for (const file of [certificate, key]) chownSync(file, uid, gid)
    writeFileSync(join(cluster, "postgresql.conf"), "\nssl = on\n", { flag: "a" })
    process.kill(Number.parseInt(readFileSync(join(cluster, "postmaster.pid"), "utf8"), 10), "SIGHUP")
    // the server reloads its configuration a moment later
    while ((await encrypted("prefer")) !== true) await new Promise((resolve) => setTimeout(resolve, 20))
    assert.strictEqual(await encrypted("disable"), false)
    assert.strictEqual(await encrypted("prefer"), true)
    assert.strictEqual(await encrypted("require"), true)
    assert.strictEqual(await encrypted("verify-full", certificate), true)
    assert.include(
      (await refused(urlWith((url) => url.searchParams.set("sslmode", "verify-full")))).message,
      "self-signed"
    )
  })
})

describe("query", () => {
  it("names the operation, and reports whether the error is retryable or in doubt", async () => {
    const syntax = await failure(() => sql`selec 1`)
    assert.deepStrictEqual(
      [syntax.operation, syntax.code, syntax.retryable, syntax.inDoubt],
      ["try", "42601", false, false]
    )
    for (const [code, retryable, inDoubt] of [
      ["40001", true, false],
      ["40P01", true, false],
      ["55P03", true, false],
      ["57P01", true, false],
      ["53300", true, false],
      ["53100", false, false],
      ["23505", false, false],
      ["08006", true, false],
      ["CONNECTION_CLOSED", true, true],
      ["CONNECTION_ENDED", false, false],
      ["ECONNREFUSED", true, false],
      ["CONNECT_TIMEOUT", true, false],
      ["ECONNRESET", true, true]
    ] as const) {
      const error = toSqlError("x", Object.assign(new Error("m"), { code }))
      assert.deepStrictEqual([code, error.retryable, error.inDoubt], [code, retryable, inDoubt])
    }
  })

  it(
    "recovers when all connections end at once, and leaves no statement without an answer",
    { timeout: 60_000 },
    async () => {
      const pool = await inScope(connect(server.url, { max: 8 }))
      const attempt = async (n: number) => {
        const exit = await Effect.runPromise(
          Effect.exit(query("work", () => pool`select ${n}::int as n, pg_sleep(0.001)`))
        )
        if (Exit.isSuccess(exit)) assert.strictEqual(exit.value[0]?.["n"], n, "the answer to another statement")
        return exit
      }
      for (let round = 0; round < 3; round++) {
        const until = performance.now() + 1_100
        // a statement without an answer would make the test wait forever
        const worker = async (n: number) => {
          while (performance.now() < until) await attempt(n)
        }
        const workers = Array.from({ length: 12 }, (_, n) => worker(n))
        await new Promise((resolve) => setTimeout(resolve, 100))
        const file = join(directory, "state/postgres/postmaster.pid")
        const pid = () => readFileSync(file, "utf8").split("\n")[0]
        const killed = pid()
        process.kill(Number(killed), "SIGKILL")
        await Promise.all(workers)
        // until then a session of the killed server may still answer
        while (pid() === killed) await new Promise((resolve) => setTimeout(resolve, 20))
        while (Exit.isFailure(await attempt(0))) await new Promise((resolve) => setTimeout(resolve, 20))
        const exits = await Promise.all(Array.from({ length: 16 }, (_, n) => attempt(n)))
        assert.deepStrictEqual(exits.filter(Exit.isFailure).map(String), [])
      }
    }
  )
})

describe("transaction", () => {
  beforeAll(async () => {
    await sql`create table t (x int primary key)`
  })
  const count = async () => Number((await sql`select count(*) as n from t`)[0]?.["n"])
  const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(Effect.exit(effect))

  it("commits on success, rolls back on failure and on interruption", async () => {
    const insert = (x: number) => transaction(sql, (tx) => query("insert", () => tx`insert into t values (${x})`))
    assert.isTrue(Exit.isSuccess(await run(insert(1))))
    assert.strictEqual(await count(), 1)
    await run(
      transaction(sql, (tx) =>
        query("insert", () => tx`insert into t values (2)`).pipe(Effect.andThen(Effect.fail("no")))
      )
    )
    assert.strictEqual(await count(), 1)
    const fiber = Effect.runFork(
      transaction(sql, (tx) => query("insert", () => tx`insert into t values (3)`).pipe(Effect.andThen(Effect.never)))
    )
    await new Promise((resolve) => setTimeout(resolve, 100))
    await Effect.runPromise(Fiber.interrupt(fiber))
    assert.strictEqual(await count(), 1)
  })

  it("does not report a transaction that PostgreSQL rolled back as committed", async () => {
    const caught = transaction(sql, (tx) =>
      query("insert", () => tx`insert into t values (10)`).pipe(
        Effect.andThen(Effect.ignore(query("bad", () => tx`select 1 / 0`)))
      )
    )
    const error = await Effect.runPromise(Effect.flip(caught))
    assert.strictEqual((error as SqlError).code, "25P02")
  })

  it("answers every statement whose values cannot be written out, and those after it", async () => {
    const codes: Array<string> = []
    const one = transaction(sql, (tx) =>
      Effect.gen(function* () {
        for (const value of [undefined, undefined, undefined])
          codes.push((yield* Effect.flip(query("bad", () => tx.unsafe("select $1::int", [value as never])))).code)
        return (yield* query("good", () => tx`select ${7}::int as n`))[0]?.["n"]
      })
    ).pipe(Effect.timeout("5 seconds"))
    assert.strictEqual(await Effect.runPromise(one), 7)
    assert.deepStrictEqual(codes, ["UNDEFINED_VALUE", "UNDEFINED_VALUE", "UNDEFINED_VALUE"])
  })

  it("executes nothing after its connection was lost", async () => {
    const before = await count()
    const errors: Array<SqlError> = []
    const exit = await run(
      transaction(sql, (tx) =>
        Effect.gen(function* () {
          yield* query("insert", () => tx`insert into t values (20)`)
          const [row] = yield* query("pid", () => tx`select pg_backend_pid() as pid`)
          yield* query("kill", () => kill(Number(row?.["pid"])))
          for (const x of [21, 22, 23]) {
            errors.push(yield* Effect.flip(query("insert", () => tx`insert into t values (${x})`)))
          }
        })
      )
    )
    assert.deepStrictEqual(
      errors.map(({ retryable }) => retryable),
      [true, true, true]
    )
    assert.deepStrictEqual(
      errors.slice(1).map(({ code, inDoubt }) => [code, inDoubt]),
      [
        ["CONNECTION_CLOSED", false],
        ["CONNECTION_CLOSED", false]
      ]
    )
    assert.isTrue(Exit.isFailure(exit))
    assert.strictEqual(await count(), before)
  })

  it("executes none of the statements that were sent together with the one that lost the connection", async () => {
    const before = await count()
    const exit = await run(
      transaction(sql, (tx) =>
        Effect.all(
          [30, 31, 32].map((x) =>
            query(
              "insert",
              () =>
                tx`insert into t select ${x}::int where pg_terminate_backend(case when ${x} = 30 then pg_backend_pid() end) is null`
            )
          ),
          { concurrency: "unbounded", mode: "result" }
        )
      )
    )
    assert.isTrue(Exit.isFailure(exit))
    await new Promise((resolve) => setTimeout(resolve, 200))
    assert.strictEqual(await count(), before)
  })

  it("leaves no session behind", async () => {
    const idle = () => sql`select from pg_stat_activity where application_name = 'millrace' and state like 'idle in%'`
    // a backend that was terminated may need a moment to end
    while ((await idle()).length > 0) await new Promise((resolve) => setTimeout(resolve, 20))
  })
})

describe("statements of one connection", () => {
  // each gives a row of its own, so that a row of another statement is recognized
  const marked = (one: Sql, mark: number) =>
    one
      .unsafe<Array<{ mark: number }>>("select w.*, $1::int as mark from w", [mark], { prepare: true })
      .then(([row]) => row?.mark)
  const oneConnection = async (use: (one: Sql) => Promise<void>) =>
    Effect.runPromise(
      Effect.scoped(
        Effect.flatMap(connect(server.url, { max: 1 }), (one) => Effect.promise(() => use(one))).pipe(
          Effect.timeout("10 seconds")
        )
      )
    )
  for (const [what, change] of [
    ["a column is added", "alter table w add column c int"],
    ["a column is renamed", "alter table w rename column b to d"],
    ["a column's type changes", "alter table w alter column a type bigint"]
  ] as const) {
    it(`get their own rows when ${what} in a table that they read, and are all answered`, () =>
      oneConnection(async (one) => {
        await sql.unsafe("drop table if exists w; create table w (a int, b int); insert into w values (1, 1)")
        assert.strictEqual(await marked(one, 0), 0)
        // prepares the statement that the others are sent with
        const echo = (n: number) =>
          one.unsafe<Array<{ n: number }>>("select $1::int as n", [n], { prepare: true }).then(([row]) => row?.n)
        assert.strictEqual(await echo(0), 0)
        await sql.unsafe(change)
        const first = Promise.all([marked(one, 1), marked(one, 2), echo(3)])
        await new Promise((resolve) => setTimeout(resolve, 1))
        const later = Promise.all([echo(4), marked(one, 5), echo(6), marked(one, 7)])
        assert.deepStrictEqual([...(await first), ...(await later)], [1, 2, 3, 4, 5, 6, 7])
      }))
  }

  it("do not fail with the error of one whose values cannot be written out, and are all answered", () =>
    oneConnection(async (one) => {
      const slow = one.unsafe("select pg_sleep(0.1)::text as done, $1::int as n", [1], { prepare: true })
      const tooMany = Array.from({ length: 65_535 }, () => 1)
      const bad = failure(() => one.unsafe("select $1::int", tooMany, { prepare: true }))
      const last = one.unsafe("select $1::int as n", [2], { prepare: true })
      assert.strictEqual((await slow)[0]?.["n"], 1)
      assert.strictEqual((await bad).code, "MAX_PARAMETERS_EXCEEDED")
      assert.strictEqual((await last)[0]?.["n"], 2)
    }))
})

describe("the error of a deferred constraint", () => {
  beforeAll(() =>
    sql.unsafe(`create table parent (k int primary key); insert into parent values (1);
      create table deferred (k int references parent deferrable initially deferred, u int unique deferrable initially deferred);
      create function refuse_later() returns trigger language plpgsql as $$ begin
        if new.u = 13 then perform 1 from missing; end if;
        if new.u = 14 then raise exception 'no'; end if; return new; end $$;
      create constraint trigger later after insert on deferred deferrable initially deferred for each row execute function refuse_later();
      insert into deferred values (1, 1)`)
  )
  for (const [what, k, u, code] of [
    ["a foreign key", 2, 2, "23503"],
    ["a unique column", 1, 1, "23505"],
    ["a trigger that reads a missing table", 1, 13, "42P01"],
    ["a trigger that raises", 1, 14, "P0001"]
  ] as const) {
    it(`of ${what} is that of the statement, or of the commit of its transaction`, async () => {
      const text = "insert into deferred values ($1::int, $2::int) returning k"
      // at first the driver has to describe the statement, then it is prepared
      for (let time = 0; time < 3; time++) {
        assert.strictEqual((await failure(() => sql.unsafe(text, [k, u], { prepare: true }))).code, code)
      }
      const error = await Effect.runPromise(
        Effect.flip(transaction(sql, (tx) => query("insert", () => tx.unsafe(text, [k, u]))))
      )
      assert.deepStrictEqual([error.operation, error.code, error.inDoubt], ["commit", code, false])
      assert.strictEqual((await sql`select from deferred`).length, 1)
    })
  }
})
