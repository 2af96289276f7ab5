// Where the HTTP server listens and whom it lets in, from flags and environment variables. An address that others reach needs credentials.
import * as Effect from "effect/Effect"
import type { Sql } from "../postgres/client/client.ts"
import { hasApiKey } from "../postgres/store/api-keys.ts"
import type { Access } from "../server/access/access.ts"
import { ApiKeys } from "../server/access/api-keys.ts"
import { makeJwtCheck } from "../server/access/jwt.ts"
import { authOption, JwtKeysUnusable, jwtOptions } from "../server/access/options.ts"
import { certificateReader } from "../server/access/certificates.ts"
import { TlsUnusable } from "../server/http/tls.ts"
import { isLoopbackName } from "../server/http/site-check.ts"
import { InvalidEnvironment } from "../system/errors.ts"
import { httpSettings, type HttpSettings } from "./http-settings.ts"
import { CommandFailed } from "./command-failure.ts"
import { commaSeparated } from "../text/comma-separated.ts"

/** What the flags of a command say. */
export interface HttpFlags {
  readonly host: string | undefined
  readonly port: number
  /** Whether everyone who reaches the server may do everything. */
  readonly insecure: boolean
}
/** Where a server listens, and the names that it answers to. */
export interface HttpAddress {
  readonly host: string
  readonly port: number
  /** The names in `MILLRACE_HTTP_HOSTS`, which a Host header may have beside those of this machine. */
  readonly hosts: ReadonlyArray<string>
}
/** Where a server listens, and how it protects itself. */
export interface HttpOptions extends HttpAddress, HttpSettings {}

/** The address of a server: `--host`, else `MILLRACE_HTTP_HOST`, else 127.0.0.1. */
export const httpAddress = ({ host, port }: Pick<HttpFlags, "host" | "port">): HttpAddress => ({
  host: host ?? (process.env["MILLRACE_HTTP_HOST"] || "127.0.0.1"),
  port,
  hosts: commaSeparated(process.env["MILLRACE_HTTP_HOSTS"] ?? "")
})

/** The address of a server, and what the settings say about it. Fails if they cannot be meant, or TLS cannot use its files. */
export const httpOptions = (
  flags: Pick<HttpFlags, "host" | "port">
): Effect.Effect<HttpOptions, InvalidEnvironment | TlsUnusable> =>
  Effect.try({
    try: () => ({ ...httpAddress(flags), ...httpSettings(process.env) }),
    catch: (error) =>
      error instanceof InvalidEnvironment || error instanceof TlsUnusable
        ? error
        : new InvalidEnvironment({ message: String(error) })
  })

const fromEnvironment = <A>(read: () => A) =>
  Effect.try({
    try: read,
    catch: (cause) =>
      cause instanceof JwtKeysUnusable ? cause : new InvalidEnvironment({ message: (cause as Error).message })
  })

const reachedBy = ({ host, hosts, trustedProxies }: Pick<HttpOptions, "host" | "hosts" | "trustedProxies">): string => {
  if (!isLoopbackName(host)) return `on ${host}`
  const names = hosts.filter((name) => !isLoopbackName(name))
  return names.length > 0 ? `as ${names.join(", ")}` : `through the proxies ${trustedProxies.join(", ")}`
}
/**
 * Whom a server lets in. On a loopback address everyone on this machine may do everything, unless `MILLRACE_HTTP_AUTH` is `required`. Elsewhere, and
 * where a proxy passes other names on, requests need an API key or a token; fails if there is neither, and nobody said `--insecure`.
 */
export const accessOf = Effect.fnUntraced(function* (
  sql: Sql,
  {
    certificates,
    host,
    hosts,
    tls,
    trustedProxies
  }: Pick<HttpOptions, "certificates" | "host" | "hosts" | "tls" | "trustedProxies">,
  insecure: boolean
): Effect.fn.Return<Access, unknown> {
  const asked = yield* fromEnvironment(() => authOption(process.env))
  const options = yield* fromEnvironment(() => jwtOptions(process.env))
  const isReached = !isLoopbackName(host) || hosts.some((name) => !isLoopbackName(name)) || trustedProxies.length > 0
  const hasCertificates = tls?.ca !== undefined && certificates.length > 0
  const isRequired = !insecure && (asked ?? isReached)
  if (isReached && asked === false && !insecure)
    return yield* new CommandFailed({
      message: `the server listens on ${host} and MILLRACE_HTTP_AUTH is optional: everyone who reaches it could do everything`,
      try: "MILLRACE_HTTP_AUTH=required; or --insecure, if something in front of it lets only the right ones in"
    })
  if (isRequired && options === undefined && !hasCertificates && !(yield* hasApiKey(sql)))
    return yield* new CommandFailed({
      message: `the server needs credentials, because ${isReached ? `it can be reached ${reachedBy({ host, hosts, trustedProxies })}` : "MILLRACE_HTTP_AUTH is required"}, and there are none: no API key, and no MILLRACE_JWT_KEYS`,
      try: "millrace keys create NAME --scopes ingest,read,operate, then start again; or --insecure, to let everyone in who reaches it"
    })
  const jwt = options && (yield* Effect.promise(() => makeJwtCheck(options)))
  const certificate = tls?.ca === undefined ? undefined : certificateReader(certificates)
  return { isRequired, keys: new ApiKeys(sql), jwt, certificate }
})
