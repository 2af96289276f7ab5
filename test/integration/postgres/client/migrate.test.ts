// Migrations with files of the test: each is applied once, in order, completely or not at all, also by several processes at once.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, beforeEach, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Embedded from "../../../../src/postgres/embedded/embedded.ts"
import { connect, type Sql } from "../../../../src/postgres/client/client.ts"
import { directory as own, migrate, MigrationError, read } from "../../../../src/postgres/client/migrate.ts"

const scope = Scope.makeUnsafe()
const temporary = mkdtempSync(join(tmpdir(), "millrace-migrate-"))
const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(effect.pipe(Scope.provide(scope)))
let url: string
let sql: Sql
let files: string
let databases = 0
beforeAll(async () => {
  const server = await inScope(Embedded.start({ dataDir: join(temporary, "state") }))
  url = server.url
})
beforeEach(async () => {
  files = mkdtempSync(join(temporary, "files-"))
  const admin = await inScope(connect(url, { max: 1 }))
  await admin.unsafe(`create database migrate${++databases}`)
  const fresh = new URL(url)
  fresh.pathname = `/migrate${databases}`
  sql = await inScope(connect(fresh.href, { max: 4 }))
})
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(temporary, { recursive: true, force: true })
})

const write = (file: string, text: string) => writeFileSync(join(files, file), `-- For the test.\n${text}`)
const apply = () => Effect.runPromise(migrate(sql, files))
const refused = async () => {
  const error = await Effect.runPromise(Effect.flip(migrate(sql, files)))
  assert.instanceOf(error, MigrationError)
  return error as MigrationError
}
const first = "0001_first.sql"
const second = "0002_second.sql"

describe("migrate", () => {
  it("applies the files that are missing, in order, and returns them", async () => {
    write(first, "create table millrace.a (x int);")
    assert.deepStrictEqual(await apply(), [first])
    assert.deepStrictEqual(await apply(), [])
    write(second, "insert into millrace.a values (1); alter table millrace.a rename to b -- no semicolon")
    assert.deepStrictEqual(await apply(), [second])
    assert.strictEqual((await sql`select * from millrace.b`).length, 1)
    const rows = await sql`select version, file from millrace.schema_version order by version`
    assert.deepStrictEqual(
      rows.map((row) => [row["version"], row["file"]]),
      [
        [1, first],
        [2, second]
      ]
    )
  })

  it("applies each file once when several callers migrate at the same time", async () => {
    write(first, "create table millrace.a (x int); select pg_sleep(0.2);")
    write(second, "insert into millrace.a values (1);")
    const all = await Promise.all([apply(), apply(), apply(), apply()])
    assert.deepStrictEqual(
      all.filter((files) => files.length > 0),
      [[first, second]]
    )
    assert.strictEqual((await sql`select * from millrace.a`).length, 1)
  })

  it("rolls a failing file back, keeps those before it, and reports file, line and error", async () => {
    write(first, "create table millrace.a (x int);")
    write(second, "insert into millrace.a values (1);\n\nselect nonsense;\n")
    const error = await refused()
    assert.strictEqual(error.reason, "Failed")
    assert.strictEqual(error.message, '0002_second.sql, line 4: column "nonsense" does not exist')
    assert.strictEqual((await sql`select * from millrace.a`).length, 0)
    write(second, "insert into millrace.a values (1);")
    assert.deepStrictEqual(await apply(), [second])
  })

  it("refuses a file that differs from what was applied in more than line ends", async () => {
    write(first, "create table millrace.a (x int);\n")
    await apply()
    writeFileSync(join(files, first), "-- For the test.\r\ncreate table millrace.a (x int);\r\n")
    assert.deepStrictEqual(await apply(), [])
    write(first, "create table millrace.a (x int, y int);\n")
    const error = await refused()
    assert.strictEqual(error.reason, "Changed")
    assert.include(error.message, first)
  })

  it("refuses a database that newer code migrated", async () => {
    write(first, "select 1;")
    write(second, "select 1;")
    await apply()
    rmSync(join(files, second))
    const error = await refused()
    assert.strictEqual(error.reason, "Newer")
    assert.include(error.message, second)
  })

  it("refuses gaps, duplicate numbers, other names, and files that do not start with a comment", async () => {
    for (const names of [[second], [first, "0001_again.sql"], ["1_first.sql"], [first, "0002-second.sql"]]) {
      for (const name of names) write(name, "select 1;")
      assert.strictEqual((await refused()).reason, "Invalid", names.join(" "))
      for (const name of names) rmSync(join(files, name))
    }
    writeFileSync(join(files, first), "select 1;\n")
    assert.strictEqual((await refused()).reason, "Invalid")
    assert.strictEqual((await sql`select 1 from pg_namespace where nspname = 'millrace'`).length, 0)
  })

  it("leaves no half-applied file when its connection is lost", async () => {
    write(first, "create table millrace.a (x int); select pg_terminate_backend(pg_backend_pid());")
    const error = await Effect.runPromise(Effect.flip(migrate(sql, files)))
    assert.strictEqual(error._tag, "SqlError")
    write(first, "create table millrace.a (x int);")
    assert.deepStrictEqual(await apply(), [first])
  })

  it("applies the project's own migrations", async () => {
    const known = await Effect.runPromise(read(own))
    assert.deepStrictEqual(
      await Effect.runPromise(migrate(sql)),
      known.map(({ file }) => file)
    )
  })

  it("creates what tables.md says: it has each table of the schema, or names it as internal, and its columns have these types", async () => {
    await Effect.runPromise(migrate(sql))
    const columns = await sql.unsafe<Array<{ relation: string; name: string; type: string }>>(`
      select c.relname as relation, a.attname as name,
        replace(format_type(a.atttypid, a.atttypmod), 'timestamp with time zone', 'timestamptz') as type
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      where c.relnamespace = 'millrace'::regnamespace and c.relkind in ('r', 'v')`)
    const there = new Set(columns.map(({ name, relation, type }) => `${relation}.${name}: ${type}`))
    const page = readFileSync(new URL("../../../../docs/reference/tables.md", import.meta.url), "utf8")
    const [readable = "", internal = ""] = page.split("\n## Internal tables\n")
    const documented = readable
      .split("\n### millrace.")
      .slice(1)
      .flatMap((section) => {
        const [relation] = /^\w+/.exec(section)!
        return [...section.matchAll(/^\| `(\w+)` +\| `([\w[\] ]+)` +\|/gm)].map(
          ([, name, type]) => `${relation}.${name}: ${type}`
        )
      })
    assert.isAbove(documented.length, 100)
    assert.deepStrictEqual(
      documented.filter((column) => !there.has(column)),
      []
    )
    const named = [
      ...new Set(documented.map((column) => column.split(".")[0]!)),
      ...[
        ...internal
          .trim()
          .split("\n\n")[0]!
          .matchAll(/`([a-z_]+)`/g)
      ].map(([, name]) => name!)
    ]
    assert.deepStrictEqual(named.toSorted(), [...new Set(columns.map(({ relation }) => relation))].toSorted())
  })
})
