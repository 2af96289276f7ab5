// A read model's table as the user declares it: columns from schemas, and the primary key. The store derives its DDL from this.
import * as Schema from "effect/Schema"
import type { Fields, Simplify, TypeOf } from "./fields.ts"

/** Column types that JSON schemas do not tell apart. Others follow the schema: String text, Finite float8, Int bigint, Struct jsonb. */
export const Column = {
  /** `timestamptz` in SQL, epoch milliseconds here: no Date is made for an event. */
  timestamptz: Schema.Int.annotate({ title: "timestamptz" })
}

/** A table that a projection keeps. */
export interface Table<out Name extends string, out Row extends object, out Key extends string> {
  readonly kind: "table"
  readonly name: Name
  readonly columns: Fields
  readonly primaryKey: ReadonlyArray<Key>
  /** Several projections may write it; it is then outside their versions, and a rebuild does not replace it. */
  readonly shared: boolean
  readonly Row: Row
}
export declare namespace Table {
  type Any = Table<string, object, string>
  type Row<T> = T extends { readonly Row: infer R } ? R : never
  type Key<T> = T extends Table<string, infer R, infer K> ? Simplify<Pick<R, K & keyof R>> : never
  /** The key and any of the other columns. */
  type Patch<T> =
    T extends Table<string, infer R, infer K> ? Simplify<Pick<R, K & keyof R> & Partial<Omit<R, K>>> : never
}

/** A name that SQL will not take as it is. */
export class InvalidName extends Schema.TaggedError<InvalidName>()("InvalidName", {
  what: Schema.String,
  name: Schema.String
}) {
  override get message() {
    return `${this.what} ${JSON.stringify(this.name)} is no identifier; try lower-case letters, digits and _, beginning with a letter, 55 at most`
  }
}
// 63 bytes is PostgreSQL's limit; the rest is room for what is put around a name
const identifier = /^[a-z][a-z0-9_]{0,54}$/
/** Returns a name that SQL takes unquoted. Throws `InvalidName`. */
export const checkedName = <const Name extends string>(what: string, name: Name): Name => {
  if (!identifier.test(name)) throw new InvalidName({ what, name })
  return name
}

export const ReadModel = {
  /**
   * Columns from schemas, and the primary key. The DDL follows from them. Throws `InvalidName` where the table or a column has a
   * name that is no identifier.
   */
  table: <const Name extends string, F extends Fields, const Key extends string & keyof F>(
    name: Name,
    options: {
      readonly columns: F
      readonly primaryKey: readonly [Key, ...ReadonlyArray<Key>]
      /** Several projections write it. Default: it belongs to one projection, and each version of that has its own. */
      readonly shared?: boolean
    }
  ): Table<Name, TypeOf<F>, Key> => {
    checkedName("table", name)
    for (const column of Object.keys(options.columns)) checkedName(`column of table ${name},`, column)
    const { columns, primaryKey } = options
    const wrong = primaryKey.find((column, i) => !Object.hasOwn(columns, column) || primaryKey.indexOf(column) < i)
    if (wrong !== undefined)
      throw new Error(`table ${name}: its primary key names ${wrong} twice, or there is no such column`)
    if (primaryKey.length === 0) throw new Error(`table ${name}: its primary key names no column`)
    return { kind: "table", name, shared: false, ...options } as never // phantom `Row`
  }
}
