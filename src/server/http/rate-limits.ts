// Limits how many requests one client may send, by the scope of the route, with the plugin @fastify/rate-limit.
import { isIPv6 } from "node:net"
import type { FastifyInstance, FastifyRequest } from "fastify"
import { Problem } from "./problem.ts"

/** So many requests within a time. */
export interface RateLimit {
  readonly max: number
  readonly windowMs: number
}
/** The limits of routes, by their scopes. Those without one are not limited. */
export type RateLimits = Readonly<Partial<Record<"ingest" | "read" | "operate", RateLimit>>>

const units = { second: 1_000, minute: 60_000, hour: 3_600_000 } as const
/** The limit in a text such as `100/second`; undefined if it is none. */
export const rateLimitOf = (text: string): RateLimit | undefined => {
  const [, max, unit] = /^([1-9]\d{0,8}) ?\/ ?(second|minute|hour)$/.exec(text) ?? []
  return max === undefined ? undefined : { max: Number(max), windowMs: units[unit as keyof typeof units] }
}

/** Clients whose requests are counted at once: those that were quiet for the longest time are forgotten first. */
const mostClients = 10_000

/** What counts as one address: the network of 64 bits that one client has, of an IPv6 address. */
export const addressKey = (address: string): string => {
  if (!isIPv6(address)) return address.slice(0, 64)
  const plain = new URL(`http://[${address.split("%", 1)[0]}]`).hostname.slice(1, -1)
  const [, mapped] = /^::ffff:(.*)$/.exec(plain) ?? []
  if (mapped !== undefined) {
    const [high = 0, low = 0] = mapped.split(":").map((part) => Number.parseInt(part, 16))
    return [high >> 8, high & 255, low >> 8, low & 255].join(".")
  }
  const [front = "", back] = plain.split("::")
  const [before, after] = [front, back ?? ""].map((part) => part.split(":").filter((group) => group !== ""))
  const zeros = back === undefined ? 0 : 8 - before!.length - after!.length
  return [...before!, ...Array.from({ length: zeros }, () => "0"), ...after!].slice(0, 4).join(":")
}

/**
 * Limits the requests of each principal, and those without a credential by their address. To be called after requests are authenticated and before
 * routes are added. A request counts as one, whatever it has: the limits of bodies and events bound its size.
 */
export const limitRates = async (app: FastifyInstance, limits: RateLimits, anonymous: unknown): Promise<void> => {
  const limitFor = ({ routeOptions: { config } }: FastifyRequest): RateLimit | undefined =>
    config.scope === undefined || config.scope === "open"
      ? undefined
      : limits[config.scope === "any" ? "read" : config.scope]
  const keyOf = ({ ip, principal, routeOptions: { config } }: FastifyRequest): string => {
    const who = principal === anonymous ? ["address", addressKey(ip)] : ["name", principal.tenant, principal.name]
    return JSON.stringify([config.scope === "any" ? "read" : config.scope, ...who])
  }
  await app.register((await import("@fastify/rate-limit")).default, {
    cache: mostClients,
    enableDraftSpec: true,
    keyGenerator: keyOf,
    max: (request: FastifyRequest) => limitFor(request)?.max ?? 0,
    timeWindow: (request: FastifyRequest) => limitFor(request)?.windowMs ?? 0,
    allowList: (request: FastifyRequest) => limitFor(request) === undefined,
    errorResponseBuilder: (request: FastifyRequest, { max, ttl }: { readonly max: number; readonly ttl: number }) => {
      const seconds = (limitFor(request)?.windowMs ?? 0) / 1_000
      return new Problem(
        429,
        "rate_limited",
        `more than ${max} requests of this client in ${seconds === 1 ? "a second" : `${seconds} seconds`}`,
        "send fewer requests, and this one again after Retry-After seconds",
        Math.max(1, Math.ceil(ttl / 1_000))
      )
    }
  })
}
