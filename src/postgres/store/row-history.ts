// Reads a row of a build and the positions that the build has processed, at one moment, and what became of single events.
import * as Effect from "effect/Effect"
import type { RetryOwner } from "../../dead-letter/retry-record.ts"
import type { Relation } from "../../model/columns.ts"
import { keyText } from "../../model/fields.ts"
import type { Projection } from "../../model/projection.ts"
import { query, type Session, type Sql, type SqlError, transaction } from "../client/client.ts"
import { arrayOf, columnArray, fromParameter, parameterType, quote } from "../client/columns.ts"
import { relationsOf } from "./ddl.ts"
import { readRowsStatement } from "./read-rows.ts"

/** One partition of a build. */
export interface BuildPosition {
  readonly topic: string
  readonly partition: number
  /** The position that the build began at. */
  readonly first: number
  /** The position that it processes next. */
  readonly next: number
}
/** A row, and how far its build had come when it was read. */
export interface StoredRowState {
  /** As `Store.readRows` returns it; undefined if there is none. */
  readonly row: Readonly<Record<string, unknown>> | undefined
  readonly positions: ReadonlyArray<BuildPosition>
}
const positionsOf = (tx: Session, { name, version }: Projection.Any) =>
  tx<Array<BuildPosition>>`
    select topic, partition, first_position as first, next_position as next from millrace.progress
    where projection = ${name} and version = ${version} order by topic, partition`
/** The positions of a build, and what `read` reads in the same snapshot. */
const withPositions = <A extends object>(
  sql: Sql,
  projection: Projection.Any,
  read: (tx: Session) => Effect.Effect<A, SqlError>
) =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* query("begin a snapshot", () => tx.unsafe("set transaction isolation level repeatable read, read only"))
      const positions = yield* query("read the positions of a build", () => positionsOf(tx, projection))
      return { ...(yield* read(tx)), positions }
    })
  )
/** Reads the row with this key and the positions of its build in one snapshot. The projection's version is the build's number. */
export const readRowState = (
  sql: Sql,
  projection: Projection.Any,
  name: string,
  key: Record<string, unknown>
): Effect.Effect<StoredRowState, SqlError> =>
  withPositions(sql, projection, (tx) => {
    const { parameters, text } = readRowsStatement(projection, name, [key])
    const found = query(`read a row of ${name}`, () => tx.unsafe<Array<Record<string, unknown>>>(text, parameters))
    return Effect.map(found, ([row]) => ({ row }))
  })

/** A row to read: an id, the name of its table or window, and its key. */
export interface RowAddress {
  readonly id: string
  readonly name: string
  readonly relation: Relation
  readonly key: Record<string, unknown>
}
/** Reads rows of one build, by their ids, and the positions of the build in one snapshot. A row that does not exist is undefined. */
export const readRowStates = (sql: Sql, projection: Projection.Any, rows: ReadonlyArray<RowAddress>) =>
  withPositions(
    sql,
    projection,
    Effect.fnUntraced(function* (tx) {
      const found = new Map<string, StoredRowState["row"]>(rows.map(({ id }) => [id, undefined]))
      for (const [name, some] of Map.groupBy(rows, (row) => row.name)) {
        const { relation } = some[0]!
        const ids = new Map(some.map(({ id, key }) => [keyText(relation.key, key), id]))
        const { parameters, text } = readRowsStatement(
          projection,
          name,
          some.map(({ key }) => key)
        )
        const read = yield* query(`read rows of ${name}`, () =>
          tx.unsafe<Array<Record<string, unknown>>>(text, parameters)
        )
        for (const row of read) found.set(ids.get(keyText(relation.key, row)) ?? "", { ...row })
      }
      return { rows: found }
    })
  )

/** The keys of the rows next to a key that has no row, at most three before it and three after it, by the table's order. */
export const readNeighbours = (sql: Sql, projection: Projection.Any, name: string, key: Record<string, unknown>) => {
  const relation = relationsOf(projection).find((other) => other.name === name)!
  const columns = relation.key.map((one) => relation.columns.find((column) => column.name === one)!)
  const names = columns.map((column) => quote(column.name)).join(", ")
  const values = columns.map((column, i) => fromParameter(column, "u").replaceAll(`u.${quote(column.name)}`, `u.k${i}`))
  const given = `unnest(${columns.map((column, i) => `$${i + 1}::${parameterType(column)}`).join(", ")}) as u(${columns.map((_, i) => `k${i}`).join(", ")})`
  const side = (operator: string, direction: string) =>
    `(select ${names} from ${relation.qualifiedName}, ${given} where (${names}) ${operator} (${values.join(", ")})
      order by ${columns.map((column) => `${quote(column.name)} ${direction}`).join(", ")} limit 3)`
  const text = `select * from (${side("<", "desc")} union all ${side(">", "asc")}) as n order by ${names}`
  return query(`look for rows of ${name}`, () =>
    sql.unsafe<Array<Record<string, unknown>>>(
      text,
      columns.map((column) => columnArray(column, [key]))
    )
  )
}

/** By what retry records of this database are recognized. */
export const readRetryOwner = (sql: Sql) =>
  query("read the id of the database", async () => {
    const [row] = await sql<Array<RetryOwner>>`
      select (select id from millrace.system) as id,
        (select array_agg(distinct name) from millrace.projection) as projections`
    return row!
  })

/** A dead letter as the database has it. */
export interface KnownDeadLetter {
  readonly id: number
  readonly topic: string
  readonly partition: number
  readonly position: number
  readonly status: string
}
/** The dead letters of a build among these events. */
export const readDeadLettersAt = (
  sql: Sql,
  { name, version }: Projection.Any,
  events: ReadonlyArray<{ readonly topic: string; readonly partition: number; readonly position: number }>
) =>
  query(
    "read dead letters",
    () => sql<Array<KnownDeadLetter>>`
      select d.id, d.topic, d.partition, d.position, d.status from millrace.dead_letters d
      join unnest(${arrayOf(events.map(({ topic }) => topic))}::text[], ${arrayOf(events.map(({ partition }) => partition))}::int[],
        ${arrayOf(events.map(({ position }) => position))}::int8[]) as e(topic, partition, position) using (topic, partition, position)
      where d.projection = ${name} and d.version = ${version}`
  )
