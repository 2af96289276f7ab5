// Brings a database's schema to the newest version, from numbered SQL files that are only ever appended. It can't go back.
//
// Not postgrator: it wants other file names, keeps a migration and its record in two transactions, and lets old code run on a
// newer database.
import { createHash } from "node:crypto"
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { query, session, type Session, type Sql, type SqlError } from "./client.ts"

/**
 * The schema cannot be brought to the newest version; the database is as it was before the file named.
 * - `Invalid`: the files are not numbered 0001, 0002, … with a first line that says why.
 * - `Changed`: a file is not what was applied.
 * - `Newer`: the database was migrated by a newer version of the code.
 * - `Failed`: a statement failed.
 */
export class MigrationError extends Schema.TaggedError<MigrationError>()("MigrationError", {
  reason: Schema.Literals(["Invalid", "Changed", "Newer", "Failed"]),
  file: Schema.String,
  message: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {}

/** A file of a directory of migrations. */
export interface Migration {
  readonly version: number
  /** `0001_log.sql` */
  readonly file: string
  readonly text: string
  /** SHA-256 of the text with line feeds as line ends. */
  readonly checksum: string
}

/** The project's migrations, in a checkout and in the published package alike. */
export const directory = fileURLToPath(new URL("../../../migrations/", import.meta.url))

/** Reads the migrations of a directory, in order. */
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
      const rule = `migrations are numbered 0001_name.sql, 0002_name.sql, … without gaps, and begin with a comment that says why`
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
 * Applies what is missing, each file in a transaction of its own together with its record in `millrace.schema_version`. Returns
 * the files that this call applied. Several processes may call it at once: one applies, the others wait for it.
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

/** The same where there is nothing of Millrace yet, and nothing else: who only looks does not bring a system up to date that others run. */
export const migrateWhereEmpty = Effect.fnUntraced(function* (
  sql: Sql
): Effect.fn.Return<void, SqlError | MigrationError> {
  const [row] = yield* query(
    "look for the schema",
    () => sql<Array<{ readonly isThere: boolean }>>`select to_regnamespace('millrace') is not null as "isThere"`
  )
  if (!row!.isThere) yield* migrate(sql)
})

// Held by the session, and so freed with it: what it guards is more than one transaction.
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
    // Neither schema nor table: a new database.
    Effect.catchIf(
      ({ code }) => code === "3F000" || code === "42P01",
      () => Effect.succeed([])
    )
  )
  for (const { checksum, file, version } of rows) {
    const known = migrations[version - 1]
    if (known === undefined) {
      const message = `the database has ${file}, which this version of Millrace does not know. try: the newest version of Millrace`
      return yield* new MigrationError({ reason: "Newer", file, message })
    }
    if (known.checksum !== checksum) {
      const message = `${known.file} is not what was applied to this database (as ${file}). try: restore it, and put the change into a new file`
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
