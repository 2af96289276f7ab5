// Reads the rows of a view and their changes from PostgreSQL, and keeps the journals of the tables that are followed.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import { query, type Sql } from "../../postgres/client/client.ts"
import {
  currentSnapshot,
  endJournals,
  type FollowedTable,
  followJournal,
  type JournalState,
  openJournal,
  pruneJournal,
  readJournal
} from "../../postgres/store/row-journal.ts"
import type { PageStatement } from "../views/page-sql.ts"
import { fetchRows, type PageRow } from "../views/reader.ts"
import type { ChangeRow, SnapshotRow } from "./statements.ts"

/** Rows that one statement read, and the snapshot that sees them. */
export interface RowsPage {
  readonly snapshot: string
  readonly rows: ReadonlyArray<PageRow>
  readonly isCut: boolean
}
/** Where changes are read. Rejects with `SqlError`. */
export interface ChangeSource {
  /** The journal of a table, which goes on for ten minutes. Rejects with `JournalUnavailable`, too, after at most `ms`. */
  readonly open: (table: FollowedTable, ms: number) => Promise<string>
  /** Lets a journal go on for another ten minutes, and deletes what is too old. False if it may have a gap. */
  readonly keep: (journal: string) => Promise<boolean>
  readonly state: (journal: string, seen: string) => Promise<JournalState>
  readonly snapshot: () => Promise<string>
  readonly rows: (statement: PageStatement, maxBytes: number) => Promise<RowsPage>
  readonly changes: (
    statement: PageStatement,
    maxBytes: number
  ) => Promise<{ readonly rows: ReadonlyArray<ChangeRow>; readonly isCut: boolean }>
  /** Rejects if a statement fails. */
  readonly check: (statement: PageStatement) => Promise<void>
  /** Ends the journals that nobody follows any more. */
  readonly tidy: () => Promise<number>
}

/** Reads rows by connections that can only read, and all else by `system`, which may create triggers. */
export const changeSource = (reader: Sql, system: Sql): ChangeSource => {
  const process = randomUUID()
  return {
    open: (table, ms) => Effect.runPromise(openJournal(system, table, process, ms)),
    keep: async (journal) => {
      const isFollowed = await Effect.runPromise(followJournal(system, journal, process))
      if (isFollowed) await Effect.runPromise(pruneJournal(system, journal))
      return isFollowed
    },
    state: (journal, seen) => Effect.runPromise(readJournal(system, journal, seen)),
    snapshot: () => Effect.runPromise(currentSnapshot(system)),
    rows: async (statement, maxBytes) => {
      const bytesOf = ({ row }: SnapshotRow) => row?.length ?? 0
      const { isCut, rows } = await fetchRows<SnapshotRow>(reader, "read a view", statement, { bytesOf, maxBytes })
      const found = rows.flatMap(({ cursor, row }) => (row === null ? [] : [{ row, cursor: cursor! }]))
      return { snapshot: rows[0]!.snapshot, rows: found, isCut }
    },
    changes: (statement, maxBytes) =>
      fetchRows<ChangeRow>(system, "read changes", statement, {
        bytesOf: ({ key, row }) => key.length + (row?.length ?? 0),
        maxBytes
      }),
    check: async ({ parameters, text }) => {
      await Effect.runPromise(query("check filters", () => system.unsafe(text, [...parameters])))
    },
    tidy: () => Effect.runPromise(endJournals(system))
  }
}
