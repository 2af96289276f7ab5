// The OpenAPI description of the routes of views: a path for each view, with its columns as parameters. Pure.
import { refused } from "../http/openapi-document.ts"
import { described, integer, list, nullable, object, oneOf, text } from "../http/json-schema.ts"
import type { Json } from "../http/json-schema.ts"
import type { DeclaredView, ViewColumn } from "./catalog.ts"
import { forms, isOrdered, kindOf, schemaOf } from "./column-types.ts"
import { pageRows } from "./page-query.ts"

const tags = ["views"]
const parameter = (name: string, description: string, schema: Json = text) => ({
  name,
  in: "query",
  description,
  schema
})
/** The parameters that filter by a column. */
const filtersOf = (column: ViewColumn) => {
  const kind = kindOf(column)
  const { name } = column
  const isNull = parameter(`${name}.null`, "`true`: rows without a value; `false`: rows with one", { type: "boolean" })
  if (kind === "other") return [isNull]
  const form = `${column.type}: ${forms[kind]}`
  const equal = [parameter(name, form), parameter(`${name}.ne`, `Another value, or none. ${form}`)]
  if (!isOrdered(column)) return [...equal, isNull]
  return [
    ...equal,
    parameter(`${name}.gt`, `Greater. ${form}`),
    parameter(`${name}.gte`, `Greater or equal. ${form}`),
    parameter(`${name}.lt`, `Less. ${form}`),
    parameter(`${name}.lte`, `Less or equal. ${form}`),
    parameter(`${name}.in`, `One of several, with commas between, or a JSON array of texts. ${form}`),
    ...(kind === "text" ? [parameter(`${name}.prefix`, "Texts that begin so")] : []),
    isNull
  ]
}

const window = object({
  sizes: described(
    list(object({ size: text, ms: nullable(integer), every_ms: nullable(integer) })),
    "the values of window_size, with their length and how far apart windows start; null of units of a calendar"
  ),
  time_zone: described(nullable(text), "of a calendar; null: UTC"),
  grace_ms: described(integer, "how long after its end a window accepts events, in stream time")
})
const listed = object(
  {
    name: text,
    kind: oneOf("table", "window", "view"),
    written_by: described(list(text), "the projections that write it"),
    key: described(list(text), "the columns of the primary key; none of a view"),
    tenant: described(
      nullable(text),
      "the column that has the tenant of a row; null: only credentials without a tenant read it"
    ),
    columns: list(object({ name: text, type: described(text, "as PostgreSQL writes it") }))
  },
  { window: described(window, "how a window divides time") }
)

const withheld = described(
  object({ table: integer, window: integer, view: integer }),
  "how many others there are, by kind, that a credential of a tenant cannot read: their rows do not say whose they are"
)
const listPath = {
  get: {
    tags,
    summary: "The application's tables, windows and views",
    responses: {
      200: {
        description: "the views that the credential can read, with their columns",
        content: {
          "application/json": {
            schema: object({ views: list(listed), withheld })
          }
        }
      },
      304: { description: "the client has this answer" },
      503: refused("the database does not answer; send again after Retry-After seconds")
    }
  }
}
const changesPath = (view: DeclaredView, columns: ReadonlyArray<ViewColumn>) => ({
  get: {
    tags,
    summary: `Rows of ${view.name}, and then every change of them`,
    description:
      "Server-sent events, or a WebSocket for a request with Upgrade: websocket. First the rows, then every change once, in the order in which those of " +
      "a row were made: `snapshot` (forget what you have), `upsert` with a row, `delete` with a primary key, `live` (you have all rows). Each has an id: a " +
      "client that sends it as Last-Event-ID, or as from, continues without a gap or a repetition. The last message, `end`, has the reason and the position.",
    parameters: [
      parameter(
        "from",
        "`earliest` (default): all rows first; `latest`: changes alone; an id; or the token of an answer to events: all rows, which have what follows from them, then changes"
      ),
      { name: "Last-Event-ID", in: "header", description: "The last id that the client has", schema: text },
      parameter("waitFor", "A token of an answer to events: the rows have what follows from them"),
      ...columns.flatMap(filtersOf)
    ],
    responses: {
      200: { description: "a stream", content: { "text/event-stream": { schema: text } } },
      400: refused("a column, an operator, a value or a position that the view does not have"),
      403: refused("the credential belongs to a tenant, and the rows do not say whose they are"),
      404: refused("the view is not there yet"),
      429: refused("too many streams are open; send again after Retry-After seconds"),
      504: refused("the projections have not processed what waitFor or from names"),
      503: refused("the database does not answer, or transactions that write the table stay open")
    }
  }
})
const viewPath = (view: DeclaredView, columns: ReadonlyArray<ViewColumn>) => {
  const nullableOf = (column: ViewColumn): Json => {
    const schema = schemaOf(column)
    return view.required.has(column.name) || Object.keys(schema).length === 0 ? schema : nullable(schema)
  }
  return {
    get: {
      tags,
      summary: `Rows of ${view.name}`,
      parameters: [
        parameter("order", "Columns with commas between, each with `.asc` or `.desc`; the primary key follows them"),
        parameter("limit", "How many rows the page has at most", {
          type: "integer",
          minimum: 1,
          maximum: pageRows.most,
          default: pageRows.usual
        }),
        parameter(
          "after",
          "`next` of the page before, or `previous` of the page after, with the same filters and order"
        ),
        parameter("waitFor", "A token of an answer to events: the page has what follows from them"),
        { name: "If-None-Match", in: "header", description: "The ETag that the client has", schema: text },
        ...columns.flatMap(filtersOf)
      ],
      responses: {
        200: {
          description: "a page",
          headers: { etag: { description: "Changes with the answer", schema: text } },
          content: {
            "application/json": {
              schema: object(
                {
                  view: { const: view.name },
                  rows: list(object(Object.fromEntries(columns.map((column) => [column.name, nullableOf(column)])))),
                  next: described(nullable(text), "`after` of the next page; null: this is the last")
                },
                {
                  previous: described(
                    nullable(text),
                    "of a page after the first one, of a table with a primary key: `after` of the page before; null: this is the first"
                  )
                }
              )
            }
          }
        },
        304: { description: "the client has this answer" },
        400: refused("a column, an operator, a value or a cursor that the view does not have"),
        403: refused("the credential belongs to a tenant, and the rows do not say whose they are"),
        404: refused("the view is not there yet"),
        429: refused("too many requests at once; send again after Retry-After seconds"),
        504: refused("the projections have not processed what waitFor names"),
        503: refused("the query took too long, or the database does not answer")
      }
    }
  }
}

/**
 * Describes the routes of all views. `columns`: those that the database has; of others, those that are declared are described. `hasChanges`: whether
 * tables and windows can be followed.
 */
export const describeViews = (
  views: ReadonlyMap<string, DeclaredView>,
  columns: ReadonlyMap<string, ReadonlyArray<ViewColumn>>,
  hasChanges: boolean
): { readonly paths: Json } => ({
  paths: Object.fromEntries([
    ["/v1/views", listPath],
    ...[...views.values()].flatMap((view) => {
      const own = columns.get(view.name) ?? view.columns
      const path = [`/v1/views/${view.name}`, viewPath(view, own)] as const
      if (!hasChanges || view.kind === "view") return [path]
      return [path, [`/v1/views/${view.name}/changes`, changesPath(view, own)] as const]
    })
  ])
})
