// Migrates a database's schema to the newest version, from numbered SQL files to which files are only added. There is no way back.
//
// Not postgrator, because it needs other file names, applies a migration and records it in two transactions, and lets old code run
// on a newer database.
import { createHash } from "node:crypto"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { query, session, type Session, type Sql, type SqlError } from "./client.ts"

/**
 * The schema cannot be migrated to the newest version. The named file, and those after it, were not applied.
 * - `Invalid`: the files are not numbered 0001, 0002, …, or one does not start with a comment.
 * - `Changed`: a file differs from what was applied.
 * - `Newer`: the database was migrated by a newer version of the code.
 * - `Failed`: a statement failed.
 */
export class MigrationError extends Schema.TaggedError<MigrationError>()("MigrationError", {
  reason: Schema.Literals(["Invalid", "Changed", "Newer", "Failed"]),
  file: Schema.String,
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

/** One migration file. */
export interface Migration {
  readonly version: number
  /** `0001_log.sql` */
  readonly file: string
  readonly text: string
  /** SHA-256 of the text, in which line ends are line feeds. */
  readonly checksum: string
}

/** The directory of the project's migrations, in a checkout and in the published package. */
export const directory = fileURLToPath(new URL("../../../migrations/", import.meta.url))

/** Reads the migrations of a directory, in order. Fails with `Invalid`. */
export const read = Effect.fnUntraced(function* (from: string) {
  const files = yield* Effect.tryPromise({
    try: async () => (await readdir(from)).filter((file) => file.endsWith(".sql")).toSorted(),
    catch: (cause) => new MigrationError({ reason: "Invalid", file: from, message: `${from} cannot be read`, cause })
  })
  const migrations: Array<Migration> = []
  for (const [index, file] of files.entries()) {
    const text = (yield* Effect.promise(() => readFile(join(from, file), "utf8"))).replaceAll(/\r\n?/g, "\n")
    const version = index + 1
    if (!/^\d{4}_\w+\.sql$/.test(file) || Number(file.slice(0, 4)) !== version || !/^--\s*\S/.test(text)) {
      const rule = `migrations are named 0001_name.sql, 0002_name.sql, … without gaps, and start with a comment that says why`
      return yield* new MigrationError({
        reason: "Invalid",
        file,
        message: `${file} is number ${version} of ${from}: ${rule}`
      })
    }
    migrations.push({ version, file, text, checksum: createHash("sha256").update(text).digest("hex") })
  }
  return migrations as ReadonlyArray<Migration>
})

/**
 * Applies the migrations that are missing, each in a transaction of its own together with its row in `millrace.schema_version`. Returns
 * the files that this call applied. Several processes may call it at once: one applies them, the others wait.
 */
export const migrate = (
  sql: Sql,
  from: string = directory
): Effect.Effect<ReadonlyArray<string>, SqlError | MigrationError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const migrations = yield* read(from)
      if ((yield* missing(sql, migrations)).length === 0) return []
      const one = yield* session(sql)
      yield* query("lock the schema", () => one.unsafe(lock))
      yield* query("prepare the schema", () => one.unsafe(prepare))
      const files = yield* missing(one, migrations)
      for (const migration of files) yield* apply(one, migration)
      return files.map(({ file }) => file)
    })
  )

/** Migrates only a database without Millrace's schema: a command that only reads must not upgrade a system that other processes run. */
export const migrateWhereEmpty = Effect.fnUntraced(function* (
  sql: Sql
): Effect.fn.Return<void, SqlError | MigrationError> {
  const [row] = yield* query(
    "look for the schema",
    () => sql<Array<{ readonly isThere: boolean }>>`select to_regnamespace('millrace') is not null as "isThere"`
  )
  if (!row!.isThere) yield* migrate(sql)
})

/** The files that `migrate` would apply. Changes nothing. Fails as `migrate` does if the database is a newer release's, or a file was changed. */
export const pendingMigrations = (
  sql: Sql,
  from: string = directory
): Effect.Effect<ReadonlyArray<string>, SqlError | MigrationError> =>
  Effect.gen(function* () {
    return (yield* missing(sql, yield* read(from))).map(({ file }) => file)
  })

// Held by the session, because it guards several transactions, and released with it.
const lock = "set lock_timeout = '5min'; select pg_advisory_lock(1835625580, 1835821938); reset lock_timeout"
const prepare = `create schema if not exists millrace;
create table if not exists millrace.schema_version (
  version integer primary key,
  file text not null,
  checksum text not null,
  applied_at timestamptz not null default now()
)`

interface Applied {
  readonly version: number
  readonly file: string
  readonly checksum: string
}
const missing = Effect.fnUntraced(function* (sql: Sql | Session, migrations: ReadonlyArray<Migration>) {
  const rows = yield* query("read the schema's version", () =>
    sql.unsafe<Array<Applied>>("select version, file, checksum from millrace.schema_version order by version")
  ).pipe(
    // a new database: the schema or the table does not exist
    Effect.catchIf(
      ({ code }) => code === "3F000" || code === "42P01",
      () => Effect.succeed([])
    )
  )
  for (const { checksum, file, version } of rows) {
    const known = migrations[version - 1]
    if (known === undefined) {
      const message = `the database was migrated with ${file}, which this version of Millrace does not have. try: use the newest version of Millrace`
      return yield* new MigrationError({ reason: "Newer", file, message })
    }
    if (known.checksum !== checksum) {
      const message = `${known.file} differs from what was applied to this database (as ${file}). try: restore it, and put the change into a new file`
      return yield* new MigrationError({ reason: "Changed", file: known.file, message })
    }
  }
  return migrations.slice(rows.length)
})

const apply = (sql: Session, { checksum, file, text, version }: Migration) => {
  const record = `insert into millrace.schema_version (version, file, checksum) values (${version}, '${file}', '${checksum}')`
  return query(`apply ${file}`, () => sql.unsafe(`begin;\n${text}\n;${record};\ncommit`)).pipe(
    Effect.mapError((error) => {
      if (error.retryable) return error
      const { position } = (error.cause ?? {}) as { readonly position?: string }
      const line =
        position === undefined ? "" : `, line ${`begin;\n${text}`.slice(0, Number(position)).split("\n").length - 1}`
      return new MigrationError({
        reason: "Failed",
        file,
        message: `${file}${line}: ${error.reason}`,
        cause: error.cause
      })
    })
  )
}
