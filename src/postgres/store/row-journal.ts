// Journals of the changes of rows: begins one for a table that is followed, keeps it while it is, and ends it afterwards.
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { query, type Session, type Sql, SqlError, transaction } from "../client/client.ts"
import { quote } from "../client/columns.ts"
import { schemaOf, sharedSchema } from "./ddl.ts"

/** A read model whose rows are followed. */
export interface FollowedTable {
  readonly name: string
  readonly key: ReadonlyArray<string>
  /** The projection that writes it; undefined: the table is shared by several. */
  readonly projection: string | undefined
}
/** Why a reader cannot go on with a journal: readers see other rows than those it is about, or it does not have all changes since. */
export type JournalEnd = "view_replaced" | "changes_expired"
/** What a journal has for a reader. */
export interface JournalState {
  /** The snapshot of this statement, as `pg_snapshot` writes it. */
  readonly snapshot: string
  /** Null: the reader can go on. */
  readonly end: JournalEnd | null
  /** Whether there are changes that the reader has not seen. */
  readonly hasChanges: boolean
}

/** The table cannot be followed now: no build of it is live, or transactions that write it did not end in time. Nothing was changed. */
export class JournalUnavailable extends Data.TaggedError("JournalUnavailable")<{
  readonly reason: "not_ready" | "busy"
  readonly table: string
}> {
  override get message() {
    return this.reason === "busy"
      ? `${this.table} is written by transactions that stay open`
      : `${this.table} is not there yet`
  }
}

/** For how long a journal goes on without its followers, and keeps changes. */
export const journalKeepMs = 600_000
/** How many changes of all tables together follow the last one that a journal keeps at least. */
const mostChanges = 1_000_000

// an arbitrary number that other programs are unlikely to use; the second key is a hash of the view's name
const journalLock = 721_651_303
/** How long triggers wait for the transactions that write the table, while others wait behind them, in milliseconds: longer with each attempt. */
const lockMs = { first: 50, most: 500 } as const
const lockView = (tx: Session, view: string) =>
  query("lock the journal", () => tx`select pg_advisory_xact_lock(${journalLock}, hashtext(${view}))`)
const limitLocks = (tx: Session, ms: number) =>
  query("limit the wait for writers", () => tx.unsafe(`set local lock_timeout = ${Math.ceil(ms)}`))
const isLocked = (error: { readonly _tag: string; readonly code?: string }) =>
  error._tag === "SqlError" && (error.code === "55P03" || error.code === "40P01")

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
const prefix = "millrace_changes_"
/** The statements that let a table's changes go to a journal, in place of an earlier one. They block writers, but no readers. */
const triggers = (qualified: string, journal: string, key: ReadonlyArray<string>): string =>
  (
    [
      ["insert", " referencing new table as new_rows"],
      ["update", " referencing old table as old_rows new table as new_rows"],
      ["delete", " referencing old table as old_rows"],
      ["truncate", ""]
    ] as const
  )
    .map(
      ([event, tables]) =>
        `create or replace trigger ${prefix}${event} after ${event} on ${qualified}${tables} for each statement
        execute function millrace.note_row_changes(${[journal, ...key].map(literal).join(", ")})`
    )
    .join(";\n")

const begin = Effect.fnUntraced(function* (
  tx: Session,
  { key, name, projection }: FollowedTable,
  process: string,
  waitMs: number
) {
  yield* lockView(tx, name)
  const [found] = yield* query(
    "look for the journal",
    () => tx<Array<{ readonly id: string }>>`
      select j.journal_id::text as id from millrace.row_journal j where j.view = ${name}
        and millrace.row_journal_end(j.journal_id, pg_current_snapshot()) is null
        and exists (select from pg_trigger t where t.tgrelid = j.relation and t.tgname = ${`${prefix}insert`} and t.tgenabled <> 'D')
      order by j.journal_id desc limit 1`
  )
  if (found !== undefined && (yield* followJournal(tx, found.id, process))) return found.id
  const [live] = yield* query(
    "read the live build",
    () =>
      tx<Array<{ readonly version: number }>>`select version from millrace.live where projection = ${projection ?? ""}`
  )
  if (live === undefined && projection !== undefined)
    return yield* new JournalUnavailable({ reason: "not_ready", table: name })
  const schema = projection === undefined ? sharedSchema : schemaOf(projection, live!.version)
  const qualified = `${schema}.${quote(name)}`
  const [made] = yield* query(
    "begin a journal",
    () => tx<Array<{ readonly id: string }>>`
      with made as (
        insert into millrace.row_journal (view, projection, build, relation, era)
        select ${name}, ${projection ?? null}, ${live?.version ?? null}::int4, c.oid, millrace.journal_era()
        from pg_class c where c.oid = to_regclass(${qualified}) and c.relkind = 'r' returning journal_id
      ), followed as (
        insert into millrace.row_follower (journal_id, process, until)
        select journal_id, ${process}::uuid, clock_timestamp() + ${journalKeepMs}::float8 * interval '1 ms' from made
      )
      select journal_id::text as id from made`
  )
  if (made === undefined) return yield* new JournalUnavailable({ reason: "not_ready", table: name })
  yield* limitLocks(tx, waitMs)
  yield* query("create the triggers", () => tx.unsafe(triggers(qualified, made.id, key)))
  return made.id
})

