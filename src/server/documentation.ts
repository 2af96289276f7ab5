// The OpenAPI document of a server, and the pages that show it.
import type { FastifyInstance } from "fastify"
import type { Described } from "./aggregates/openapi.ts"
import { completed, type OpenApiDocument } from "./http/openapi-document.ts"

/** Adds `/openapi.json` and the pages at `/docs`. Resolves to a function that returns the OpenAPI document as text, which is made once; its routes must be there by then. */
export const documentation = async (
  app: FastifyInstance,
  name: string,
  isRequired: boolean,
  more: Described
): Promise<() => string> => {
  const [swagger, swaggerUi] = await Promise.all([import("@fastify/swagger"), import("@fastify/swagger-ui")])
  await app.register(swagger.default, {
    openapi: {
      openapi: "3.1.0",
      info: { title: name, version: "1", description: "Events in, derived records out." },
      tags: [
        { name: "events" },
        { name: "aggregates" },
        { name: "views" },
        { name: "streams" },
        { name: "operations" },
        { name: "credentials" },
        { name: "health" }
      ]
    },
    transformObject: (document) => {
      const openapi = ("openapiObject" in document ? document.openapiObject : {}) as OpenApiDocument
      const components = { ...openapi.components, ...more.components }
      return completed({ ...openapi, paths: { ...openapi.paths, ...more.paths }, components }, isRequired) as never
    }
  })
  let made: string | undefined
  const document = () => (made ??= JSON.stringify(app.swagger()))
  const json = "application/json; charset=utf-8"
  app.get("/openapi.json", { schema: { hide: true }, config: { scope: "read" } }, (_, reply) =>
    reply.type(json).send(document())
  )
  app.addHook("onRoute", (route) => {
    if (route.url === "/docs/json") route.handler = (_, reply) => reply.type(json).send(document())
    // JSON is YAML, and other YAML takes so long to write that requests wait
    if (route.url === "/docs/yaml") route.handler = (_, reply) => reply.type("application/x-yaml").send(document())
  })
  await app.register(swaggerUi.default, {
    routePrefix: "/docs",
    staticCSP: true,
    // with this directive Safari would use TLS for a loopback address
    transformStaticCSP: (header) => header.replace(" upgrade-insecure-requests;", ""),
    uiConfig: { tryItOutEnabled: true }
  })
  return document
}
