// Opens the system's PostgreSQL: the server that MILLRACE_DATABASE_URL names, or the embedded one of a state directory.
import { existsSync } from "node:fs"
import { resolve } from "node:path"
import * as Effect from "effect/Effect"
import { connect, query, type Sql } from "../postgres/client/client.ts"
import { checkConnections } from "../postgres/client/server-check.ts"
import { pathsOf } from "../postgres/embedded/cluster.ts"
import * as Embedded from "../postgres/embedded/embedded.ts"
import { InvalidEnvironment, NoDatabase } from "./errors.ts"

/**
 * Fails with `NoDatabase` if there is no database that a command could read: `MILLRACE_DATABASE_URL` is not set, and the state directory has no
 * embedded one. Commands that only look at a system must not create one.
 */
export const assertDatabaseExists = Effect.fnUntraced(function* (dataDir: string) {
  if ((process.env["MILLRACE_DATABASE_URL"] ?? "") !== "" || existsSync(pathsOf(resolve(dataDir)).cluster)) return
  return yield* new NoDatabase({
    message: `there is no database: MILLRACE_DATABASE_URL is not set, and ${dataDir} has no embedded one`,
    try: "name the state directory of the system with --data, or set MILLRACE_DATABASE_URL; millrace dev and millrace start create a new one"
  })
})

/** A database that answers, and where it is. */
export interface Database {
  /** Its URL, with the password. */
  readonly url: string
  /** The URL of a role that only reads; without one, that of the application's role. */
  readonly readerUrl?: string | undefined
  /** Whether it is the embedded server of a state directory. */
  readonly embedded: boolean
  /** The state directory of the embedded server, as it was given. */
  readonly embeddedDir?: string | undefined
  /** Runs statements on its pool of connections. */
  readonly sql: Sql
  /** Fails when the server has ended and will not come back. */
  readonly failed: Effect.Effect<never, Error>
}

/**
 * Connections of the pool. Few, because each connection prepares the same large statements for itself, and a handful keeps a server of several
 * cores busy. At 500 events a second 6 connections had half the p99 latency of 16.
 */
const connections = 6
/** Connections that a process opens beside the pool: for notifications, locks and transactions, and for queries of clients. */
const connectionsBeside = 10

/**
 * Opens the database of `MILLRACE_DATABASE_URL`; without that the embedded one of a state directory. `own` starts the embedded server and fails
 * if another process runs it; `join` uses the one that runs, or starts it until the scope closes.
 */
export const openDatabase = Effect.fnUntraced(function* (
  dataDir: string,
  how: "own" | "join",
  options: { readonly max?: number; readonly asText?: boolean } = {}
) {
  const url = process.env["MILLRACE_DATABASE_URL"] ?? ""
  const server =
    url === ""
      ? yield* how === "own" ? Embedded.start({ dataDir }) : Embedded.use({ dataDir })
      : { url, readerUrl: yield* readerUrlOf, failed: Effect.never }
  // a role that has the name of the schema of internal tables, as the embedded server's, must not hide read models
  const searchPath = url === "" ? "public" : `public,"$user"`
  const sql = yield* connect(server.url, { max: connections, searchPath, ...options })
  if (how === "own") yield* query("connect", () => checkConnections(sql, connections + connectionsBeside))
  const embedded = url === ""
  const embeddedDir = embedded ? dataDir : undefined
  return {
    url: server.url,
    readerUrl: server.readerUrl,
    embedded,
    embeddedDir,
    sql,
    failed: server.failed
  } satisfies Database
})

/**
 * Opens connections that can only read: of the embedded server's reader, or of the role of `MILLRACE_READER_URL` on the server of
 * `MILLRACE_DATABASE_URL`; without it with the application's own role, which the caller must keep from writing.
 */
export const openReader = Effect.fnUntraced(function* (
  dataDir: string,
  options: { readonly max?: number; readonly asText?: boolean } = {}
) {
  const reader = yield* readerUrlOf
  const url = reader ?? (yield* Embedded.use({ dataDir })).readerUrl
  return yield* connect(url, { max: connections, searchPath: "public", readOnly: true, ...options })
})

/** How many queries of clients run at once; others wait. */
const queriesAtOnce = 4
/**
 * Opens the connections on which clients query a database: as a role that only reads if there is one, and in any case in read-only transactions,
 * each of which ends after `queryMs`.
 */
export const openQueries = ({ readerUrl, url }: Pick<Database, "readerUrl" | "url">, queryMs: number) =>
  connect(readerUrl ?? url, { max: queriesAtOnce, searchPath: "public", readOnly: true, queryMs })

/** The URL for reading that the environment names; undefined if the database is the embedded one. */
export const readerUrlOf = Effect.gen(function* () {
  const [database = "", reader = ""] = ["MILLRACE_DATABASE_URL", "MILLRACE_READER_URL"].map((name) => process.env[name])
  if (database === "" && reader !== "")
    return yield* new InvalidEnvironment({
      message:
        "MILLRACE_READER_URL is set, and MILLRACE_DATABASE_URL is not: the embedded database has a reader of its own",
      try: "set both, or none"
    })
  return reader !== "" ? reader : database !== "" ? database : undefined
})
