// How `millrace sql` prints rows in each format, and that it changes nothing without `--write`.
import { assert, describe, it } from "@effect/vitest"
import { afterAll, beforeAll } from "vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { spawnSync } from "node:child_process"
import { closeSync, existsSync, mkdtempSync, openSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect, type Sql } from "../../../src/postgres/client/client.ts"
import { runStatement, type TextRows } from "../../../src/postgres/client/statement.ts"
import * as Embedded from "../../../src/postgres/embedded/embedded.ts"
import * as Cli from "../../support/cli.ts"

const directory = mkdtempSync(join(tmpdir(), "millrace-sql-"))
const scope = Scope.makeUnsafe()
let server: Embedded.EmbeddedServer
let sql: Sql
let reader: Sql
beforeAll(async () => {
  const opened = Effect.gen(function* () {
    server = yield* Embedded.start({ dataDir: join(directory, "state") })
    sql = yield* connect(server.url, { max: 2 })
    reader = yield* connect(server.readerUrl, { max: 1 })
    yield* Effect.promise(() => sql.unsafe("create table kept (n serial, x int); insert into kept (x) values (1)"))
    yield* Effect.promise(() =>
      // a projection's function that writes with the rights of its owner is the only way past the reader's role
      sql.unsafe(
        "create function adds() returns int language sql volatile as 'insert into kept (x) values (2) returning x'"
      )
    )
  })
  await Effect.runPromise(opened.pipe(Scope.provide(scope)))
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(directory, { recursive: true, force: true })
})

const run = (...args: ReadonlyArray<string>) => Cli.run({}, "sql", "--data", server.dataDir, ...args)

it.live(
  "millrace sql prints every column, even if several have the same name",
  () =>
    Effect.gen(function* () {
      const query = "select count(*), count(distinct i / 2), null as none, 'a,b' as text from generate_series(1, 5) i"
      const printed = Effect.fnUntraced(function* (format: string, what: string) {
        const { code, errors, output } = yield* Cli.run(
          { MILLRACE_DATABASE_URL: server.url },
          "sql",
          "--format",
          format,
          what
        )
        assert.deepStrictEqual([code, errors], [0, ""])
        return output
      })
      assert.strictEqual(yield* printed("tsv", query), "5\t3\t\ta,b\n")
      assert.strictEqual(yield* printed("csv", query), 'count,count,none,text\n5,3,,"a,b"\n')
      // a program gets the text as it is; what people read, and JSON, have escapes
      const colour = String.raw`select E'\x1b[31m' || chr(155) as c`
      assert.strictEqual(yield* printed("csv", colour), "c\n\u001b[31m\u009b\n")
      assert.strictEqual(yield* printed("json", colour), String.raw`[{"c":"\u001b[31m\u009b"}]` + "\n")
      assert.include(yield* printed("table", colour), String.raw`\u001b[31m\u009b`)
      assert.match(yield* printed("table", query), /│ 5 {5}│ 3 {5}│ {6}│ a,b {2}│/)
      assert.deepStrictEqual(JSON.parse(yield* printed("json", query)), [
        { count: 5, count_2: 3, none: null, text: "a,b" }
      ])
      assert.strictEqual(yield* printed("json", "select 1 where false"), "[]\n")
    }),
  60_000
)

it.live(
  "millrace sql keeps values that JSON has no number for, and prints what show and explain return",
  () =>
    Effect.gen(function* () {
      const query =
        "select 'NaN'::float8 as f, 9007199254740993 as big, 1e30 as n, '2013-01-01 00:00:00.000001+00'::timestamptz as t, '\\x01ff'::bytea as b, '300000-01-01'::date as d, " +
        `'{"a": 12345678901234567890}'::jsonb as j, array[1, 'Infinity']::float8[] as fs, array[9007199254740993] as bigs`
      const { output } = yield* run("--format", "json", query)
      assert.strictEqual(
        output,
        '[{"f":"NaN","big":"9007199254740993","n":"1000000000000000000000000000000","t":1356998400000.001,"b":"\\\\x01ff","d":"300000-01-01","j":{"a": 12345678901234567890},"fs":[1,"Infinity"],"bigs":["9007199254740993"]}]\n'
      )
      assert.strictEqual((yield* run("--format", "tsv", "show server_encoding")).output, "UTF8\n")
      assert.strictEqual((yield* run("--write", "insert into kept (x) select 9 where false")).output, "INSERT 0\n")
    }),
  60_000
)

