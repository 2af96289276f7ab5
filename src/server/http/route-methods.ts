// Which methods the paths of a server have: answers OPTIONS, and refuses what no route takes with 404, or 405 and `Allow`.
import type { FastifyInstance, FastifyRequest } from "fastify"
import { Problem, retryAfterSeconds } from "./problem.ts"

const special = /[.*+?^${}()|[\]\\]/g
/** Matches the paths of a route such as `/v1/topics/:topic/stream`. */
const patternOf = (url: string): RegExp =>
  new RegExp(
    `^${url
      .split("/")
      .map((part) => (part.startsWith(":") ? "[^/]*" : part === "*" ? ".*" : part.replaceAll(special, String.raw`\$&`)))
      .join("/")}$`
  )
/** The path of a request as routes have it: without its query, a slash at the end, and encoding that is not needed. */
const pathOf = ({ url }: FastifyRequest): string => {
  const [path = ""] = url.split(/[?#]/, 1)
  const plain = path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path
  try {
    return decodeURI(plain)
  } catch {
    return plain
  }
}
/** A preflight request of a browser, which CORS answers. */
const isPreflight = ({ headers }: FastifyRequest): boolean =>
  headers.origin !== undefined && headers["access-control-request-method"] !== undefined

/** What `routeMethods` returns. */
export interface RouteMethods {
  /**
   * Refuses requests that no route takes, before their bodies are read: 404 `not_found`, or 405 `method_not_allowed` with `Allow` if the path has
   * other methods; 503 `starting` while the routes of an application are still to be added. To be called after CORS and authentication are added.
   */
  readonly refuseOthers: () => void
}

/**
 * Answers OPTIONS with 204 and `Allow`. To be called before CORS, which refuses those that are no preflight requests, and before routes are added.
 * `isStarting`: whether the routes of an application are still to be added.
 */
export const routeMethods = (app: FastifyInstance, isStarting: boolean): RouteMethods => {
  const routes = new Map<string, { readonly pattern: RegExp; readonly methods: Set<string> }>()
  app.addHook("onRoute", ({ method, url }) => {
    // the route of CORS matches every path
    if (url === "*") return
    const route = routes.get(url) ?? { pattern: patternOf(url), methods: new Set() }
    routes.set(url, route)
    for (const one of [method].flat()) route.methods.add(one.toUpperCase())
  })
  /** The value of `Allow`; undefined if the path has no route. `*` means the whole server. */
  const allowed = (path: string): string | undefined => {
    const found = [...routes.values()]
      .filter(({ pattern }) => path === "*" || pattern.test(path))
      .flatMap(({ methods }) => Array.from(methods))
    return found.length === 0 ? undefined : [...new Set([...found, "OPTIONS"])].toSorted().join(", ")
  }
  const noRoute = ({ method }: FastifyRequest, path: string): Problem =>
    isStarting && /^\/(v1|docs|openapi\.json)(\/|$)/.test(path)
      ? new Problem(
          503,
          "starting",
          "the process has not started yet: it waits for a service, which /readyz names",
          "send the request again after Retry-After seconds",
          retryAfterSeconds
        )
      : new Problem(404, "not_found", `no route ${method} ${path} exists`, "see the routes in /docs or /openapi.json")

  app.addHook("onRequest", (request, reply, done) => {
    if (request.method !== "OPTIONS" || isPreflight(request)) return done()
    const allow = allowed(pathOf(request))
    if (allow === undefined) return done(noRoute(request, pathOf(request)))
    void reply.code(204).header("allow", allow).send()
  })
  return {
    refuseOthers: () => {
      app.addHook("onRequest", (request, reply, done) => {
        if (!request.is404) return done()
        const path = pathOf(request)
        const allow = allowed(path)
        if (allow === undefined) return done(noRoute(request, path))
        reply.header("allow", allow)
        if (request.method === "OPTIONS") return void reply.code(204).send()
        done(
          new Problem(
            405,
            "method_not_allowed",
            `${path} has no method ${request.method}; it has ${allow}`,
            `use one of these methods: ${allow}`
          )
        )
      })
      // for routes that answer with it, such as the files of the documentation
      app.setNotFoundHandler((request) => {
        throw noRoute(request, pathOf(request))
      })
    }
  }
}
