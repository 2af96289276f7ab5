// An embedded PostgreSQL server for a test file, and databases on it for its tests; all are removed with the scope.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Embedded from "../../src/postgres/embedded/embedded.ts"
import { connect, query, type Sql } from "../../src/postgres/client/client.ts"
import { migrate } from "../../src/postgres/client/migrate.ts"

/** A database of its own. */
export interface Database {
  readonly url: string
  readonly sql: Sql
}

/** Starts a server in a temporary directory, and returns its URL. */
export const server = Effect.gen(function* () {
  const dataDir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "millrace-test-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  )
  return (yield* Embedded.start({ dataDir })).url
})

let made = 0

/** A new database on a server, with the project's tables; dropped with the scope. */
export const databaseOn = Effect.fnUntraced(function* (
  url: string,
  max = 10
): Effect.fn.Return<Database, unknown, Scope.Scope> {
  const name = `test_${process.pid}_${made++}`
  const admin = yield* connect(url, { max: 1 })
  yield* query("create", () => admin.unsafe(`create database ${name}`))
  yield* Effect.addFinalizer(() =>
    Effect.ignore(query("drop", () => admin.unsafe(`drop database if exists ${name} with (force)`)))
  )
  const own = new URL(url)
  own.pathname = `/${name}`
  const sql = yield* connect(own.href, { max })
  yield* migrate(sql)
  return { url: own.href, sql }
})

/** A server with one database. */
export const database = Effect.flatMap(server, (url) => databaseOn(url))
