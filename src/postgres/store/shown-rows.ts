// Queries that show people what a read model has: how many rows, and some of them. They change nothing.
import type * as Effect from "effect/Effect"
import { query, type Sql, type SqlError } from "../client/client.ts"

/** Counts the rows of a read model; if there are more than `most`, the result is `most` + 1. */
export const countRowsUpTo = (sql: Sql, readModel: string, most: number): Effect.Effect<number, SqlError> =>
  query("count rows", async () => {
    const [row] = await sql<
      Array<{ readonly rows: number }>
    >`select count(*) as rows from (select from ${sql(readModel)} limit ${most + 1}) as counted`
    return row!.rows
  })

/** Some rows of a read model by the names of the columns that the database has, in their order, with values as in JSON. */
export const readSomeRows = (
  sql: Sql,
  readModel: string,
  limit: number
): Effect.Effect<ReadonlyArray<Readonly<Record<string, unknown>>>, SqlError> =>
  query("read rows", async () => {
    const rows = await sql<
      Array<{ readonly row: string }>
    >`select row_to_json(shown)::text as row from (select * from ${sql(readModel)} limit ${limit}) as shown`
    return rows.map(({ row }) => JSON.parse(row) as Readonly<Record<string, unknown>>)
  })
