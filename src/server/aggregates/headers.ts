// Reads the headers of requests to aggregates: the expected version, the command's id, and where the command comes from. Pure.
import type { IncomingHttpHeaders } from "node:http"
import { type CommandContext, mostInContext } from "../../aggregate/command.ts"
import type { Expected } from "../../aggregate/event-store.ts"
import { aggregateHeaders } from "../../log/envelope.ts"
import { nameProblem, tenantProblem } from "../../log/acceptable.ts"
import { shown } from "../../text/text.ts"
import { headerText, tenantHeader } from "../http/parameters.ts"
import { Problem } from "../http/problem.ts"

/** The names of the headers of a request that go on the events. */
export const contextHeaders = {
  correlationId: aggregateHeaders.correlation,
  causationId: aggregateHeaders.causation,
  actor: aggregateHeaders.actor,
  tenant: tenantHeader
} as const

/** The ETag of a stream's version. */
export const etagOf = (version: number): string => `"${version}"`

const invalid = (header: string, value: string, advice: string): Problem =>
  new Problem(400, "invalid_parameter", `the header ${header} is ${shown(value)}, which names no version`, advice)

/**
 * The version that an ETag names; undefined if it names none. A weak one (`W/"7"`) names the same version: proxies that compress answers weaken
 * their ETags, and a version is the same however the answer is encoded.
 */
const versionOf = (etag: string): number | undefined => {
  const [, digits] = /^(?:W\/)?"?(\d{1,15})"?$/.exec(etag.trim()) ?? []
  return digits === undefined ? undefined : Number(digits)
}

/**
 * What a command expects of its stream: `If-Match` has the ETag of its version (`"0"`: no events) or `*` (it has events), `If-None-Match: *`
 * expects that it has none. Undefined without these headers. Throws a `Problem` 400 for anything else.
 */
export const expectedOf = (headers: IncomingHttpHeaders): Expected | undefined => {
  const match = headerText(headers, "if-match")
  const noneMatch = headerText(headers, "if-none-match")
  if (match !== undefined && noneMatch !== undefined)
    throw new Problem(400, "invalid_parameter", "the request has both If-Match and If-None-Match", "send one of them")
  if (noneMatch !== undefined) {
    if (noneMatch.trim() === "*") return "noStream"
    throw invalid("if-none-match", noneMatch, "send If-None-Match: * to expect no events, or If-Match with a version")
  }
  if (match === undefined) return undefined
  if (match.trim() === "*") return "exists"
  const version = versionOf(match)
  if (version !== undefined) return version
  throw invalid("if-match", match, 'send the ETag of one version, as If-Match: "7"; * expects any events')
}

const named = (
  headers: IncomingHttpHeaders,
  name: string,
  problemOf: (text: string) => string | undefined
): string | undefined => {
  const text = headerText(headers, name)
  if (text === undefined) return undefined
  const problem = problemOf(text)
  if (problem === undefined) return text
  throw new Problem(400, "invalid_parameter", `the header ${name} ${problem}`, "send another value, or leave it out")
}

const mostInCommandId = 200
/** The id of the command; undefined if the request has none. Throws a `Problem` 400 if it is empty or longer than 200 characters. */
export const commandIdOf = (headers: IncomingHttpHeaders): string | undefined =>
  named(headers, "idempotency-key", (text) =>
    text.length > mostInCommandId ? `has ${text.length} characters; it may have ${mostInCommandId}` : nameProblem(text)
  )

const contextTextProblem = (text: string): string | undefined =>
  text.length > mostInContext ? `has ${text.length} characters; it may have ${mostInContext}` : nameProblem(text)
/**
 * What the events have in common with what caused them. Throws a `Problem` 400 if a header is empty, the tenant is longer than 1,024 bytes, or
 * another header than 1,000 characters.
 */
export const contextOf = (headers: IncomingHttpHeaders, traceparent: string): CommandContext => ({
  traceparent,
  ...Object.fromEntries(
    Object.entries(contextHeaders).flatMap(([field, name]) => {
      const text = named(headers, name, field === "tenant" ? tenantProblem : contextTextProblem)
      return text === undefined ? [] : [[field, text]]
    })
  )
})