it.live(
  "millrace sql fails with what to do for two statements, nothing, copy and changes",
  () =>
    Effect.gen(function* () {
      for (const [query, said] of [
        ["select 1; select 2", /^millrace: the query has several statements\ntry: one statement for each/],
        ["select 1; delete from kept", /^millrace: the query has several statements/],
        ["", /^millrace: the query is empty\ntry: /],
        ["copy kept to stdout", /^millrace: millrace sql has no copy\ntry: a select with --format/],
        ["explain analyze delete from kept", /^millrace: .*\ntry: add --write/],
        ["select * from none", /^millrace: relation "none" does not exist\ntry: millrace sql/]
      ] as const) {
        const { code, errors, output } = yield* run(query)
        assert.notStrictEqual(code, 0, query)
        assert.strictEqual(output, "", query)
        assert.match(errors, said, query)
      }
    }),
  60_000
)

it.live(
  "millrace sql prints nothing of a statement that fails before its first row, in any format",
  () =>
    Effect.gen(function* () {
      for (const format of ["json", "csv"])
        for (const query of ["select 1/0 as x", "select * from generate_series(1, 3) i where 1 / (i - 1) = 7"])
          assert.deepStrictEqual(yield* run("--format", format, query), {
            code: 1,
            output: "",
            errors: "millrace: division by zero\n"
          })
    }),
  60_000
)

it.live(
  "millrace sql runs a statement that begins with a comment",
  () =>
    Effect.gen(function* () {
      for (const more of [["-- one\nselect 1"], ["--one two\nselect 1"], ["--", "-- one\nselect 1"]])
        assert.deepStrictEqual(yield* run("--format", "tsv", ...more), { code: 0, output: "1\n", errors: "" })
    }),
  60_000
)

it.live(
  "millrace sql reads as the reader of the embedded database, and always in a read-only transaction",
  () =>
    Effect.gen(function* () {
      const query = "select current_user, current_setting('transaction_read_only')"
      assert.strictEqual((yield* run("--format", "tsv", query)).output, "millrace_reader\ton\n")
      const own = { MILLRACE_DATABASE_URL: server.url }
      assert.strictEqual((yield* Cli.run(own, "sql", "--format", "tsv", query)).output, "millrace\ton\n")
    }),
  60_000
)

const hasFullDevice = existsSync("/dev/full") && !("Deno" in globalThis)
it.skipIf(!hasFullDevice)(
  "a command whose output has no space left prints one line about it, and fails",
  () => {
    const full = openSync("/dev/full", "w")
    const ended = (args: ReadonlyArray<string>, isOutput: boolean) =>
      spawnSync(process.execPath, ["bin/millrace.mjs", ...args, "--data", server.dataDir], {
        encoding: "utf8",
        stdio: isOutput ? ["ignore", full, "pipe"] : ["ignore", "pipe", full]
      })
    for (const args of [["sql", "select 1"], ["sql", "--format", "csv", "select 1"], ["url"]]) {
      const { status, stderr } = ended(args, true)
      const line = "millrace: cannot write to standard output: ENOSPC: no space left on device, write\n"
      assert.deepStrictEqual([status, stderr], [1, line], args.join(" "))
    }
    // there is nowhere to report it
    assert.strictEqual(ended(["sql", "select 1/0"], false).status, 1)
    closeSync(full)
  },
  60_000
)

