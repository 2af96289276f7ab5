// The plugins of Fastify that protect a server: headers for pages, CORS, rate limits, and the refusal of posts under pressure.
import type { FastifyInstance } from "fastify"
import { anyone } from "./access/principal.ts"
import type { Limits } from "./http/limits.ts"
import { Problem, retryAfterSeconds } from "./http/problem.ts"
import { limitRates, type RateLimits } from "./http/rate-limits.ts"

/** What pages of other origins may read of an answer, beside what browsers show them anyway. */
const exposedHeaders = [
  "traceparent",
  "retry-after",
  "etag",
  "millrace-token",
  "www-authenticate",
  "ratelimit-limit",
  "ratelimit-remaining",
  "ratelimit-reset"
]
/**
 * Lets pages of some origins call a server. To be called before requests are authenticated: pages read refusals, too, and browsers ask without a
 * credential. What the browser itself holds, such as cookies, is not allowed.
 */
export const allowOrigins = async (app: FastifyInstance, origins: ReadonlyArray<string>): Promise<void> => {
  if (origins.length === 0) return
  const origin = [...origins]
  await app.register((await import("@fastify/cors")).default, { origin, exposedHeaders, maxAge: 600 })
}

/** Adds the plugins that work on requests which are authenticated. */
export const protect = async (app: FastifyInstance, rateLimits: RateLimits, limits: Limits): Promise<void> => {
  // the documentation is served over plain HTTP on a loopback address
  const directives = { upgradeInsecureRequests: null }
  await app.register((await import("@fastify/helmet")).default, {
    contentSecurityPolicy: { directives },
    strictTransportSecurity: false
  })
  if (Object.keys(rateLimits).length > 0) await limitRates(app, rateLimits, anyone)
  if (limits.eventLoopDelayMs > 0) {
    const pressureHandler = (request: { readonly method: string }) => {
      if (request.method !== "POST") return
      throw new Problem(
        503,
        "overloaded",
        "the server is busy",
        "send the request again after Retry-After seconds",
        retryAfterSeconds
      )
    }
    await app.register((await import("@fastify/under-pressure")).default, {
      maxEventLoopDelay: limits.eventLoopDelayMs,
      pressureHandler
    })
  }
}
