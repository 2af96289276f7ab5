// An embedded PostgreSQL server for a test file, and databases on it for its tests; all are removed with the scope.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { pathsOf } from "../../src/postgres/embedded/cluster.ts"
import * as Embedded from "../../src/postgres/embedded/embedded.ts"
import { superuser } from "../../src/postgres/embedded/roles.ts"
import { connect, query, type Sql } from "../../src/postgres/client/client.ts"
import { migrate } from "../../src/postgres/client/migrate.ts"
import { copyImage, hasImage, template } from "./postgres-image.ts"

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
  if (hasImage) yield* Effect.promise(() => copyImage(dataDir))
  const { url } = yield* Embedded.start({ dataDir })
  directories.set(new URL(url).host, dataDir)
  if (hasImage) templates.set(url, Promise.resolve(template))
  return url
})
/** The state directories of the servers of this process, by host and port. */
const directories = new Map<string, string>()
/** The directory of the cluster that a URL of `server` leads to. */
export const clusterOf = (url: string): string => pathsOf(directories.get(new URL(url).host)!).cluster
/** The process id of the server that a URL of `server` leads to. */
export const processOf = (url: string): number =>
  Number(readFileSync(join(clusterOf(url), "postmaster.pid"), "utf8").split("\n")[0])

/** Connects to a database as the superuser, which nobody can do until the server's own configuration allows it. */
export const asSuperuser = Effect.fnUntraced(function* (url: string): Effect.fn.Return<Sql, unknown, Scope.Scope> {
  const file = join(clusterOf(url), "pg_hba.conf")
  const line = `host all ${superuser} 127.0.0.1/32 trust\n`
  if (!readFileSync(file, "utf8").startsWith(line)) {
    writeFileSync(file, `${line}${readFileSync(file, "utf8")}`)
    process.kill(processOf(url), "SIGHUP")
  }
  const own = new URL(url)
  own.username = superuser
  return yield* Effect.retry(connect(own.href, { max: 1 }), { times: 50, schedule: Schedule.spaced("50 millis") })
})

let made = 0

/** The databases that others are copied from, by the server's URL: with the project's tables, and nobody connected to them. */
const templates = new Map<string, Promise<string>>()
const templateOn = (url: string): Promise<string> => {
  const found = templates.get(url)
  if (found !== undefined) return found
  const name = `template_${process.pid}_${made++}`
  const created = Effect.gen(function* () {
    const admin = yield* connect(url, { max: 1 })
    yield* query("create", () => admin.unsafe(`create database ${name}`))
    const own = new URL(url)
    own.pathname = `/${name}`
    yield* Effect.scoped(Effect.flatMap(connect(own.href, { max: 2 }), (sql) => migrate(sql)))
    return name
  })
  const promise = Effect.runPromise(Effect.scoped(created))
  templates.set(url, promise)
  return promise
}

/**
 * A new database on a server, with the project's tables. Its sessions end with the scope, and it is dropped unless the whole server is removed
 * with this file's scope: a drop writes a checkpoint, which takes as long as all else here.
 */
export const databaseOn = Effect.fnUntraced(function* (
  url: string,
  max = 10
): Effect.fn.Return<Database, unknown, Scope.Scope> {
  const name = `test_${process.pid}_${made++}`
  const template = yield* Effect.promise(() => templateOn(url))
  const admin = yield* connect(url, { max: 1 })
  // the copy is refused for the moment in which a session of the template ends
  yield* query("create", () => admin.unsafe(`create database ${name} template ${template}`)).pipe(
    Effect.retry({ times: 50, schedule: Schedule.spaced("50 millis") })
  )
  const end =
    hasImage && directories.has(new URL(url).host)
      ? `select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`
      : `drop database if exists ${name} with (force)`
  yield* Effect.addFinalizer(() => Effect.ignore(query("drop", () => admin.unsafe(end))))
  const own = new URL(url)
  own.pathname = `/${name}`
  const sql = yield* connect(own.href, { max })
  // it is another database than the one it was copied from
  yield* query("identify", () => sql`update millrace.system set id = substr(md5(${name} || random()), 1, 8)`)
  return { url: own.href, sql }
})

/** A server with one database. */
export const database = Effect.flatMap(server, (url) => databaseOn(url))
