// Completes the OpenAPI document: names for operations, and what is the same for all routes. Pure.
import type { Json } from "./json-schema.ts"
import { problem } from "./openapi.ts"

/** The parts of an OpenAPI document that are completed. */
export interface OpenApiDocument {
  readonly paths?: Json
  readonly components?: Json
  readonly [part: string]: unknown
}

/** A refusal, whose body is an error as all routes have it. */
export const refused = (description: string): Json => ({
  description,
  content: { "application/json": { schema: { $ref: "#/components/schemas/Refusal" } } }
})
/** What every route may answer that is not open to everyone. */
const guarded: Json = {
  400: refused("a parameter or a header cannot be read"),
  401: refused("the credential is missing or not valid"),
  403: refused("the credential has not the scope that the route needs"),
  429: refused("too many requests at once; send again after Retry-After seconds"),
  503: refused("the server is busy, or what it needs does not answer; send again after Retry-After seconds")
}
const methods = new Set(["get", "post", "put", "patch", "delete"])

/**
 * The name of an operation, for generated clients: the method and the path in camel case, without `v1`, as `getTopicsByTopicRecords` for
 * `GET /v1/topics/{topic}/records`. The parameter at the end of the path, and those between names, are `By…`.
 */
export const operationIdOf = (method: string, path: string): string => {
  const parts = path
    .split("/")
    .filter((part) => part !== "" && part !== "v1")
    .flatMap((part) => (part.startsWith("{") ? ["by", part.slice(1, -1)] : part.split(/[^A-Za-z0-9_]+/)))
  return method + parts.map((part) => part.charAt(0).toUpperCase() + part.slice(1)).join("")
}

/**
 * The document with an `operationId` for each operation (unique: a number follows a name that is there already), the security scheme `bearer`, and the
 * refusals that all operations share whose `security` is not empty. `isRequired`: whether requests need a credential.
 */
export const completed = (document: OpenApiDocument, isRequired: boolean): OpenApiDocument => {
  const used = new Set<string>()
  const uniqueId = (method: string, path: string): string => {
    const id = operationIdOf(method, path)
    let unique = id
    for (let n = 2; used.has(unique); n++) unique = id + n
    used.add(unique)
    return unique
  }
  const operationOf = (method: string, path: string, operation: Json): Json => {
    const security = operation["security"]
    const isOpen = Array.isArray(security) && security.length === 0
    const responses = operation["responses"] as Json | undefined
    return {
      operationId: uniqueId(method, path),
      ...operation,
      responses: isOpen ? responses : { ...guarded, ...responses }
    }
  }
  const paths = Object.entries((document.paths ?? {}) as Readonly<Record<string, Json>>).map(([path, item]) => [
    path,
    Object.fromEntries(
      Object.entries(item).map(([method, operation]) => [
        method,
        methods.has(method) ? operationOf(method, path, operation as Json) : operation
      ])
    )
  ])
  const components = document.components ?? {}
  return {
    ...document,
    paths: Object.fromEntries(paths),
    security: isRequired ? [{ bearer: [] }] : [{}, { bearer: [] }],
    components: {
      ...components,
      schemas: { Refusal: problem, ...(components["schemas"] as Json | undefined) },
      securitySchemes: {
        bearer: { type: "http", scheme: "bearer", description: "An API key (`millrace keys create`), or a JWT" }
      }
    }
  }
}
