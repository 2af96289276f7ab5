// Tables of read models as users declare them: columns from schemas, and the primary key. The store derives the DDL from them. Pure.
import * as Schema from "effect/Schema"
import { shown } from "../text/text.ts"
import { assertFields, assertOptions, refuse } from "./declaration.ts"
import type { Fields, Simplify, TypeOf } from "./fields.ts"

/** Columns whose SQL type no JSON schema expresses. Other types follow from the schema: String text, Finite float8, Int bigint, Struct jsonb. */
export const Column = {
  /**
   * `timestamptz` in SQL, epoch milliseconds in handlers.
   *
   * ```ts
   * const Visits = ReadModel.table("visits", { columns: { id: Schema.String, at: Column.timestamptz }, primaryKey: ["id"] })
   * ```
   */
  timestamptz: Schema.Int.annotate({ title: "timestamptz" })
}

/** A table of a read model. */
export interface Table<out Name extends string, out Row extends object, out Key extends string> {
  /** Distinguishes tables from windows and topics. */
  readonly kind: "table"
  /** The name of the table. */
  readonly name: Name
  /** The schemas of the columns by name. */
  readonly columns: Fields
  /** The columns of the primary key, in order. */
  readonly primaryKey: ReadonlyArray<Key>
  /** Several projections may write it. Then all their versions write the same table, and a rebuild does not replace it. */
  readonly shared: boolean
  /** The column that is a row's tenant, if it is not called `tenant`. */
  readonly tenant?: string | undefined
  /** The type of a row, for `typeof`: there is no such value. */
  readonly Row: Row
}
export declare namespace Table {
  /** Any table. */
  type Any = Table<string, object, string>
  /** The rows of a table. */
  type Row<T> = T extends { readonly Row: infer R } ? R : never
  /** The columns of a table's primary key. */
  type Key<T> = T extends Table<string, infer R, infer K> ? Simplify<Pick<R, K & keyof R>> : never
  /** The columns of the primary key, and any of the others: the argument of `out.update`. */
  type Patch<T> =
    T extends Table<string, infer R, infer K> ? Simplify<Pick<R, K & keyof R> & Partial<Omit<R, K>>> : never
}

/** A view over read models: a query that the application's database keeps under a name. */
export interface View {
  /** Distinguishes views from tables and windows. */
  readonly kind: "view"
  /** The name of the view. */
  readonly name: string
  /** A SELECT. */
  readonly query: string
  /** The column that is a row's tenant, if it is not called `tenant`. */
  readonly tenant?: string | undefined
}

/** A name that SQL does not accept unquoted. */
export class InvalidName extends Schema.TaggedError<InvalidName>()("InvalidName", {
  what: Schema.String,
  name: Schema.String
}) {
  override get message() {
    return `${this.what} ${JSON.stringify(this.name)}: the name is not allowed; use at most 55 lower-case letters, digits and _, beginning with a letter`
  }
}
// PostgreSQL's limit is 63 bytes; the rest is room for prefixes and suffixes
const identifier = /^[a-z][a-z0-9_]{0,54}$/
/** Returns the name if it can be one in SQL. Throws `InvalidName`, whose message begins with `what`. */
export const checkedName = <const Name extends string>(what: string, name: Name): Name => {
  if (typeof name !== "string" || !identifier.test(name)) throw new InvalidName({ what, name })
  return name
}
/** The same for what becomes a schema or a relation. Throws an `Error` if PostgreSQL keeps the name for itself. */
export const checkedRelationName = <const Name extends string>(what: string, name: Name): Name => {
  if (!checkedName(what, name).startsWith("pg_")) return name
  throw new Error(`${what} "${name}": PostgreSQL keeps names that begin with pg_ for itself; use another one`)
}

// every table of PostgreSQL has these
const systemColumns: ReadonlySet<string> = new Set(["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"])
/** The same for a column. Throws an `Error` if PostgreSQL gives every table a column of this name. */
export const checkedColumn = (what: string, name: string): string => {
  // a row that lacks the column would seem to have it
  if (name === "constructor")
    throw new Error(`${what} "${name}": JavaScript gives every object a property of this name; use another one`)
  if (!systemColumns.has(name)) return checkedName(what, name)
  throw new Error(`${what} "${name}": PostgreSQL gives every table a column of this name; use another one`)
}

