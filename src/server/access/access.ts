// Authenticates requests, and lets each route have only those with its scope.
import type { IncomingHttpHeaders } from "node:http"
import type { Socket } from "node:net"
import type { FastifyInstance, FastifyRequest, RouteOptions } from "fastify"
import { headerText, tenantHeader } from "../http/parameters.ts"
import { Problem, retryAfterSeconds } from "../http/problem.ts"
import type { ApiKeys } from "./api-keys.ts"
import type { ClientCertificate } from "./certificates.ts"
import { KeysUnavailable, RefusedToken } from "./jwt.ts"
import { anyone, type Principal, scopeProblem } from "./principal.ts"

/** How requests are authenticated. */
export interface Access {
  /** Whether every request needs a credential. If not, one without may do everything; one that has a credential is held to it anyway. */
  readonly isRequired: boolean
  /** Undefined: keys are not accepted. */
  readonly keys?: Pick<ApiKeys, "principalOf"> | undefined
  /** Checks a JSON Web Token; undefined: none are accepted. */
  readonly jwt?: ((token: string) => Promise<Principal>) | undefined
  /** The certificate of the client of a connection; undefined: none are asked for. A credential in the request wins over it. */
  readonly certificate?: ((socket: Socket) => ClientCertificate | undefined) | undefined
}
/** No credential is needed, and none is accepted. */
export const openAccess: Access = { isRequired: false }

/** Where a credential is besides the Authorization header: browsers cannot set that for streams. */
const parameter = "access_token"
const protocolPrefix = "millrace.bearer."

const unauthenticated = (message: string): Problem =>
  new Problem(
    401,
    "unauthenticated",
    message,
    "send the header Authorization: Bearer KEY, with a key of 'millrace keys create', or a token of the issuer"
  )
const unavailable = (what: string): Problem =>
  new Problem(
    503,
    "access_unavailable",
    `credentials cannot be checked now: ${what}`,
    "send the request again after Retry-After seconds",
    retryAfterSeconds
  )

/** The credential of a request; undefined if it has none. Throws a `Problem` 401 if the header is of another kind. */
export const credentialOf = (
  headers: IncomingHttpHeaders,
  query: Readonly<Record<string, unknown>>
): string | undefined => {
  const { authorization } = headers
  if (authorization !== undefined) {
    const [, token] = /^Bearer +([\w\-.~+/]+=*) *$/i.exec(authorization) ?? []
    if (token === undefined) throw unauthenticated("the header Authorization is not of the form Bearer KEY")
    return token
  }
  const inProtocol = headers["sec-websocket-protocol"]
    ?.split(",")
    .map((name) => name.trim())
    .find((name) => name.startsWith(protocolPrefix))
  if (inProtocol !== undefined) return inProtocol.slice(protocolPrefix.length)
  const inQuery = query[parameter]
  return typeof inQuery === "string" ? inQuery : undefined
}

/** The principal of a credential. Rejects with a `Problem` 401 if it is not valid, and 503 if that cannot be found out. */
const authenticated = async ({ jwt, keys }: Access, credential: string): Promise<Principal> => {
  if (credential.startsWith("mr_") && keys !== undefined) {
    const principal = await keys.principalOf(credential).catch(() => {
      throw unavailable("the database does not answer")
    })
    if (principal !== undefined) return { ...principal, kind: "api_key" }
    throw unauthenticated("the API key does not exist, has expired, or was revoked")
  }
  if (jwt === undefined) throw unauthenticated("the credential is not an API key, and no other ones are accepted")
  try {
    return { ...(await jwt(credential)), kind: "token" }
  } catch (error) {
    if (error instanceof KeysUnavailable) throw unavailable(error.message)
    throw unauthenticated(error instanceof RefusedToken ? error.message : "the token is refused")
  }
}

/** Refuses routes that do not say what they need, when they are added. Those of the documentation need `read`. */
const assertScoped = (route: RouteOptions): void => {
  if (route.config?.scope !== undefined) return
  if (/^\/docs(\/|$)/.test(route.url)) route.config = { ...route.config, scope: "read" }
  else throw new Error(`the route ${String(route.method)} ${route.url} does not say which scope it needs`)
}

