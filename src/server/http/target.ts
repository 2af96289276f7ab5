// The target of a request, which need not be a path (RFC 9112, 3.2), and the host that it is for.
import type { IncomingMessage } from "node:http"
import type { FastifyRequest } from "fastify"
import { Problem } from "./problem.ts"

/** A whole URL, as clients send it to a proxy. A user in it is none of its host, and not allowed. */
const wholeUrl = /^(https?):\/\/([^/?#@]+)(?=[/?#]|$)/i

/** The path and the query of a target. One that has none, such as `*`, is returned as it is. */
export const pathOfTarget = (target: string): string => {
  if (target.startsWith("/")) return target
  const url = wholeUrl.exec(target)?.[0]
  if (url === undefined) return target
  const rest = target.slice(url.length)
  return rest.startsWith("/") ? rest : `/${rest}`
}
/** The path and the query of a request. If its target is a whole URL, the host of that replaces the one in the header, which says nothing then. */
export const takeTarget = (request: IncomingMessage): string => {
  const { url = "" } = request
  const host = url.startsWith("/") ? undefined : wholeUrl.exec(url)?.[2]
  if (host !== undefined) request.headers.host = host
  return pathOfTarget(url)
}

const hostsIn = (rawHeaders: ReadonlyArray<string>): number => {
  let found = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    if (name.length === 4 && name.toLowerCase() === "host") found++
  }
  return found
}
const invalid = (message: string, advice: string) => new Problem(400, "invalid_request", message, advice)

/**
 * The problem of a request that is for no path of this server: of HTTP/1.1 without a Host header, with several, with a target that is neither a path nor a URL,
 * or with a URL of `https` where the client has not called by it. Undefined for all others, and for `OPTIONS *`.
 */
export const targetProblem = ({ method, originalUrl, protocol, raw }: FastifyRequest): Problem | undefined => {
  const { httpVersion, rawHeaders } = raw
  const hosts = hostsIn(rawHeaders)
  if (hosts > 1) return new Problem(400, "invalid_parameter", "the header host occurs more than once", "send host once")
  if (httpVersion === "1.1") {
    if (hosts === 0)
      return invalid("the request has no header Host, which HTTP/1.1 needs", "send the name of the server in Host")
  } else if (httpVersion !== "1.0")
    return invalid(`the request is of HTTP/${httpVersion}; the server has HTTP/1.1`, "send it as HTTP/1.1")
  if (originalUrl.startsWith("/") || (originalUrl === "*" && method === "OPTIONS")) return undefined
  const scheme = wholeUrl.exec(originalUrl)?.[1]?.toLowerCase()
  const shown = JSON.stringify(originalUrl.slice(0, 200))
  if (scheme === undefined)
    return new Problem(400, "invalid_url", `the target of the request is ${shown}`, "send a path, such as /v1/topics")
  return scheme === protocol
    ? undefined
    : new Problem(
        421,
        "unknown_host",
        `the target of the request is ${shown}, but the server was called by ${protocol}`,
        `send the path alone, or a URL of ${protocol}`
      )
}
