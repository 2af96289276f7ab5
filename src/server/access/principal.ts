// Who sends a request, and what they may do. Pure.
import { Problem } from "../http/problem.ts"

/**
 * What a credential allows: `ingest` sends events and commands; `read` reads topics, views and aggregates; `operate` sees and changes the system
 * itself, of all tenants.
 */
export type Scope = (typeof scopes)[number]
export const scopes = ["ingest", "read", "operate"] as const

/** The kinds of credentials. */
export const kinds = ["api_key", "token", "certificate"] as const

/** Who sends a request. */
export interface Principal {
  /** For logs and lists: the name of an API key, or the subject of a token. */
  readonly name: string
  /** The only tenant whose data the principal writes and reads; undefined: all tenants. */
  readonly tenant: string | undefined
  readonly scopes: ReadonlySet<Scope>
  /** Whether the request has no credential. */
  readonly isAnonymous?: true
  /** What the request is authenticated by. */
  readonly kind?: (typeof kinds)[number] | undefined
  /** When the credential expires, in epoch milliseconds; undefined: never, or that is not known. */
  readonly expiresMs?: number | undefined
}

/** The principal of requests to a server that asks for no credentials: they may do everything. */
export const anyone: Principal = { name: "anyone", tenant: undefined, scopes: new Set(scopes), isAnonymous: true }

/** The problem of a request whose principal does not have the scope of its route; undefined if it has. */
export const scopeProblem = (principal: Principal, scope: Scope | "any"): Problem | undefined => {
  if (scope === "any") return undefined
  if (scope === "operate" && principal.tenant !== undefined)
    return new Problem(
      403,
      "forbidden",
      `${principal.name} belongs to the tenant ${JSON.stringify(principal.tenant)}, and this route is about all tenants`,
      "use a credential without a tenant"
    )
  if (principal.scopes.has(scope)) return undefined
  const has = [...principal.scopes].join(", ") || "no scope"
  return new Problem(
    403,
    "forbidden",
    `${principal.name} has ${has}, and this route needs the scope ${scope}`,
    `use a credential with the scope ${scope}`
  )
}

declare module "fastify" {
  interface FastifyRequest {
    /** Who sends the request. */
    principal: Principal
    /** Looks whether the credential is still valid, for what outlives the request: why it is not. Null for a request without a credential. */
    refusal: (() => Promise<Problem | undefined>) | null
  }
  interface FastifyContextConfig {
    /** What the route needs; `any`: a credential, with whatever scopes; `open`: nothing, not even a credential. */
    scope?: Scope | "any" | "open"
    /** Whether the credential may be in the parameter `access_token`: for streams alone, since addresses end up in logs. */
    hasCredentialInQuery?: true
  }
}
