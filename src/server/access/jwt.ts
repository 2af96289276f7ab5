// JSON Web Tokens: checks signature, issuer, audience and times by the library jose, and reads tenant and scopes from the claims.
import type { JWTPayload, JWTVerifyGetKey } from "jose"
import { type Principal, type Scope, scopes } from "./principal.ts"

/** The algorithms that may be allowed: those with a public key. With a shared secret the server could issue tokens itself. */
export const jwtAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519"
] as const
export type JwtAlgorithm = (typeof jwtAlgorithms)[number]

/** Which tokens are accepted, and what their claims mean. */
export interface JwtOptions {
  /** Where the issuer's public keys are: an URL of a JWK set, which is read again when a token names a key that is not in it; or such a set. */
  readonly keys: { readonly url: string } | { readonly set: string }
  readonly algorithms: ReadonlyArray<JwtAlgorithm>
  /** What the claims `iss` and `aud` must be. */
  readonly issuer: string
  readonly audience: string
  /** The claim with the tenant. A token without it is refused; undefined: tokens are of all tenants. */
  readonly tenantClaim: string | undefined
  /** The claim with the scopes, as a text that is separated by spaces, or as an array. */
  readonly scopeClaim: string
  /** What the names of scopes begin with in tokens. */
  readonly scopePrefix: string
}

/** Why a token is refused: a text for its sender. */
export class RefusedToken extends Error {}
/** The keys of the issuer cannot be read now. */
export class KeysUnavailable extends Error {}

/** How far clocks may differ, in seconds. */
const toleranceSeconds = 30
/** How often the set of keys is read at most because of a token that names an unknown one, and how long it is used, in milliseconds. */
const [cooldownMs, keptMs] = [10_000, 600_000]
/** Longer tokens are refused unread. */
const mostCharacters = 8_192

const scopesOf = (claim: unknown, prefix: string): ReadonlySet<Scope> => {
  const names = typeof claim === "string" ? claim.split(" ") : Array.isArray(claim) ? claim : []
  return new Set(scopes.filter((scope) => names.includes(`${prefix}${scope}`)))
}
/** The principal that the claims of a verified token mean. Throws `RefusedToken`. */
export const principalOfClaims = (
  claims: JWTPayload,
  { scopeClaim, scopePrefix, tenantClaim }: Pick<JwtOptions, "scopeClaim" | "scopePrefix" | "tenantClaim">
): Principal => {
  const tenant = tenantClaim === undefined ? undefined : claims[tenantClaim]
  if (tenantClaim !== undefined && (typeof tenant !== "string" || tenant === ""))
    throw new RefusedToken(`the token has no claim ${tenantClaim}, which names its tenant`)
  const found = scopesOf(claims[scopeClaim], scopePrefix)
  return { name: claims.sub ?? "a token without a subject", tenant: tenant as string | undefined, scopes: found }
}

/** Returns the check of tokens. It rejects with `RefusedToken`, or with `KeysUnavailable`. */
export const makeJwtCheck = async (options: JwtOptions): Promise<(token: string) => Promise<Principal>> => {
  const jose = await import("jose")
  const { algorithms, audience, issuer, keys } = options
  const keyOf: JWTVerifyGetKey =
    "url" in keys
      ? jose.createRemoteJWKSet(new URL(keys.url), {
          cooldownDuration: cooldownMs,
          cacheMaxAge: keptMs,
          timeoutDuration: 5_000
        })
      : jose.createLocalJWKSet(JSON.parse(keys.set) as never)
  return async (token) => {
    if (token.length > mostCharacters) throw new RefusedToken(`the token has more than ${mostCharacters} characters`)
    try {
      const { payload } = await jose.jwtVerify(token, keyOf, {
        algorithms: [...algorithms],
        issuer,
        audience,
        clockTolerance: toleranceSeconds,
        // a token that never expires could not be taken back
        requiredClaims: ["exp"]
      })
      return principalOfClaims(payload, options)
    } catch (error) {
      if (error instanceof RefusedToken) throw error
      if (error instanceof jose.errors.JWKSTimeout) throw new KeysUnavailable(error.message)
      if (error instanceof jose.errors.JOSEError && error.code !== "ERR_JOSE_GENERIC")
        throw new RefusedToken(`the token is refused: ${error.message}`)
      throw new KeysUnavailable(`the keys of ${issuer} cannot be read: ${(error as Error).message}`)
    }
  }
}
