// What a record of a log must be for its event to be processed, whichever program wrote it and whichever way it came. Pure.
import { isStorable, shown } from "../text/text.ts"
import { envelopeHeaders } from "./envelope.ts"
import type { LogRecord } from "./log.ts"

/** How many bytes of UTF-8 a tenant may have. */
export const maxTenantBytes = 1024
const lastVersion = 2_147_483_647

/** A record whose envelope cannot be read, or has texts that no store or broker takes. */
export class UnacceptableRecord extends Error {
  override readonly name = "UnacceptableRecord"
}

/** Why a text cannot be a key, an event id or a tenant; undefined if it can. */
export const nameProblem = (text: unknown): string | undefined => {
  if (typeof text !== "string") return `is ${shown(text)}, which is not a text`
  if (text === "") return "is empty"
  if (isStorable(text)) return undefined
  return text.includes("\0") ? "contains a NUL character" : "is not text in UTF-8, or has half of a surrogate pair"
}

/** Why a value cannot be a tenant, whether it comes from a header or from an event's fields; undefined if it can. */
export const tenantProblem = (tenant: unknown): string | undefined => {
  const problem = nameProblem(tenant)
  if (problem !== undefined) return problem
  const text = tenant as string
  return text.length * 3 > maxTenantBytes && Buffer.byteLength(text) > maxTenantBytes
    ? `has more than ${maxTenantBytes} bytes`
    : undefined
}

/** What an envelope of our own never has among its other headers: a reader leaves a header there that it cannot read. */
const readable = {
  [envelopeHeaders.schemaVersion]: `it must be a whole number from 1 to ${lastVersion}`,
  [envelopeHeaders.eventTime]: "it must be a number of milliseconds"
}

const problemOf = ({ eventId, headers, key, schemaVersion, tenant }: LogRecord): string | undefined => {
  const inKey = key === null || key === "" ? undefined : nameProblem(key)
  if (inKey !== undefined) return `its key ${inKey}`
  const inId = eventId === undefined ? undefined : nameProblem(eventId)
  if (inId !== undefined) return `its event id ${inId}`
  const inTenant = tenant === undefined ? undefined : tenantProblem(tenant)
  if (inTenant !== undefined) return `its tenant ${inTenant}`
  if (schemaVersion !== undefined && !(Number.isInteger(schemaVersion) && schemaVersion > 0))
    return `its schema version is ${shown(schemaVersion)}; ${readable[envelopeHeaders.schemaVersion]}`
  for (const name in readable) {
    if (Object.hasOwn(headers, name))
      return `its header ${name} is ${shown(headers[name])}; ${readable[name as keyof typeof readable]}`
  }
  return undefined
}

/** Throws `UnacceptableRecord` if the record's envelope is not acceptable. Its value is judged by `parseJson`. */
export const assertAcceptable = (record: LogRecord): void => {
  const problem = problemOf(record)
  if (problem !== undefined) throw new UnacceptableRecord(`${problem}; correct its producer`)
}
