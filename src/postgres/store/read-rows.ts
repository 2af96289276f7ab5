// The statement that reads rows of a read model by their keys.
import type { Projection } from "../../model/projection.ts"
import { columnArray, fromParameter, parameterType, quote } from "../client/columns.ts"
import { relationsOf } from "./ddl.ts"

/** The statement that reads the rows with these keys, in any order, and its parameters. */
export const readRowsStatement = (
  projection: Projection.Any,
  name: string,
  keys: ReadonlyArray<Record<string, unknown>>
): { readonly text: string; readonly parameters: Array<string> } => {
  const relation = relationsOf(projection).find((other) => other.name === name)!
  const columns = relation.key.map((key) => relation.columns.find((column) => column.name === key)!)
  const arrays = columns.map((column, i) => `$${i + 1}::${parameterType(column)}`)
  const names = columns.map((column) => quote(column.name)).join(", ")
  const on = columns.map((column) => `t.${quote(column.name)} = ${fromParameter(column, "u")}`).join(" and ")
  // by name: a column that is added while this runs would change the result of a prepared `select *`
  const selected = relation.columns.map(({ name: column }) => `t.${quote(column)}`).join(", ")
  return {
    text: `select ${selected} from unnest(${arrays.join(", ")}) as u(${names}) join ${relation.qualifiedName} t on ${on}`,
    parameters: columns.map((column) => columnArray(column, keys))
  }
}