/** The column that is a row's tenant unless the declaration says otherwise. */
export const tenantColumn = "tenant"

/** Declares tables of read models; windows are the other kind. */
export const ReadModel = {
  /**
   * Declares a table: columns from schemas, and the primary key. Throws `InvalidName` if a name is not allowed, and an `Error` if the primary
   * key names no column or an unknown one.
   *
   * ```ts
   * const Users = ReadModel.table("users", { columns: { id: Schema.String, name: Schema.String }, primaryKey: ["id"] })
   * ```
   */
  table: <const Name extends string, F extends Fields, const Key extends string & keyof F>(
    name: Name,
    options: {
      /** The columns: names with schemas. `Schema.String` is `text` in SQL, `Schema.Int` `bigint`, `Schema.Finite` `double precision`, a struct `jsonb`. */
      readonly columns: F
      /** The columns of the primary key, at least one. `out.upsert` replaces the row that has the same key. */
      readonly primaryKey: readonly [Key, ...ReadonlyArray<Key>]
      /** Several projections write the table. Default: it belongs to one projection, each version of which has a table of its own. */
      readonly shared?: boolean
      /** The column, a text, that is a row's tenant: credentials of a tenant see only its rows. Default: the column `tenant`, if there is one. */
      readonly tenant?: string & keyof F
    }
  ): Table<Name, TypeOf<F>, Key> => {
    checkedRelationName("table", name)
    assertOptions(`table ${name}`, options, ["columns", "primaryKey", "shared", "tenant"], ["columns", "primaryKey"])
    if (!Array.isArray(options.primaryKey))
      refuse(
        `table ${name}`,
        `the primary key is ${shown(options.primaryKey)}; list its columns, as \`primaryKey: ["id"]\``
      )
    assertFields(`table ${name}: \`columns\``, options.columns)
    for (const column of Object.keys(options.columns)) checkedColumn(`column of table ${name},`, column)
    const { columns, primaryKey } = options
    const unknown = primaryKey.find((column) => !Object.hasOwn(columns, column))
    if (unknown !== undefined)
      throw new Error(`table ${name}: the primary key names ${unknown}, which is no column of the table`)
    const { tenant } = options
    if (tenant !== undefined && !Object.hasOwn(columns, tenant))
      throw new Error(`table ${name}: \`tenant\` names ${shown(tenant)}, which is no column of the table`)
    const twice = primaryKey.find((column, i) => primaryKey.indexOf(column) < i)
    if (twice !== undefined) throw new Error(`table ${name}: the primary key names column ${twice} twice; name it once`)
    if (primaryKey.length === 0) throw new Error(`table ${name}: the primary key is empty; name at least one column`)
    return { kind: "table", name, shared: false, ...options } as never // phantom `Row`
  },
  /**
   * Declares a view over read models, for readers. `Application.make` takes it in `views`, and processes create it when they start. Name the
   * columns of its query: `*` means those that the tables had when the view was created. Throws `InvalidName` if the name is not allowed.
   *
   * ```ts
   * const open = ReadModel.view("open_cases", { query: "select case_id, level from cases where status <> 'resolved'" })
   * ```
   */
  view: (
    name: string,
    options: {
      /** A SELECT over tables and windows, without parameters. */
      readonly query: string
      /** The column, a text, that is a row's tenant: credentials of a tenant see only its rows. Default: the column `tenant`, if there is one. */
      readonly tenant?: string
    }
  ): View => {
    checkedRelationName("view", name)
    assertOptions(`view ${name}`, options, ["query", "tenant"], ["query"])
    const { query, tenant } = options
    if (tenant !== undefined) checkedColumn(`view ${name}: \`tenant\``, tenant)
    if (typeof query !== "string" || query.trim() === "")
      refuse(`view ${name}`, `its query is ${shown(query)}; give the text of a SELECT`)
    return { kind: "view", name, query, ...(tenant !== undefined && { tenant }) }
  }
}
