// The roles of the embedded server: what the application's role and the reader are refused, and clusters of earlier versions.
import { spawn, spawnSync } from "node:child_process"
import { appendFileSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import postgres from "postgres"
import { accountFor, findBinaries } from "../../../../src/postgres/embedded/binaries.ts"
import { environment, pathsOf } from "../../../../src/postgres/embedded/cluster.ts"
import * as Embedded from "../../../../src/postgres/embedded/embedded.ts"
import { freePort, launch } from "../../../../src/postgres/embedded/postmaster.ts"

const directory = mkdtempSync(join(tmpdir(), "millrace-roles-"))
const scope = Scope.makeUnsafe()
let server: Embedded.EmbeddedServer
beforeAll(async () => {
  server = await Effect.runPromise(Embedded.start({ dataDir: join(directory, "state") }).pipe(Scope.provide(scope)))
  await run(server.url, "create schema app; create table app.kept (id serial primary key, n integer)")
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(directory, { recursive: true, force: true })
})

const run = async (url: string, statement: string): Promise<ReadonlyArray<object>> => {
  // sessions of the reader are read-only until they say otherwise, as this one does
  const connection = { options: "-c default_transaction_read_only=off" }
  const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => undefined, connection })
  return sql.unsafe(statement).then(
    async (rows) => (await sql.end(), [...rows]),
    async (error: Error) => {
      await sql.end({ timeout: 0 })
      throw Object.assign(error, { message: `${statement}: ${error.message}` })
    }
  )
}
/** The SQLSTATE with which a statement is refused; undefined if it is not. */
const refusal = (url: string, statement: string) =>
  run(url, statement).then(
    () => undefined,
    (error: { readonly code?: string }) => error.code
  )

const onTheMachine = [
  "copy (select 1) to program 'touch /tmp/millrace-was-here'",
  "copy app.kept from program 'true'",
  "copy app.kept (n) from '/etc/hostname'",
  "copy app.kept to '/tmp/millrace-was-here'",
  "select pg_read_file('/etc/hostname')",
  "select pg_read_binary_file('/etc/hostname')",
  "select pg_ls_dir('/')",
  "select lo_import('/etc/hostname')",
  "select lo_export(1, '/tmp/millrace-was-here')",
  "alter system set work_mem = '1MB'",
  "select pg_reload_conf()",
  "create function f() returns int language c as '/tmp/x.so', 'f'",
  "create role other superuser",
  "alter role current_user superuser",
  "alter role millrace_superuser password 'known'",
  "set role millrace_superuser",
  "set session authorization millrace_superuser",
  "grant pg_execute_server_program to current_user",
  "select rolpassword from pg_authid",
  "update pg_authid set rolsuper = true",
  "load '/tmp/x.so'"
]

describe("the application's role", () => {
  it("is refused what reaches the machine or the superuser", async () => {
    for (const statement of onTheMachine) {
      assert.strictEqual(await refusal(server.url, statement), "42501", statement)
    }
    assert.include(["42501", "58P01", "0A000"], await refusal(server.url, "create extension file_fdw"))
    assert.isFalse(existsSync("/tmp/millrace-was-here"))
  })

  it("owns its database: schemas, tables, trusted extensions, databases beside it, its own sessions", async () => {
    const allowed = [
      "create schema s; create table s.t (x int); drop schema s cascade",
      "create temporary table t (x int)",
      "select pg_advisory_lock(7)",
      "set transaction_timeout = '1min'",
      "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'nobody'",
      "select lo_unlink(lo_create(0))",
      "create database beside"
    ]
    for (const statement of allowed) assert.isUndefined(await refusal(server.url, statement), statement)
    await run(server.url, "drop database beside")
  })
})

describe("the reader", () => {
  it("reads tables that exist, and those that are created later in any schema", async () => {
    await run(
      server.url,
      "insert into app.kept (n) values (1); create schema later; create table later.t as select 2 as n"
    )
    assert.deepStrictEqual(await run(server.readerUrl, "select n from app.kept union all select n from later.t"), [
      { n: 1 },
      { n: 2 }
    ])
  })

  it("changes nothing, also in a transaction that it made writable", async () => {
    for (const statement of [
      ...onTheMachine,
      "insert into app.kept (n) values (3)",
      "update app.kept set n = 4",
      "delete from app.kept",
      "truncate app.kept",
      "create table app.more (x int)",
      "create table public.more (x int)",
      "create temporary table more (x int)",
      "create schema mine",
      "create database mine",
      "drop table app.kept",
      "alter table app.kept add column x int",
      "do $$ begin lock table app.kept in exclusive mode; end $$",
      "select nextval('app.kept_id_seq')",
      "select setval('app.kept_id_seq', 100)",
      "select lo_create(0)",
      "select lo_from_bytea(0, 'x')",
      "select pg_advisory_lock(1)",
      "select pg_terminate_backend(pid) from pg_stat_activity",
      "select pg_cancel_backend(pid) from pg_stat_activity",
      "do $$ begin execute 'delete from app.kept'; end $$",
      "explain analyze delete from app.kept",
      "set role millrace",
      "select set_config('role', 'millrace', false)",
      "create extension if not exists pg_trgm"
    ])
      assert.strictEqual(await refusal(server.readerUrl, statement), "42501", statement)
    assert.deepStrictEqual(await run(server.url, "select n from app.kept"), [{ n: 1 }])
  })
})

