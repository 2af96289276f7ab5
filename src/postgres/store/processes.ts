// The rows of the processes that run: each writes its own every few seconds, by the server's clock.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"

/** The role of a program beside a system that sends commands by the library: it is no process of the system. */
export const besideRole = "commands"

/** What a process does. */
export interface ProcessEntry {
  /** A UUID. */
  readonly id: string
  readonly host: string
  readonly pid: number
  readonly roles: ReadonlyArray<string>
  /** `<name>_v<version>` of the projections that it runs. */
  readonly projections: ReadonlyArray<string>
  /** `<name>_v<version>` of the projections that it declares. */
  readonly declares: ReadonlyArray<string>
  /** The targets of the relays that it runs. */
  readonly targets: ReadonlyArray<string>
  /** What it tries again, and for how many milliseconds. */
  readonly failing: ReadonlyArray<{ readonly what: string; readonly reason: string; readonly sinceMs: number }>
}
/** A process as the database has it. */
export interface ProcessRow extends ProcessEntry {
  /** How long ago it started and when it last wrote its row, in milliseconds of the server's clock. */
  readonly startedMs: number
  readonly seenMs: number
}

/** Rows of processes that died are kept for an hour, so that the status can name them. */
const keptFor = "1 hour"
/** How many processes are read at most, those seen last first. */
const most = 500

/** Writes a process's row, and deletes rows of processes that died long ago. */
export const writeProcess = (sql: Sql, entry: ProcessEntry): Effect.Effect<unknown, SqlError> =>
  query("note that the process runs", () => {
    const { declares, failing, host, id, pid, projections, roles, targets } = entry
    return sql`
      with gone as (
        delete from millrace.process where last_seen < clock_timestamp() - ${keptFor}::interval and process_id <> ${id}::uuid
      )
      insert into millrace.process as p (process_id, host, pid, roles, projections, declares, targets, failing)
      values (${id}::uuid, ${host}, ${pid}, ${arrayOf(roles)}::text[], ${arrayOf(projections)}::text[],
        ${arrayOf(declares)}::text[], ${arrayOf(targets)}::text[],
        ${JSON.stringify(failing)}::text::jsonb)
      on conflict (process_id) do update set roles = excluded.roles, projections = excluded.projections,
        declares = excluded.declares, targets = excluded.targets,
        failing = excluded.failing, last_seen = clock_timestamp()`
  })

/** Deletes the row of a process that stops. */
export const deleteProcess = (sql: Sql, id: string): Effect.Effect<unknown, SqlError> =>
  query("note that the process stops", () => sql`delete from millrace.process where process_id = ${id}::uuid`)

/** The processes that run, and those that died within the last hour; the one that was seen last first. */
export const readProcesses = (sql: Sql): Effect.Effect<ReadonlyArray<ProcessRow>, SqlError> =>
  query(
    "read processes",
    () => sql<Array<ProcessRow>>`
      select process_id as id, host, pid, to_jsonb(roles) as roles, to_jsonb(projections) as projections,
        to_jsonb(declares) as declares, to_jsonb(targets) as targets,
        failing, (extract(epoch from clock_timestamp() - started_at) * 1000)::float8 as "startedMs",
        (extract(epoch from clock_timestamp() - last_seen) * 1000)::float8 as "seenMs"
      from millrace.process order by last_seen desc limit ${most}`
  )
