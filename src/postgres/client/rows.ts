// Corrects the rows of postgres.js 3.4.9. It counts the rows of a result, and does not reset the count when a statement fails after its first
// rows, or its connection is lost then: the next result on that connection begins with as many empty items, which read as undefined.
import type postgres from "postgres"

type Results = ReadonlyArray<unknown>
/** The parts of a query of postgres.js that are used here, which its types lack. */
interface DriverQuery {
  resolve: (results: Results) => void
  cursor: (rows: number, deliver: (rows: Results) => unknown) => unknown
}

const dropEmpty = (rows: Array<unknown>): void => {
  if (rows.length === 0 || 0 in rows) return
  const first = rows.findIndex((_, i) => i in rows)
  rows.splice(0, first === -1 ? rows.length : first)
}
/** Removes the empty items of a result; of several statements' results, the first one has them. */
const dense = (results: Results): Results => {
  if (Array.isArray(results[0])) dropEmpty(results[0])
  dropEmpty(results as Array<unknown>)
  return results
}
const corrected = (query: unknown): unknown => {
  if (!(query instanceof Promise)) return query
  const driver = query as unknown as DriverQuery
  const { resolve } = driver
  driver.resolve = (results) => resolve(dense(results))
  const cursor = driver.cursor.bind(driver)
  driver.cursor = (rows, deliver) => cursor(rows, (delivered) => deliver(dense(delivered)))
  return query
}

/** The same client, whose results have no empty items. */
export const withDenseRows = (sql: postgres.Sql): postgres.Sql => {
  const unsafe = (...values: Parameters<postgres.Sql["unsafe"]>) => corrected(sql.unsafe(...values))
  return new Proxy(sql, {
    apply: (target, self, values) => corrected(Reflect.apply(target as never, self, values)),
    get: (target, name) => (name === "unsafe" ? unsafe : (Reflect.get(target, name) as unknown))
  })
}