describe("a cluster of an earlier version, whose application's role is the superuser", () => {
  const state = join(directory, "earlier")
  const password = "0123456789abcdef0123456789abcdef"
  const url = (port: number) => `postgres://millrace:${password}@127.0.0.1:${port}/millrace`
  const binaries = findBinaries()
  const single = (database: string, ...lines: ReadonlyArray<string>) => {
    const account = accountFor(state, pathsOf(state).cluster, binaries)
    const [program = "", ...args] = [
      ...account.prefix,
      binaries.postgres,
      "--single",
      "-D",
      pathsOf(state).cluster,
      database
    ]
    return spawnSync(program, args, {
      ...account.spawn,
      cwd: state,
      env: environment(),
      input: `${lines.join("\n")}\n`,
      encoding: "utf8"
    })
  }
  beforeAll(async () => {
    mkdirSync(state, { mode: 0o711 })
    const account = accountFor(state, pathsOf(state).cluster, binaries)
    const own = (path: string) => account.owner !== undefined && chownSync(path, account.owner.uid, account.owner.gid)
    const { cluster, password: file } = pathsOf(state)
    writeFileSync(file, `${password}\n`, { mode: 0o600 })
    own(file)
    mkdirSync(cluster, { mode: 0o700 })
    own(cluster)
    const [program = "", ...args] = [
      ...account.prefix,
      binaries.initdb,
      "--pgdata",
      cluster,
      "--username=millrace",
      "--auth=scram-sha-256"
    ]
    const made = spawnSync(program, [...args, `--pwfile=${file}`, "--no-sync"], {
      ...account.spawn,
      cwd: state,
      env: environment(),
      encoding: "utf8"
    })
    assert.strictEqual(made.status, 0, made.stderr)
    appendFileSync(join(cluster, "postgresql.conf"), "include 'millrace.conf'\n")
    const objects = [
      "create schema millrace",
      "create table millrace.t (id serial primary key, x int generated always as identity, k text)",
      "create view v as select k from millrace.t",
      "create materialized view m as select 1 as n",
      "create function f() returns trigger language plpgsql as 'begin return new; end'",
      "create trigger changed before insert on millrace.t for each row execute function f()",
      "create type kind as enum ('a')",
      "create type pair as (a int, b kind)",
      "create domain positive as int check (value > 0)",
      "create table p (a int) partition by range (a)",
      "create table p1 partition of p for values from (0) to (10)",
      "create sequence s",
      "create statistics st on id, k from millrace.t",
      "create aggregate agg(int) (sfunc = int4pl, stype = int)",
      "select lo_create(77)",
      // a function of the application that fits better than PostgreSQL's own must not run as the superuser
      `create function format(text, name) returns text language sql as $$ select 'alter role millrace superuser' $$`
    ]
    const port = (await freePort(0)) ?? 0
    const earlier = await launch({ state, binaries, account, port }, new AbortController().signal)
    for (const database of ["millrace", "second"])
      await run(url(port).replace(/millrace$/, "postgres"), `create database ${database}`)
    for (const statement of objects) await run(url(port), statement)
    await run(url(port).replace(/millrace$/, "second"), "create table theirs as select 5 as n")
    await earlier.stop()
  })

  it(
    "is changed at the start, and a start that is killed meanwhile is made good by the next one",
    { timeout: 60_000 },
    async () => {
      const script = join(import.meta.dirname, "../../../support/embedded-child.ts")
      for (const waitMs of [150, 250, 400]) {
        const child = spawn(
          process.execPath,
          [...("Deno" in globalThis ? ["run", "-A"] : []), script, "start", state],
          { stdio: "ignore" }
        )
        await new Promise((resolve) => setTimeout(resolve, waitMs))
        const ended = new Promise((resolve) => child.once("exit", resolve))
        child.kill("SIGKILL")
        if (child.exitCode === null) await ended
      }
      await Effect.runPromise(
        Effect.scoped(
          Effect.gen(function* () {
            const { port, readerUrl, url: same } = yield* Embedded.start({ dataDir: state })
            assert.strictEqual(same, url(port))
            const asApplication = (statement: string) => Effect.promise(() => run(same, statement))
            assert.deepStrictEqual(
              yield* asApplication("select rolname, rolsuper from pg_roles where rolname like 'millrace%' order by 1"),
              [
                { rolname: "millrace", rolsuper: false },
                { rolname: "millrace_reader", rolsuper: false },
                { rolname: "millrace_superuser", rolsuper: true }
              ]
            )
            assert.deepStrictEqual(
              yield* asApplication("select rolname from pg_roles where rolname = 'millrace_rename'"),
              []
            )
            yield* Effect.promise(() => refusal(same, "select pg_read_file('/etc/hostname')"))
            // only an owner may do these
            for (const statement of [
              "insert into millrace.t (k) values ('x')",
              "alter table millrace.t add column more int",
              "create or replace view v as select k from millrace.t",
              "refresh materialized view m",
              "alter function f() rename to g",
              "alter type kind add value 'b'",
              "drop type pair",
              "drop domain positive",
              "create table p2 partition of p for values from (10) to (20)",
              "alter sequence s increment 2",
              "drop statistics st",
              "drop aggregate agg(int)",
              "select lo_unlink(77)",
              "create table millrace.later as select 1 as n"
            ])
              yield* asApplication(statement)
            const read = (statement: string) => Effect.promise(() => run(readerUrl, statement))
            assert.deepStrictEqual(yield* read("select k from millrace.t"), [{ k: "x" }])
            assert.deepStrictEqual(yield* read("select n from millrace.later"), [{ n: 1 }])
            const second = same.replace(/millrace$/, "second")
            assert.deepStrictEqual(
              yield* Effect.promise(() =>
                run(second, "alter table theirs add column x int").then(() => run(second, "select n from theirs"))
              ),
              [{ n: 5 }]
            )
          })
        )
      )
      // the superuser is left without a password, so nobody logs in with the one that was known
      assert.include(
        single("postgres", "select rolpassword is null as none from pg_authid where oid = 10").stdout,
        '"t"'
      )
    }
  )
})
