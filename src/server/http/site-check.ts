// Refuses requests that pages of other sites make a browser send to a server on a loopback address: DNS rebinding and cross-site requests. Pure.
import type { IncomingHttpHeaders } from "node:http"
import { isIP } from "node:net"
import { Problem } from "./problem.ts"

/** What a server on a loopback address accepts beside requests to loopback names and from its own pages. */
export interface SiteCheckOptions {
  /** Further names that requests may be for, for example of a reverse proxy on this machine. Without ports. */
  readonly hosts: ReadonlyArray<string>
  /** The origins whose pages may call the server. */
  readonly origins: ReadonlyArray<string>
}

/** Whether a name, as in a URL or a Host header without its port, means this machine by itself, whatever a name server answers. */
export const isLoopbackName = (name: string): boolean => {
  const plain = name.toLowerCase().replace(/^\[(.*)\]$/, "$1")
  return (
    plain === "localhost" ||
    plain.endsWith(".localhost") ||
    plain === "::1" ||
    (isIP(plain) === 4 && plain.startsWith("127."))
  )
}

/** The name and port of a Host header; undefined if it is not `name` or `name:port`. */
const hostOf = (header: string, protocol: string): { readonly name: string; readonly port: string } | undefined => {
  const [, name, port = protocol === "https" ? "443" : "80"] =
    /^(\[[\da-f:.]+\]|[^\s:/@\\?#[\]]+)(?::(\d{1,5}))?$/i.exec(header) ?? []
  return name === undefined ? undefined : { name: name.toLowerCase(), port: String(Number(port)) }
}

const isSameOrigin = (
  origin: string,
  host: { readonly name: string; readonly port: string },
  protocol: string
): boolean => {
  const url = URL.parse(origin)
  if (url === null || url.protocol !== `${protocol}:`) return false
  const port = url.port === "" ? (url.protocol === "http:" ? "80" : "443") : url.port
  return url.hostname.toLowerCase() === host.name && port === host.port
}

const refusedHost = (header: string): Problem =>
  new Problem(
    421,
    "unknown_host",
    `the request is for the host ${JSON.stringify(header)}; this server on a loopback address answers to loopback names only`,
    "call it as http://127.0.0.1 or http://localhost, or list the name in MILLRACE_HTTP_HOSTS"
  )

const refusedSite = (from: string): Problem =>
  new Problem(
    403,
    "cross_site",
    `a page of another site sent the request (${from}); this server on a loopback address accepts none`,
    "call it from a program, or from a page that the server allows by CORS"
  )

/**
 * The check of a server on a loopback address. It returns the `Problem` of a request, or undefined if the request is accepted: 421 for a host, of the
 * target or of the Host header, that is not a loopback name (a name that a foreign name server resolves to 127.0.0.1), 403 for a page of another origin by Origin or
 * Sec-Fetch-Site. Programs send neither of these two. `protocol`: with which the client called, for the port that it leaves out. Links from other sites to a page, as to /docs, work.
 */
export const siteCheck = ({ hosts, origins }: SiteCheckOptions) => {
  const names = new Set(hosts.map((name) => name.toLowerCase()))
  const allowed = new Set(origins)
  return (method: string, headers: IncomingHttpHeaders, protocol = "http"): Problem | undefined => {
    // only HTTP/1.0 allows a request without it, and no browser speaks that
    const header = headers.host
    const host = header === undefined ? undefined : hostOf(header, protocol)
    if (header !== undefined && (host === undefined || !(isLoopbackName(host.name) || names.has(host.name))))
      return refusedHost(header)
    const { origin } = headers
    if (origin !== undefined) {
      if (allowed.has(origin) || (host !== undefined && isSameOrigin(origin, host, protocol))) return undefined
      return refusedSite(`Origin: ${origin}`)
    }
    // a request without Origin, such as that of an image or a script
    const site = headers["sec-fetch-site"]
    if (site === undefined || site === "same-origin" || site === "none") return undefined
    const isLink =
      method === "GET" && headers["sec-fetch-mode"] === "navigate" && headers["sec-fetch-dest"] === "document"
    return isLink ? undefined : refusedSite(`Sec-Fetch-Site: ${String(site)}`)
  }
}
