// Certificates of clients: which principal each one is, by its name. Pure but for the reading of a connection.
import type { Socket } from "node:net"
import { TLSSocket } from "node:tls"
import { adviceFor } from "../../text/similar-names.ts"
import { type Principal, type Scope, scopes } from "./principal.ts"

/** A name that certificates of clients have, and what it allows. */
export interface CertificateRule {
  /** The common name of the subject, or a subject alternative name such as `DNS:loader.internal` or `URI:spiffe://acme/loader`. */
  readonly name: { readonly cn: string } | { readonly san: string }
  readonly principal: Principal
}
/** The names of a certificate. */
export interface CertificateNames {
  readonly cn: string | undefined
  readonly sans: ReadonlyArray<string>
}

const members = ["cn", "san", "name", "scopes", "tenant"]
const textIn = (value: unknown, what: string): string | undefined => {
  if (value === undefined || (typeof value === "string" && value !== "")) return value
  throw new Error(`${what} is ${JSON.stringify(value)}; it must be a text that is not empty`)
}
const ruleOf = (value: unknown, where: string): CertificateRule => {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Error(`${where} is ${JSON.stringify(value)}; it must be an object`)
  const given = value as Readonly<Record<string, unknown>>
  const unknown = Object.keys(given).find((name) => !members.includes(name))
  if (unknown !== undefined) throw new Error(`${where} has the member ${unknown}; ${adviceFor(unknown, members)}`)
  const [cn, san, name, tenant] = ["cn", "san", "name", "tenant"].map((member) =>
    textIn(given[member], `${where}.${member}`)
  )
  if ((cn === undefined) === (san === undefined)) throw new Error(`${where} must have either cn or san`)
  if (san !== undefined && !/^(DNS|URI|email|IP Address):./.test(san))
    throw new Error(`${where}.san is ${JSON.stringify(san)}; it must begin with DNS:, URI:, email: or IP Address:`)
  const asked = given["scopes"]
  if (!Array.isArray(asked) || asked.length === 0 || asked.some((scope) => !scopes.includes(scope as Scope)))
    throw new Error(`${where}.scopes is ${JSON.stringify(asked)}; it must be an array of some of ${scopes.join(", ")}`)
  if (tenant !== undefined && asked.includes("operate"))
    throw new Error(`${where} has a tenant and the scope operate, which is about all tenants; leave one of them out`)
  return {
    name: cn === undefined ? { san: san! } : { cn },
    principal: { name: name ?? cn ?? san!, tenant, scopes: new Set(asked as ReadonlyArray<Scope>) }
  }
}

/** The rules in a JSON text. Throws an `Error` that names the member that is wrong. */
export const certificateRules = (json: string): ReadonlyArray<CertificateRule> => {
  const parsed = (): unknown => {
    try {
      return JSON.parse(json)
    } catch (cause) {
      throw new Error(`it is not JSON: ${(cause as Error).message}`, { cause })
    }
  }
  const rules = parsed()
  if (!Array.isArray(rules)) throw new Error("it must be an array of objects")
  return rules.map((rule, i) => ruleOf(rule, `[${i}]`))
}

/** The subject alternative names in Node's text of them. Names with characters that need quotes are left out: no rule can mean them. */
export const sansOf = (text: string | undefined): ReadonlyArray<string> =>
  (text ?? "").split(", ").filter((name) => name !== "" && !name.includes('"'))

/** The principal of a certificate with these names: that of the first rule that has one of them. */
export const principalOfNames = (
  rules: ReadonlyArray<CertificateRule>,
  { cn, sans }: CertificateNames
): Principal | undefined =>
  rules.find(({ name }) => ("cn" in name ? name.cn === cn : sans.includes(name.san)))?.principal

/** The certificate of a client: its principal, or why it has none; undefined if it has sent none. */
export type ClientCertificate = { readonly principal: Principal } | { readonly refusal: string }
/** What the client of a connection has sent, and until when its certificate is valid, in epoch milliseconds. */
interface Seen {
  readonly found: ClientCertificate | undefined
  readonly until: number
}
const seen = new WeakMap<Socket, Seen>()

/**
 * Returns the reading of the certificate that the client of a connection has sent. A connection is read once; a certificate that expires while its
 * connection is open is refused from then on.
 */
export const certificateReader = (rules: ReadonlyArray<CertificateRule>, now: () => number = Date.now) => {
  const read = (socket: TLSSocket): Seen => {
    const certificate = socket.getPeerCertificate()
    if (Object.keys(certificate).length === 0) return { found: undefined, until: Infinity }
    const ends = Date.parse(certificate.valid_to)
    const expiresMs = Number.isNaN(ends) ? undefined : ends
    const of = (found: ClientCertificate): Seen => ({ found, until: expiresMs ?? Infinity })
    if (!socket.authorized)
      return of({ refusal: `the client's certificate is not accepted: ${String(socket.authorizationError)}` })
    const cn = certificate.subject.CN
    const names = { cn: typeof cn === "string" ? cn : undefined, sans: sansOf(certificate.subjectaltname) }
    const principal = principalOfNames(rules, names)
    if (principal !== undefined) return of({ principal: { ...principal, expiresMs } })
    const shown = [...(names.cn === undefined ? [] : [`CN=${names.cn}`]), ...names.sans].join(", ").slice(0, 200)
    return of({ refusal: `the client's certificate (${shown}) is not among those of MILLRACE_HTTP_TLS_PRINCIPALS` })
  }
  return (socket: Socket): ClientCertificate | undefined => {
    if (!(socket instanceof TLSSocket)) return undefined
    const { found, until } = seen.get(socket) ?? read(socket)
    seen.set(socket, { found, until })
    return found === undefined || until > now()
      ? found
      : { refusal: `the client's certificate expired at ${new Date(until).toISOString()}` }
  }
}
