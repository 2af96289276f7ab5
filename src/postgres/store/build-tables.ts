// The tables of two builds of a projection as the database has them, side by side, and which of their columns can be compared.
import * as Effect from "effect/Effect"
import { query, type Session, type SqlError } from "../client/client.ts"
import { arrayOf, quote } from "../client/columns.ts"
import type { ComparedColumn, ComparedRelations } from "./compare.ts"
import { schemaOf } from "./ddl.ts"

/** A read model's table in two builds. */
export interface BuildTables {
  readonly name: string
  /** What is compared; undefined if the table is in one build only, or the keys differ. */
  readonly compared: ComparedRelations | undefined
  /** As `compared`, with the columns that only the candidate has, or has with another type: they are null in the live build. */
  readonly comparedWithAdded: ComparedRelations | undefined
  /** Why nothing is compared; undefined if the table is. */
  readonly notCompared: string | undefined
  /** Whether the table is in one build only. */
  readonly onlyIn: "live" | "candidate" | undefined
  /** Columns that one build has only. They are not compared. */
  readonly onlyLive: ReadonlyArray<string>
  readonly onlyCandidate: ReadonlyArray<string>
  /** Columns whose types differ. They are not compared. */
  readonly retyped: ReadonlyArray<{ readonly name: string; readonly live: string; readonly candidate: string }>
}

interface ColumnRow {
  readonly schema: string
  readonly table: string
  readonly name: string
  readonly type: string
  readonly oid: number
  readonly delimiter: string | null
  /** Its place in the primary key, from 1; null if it is not part of it. */
  readonly key: number | null
}

/** The tables of two builds, by name. Models that are shared are in neither. */
export const readBuildTables = Effect.fnUntraced(function* (
  tx: Session,
  name: string,
  builds: { readonly live: number; readonly candidate: number }
): Effect.fn.Return<ReadonlyArray<BuildTables>, SqlError> {
  const schemas = { live: schemaOf(name, builds.live), candidate: schemaOf(name, builds.candidate) }
  const rows = yield* query("read the tables of builds", () =>
    tx.unsafe<Array<ColumnRow>>(
      `select n.nspname::text as schema, c.relname::text as table, a.attname::text as name, format_type(a.atttypid, a.atttypmod) as type,
        coalesce(nullif(e.oid, 0), t.oid)::int8 as oid, e.typdelim::text as delimiter, array_position(i.indkey::int2[], a.attnum) + 1 as key
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      join pg_type t on t.oid = a.atttypid
      left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
      left join pg_index i on i.indrelid = c.oid and i.indisprimary
      where n.nspname = any ($1::text[]) and c.relkind in ('r', 'p') order by c.relname, a.attnum`,
      [arrayOf([schemas.live, schemas.candidate])]
    )
  )
  const names = [...new Set(rows.map(({ table }) => table))]
  return names.map((table) => {
    const of = (schema: string) => rows.filter((row) => row.table === table && row.schema === schema)
    return sideBySide(table, schemas, of(schemas.live), of(schemas.candidate))
  })
})

const sideBySide = (
  name: string,
  schemas: { readonly live: string; readonly candidate: string },
  live: ReadonlyArray<ColumnRow>,
  candidate: ReadonlyArray<ColumnRow>
): BuildTables => {
  const inLive = new Map(live.map((column) => [column.name, column]))
  const inCandidate = new Map(candidate.map((column) => [column.name, column]))
  const none = {
    name,
    compared: undefined,
    comparedWithAdded: undefined,
    onlyLive: [],
    onlyCandidate: [],
    retyped: []
  }
  if (live.length === 0 || candidate.length === 0) {
    const onlyIn = live.length === 0 ? "candidate" : "live"
    return { ...none, onlyIn, notCompared: `only the ${onlyIn === "live" ? "live build" : "candidate"} has it` }
  }
  const keys = [keyOf(live), keyOf(candidate)].map((key) =>
    key.map((column) => `${column.name} ${column.type}`).join(", ")
  )
  if (keys[0] === "" || keys[0] !== keys[1]) {
    const shown = keys.map((key) => (key === "" ? "none" : key))
    return {
      ...none,
      onlyIn: undefined,
      notCompared: `its keys differ: ${shown[0]} in the live build, ${shown[1]} in the candidate`
    }
  }
  const both = live.filter((column) => inCandidate.has(column.name))
  const isSame = ({ name: column, type }: ColumnRow) => inCandidate.get(column)!.type === type
  const same = both.filter(isSame)
  const key = keyOf(live)
  const columns = same.filter((column) => column.key === null)
  const from = (schema: string, added: ReadonlyArray<string> = []) =>
    `select ${["ctid as _ctid", ...same.map((column) => quote(column.name)), ...added].join(", ")} from ${schema}.${quote(name)}`
  const added = candidate.filter((column) => inLive.get(column.name)?.type !== column.type)
  const ofAdded = (value: (column: ColumnRow) => string) =>
    added.map((column) => `${value(column)} as ${quote(column.name)}`)
  return {
    name,
    compared: {
      live: from(schemas.live),
      candidate: from(schemas.candidate),
      key: key.map(comparedColumn),
      columns: columns.map(comparedColumn)
    },
    comparedWithAdded: {
      live: from(
        schemas.live,
        ofAdded(({ type }) => `null::${type}`)
      ),
      candidate: from(
        schemas.candidate,
        ofAdded((column) => quote(column.name))
      ),
      key: key.map(comparedColumn),
      columns: [...columns, ...added].map(comparedColumn)
    },
    notCompared: undefined,
    onlyIn: undefined,
    onlyLive: live.flatMap((column) => (inCandidate.has(column.name) ? [] : [column.name])),
    onlyCandidate: candidate.flatMap((column) => (inLive.has(column.name) ? [] : [column.name])),
    retyped: both
      .filter((column) => !isSame(column))
      .map((column) => ({ name: column.name, live: column.type, candidate: inCandidate.get(column.name)!.type }))
  }
}
const keyOf = (columns: ReadonlyArray<ColumnRow>) =>
  columns.filter(({ key }) => key !== null).toSorted((a, b) => a.key! - b.key!)
const comparedColumn = ({ delimiter, name, oid, type }: ColumnRow): ComparedColumn => ({
  name,
  type,
  oid,
  delimiter: delimiter ?? undefined
})
