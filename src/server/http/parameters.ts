// Reads what all routes read alike of a request: query parameters, headers that occur once, and the media type of a body. Pure.
import { isUtf8 } from "node:buffer"
import type { IncomingHttpHeaders } from "node:http"
import { aggregateHeaders } from "../../log/envelope.ts"
import { Problem } from "./problem.ts"

/** The value of a parameter or a header. Throws a `Problem` 400 if it occurs more than once. */
export const single = (value: unknown, name: string): string | undefined => {
  if (value === undefined || typeof value === "string") return value
  throw new Problem(400, "invalid_parameter", `the parameter ${name} occurs more than once`, `use ${name} once`)
}

/** The header that names the tenant of a command. */
export const tenantHeader = "millrace-tenant"
/** The text of a header that has one value; undefined if the request does not have it. Node reads its bytes as Latin-1; what is UTF-8 is read as such. */
export const headerText = (headers: IncomingHttpHeaders, name: string): string | undefined => {
  const header = single(headers[name], name)
  if (header === undefined) return undefined
  const bytes = Buffer.from(header, "latin1")
  return isUtf8(bytes) ? bytes.toString() : header
}

/** The headers that have one value. Node joins the values of a header that occurs again, or drops them, so that no route notices it. */
const onceHeaders: ReadonlySet<string> = new Set([
  "authorization",
  "content-encoding",
  "content-type",
  "idempotency-key",
  "if-match",
  "last-event-id",
  "schema-version",
  tenantHeader,
  ...Object.values(aggregateHeaders)
])
/** The problem of a request that repeats one of these headers; undefined if none is repeated. `rawHeaders`: names and values in turn, as they came. */
export const repeatedHeader = (rawHeaders: ReadonlyArray<string>): Problem | undefined => {
  const seen = new Set<string>()
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!.toLowerCase()
    if (seen.has(name) && onceHeaders.has(name))
      return new Problem(400, "invalid_parameter", `the header ${name} occurs more than once`, `send ${name} once`)
    seen.add(name)
  }
  return undefined
}

/** The problem of a URL whose query has encoded bytes that are no UTF-8; undefined if it has none. Else each would be read as U+FFFD, and fit nothing. */
export const undecodableQuery = (url: string): Problem | undefined => {
  const query = url.indexOf("?")
  if (query === -1) return undefined
  for (const [encoded] of url.slice(query).matchAll(/(?:%[\da-f]{2})+/gi))
    try {
      decodeURIComponent(encoded)
    } catch {
      const message = `the query has ${JSON.stringify(encoded.slice(0, 200))}, which is not UTF-8`
      return new Problem(400, "invalid_url", message, "percent-encode values as UTF-8, such as %C3%A9 for é")
    }
  return undefined
}

/** Limits of a whole number, and its value if the parameter is missing. */
export interface WholeNumber<A> {
  /** Default 0. */
  readonly least?: number
  readonly most: number
  readonly otherwise: A
}
/** The whole number that a parameter has. Throws a `Problem` 400 if it is no such number. */
export const whole = <A = never>(
  value: unknown,
  name: string,
  { least = 0, most, otherwise }: WholeNumber<A>
): number | A => {
  if (value === undefined) return otherwise
  const number = typeof value === "string" && /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN
  if (number >= least && number <= most) return number
  throw new Problem(
    400,
    "invalid_parameter",
    `the parameter ${name} is ${JSON.stringify(value)}; it must be ${Number.isNaN(number) ? "a whole number" : `from ${least} to ${most}`}`,
    `use a whole number from ${least} to ${most}`
  )
}

const charsets: ReadonlySet<string | undefined> = new Set([undefined, "utf-8", "utf8", "us-ascii"])
/** The media type that a Content-Type header names, in lower case; undefined if its charset is not a form of UTF-8. */
export const mediaTypeOf = (header: string | undefined): string | undefined => {
  const [name = "", ...parameters] = (header ?? "").split(";").map((part) => part.trim().toLowerCase())
  const charset = parameters
    .find((parameter) => parameter.startsWith("charset="))
    ?.slice(8)
    .replaceAll('"', "")
  return charsets.has(charset) ? name : undefined
}
