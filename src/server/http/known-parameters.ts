// Refuses query parameters that a route does not have: a client would believe that an ignored one has an effect.
import type { FastifyInstance } from "fastify"
import { didYouMean } from "../../text/similar-names.ts"
import { shown } from "../../text/text.ts"
import { Problem } from "./problem.ts"

declare module "fastify" {
  interface FastifyContextConfig {
    /**
     * The query parameters of the route. Default: those of its schema. `own`: the route itself refuses those that it does not know, such as a view
     * that takes its columns; `any`: it is a page, a file or a probe, and ignores them.
     */
    parameters?: ReadonlyArray<string> | "own" | "any"
  }
}

const adviceOf = (name: string, known: ReadonlyArray<string>, isIngest: boolean): string => {
  if (name === "tenant")
    return isIngest
      ? "leave it out: the tenant is that of the credential, or what the event has in the field that its topic declares"
      : "leave it out: the tenant is that of the credential"
  if (known.length === 0) return "leave it out"
  return didYouMean(name, known) ?? `use ${known.join(", ")}, or leave it out`
}

/**
 * Lets each route refuse parameters that it does not have, with a `Problem` 400. To be called after requests are authenticated, and before routes are
 * added.
 */
export const refuseUnknownParameters = (app: FastifyInstance): void => {
  app.addHook("onRoute", (route) => {
    const { properties = {} } = (route.schema?.querystring ?? {}) as { readonly properties?: object }
    const isPage = /^\/docs(\/|$)/.test(route.url)
    route.config = { parameters: isPage ? "any" : Object.keys(properties), ...route.config }
  })
  app.addHook("onRequest", (request, _reply, done) => {
    const { parameters: known = "any", scope } = request.routeOptions.config
    if (known === "any" || known === "own") return done()
    const name = Object.keys(request.query as object).find((one) => !known.includes(one))
    if (name === undefined) return done()
    const others = known.length === 0 ? "it has none" : `it has ${known.join(", ")}`
    done(
      new Problem(
        400,
        "invalid_parameter",
        `this route has no parameter ${shown(name)}; ${others}`,
        adviceOf(name, known, scope === "ingest")
      )
    )
  })
}
