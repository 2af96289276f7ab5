// Reads from environment variables which tokens a server accepts, and whether requests need credentials. Pure but for the file of keys.
import { readFileSync } from "node:fs"
import * as Schema from "effect/Schema"
import { isSimilar } from "../../text/similar-names.ts"
import { type JwtAlgorithm, type JwtOptions, jwtAlgorithms } from "./jwt.ts"
import { commaSeparated } from "../../text/comma-separated.ts"

/** The file that `MILLRACE_JWT_KEYS` names cannot be used. */
export class JwtKeysUnusable extends Schema.TaggedError<JwtKeysUnusable>()("JwtKeysUnusable", {
  message: Schema.String,
  /** What to do about it. */
  try: Schema.String
}) {}

type Environment = Readonly<Record<string, string | undefined>>

const algorithmsOf = (text: string): ReadonlyArray<JwtAlgorithm> =>
  commaSeparated(text).map((name) => {
    const found = jwtAlgorithms.find((known) => known === name)
    if (found !== undefined) return found
    const near = jwtAlgorithms.find((known) => isSimilar(known, name))
    throw new Error(
      `MILLRACE_JWT_ALGORITHMS has ${JSON.stringify(name)}; ${near === undefined ? `use some of ${jwtAlgorithms.join(", ")}` : `did you mean ${near}?`}`
    )
  })

/**
 * Which JSON Web Tokens are accepted, by `MILLRACE_JWT_KEYS` (the URL of a JWK set, or a file with one), `_ISSUER`, `_AUDIENCE`, `_ALGORITHMS`,
 * `_TENANT_CLAIM`, `_SCOPE_CLAIM` and `_SCOPE_PREFIX`. Undefined if no keys are named. Throws an `Error` that says what is wrong,
 * a `JwtKeysUnusable` where it is the file.
 */
export const jwtOptions = (env: Environment): JwtOptions | undefined => {
  const given = (name: string) => (env[`MILLRACE_JWT_${name}`] === "" ? undefined : env[`MILLRACE_JWT_${name}`])
  const keys = given("KEYS")
  if (keys === undefined) return undefined
  const needed = (name: string) => {
    const value = given(name)
    if (value === undefined) throw new Error(`MILLRACE_JWT_KEYS is set, but MILLRACE_JWT_${name} is not`)
    return value
  }
  const isUrl = /^https?:\/\//.test(keys)
  if (isUrl && URL.parse(keys) === null) throw new Error(`MILLRACE_JWT_KEYS is ${keys}, which is not a URL`)
  const tenantClaim = env["MILLRACE_JWT_TENANT_CLAIM"] ?? "tenant"
  return {
    keys: isUrl ? { url: keys } : { set: keySetOf(keys) },
    algorithms: algorithmsOf(given("ALGORITHMS") ?? "RS256,PS256,ES256,EdDSA"),
    issuer: needed("ISSUER"),
    audience: needed("AUDIENCE"),
    tenantClaim: tenantClaim === "" ? undefined : tenantClaim,
    scopeClaim: given("SCOPE_CLAIM") ?? "scope",
    scopePrefix: env["MILLRACE_JWT_SCOPE_PREFIX"] ?? "millrace:"
  }
}
const keySetOf = (path: string): string => {
  const text = keyFileText(path)
  if (!isKeySet(text))
    throw new JwtKeysUnusable({
      message: `MILLRACE_JWT_KEYS names ${path}, which is not a JWK set`,
      try: 'write the issuer\'s public keys into it, as JSON: {"keys": [{"kty": …}]}; or name the URL of such a set'
    })
  return text
}
const keyFileText = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch (cause) {
    throw new JwtKeysUnusable({
      message: `MILLRACE_JWT_KEYS names the file ${path}, which cannot be read: ${(cause as Error).message}`,
      try: "check that the file exists, and that the server's user may read it; or name the URL of a JWK set, https://…"
    })
  }
}
const isKeySet = (text: string): boolean => {
  try {
    const set = JSON.parse(text) as { readonly keys?: unknown } | null
    return Array.isArray(set?.keys) && set.keys.every((key) => typeof key === "object" && key !== null)
  } catch {
    return false
  }
}

/** Whether requests need credentials: what `MILLRACE_HTTP_AUTH` says; undefined if it says nothing. Throws an `Error` for another text. */
export const authOption = ({ MILLRACE_HTTP_AUTH: text = "" }: Environment): boolean | undefined => {
  if (text === "") return undefined
  if (text === "required" || text === "optional") return text === "required"
  throw new Error(`MILLRACE_HTTP_AUTH is ${JSON.stringify(text)}; use required or optional`)
}
