// W3C trace context at the door: a `traceparent` is continued or begun. It records no spans.
import { randomFillSync } from "node:crypto"

/** The trace of one request; every record that it appends carries `traceparent`. */
export interface Trace {
  /** 32 hex digits. */
  readonly traceId: string
  /** `00-<trace id>-<span id of this request>-<flags>`. */
  readonly traceparent: string
}

const pool = Buffer.allocUnsafe(4096)
let used = pool.length

/** Random hex digits, never all zero, which W3C keeps for "none". */
const randomHex = (bytes: number): string => {
  if (used + bytes > pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const hex = pool.toString("hex", used, used + bytes)
  used += bytes
  return /^0+$/.test(hex) ? randomHex(bytes) : hex
}

// Version 00 is exact; a later version may go on after the flags, and is read as 00.
const format =
  /^(?:00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})|(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?)$/

/**
 * Continues the trace of a `traceparent` header with a new span, or begins one where there is none. An invalid header counts as none,
 * as W3C asks for.
 */
export const traceOf = (header: string | ReadonlyArray<string> | undefined): Trace => {
  const found = typeof header === "string" ? format.exec(header) : null
  const traceId = found?.[1] ?? found?.[4]
  const parent = found?.[2] ?? found?.[5]
  if (traceId === undefined || parent === undefined || /^0+$/.test(traceId) || /^0+$/.test(parent)) {
    const made = randomHex(16)
    return { traceId: made, traceparent: `00-${made}-${randomHex(8)}-01` }
  }
  return { traceId, traceparent: `00-${traceId}-${randomHex(8)}-${found?.[3] ?? found?.[6]}` }
}
