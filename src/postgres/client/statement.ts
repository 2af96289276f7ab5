// Runs one statement of a person: one only, in a transaction that it cannot leave if it may only read, with its rows in bounded memory.
import * as Effect from "effect/Effect"
import { query, session, type Session, type Sql, SqlError } from "./client.ts"

/** A column of a statement's rows. */
export interface ResultColumn {
  readonly name: string
  /** The oid of its type; of the elements if the type is an array. */
  readonly type: number
  /** What separates the elements of an array; undefined if the type is no array. */
  readonly delimiter: string | undefined
}
/** Rows as PostgreSQL's text, in the order of the columns. */
export type TextRows = ReadonlyArray<ReadonlyArray<string | null>>
/** What takes the rows of a statement. */
export interface RowSink {
  /** Called once before the first rows. A statement that returns no rows has no columns. */
  readonly start: (columns: ReadonlyArray<ResultColumn>) => void
  /** Returns false if no more rows are wanted. Never rejects. */
  readonly rows: (rows: TextRows) => Promise<boolean>
}
/** What a statement did: its command, such as `INSERT`, and how many rows it changed or returned. */
export interface StatementResult {
  readonly command: string
  readonly count: number
}

const rowsPerFetch = 500

/** Whether the role may do things outside of a transaction that the server cannot undo: run programs or write files. */
const power = `select rolsuper or pg_has_role(oid, 'pg_execute_server_program', 'usage')
  or pg_has_role(oid, 'pg_write_server_files', 'usage') as mighty, rolname as name from pg_roles where rolname = session_user`

/** The role of the connection, if it could write in spite of a read-only transaction: a superuser can. Undefined if it could not. */
const mightyRole = Effect.fnUntraced(function* (one: Session) {
  const [role] = yield* query("look at the role", () => one.unsafe<Array<{ mighty: string; name: string }>>(power))
  return role?.mighty === "t" ? role.name : undefined
})

const columnsOf = Effect.fnUntraced(function* (one: Session, text: string) {
  const { columns } = yield* query("sql", () => one.unsafe(text).describe())
  const found = (columns ?? []).map(({ name, type }) => ({ name, type }))
  const oids = [...new Set(found.map(({ type }) => type))]
  // an array of a domain has the elements of the domain's type
  const arrays = yield* query("look at the types", () =>
    one.unsafe<Array<{ oid: string; element: string; delimiter: string }>>(
      `select a.oid, case e.typtype when 'd' then e.typbasetype else e.oid end as element, e.typdelim as delimiter
       from pg_type a join pg_type e on e.oid = a.typelem where a.typcategory = 'A' and a.oid = any ($1::oid[])`,
      [`{${oids.join()}}`]
    )
  )
  const elements = new Map(arrays.map(({ delimiter, element, oid }) => [Number(oid), { delimiter, element }]))
  return found.map(({ name, type }): ResultColumn => {
    const array = elements.get(type)
    return { name, type: array === undefined ? type : Number(array.element), delimiter: array?.delimiter }
  })
})

/**
 * Runs one statement, in a session of its own; `sql` must return text (`asText`). With `readOnly` it runs in a read-only transaction that has
 * taken its snapshot, so the statement can neither make it writable nor, being alone, end it and begin another. Fails with the code
 * `SUPERUSER` and does not run the statement if the role could write nevertheless. When interrupted the server cancels the statement.
 */
export const runStatement = (
  sql: Sql,
  text: string,
  { readOnly, sink }: { readonly readOnly: boolean; readonly sink: RowSink }
): Effect.Effect<StatementResult, SqlError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const one = yield* session(sql)
      // the server notices within a second that this process was killed; not every platform can
      yield* Effect.ignore(
        query("watch the connection", () => one.unsafe("set client_connection_check_interval = '1s'"))
      )
      if (readOnly) {
        yield* query("begin", () => one.unsafe("begin transaction read only"))
        const role = yield* mightyRole(one)
        if (role !== undefined)
          return yield* new SqlError({
            operation: "sql",
            code: "SUPERUSER",
            retryable: false,
            inDoubt: false,
            reason: role
          })
      }
      sink.start(yield* columnsOf(one, text))
      return yield* fetchAll(one, text, sink, sql.CLOSE)
    })
  )

const fetchAll = Effect.fnUntraced(function* (one: Session, text: string, sink: RowSink, close: object) {
  let delivered: Promise<boolean> = Promise.resolve(true)
  let count = 0
  const pending = one.unsafe(text, [], { prepare: false }).values()
  const deliver = async (rows: TextRows) => {
    count += rows.length
    delivered = delivered.then(async (open) => open && (rows.length === 0 || (await sink.rows(rows))))
    return (await delivered) ? undefined : close
  }
  const running = pending.cursor(rowsPerFetch, (rows) => deliver(rows as unknown as TextRows) as Promise<void>)
  const result = yield* query("sql", () => running as unknown as Promise<StatementOutcome>).pipe(
    Effect.onInterrupt(() => Effect.promise(async () => Promise.resolve(pending.cancel()).catch(() => undefined)))
  )
  // the driver hands over the last rows only of commands that report a number: `show` and `explain` do not
  if (result.count === null) yield* Effect.promise(() => deliver(result))
  yield* Effect.promise(() => delivered)
  return { command: result.command, count: count === 0 ? (result.count ?? 0) : count }
})
type StatementOutcome = TextRows & { readonly command: string; readonly count: number | null }