describe("a statement that may only read", () => {
  /** Runs a statement as the command does; the rows, or the code of the error. */
  const attempt = (url: string, text: string) =>
    Effect.gen(function* () {
      const all: Array<ReadonlyArray<string | null>> = []
      const sink = {
        start: () => undefined,
        rows: async (rows: TextRows) => {
          all.push(...rows)
          return true
        }
      }
      yield* runStatement(yield* connect(url, { max: 1, asText: true }), text, { readOnly: true, sink })
      return all as TextRows | string
    }).pipe(
      Effect.catch(({ code }) => Effect.succeed(code as TextRows | string)),
      Effect.scoped
    )

  const changes = [
    "set transaction read write",
    "set session characteristics as transaction read write",
    "insert into kept (x) values (3)",
    "with a as (insert into kept (x) values (3) returning x) select * from a",
    "explain analyze insert into kept (x) values (3)",
    "explain analyze create table more as select 1",
    "select * into more from kept",
    "select * from kept for update",
    "select adds()",
    "select nextval('kept_n_seq')",
    "select setval('kept_n_seq', 99)",
    "select set_config('transaction_read_only', 'off', false)",
    "select query_to_xml('delete from kept returning 1', true, true, '')",
    "do $$ begin delete from kept; end $$",
    "do $$ begin commit; delete from kept; end $$",
    "do $$ begin set transaction read write; delete from kept; end $$",
    "do $$ begin perform set_config('default_transaction_read_only', 'off', false); commit; delete from kept; end $$",
    "select lo_from_bytea(0, 'x')",
    "commit; delete from kept",
    "select 1; delete from kept",
    "truncate kept",
    "notify x; delete from kept",
    "create temporary table more (x int)",
    "alter role current_user password 'x'",
    "create role other"
  ]
  it.live(
    "changes nothing, neither with the reader's role nor with the application's, whatever it tries",
    () =>
      Effect.gen(function* () {
        for (const url of [server.readerUrl, server.url]) {
          for (const text of changes) {
            const outcome = yield* attempt(url, text)
            // it has no effect on what follows; and what the second one creates is rolled back
            if (text.startsWith("set ") || text.startsWith("explain analyze create")) continue
            assert.match(String(outcome), /^(25006|25001|2D000|42501|42601|0A000)$/, `${text} as ${url}`)
          }
        }
        assert.deepStrictEqual(yield* Effect.promise(() => sql.unsafe("select n, x from kept").values()), [
          [1, 1]
        ] as never)
        assert.deepStrictEqual(yield* attempt(server.readerUrl, "select x from kept"), [["1"]])
        assert.strictEqual(yield* attempt(server.readerUrl, "select * from more"), "42P01")
      }),
    60_000
  )

  it.live(
    "with the reader's role ends no session, takes no lock, and becomes no other role",
    () =>
      Effect.gen(function* () {
        for (const text of [
          "select pg_terminate_backend(pid) from pg_stat_activity",
          "select pg_advisory_lock(1)",
          "select pg_notify('x', '')",
          "select set_config('role', 'millrace', false)",
          "select set_config('session_authorization', 'millrace', false)",
          "select * from pg_read_file('/etc/hostname')",
          "select lo_export(1, '/tmp/x')"
        ])
          assert.strictEqual(yield* attempt(server.readerUrl, text), "42501", text)
      }),
    60_000
  )
})

describe("the command's end", () => {
  const sleeping =
    "select count(*)::int as n from pg_stat_activity where query like '%pg_sleep(61)%' and pid <> pg_backend_pid()"
  // a role sees the statements of its own sessions only
  const running = Effect.promise(async () => ((await reader.unsafe(sleeping)) as unknown as [{ n: number }])[0].n)
  const until = Effect.fnUntraced(function* (n: number) {
    while ((yield* running) !== n) yield* Effect.sleep(20)
  })

  it.live(
    "Ctrl-C cancels the statement on the server, and the command exits with 130",
    () =>
      Effect.gen(function* () {
        const { ended, process: child } = yield* Cli.start({}, "sql", "--data", server.dataDir, "select pg_sleep(61)")
        yield* until(1)
        child.kill("SIGINT")
        // a process of Deno ends by the signal, without a code
        assert.strictEqual(yield* ended, "Deno" in globalThis ? null : 130)
        yield* until(0)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live("an interrupted statement is cancelled before the session is closed", () =>
    Effect.gen(function* () {
      const own = yield* connect(server.readerUrl, { max: 1, asText: true })
      const sink = { start: () => undefined, rows: async () => true }
      const fiber = yield* Effect.forkChild(runStatement(own, "select pg_sleep(61)", { readOnly: true, sink }))
      yield* until(1)
      yield* Fiber.interrupt(fiber)
      yield* until(0)
    }).pipe(Effect.scoped)
  )

  it.live(
    "a closed pipe ends it quietly, long before all rows are read",
    () =>
      Effect.gen(function* () {
        const query = "select i, repeat('x', 100) from generate_series(1, 100000000) i"
        const {
          ended,
          errors,
          process: child,
          said
        } = yield* Cli.start({}, "sql", "--data", server.dataDir, "--format", "tsv", query)
        yield* said(/^2\t/m)
        child.stdout?.destroy()
        assert.strictEqual(yield* ended, 0)
        assert.strictEqual(errors(), "")
      }).pipe(Effect.scoped),
    60_000
  )
})
