// Copies what the live build of a projection has into a build that was just created: rows, positions, seen ids, late events and dead letters.
import * as Effect from "effect/Effect"
import type { Projection } from "../../model/projection.ts"
import { query, type Session, type Sql, type SqlError } from "../client/client.ts"
import { quote } from "../client/columns.ts"
import { relationsOf, schemaOf } from "./ddl.ts"

/** A table of the new build, and what of it the live build has. */
export interface CopiedTable {
  readonly name: string
  /** The columns that both have; empty if the live build does not have the table. */
  readonly columns: ReadonlyArray<string>
  /** Why its rows cannot be copied; undefined if they can. */
  readonly problem: string | undefined
}
interface LiveColumn {
  readonly table: string
  readonly name: string
  readonly type: string
  readonly isKey: boolean
}

/** What a copy of the live build would take over, by the tables of the declared projection. */
export const readCopiedTables = Effect.fnUntraced(function* (
  tx: Session | Sql,
  projection: Projection.Any,
  live: number
): Effect.fn.Return<ReadonlyArray<CopiedTable>, SqlError> {
  const relations = relationsOf(projection).filter(({ shared }) => !shared)
  const found = yield* query("read the tables of the live build", () =>
    tx.unsafe<Array<LiveColumn>>(
      `select c.relname::text as table, a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
        coalesce(a.attnum = any(i.indkey::int2[]), false) as "isKey"
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_index i on i.indrelid = c.oid and i.indisprimary
      where n.nspname = $1 and c.relkind in ('r', 'p')`,
      [schemaOf(projection.name, live)]
    )
  )
  const types = yield* readTypeNames(tx, [
    ...new Set(relations.flatMap(({ columns }) => columns.map(({ type }) => type)))
  ])
  return relations.map(({ columns, key, name }) => {
    const before = new Map(found.filter(({ table }) => table === name).map((column) => [column.name, column]))
    if (before.size === 0) return { name, columns: [], problem: undefined }
    const same = columns.filter((column) => before.get(column.name)?.type === types.get(column.type))
    const retyped = columns.find((column) => before.has(column.name) && !same.includes(column))
    const missing = columns.find((column) => !before.has(column.name) && !column.nullable)
    const keyBefore = [...before.values()].filter(({ isKey }) => isKey).map((column) => column.name)
    const isOtherKey = keyBefore.toSorted().join() !== key.toSorted().join()
    const problem = isOtherKey
      ? `the key of ${name} was ${keyBefore.join(", ")} and is ${key.join(", ")}`
      : retyped !== undefined
        ? `${name}.${retyped.name} was ${before.get(retyped.name)!.type} and is ${retyped.type}`
        : missing !== undefined
          ? `${name}.${missing.name} is new and must not be null`
          : undefined
    return { name, columns: same.map((column) => column.name), problem }
  })
})
/** The names that PostgreSQL gives types, by those in definitions. */
export const readTypeNames = (tx: Session | Sql, types: ReadonlyArray<string>) =>
  query("read the names of types", async () => {
    const rows = await tx.unsafe<Array<{ readonly type: string; readonly name: string }>>(
      `select t as type, format_type(t::regtype, null) as name from unnest($1::text[]) t`,
      [`{${types.map((type) => JSON.stringify(type)).join(",")}}`]
    )
    return new Map(rows.map(({ name, type }) => [type, name]))
  })

/** What a position takes over. Claims, numbers of commits and the outbox stream are the build's own. */
const positionColumns =
  "first_position, next_position, fingerprint, topic_identity, stream_time, stream_times, announced, events, duplicates, seen_chunk, seen_fill, failing".split(
    ", "
  )
/** Tables whose rows belong to a build. */
const ownTables = ["seen", "late_events", "dead_letters"] as const

/** The columns of one of Millrace's own tables, as SQL, that a copy for another build takes over: without the build's number and what is generated. */
export const ownColumns = (tx: Session, table: (typeof ownTables)[number]): Effect.Effect<string, SqlError> =>
  query("read the columns of a table", async () => {
    const rows = await tx.unsafe<Array<{ readonly name: string }>>(
      `select quote_ident(attname) as name from pg_attribute where attrelid = ('millrace.' || $1)::regclass and attnum > 0
        and not attisdropped and attidentity = '' and attgenerated = '' and attname <> 'version'`,
      [table]
    )
    return rows.map((row) => row.name).join(", ")
  })

/**
 * Copies everything of the live build into another one that has no rows yet, in one statement, so that rows and positions are those of one moment. The
 * live build goes on meanwhile.
 */
export const copyLiveBuild = Effect.fnUntraced(function* (
  tx: Session,
  build: Projection.Any,
  live: number,
  tables: ReadonlyArray<CopiedTable>
) {
  const { name, version } = build
  const parts = [
    `positions as (update millrace.progress n set ${positionColumns.map((column) => `${column} = o.${column}`).join(", ")}
      from millrace.progress o where n.projection = $1 and n.version = $3::int4 and o.projection = $1 and o.version = $2::int4
        and (o.topic, o.partition) = (n.topic, n.partition) returning 1)`
  ]
  for (const table of ownTables) {
    const columns = yield* ownColumns(tx, table)
    parts.push(`${table} as (insert into millrace.${table} (version, ${columns}) select $3::int4, ${columns} from millrace.${table}
      where projection = $1 and version = $2::int4 returning 1)`)
  }
  for (const [i, table] of tables.entries()) {
    if (table.columns.length === 0) continue
    const columns = table.columns.map(quote).join(", ")
    const [from, to] = [live, version].map((number) => `${schemaOf(name, number)}.${quote(table.name)}`)
    parts.push(`t${i} as (insert into ${to} (${columns}) select ${columns} from ${from} returning 1)`)
  }
  yield* query("copy the live build", () =>
    tx.unsafe(`with ${parts.join(",\n")} select 1`, [name, live, version]).then(() => undefined)
  )
})
