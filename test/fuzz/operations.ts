// The operations of an OpenAPI document, as far as requests are generated from them: paths, parameters, bodies and the statuses of answers. Pure.

/** A JSON Schema, or any other object of the document. */
export type Json = Readonly<Record<string, unknown>>
/** A parameter of a query or a header. */
export interface Parameter {
  readonly name: string
  readonly schema: Json
}
/** A method of a path. */
export interface Operation {
  readonly method: string
  /** With parameters in braces. */
  readonly path: string
  readonly query: ReadonlyArray<Parameter>
  readonly headers: ReadonlyArray<Parameter>
  /** The schemas of bodies by media type. */
  readonly bodies: ReadonlyMap<string, Json>
  /** The statuses that the document has for it. */
  readonly statuses: ReadonlySet<number>
}
/** An OpenAPI document. */
export interface Document extends Json {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Json>>>>
}

/** What a reference within the document means; other values are returned as they are. */
export const resolved = (document: Json, value: unknown): Json => {
  const reference = (value as Json | undefined)?.["$ref"]
  if (typeof reference !== "string") return (value ?? {}) as Json
  const found = reference
    .replace(/^#\//, "")
    .split("/")
    .reduce<unknown>((at, name) => (at as Json)[name.replaceAll("~1", "/")], document)
  return resolved(document, found)
}

const methods: ReadonlySet<string> = new Set(["get", "post", "put", "patch", "delete"])

/** Every operation that the document describes. */
export const operationsOf = (document: Document): ReadonlyArray<Operation> =>
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => methods.has(method))
      .map(([method, operation]) => {
        const parameters = ((operation["parameters"] ?? []) as ReadonlyArray<unknown>).map((one) =>
          resolved(document, one)
        )
        const of = (place: string) =>
          parameters
            .filter((one) => one["in"] === place)
            .map((one) => ({ name: String(one["name"]), schema: resolved(document, one["schema"]) }))
        const content = (resolved(document, operation["requestBody"])["content"] ?? {}) as Readonly<
          Record<string, Json>
        >
        return {
          method: method.toUpperCase(),
          path,
          query: of("query"),
          headers: of("header"),
          bodies: new Map(Object.entries(content).map(([type, { schema }]) => [type, resolved(document, schema)])),
          statuses: new Set(Object.keys((operation["responses"] ?? {}) as Json).map(Number))
        }
      })
  )

const page = (path: string, more: Partial<Operation> = {}): Operation => ({
  method: "GET",
  path,
  query: [],
  headers: [{ name: "If-None-Match", schema: { type: "string" } }],
  bodies: new Map(),
  statuses: new Set([200, 304]),
  ...more
})
/** What is not in the document: the console with its files, the documentation, and aggregates by their names alone. */
export const undescribed: ReadonlyArray<Operation> = [
  page("/"),
  page("/console/{file}"),
  page("/docs/"),
  page("/docs/{file}"),
  page("/openapi.json"),
  page("/v1/aggregates/{aggregate}"),
  page("/v1/aggregates/{aggregate}/{id}/{rest}")
]
