// Reads the columns and the rows of views from PostgreSQL, in bounded memory.
import { query, type Sql, SqlError } from "../../postgres/client/client.ts"
import { arrayOf } from "../../postgres/client/columns.ts"
import * as Effect from "effect/Effect"
import type { ViewColumn } from "./catalog.ts"
import type { PageStatement } from "./page-sql.ts"

/** A row of a page: its JSON, and the JSON array of its values of the order. */
export interface PageRow {
  readonly row: string
  readonly cursor: string
}
/** What is waited for: positions of topics as [topic, partition, position], or what was published to streams. */
export type Goals = Readonly<Record<string, ReadonlyArray<ReadonlyArray<string | number>>>>
/** A projection, or the relay of one, that has not reached a goal. */
export interface Behind {
  readonly who: string
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly wanted: number
}
/** Where views are read. Rejects with `SqlError`. */
export interface ViewReader {
  /** The columns of the views that the database has, by their names. */
  readonly columns: (names: ReadonlyArray<string>) => Promise<ReadonlyMap<string, ReadonlyArray<ViewColumn>>>
  /** The rows of a statement, as many as have `maxBytes` together, and one in any case. */
  readonly rows: (
    statement: PageStatement,
    maxBytes: number
  ) => Promise<{ readonly rows: ReadonlyArray<PageRow>; readonly isCut: boolean }>
  /** What has not reached the goals, of these projections; undefined: of all. */
  readonly behind: (goals: Goals, projections: ReadonlyArray<string> | undefined) => Promise<ReadonlyArray<Behind>>
  /** The goals that follow from goals that were reached, one half of a chain's link further. */
  readonly nextGoals: (goals: Goals, projections: ReadonlyArray<string> | undefined) => Promise<Goals>
}

/** How many rows are fetched at once. */
const rowsPerFetch = 50

/** The rows of a statement, as many as have `maxBytes` together by `bytesOf`, and one in any case. */
export const fetchRows = async <A extends object>(
  sql: Sql,
  what: string,
  { parameters, text }: PageStatement,
  { bytesOf, maxBytes }: { readonly bytesOf: (row: A) => number; readonly maxBytes: number }
): Promise<{ readonly rows: ReadonlyArray<A>; readonly isCut: boolean }> => {
  const rows: Array<A> = []
  let bytes = 0
  let isCut = false
  const read = query(what, async () => {
    await sql.unsafe<Array<A>>(text, [...parameters]).cursor(rowsPerFetch, (found) => {
      for (const one of found) {
        if (rows.length > 0 && bytes + bytesOf(one) > maxBytes) {
          isCut = true
          return sql.CLOSE
        }
        rows.push({ ...one })
        bytes += bytesOf(one)
      }
      return undefined
    })
  })
  await Effect.runPromise(read)
  return { rows, isCut }
}

// a domain has the form of its base type
const columnsSql = `
select c.relname as view, a.attname as name, format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), null) as type
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped join pg_type t on t.oid = a.atttypid
where c.relnamespace = 'public'::regnamespace and c.relkind = 'v' and c.relname = any($1::text[]) order by 1, a.attnum`

const ask = async <A>(
  sql: Sql,
  name: string,
  goals: Goals,
  projections: ReadonlyArray<string> | undefined
): Promise<A> => {
  const only = projections === undefined ? null : arrayOf(projections)
  const text = `select millrace.${name}($1::text::jsonb, $2::text::text[])::text as found`
  const [row] = await Effect.runPromise(
    query("look how far projections are", () =>
      sql.unsafe<Array<{ readonly found: string }>>(text, [JSON.stringify(goals), only])
    )
  )
  return JSON.parse(row!.found) as A
}

/**
 * Reads views through connections that can only read. `system`: the connections that look how far projections are, for a role of readers need not
 * see Millrace's own tables. Every statement is unnamed, for there are as many as clients think of.
 */
export const viewReader = (sql: Sql, system: Sql): ViewReader => ({
  behind: (goals, projections) => ask(system, "behind_goals", goals, projections),
  nextGoals: (goals, projections) => ask(system, "next_goals", goals, projections),
  columns: async (names) => {
    const rows = await Effect.runPromise(
      query("read the columns of views", () =>
        sql.unsafe<Array<ViewColumn & { readonly view: string }>>(columnsSql, [arrayOf(names)])
      )
    )
    const byView = Map.groupBy(rows, ({ view }) => view)
    return new Map([...byView].map(([view, list]) => [view, list.map(({ name, type }) => ({ name, type }))]))
  },
  rows: (statement, maxBytes) =>
    fetchRows<PageRow>(sql, "read a view", statement, { bytesOf: ({ row }) => row.length, maxBytes })
})

/** The error of PostgreSQL that a read was rejected with; undefined if it is another one. */
export const sqlErrorOf = (cause: unknown): SqlError | undefined => {
  if (cause instanceof SqlError) return cause
  return undefined
}
