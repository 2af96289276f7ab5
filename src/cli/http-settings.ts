// What the settings say about the HTTP server beside its address: TLS, proxies, pages of other origins, and rate limits. Throws what cannot be meant.
import { BlockList, isIP } from "node:net"
import { type CertificateRule, certificateRules } from "../server/access/certificates.ts"
import { type RateLimit, rateLimitOf, type RateLimits } from "../server/http/rate-limits.ts"
import { readTls, type TlsOptions } from "../server/http/tls.ts"
import { InvalidEnvironment } from "../system/errors.ts"
import { commaSeparated } from "../text/comma-separated.ts"

type Environment = Readonly<Record<string, string | undefined>>

/** What the settings say about a server. */
export interface HttpSettings {
  readonly tls: TlsOptions | undefined
  /** What certificates of clients allow. */
  readonly certificates: ReadonlyArray<CertificateRule>
  readonly trustedProxies: ReadonlyArray<string>
  readonly cors: ReadonlyArray<string>
  readonly rateLimits: RateLimits
}

const refuse = (message: string, advice: string): never => {
  throw new InvalidEnvironment({ message, try: advice })
}
const given = (env: Environment, name: string): string | undefined => env[`MILLRACE_HTTP_${name}`] || undefined

/** The files of TLS, which exist and belong together; undefined for plain HTTP. Throws `TlsUnusable`, too. */
const tlsIn = (env: Environment): TlsOptions | undefined => {
  const [cert, key, ca, clients] = ["CERT", "KEY", "CA", "CLIENTS"].map((name) => given(env, `TLS_${name}`))
  if (cert === undefined && key === undefined) {
    if (ca !== undefined)
      refuse(
        "MILLRACE_HTTP_TLS_CA is set, and MILLRACE_HTTP_TLS_CERT is not: clients have certificates on TLS alone",
        "set MILLRACE_HTTP_TLS_CERT and MILLRACE_HTTP_TLS_KEY, too"
      )
    return undefined
  }
  if (cert === undefined || key === undefined)
    return refuse(
      "MILLRACE_HTTP_TLS_CERT and MILLRACE_HTTP_TLS_KEY belong together, and one of them is not set",
      "set both, or none"
    )
  if (clients !== undefined && clients !== "required" && clients !== "optional")
    refuse(
      `MILLRACE_HTTP_TLS_CLIENTS is '${clients}'; it must be required or optional`,
      "MILLRACE_HTTP_TLS_CLIENTS=required"
    )
  const options = { cert, key, ca, needsClients: clients !== "optional" }
  readTls(options)
  return options
}

const certificatesIn = (env: Environment): ReadonlyArray<CertificateRule> => {
  const text = given(env, "TLS_PRINCIPALS")
  if (text === undefined) return []
  try {
    return certificateRules(text)
  } catch (cause) {
    return refuse(
      `MILLRACE_HTTP_TLS_PRINCIPALS: ${(cause as Error).message}`,
      '[{"cn": "loader", "scopes": ["ingest"]}]'
    )
  }
}

/** Whether a text is an address or a network such as `10.0.0.0/8`. */
const isNetwork = (text: string): boolean => {
  const [address = "", bits, ...more] = text.split("/")
  const version = isIP(address)
  if (version === 0 || more.length > 0 || (bits !== undefined && !/^\d{1,3}$/.test(bits))) return false
  try {
    new BlockList().addSubnet(address, Number(bits ?? 0), version === 4 ? "ipv4" : "ipv6")
    return true
  } catch {
    return false
  }
}
const proxiesIn = (env: Environment): ReadonlyArray<string> => {
  const proxies = commaSeparated(given(env, "TRUSTED_PROXIES") ?? "")
  const wrong = proxies.find((text) => !isNetwork(text))
  return wrong === undefined
    ? proxies
    : refuse(
        `MILLRACE_HTTP_TRUSTED_PROXIES has '${wrong}', which is no address and no network`,
        "MILLRACE_HTTP_TRUSTED_PROXIES=127.0.0.1,10.0.0.0/8"
      )
}

const corsIn = (env: Environment): ReadonlyArray<string> => {
  const origins = commaSeparated(given(env, "CORS") ?? "")
  const wrong = origins.find(
    (text) => !/^https?:$/.test(URL.parse(text)?.protocol ?? "") || new URL(text).origin !== text
  )
  return wrong === undefined
    ? origins
    : refuse(
        `MILLRACE_HTTP_CORS has '${wrong}', which is not an origin${wrong === "*" ? ": with * every page that a user visits could call the server" : ""}`,
        "name each origin as browsers send it, such as https://console.example.com, without a path"
      )
}

const limitsIn = (env: Environment): RateLimits => {
  const limits: Record<string, RateLimit> = {}
  for (const scope of ["ingest", "read", "operate"]) {
    const name = `RATE_LIMIT_${scope.toUpperCase()}`
    const text = given(env, name)
    if (text === undefined) continue
    limits[scope] =
      rateLimitOf(text) ??
      refuse(
        `MILLRACE_HTTP_${name} is '${text}'; it must be a number of requests and a time`,
        `MILLRACE_HTTP_${name}=100/second, or /minute, or /hour`
      )
  }
  return limits
}

/** What the environment says. Throws `InvalidEnvironment`, and `TlsUnusable` for files that cannot be used. */
export const httpSettings = (env: Environment): HttpSettings => ({
  tls: tlsIn(env),
  certificates: certificatesIn(env),
  trustedProxies: proxiesIn(env),
  cors: corsIn(env),
  rateLimits: limitsIn(env)
})
