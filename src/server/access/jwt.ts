// JSON Web Tokens: checks signature, issuer, audience and times by the library jose, and reads tenant and scopes from the claims.
import type {
  ExportedJWKSCache,
  JSONWebKeySet,
  JWKSCacheInput,
  JWTPayload,
  JWTVerifyGetKey,
  JWTVerifyOptions
} from "jose"
import { tenantProblem } from "../../log/acceptable.ts"
import { isStorable } from "../../text/text.ts"
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
/**
 * How often the set of keys is read at most because of a token that names an unknown one, how long it is used, and for how much longer while the
 * issuer does not answer, in milliseconds.
 */
const usualTimes = { cooldownMs: 10_000, keptMs: 600_000, staleMs: 3_600_000 }
/** How long a subject may be, in characters. */
const mostSubject = 1_000
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
  const problem = tenant === undefined ? undefined : tenantProblem(tenant as string)
  if (problem !== undefined) throw new RefusedToken(`the tenant in the claim ${tenantClaim} ${problem}`)
  // jose leaves the subject as it is; it is stored with decisions about dead letters
  const { exp, sub } = claims as { readonly exp?: number; readonly sub?: unknown }
  if (sub !== undefined && (typeof sub !== "string" || sub.length > mostSubject || !isStorable(sub)))
    throw new RefusedToken(`the claim sub is no text of at most ${mostSubject} characters`)
  const found = scopesOf(claims[scopeClaim], scopePrefix)
  const expiresMs = exp === undefined ? undefined : exp * 1_000
  return { name: sub ?? "a token without a subject", tenant: tenant as string | undefined, scopes: found, expiresMs }
}

type Jose = typeof import("jose")
/** Whether the issuer's keys could not be read: it does not answer, or with something else than a set. */
const isUnread = ({ errors }: Jose, error: unknown): boolean =>
  error instanceof errors.JWKSTimeout ||
  error instanceof errors.JWKSInvalid ||
  !(error instanceof errors.JOSEError) ||
  error.code === "ERR_JOSE_GENERIC"

/**
 * The keys of an issuer at a URL. While it does not answer, those that it had last are used for an hour more, and it is asked at most every 10 seconds.
 * A token whose key is not among them rejects with the error of the failed read then, and is not refused: its key may be a new one.
 */
const remoteKeys = (jose: Jose, url: string, { cooldownMs, keptMs, staleMs }: typeof usualTimes): JWTVerifyGetKey => {
  // jose puts each set that it has read there
  const cache: Partial<ExportedJWKSCache> = {}
  const set = jose.createRemoteJWKSet(new URL(url), {
    cooldownDuration: cooldownMs,
    cacheMaxAge: keptMs,
    timeoutDuration: 5_000,
    [jose.jwksCache]: cache as JWKSCacheInput
  })
  let last: { readonly jwks: JSONWebKeySet; readonly keys: JWTVerifyGetKey; readonly at: number } | undefined
  let failed: { readonly error: unknown; readonly at: number } | undefined
  const known: JWTVerifyGetKey = async (header, token) => {
    try {
      if (last !== undefined && performance.now() - last.at < keptMs + staleMs) return await last.keys(header, token)
    } catch (error) {
      if (!(error instanceof jose.errors.JWKSNoMatchingKey)) throw error
    }
    throw failed!.error
  }
  return async (header, token) => {
    const now = performance.now()
    // without any keys each request asks, so that an issuer that is back is used at once
    if (failed !== undefined && last !== undefined && now - failed.at < cooldownMs) return known(header, token)
    // others do not wait for an issuer that may still be away
    if (failed !== undefined) failed = { ...failed, at: now }
    try {
      const key = await set(header, token)
      noteRead()
      return key
    } catch (error) {
      if (!isUnread(jose, error)) {
        noteRead()
        throw error
      }
      failed = { error, at: performance.now() }
      return known(header, token)
    }
  }
  /** Keeps what was read last. */
  function noteRead(): void {
    failed = undefined
    const { jwks } = cache
    if (jwks !== undefined && jwks !== last?.jwks)
      last = { jwks, keys: jose.createLocalJWKSet(jwks), at: performance.now() }
  }
}

/**
 * Verifies a token. Where several keys may be meant, because it names none, as while an issuer changes its keys, each is tried.
 */
const verified = async (
  jose: Jose,
  token: string,
  keys: JWTVerifyGetKey,
  options: JWTVerifyOptions
): Promise<JWTPayload> => {
  try {
    return (await jose.jwtVerify(token, keys, options)).payload
  } catch (error) {
    if (!(error instanceof jose.errors.JWKSMultipleMatchingKeys)) throw error
    for await (const key of error)
      try {
        return (await jose.jwtVerify(token, key, options)).payload
      } catch (refused) {
        if (!(refused instanceof jose.errors.JWSSignatureVerificationFailed)) throw refused
      }
    throw new jose.errors.JWSSignatureVerificationFailed()
  }
}

/** Returns the check of tokens. It rejects with `RefusedToken`, or with `KeysUnavailable`. `times`: other ones, for tests. */
export const makeJwtCheck = async (
  options: JwtOptions,
  times: Partial<typeof usualTimes> = {}
): Promise<(token: string) => Promise<Principal>> => {
  const jose = await import("jose")
  const { algorithms, audience, issuer, keys } = options
  const keyOf =
    "url" in keys
      ? remoteKeys(jose, keys.url, { ...usualTimes, ...times })
      : jose.createLocalJWKSet(JSON.parse(keys.set) as never)
  const wanted = {
    algorithms: [...algorithms],
    issuer,
    audience,
    clockTolerance: toleranceSeconds,
    // a token that never expires could not be taken back
    requiredClaims: ["exp"]
  }
  return async (token) => {
    if (token.length > mostCharacters) throw new RefusedToken(`the token has more than ${mostCharacters} characters`)
    try {
      return principalOfClaims(await verified(jose, token, keyOf, wanted), options)
    } catch (error) {
      if (error instanceof RefusedToken) throw error
      if (!isUnread(jose, error)) throw new RefusedToken(`the token is refused: ${(error as Error).message}`)
      throw new KeysUnavailable(`the keys of ${issuer} cannot be read: ${(error as Error).message}`)
    }
  }
}