/** Why a credential is no longer valid; undefined if it is, or if that cannot be found out now. */
const refusalOf = (checked: Promise<Principal>): Promise<Problem | undefined> =>
  checked.then(
    () => undefined,
    (error: unknown) => (error instanceof Problem && error.status < 500 ? error : undefined)
  )

/** Lets each route have only requests with its scope: adds `request.principal`. To be called before any route is added. */
export const guard = (app: FastifyInstance, access: Access): void => {
  app.decorateRequest("principal", null as unknown as Principal)
  app.decorateRequest("refusal", null)
  app.addHook("onRoute", assertScoped)
  const check = async (
    request: FastifyRequest,
    scope: NonNullable<RouteOptions["config"]>["scope"]
  ): Promise<Principal> => {
    const credential = credentialOf(request.headers, request.query as Readonly<Record<string, unknown>>)
    const certificate = credential === undefined ? access.certificate?.(request.socket) : undefined
    if (credential === undefined && certificate === undefined) throw unauthenticated("the request has no credential")
    if (certificate !== undefined && "refusal" in certificate) throw unauthenticated(certificate.refusal)
    const principal: Principal =
      certificate === undefined
        ? await authenticated(access, credential!)
        : { ...certificate.principal, kind: "certificate" }
    const problem = scope === "open" || scope === undefined ? undefined : scopeProblem(principal, scope)
    if (problem !== undefined) throw problem
    return principal
  }
  app.addHook("onRequest", async (request, reply) => {
    const { hasCredentialInQuery, scope } = request.routeOptions.config
    request.principal = anyone
    const inQuery = (request.query as Readonly<Record<string, unknown>>)[parameter] !== undefined
    const hasCredential =
      request.headers.authorization !== undefined ||
      request.headers["sec-websocket-protocol"]?.includes(protocolPrefix) === true ||
      inQuery
    // a path without a route, and what needs nothing
    if (scope === undefined || scope === "open") return
    if (inQuery && hasCredentialInQuery !== true) {
      reply.header("www-authenticate", "Bearer")
      throw unauthenticated(
        `the parameter ${parameter} is for streams alone, since addresses are kept in logs and histories`
      )
    }
    const certificate = hasCredential ? undefined : access.certificate?.(request.socket)
    if (!access.isRequired && !hasCredential && certificate === undefined) return
    // a page that sends credentials of another service to a server that knows none
    if (!access.isRequired && certificate === undefined && access.keys === undefined && access.jwt === undefined) return
    try {
      request.principal = await check(request, scope)
      request.refusal = () => refusalOf(check(request, scope))
      if (scope === "read") tenantFor(request, namedTenant(request))
    } catch (error) {
      if (error instanceof Problem && error.status === 401) reply.header("www-authenticate", "Bearer")
      throw error
    }
  })
}

/** The tenant that a request names in its header; undefined if it names none. */
export const namedTenant = ({ headers }: FastifyRequest): string | undefined => headerText(headers, tenantHeader)

/** Why a principal may not name a tenant; undefined if it may. */
export const wrongTenant = ({ tenant }: Principal, asked: string): Problem | undefined =>
  tenant === undefined || asked === tenant
    ? undefined
    : new Problem(
        403,
        "wrong_tenant",
        `the request is about the tenant ${JSON.stringify(asked)}, and its credential belongs to ${JSON.stringify(tenant)}`,
        "leave the tenant out: it is that of the credential"
      )

/** The tenant that a request is about: the principal's, or the one that it asks for. Throws a `Problem` 403 if it asks for another one. */
export const tenantFor = ({ principal }: FastifyRequest, asked: string | undefined): string | undefined => {
  const problem = asked === undefined ? undefined : wrongTenant(principal, asked)
  if (problem !== undefined) throw problem
  return principal.tenant ?? asked
}