/**
 * The journal of the table that readers of a view see: one that goes on, or a new one. A new one waits for the transactions that write the table, at
 * most `ms`, and lets others wait for half a second at most. Follow it again within `journalKeepMs`. Fails with `JournalUnavailable`.
 */
export const openJournal = Effect.fnUntraced(function* (
  sql: Sql,
  table: FollowedTable,
  process: string,
  ms: number
): Effect.fn.Return<string, SqlError | JournalUnavailable> {
  const deadline = performance.now() + ms
  for (let waitMs: number = lockMs.first; ; waitMs = Math.min(lockMs.most, waitMs * 1.5)) {
    const opened = yield* transaction(sql, (tx) => begin(tx, table, process, waitMs)).pipe(
      Effect.catchIf(isLocked, () => Effect.undefined)
    )
    if (opened !== undefined) return opened
    if (performance.now() >= deadline) return yield* new JournalUnavailable({ reason: "busy", table: table.name })
    // the writers that have waited go on meanwhile
    yield* Effect.sleep(waitMs * (0.5 + Math.random()))
  }
})

/** Goes on following a journal. False if it may have a gap, because nobody has followed it in time. */
export const followJournal = (sql: Sql | Session, journal: string, process: string): Effect.Effect<boolean, SqlError> =>
  query("follow the journal", async () => {
    const [row] = await sql.unsafe<Array<{ readonly followed: boolean }>>(
      "select millrace.follow_row_journal($1::int8, $2::uuid, $3::float8 * interval '1 ms') as followed",
      [journal, process, journalKeepMs]
    )
    return row!.followed
  })

/** Deletes the changes of a journal that are older than `journalKeepMs`, or too many. */
export const pruneJournal = (sql: Sql, journal: string): Effect.Effect<void, SqlError> =>
  query("delete old changes", async () => {
    await sql.unsafe("select millrace.prune_row_journal($1::int8, $2::float8 * interval '1 ms', $3::int8)", [
      journal,
      journalKeepMs,
      mostChanges
    ])
  })

/** What a journal has for a reader that has seen the snapshot `seen`. */
export const readJournal = (sql: Sql, journal: string, seen: string): Effect.Effect<JournalState, SqlError> =>
  query("look for changes", async () => {
    const [row] = await sql.unsafe<Array<JournalState>>(
      `select pg_current_snapshot()::text as snapshot, millrace.row_journal_end($1::int8, $2::text::pg_snapshot) as end,
        exists (select from millrace.row_change c where c.journal_id = $1::int8
          and (c.xid >= pg_snapshot_xmax($2::text::pg_snapshot) or c.xid = any(array(select pg_snapshot_xip($2::text::pg_snapshot))))) as "hasChanges"`,
      [journal, seen]
    )
    return row!
  })

/** The snapshot of now. */
export const currentSnapshot = (sql: Sql): Effect.Effect<string, SqlError> =>
  query("read the snapshot", async () => {
    const [row] = await sql.unsafe<Array<{ readonly snapshot: string }>>(
      "select pg_current_snapshot()::text as snapshot"
    )
    return row!.snapshot
  })

interface DeadJournal {
  readonly id: string
  readonly view: string
}
const endJournal = Effect.fnUntraced(function* (tx: Session, { id, view }: DeadJournal) {
  yield* lockView(tx, view)
  const [table] = yield* query(
    "look for the journal's table",
    () => tx<Array<{ readonly name: string | null }>>`
      select (select c.oid::regclass::text from pg_class c where c.oid = j.relation and not exists (
        select from millrace.row_journal n where n.relation = j.relation and n.journal_id > j.journal_id)) as name
      from millrace.row_journal j where j.journal_id = ${id}::int8
        and not exists (select from millrace.row_follower f where f.journal_id = j.journal_id and f.until > clock_timestamp())`
  )
  // another process was here first
  if (table === undefined) return
  if (table.name !== null) {
    yield* limitLocks(tx, lockMs.first)
    const events = ["insert", "update", "delete", "truncate"]
    yield* query("drop the triggers", () =>
      tx.unsafe(events.map((event) => `drop trigger if exists ${prefix}${event} on ${table.name}`).join(";\n"))
    )
  }
  yield* query("delete the journal", () => tx`delete from millrace.row_journal where journal_id = ${id}::int8`)
  yield* query("delete the changes", () => tx`delete from millrace.row_change where journal_id = ${id}::int8`)
})
/** Ends the journals that nobody follows any more, and removes their triggers. One whose table is in use stays for the next call. Returns how many ended. */
export const endJournals = Effect.fnUntraced(function* (sql: Sql): Effect.fn.Return<number, SqlError> {
  const dead = yield* query(
    "look for journals",
    () => sql<Array<DeadJournal>>`
      select j.journal_id::text as id, j.view from millrace.row_journal j
      where not exists (select from millrace.row_follower f where f.journal_id = j.journal_id and f.until > clock_timestamp())
      order by j.journal_id`
  )
  let ended = 0
  for (const one of dead)
    ended += yield* transaction(sql, (tx) => endJournal(tx, one)).pipe(
      Effect.as(1),
      Effect.catchIf(isLocked, () => Effect.succeed(0))
    )
  return ended
})
