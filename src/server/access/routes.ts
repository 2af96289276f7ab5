// The route `GET /v1/credential`: what the credential of a request allows.
import type { FastifyInstance } from "fastify"
import { described, list, nullable, object, oneOf, text } from "../http/json-schema.ts"
import { refusals } from "../http/openapi.ts"
import { kinds, type Principal, scopeProblem, scopes } from "./principal.ts"

const answer = object({
  kind: described(oneOf("none", ...kinds), "none: the request has no credential, and none is needed"),
  name: described(nullable(text), "the name of the key or the certificate, or the subject of the token; null without"),
  tenant: described(nullable(text), "the only tenant whose data it reads and writes; null: all"),
  scopes: described(list(oneOf(...scopes)), "the scopes whose routes answer it"),
  expires_at: described(nullable(text), "ISO 8601; null: it does not say")
})

/** Null beyond the year 275760, which a token may name and a date cannot be. */
const instantOf = (ms: number | undefined): string | null =>
  ms === undefined || !(Math.abs(ms) <= 8.64e15) ? null : new Date(ms).toISOString()

const allowedTo = (principal: Principal) => ({
  kind: principal.kind ?? "none",
  name: principal.isAnonymous ? null : principal.name,
  tenant: principal.tenant ?? null,
  // of a tenant's token, operate counts for nothing
  scopes: scopes.filter((scope) => scopeProblem(principal, scope) === undefined),
  expires_at: instantOf(principal.expiresMs)
})

/** Adds `GET /v1/credential`, which every valid credential may ask. */
export const credentialRoute = (app: FastifyInstance): void => {
  app.get(
    "/v1/credential",
    {
      schema: {
        tags: ["credentials"],
        summary: "What the credential of the request allows",
        response: {
          200: answer,
          ...refusals({ 401: "the credential is missing or not valid", 503: "credentials cannot be checked now" })
        }
      },
      config: { scope: "any" }
    },
    (request, reply) => reply.header("cache-control", "no-store").send(allowedTo(request.principal))
  )
}
