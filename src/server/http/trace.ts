// W3C trace context of requests: continues the trace of a `traceparent` header, or starts one. Records no spans.
import { randomFillSync } from "node:crypto"

/** The trace of a request. Every record that the request appends has its `traceparent`. */
export interface Trace {
  /** 32 hex digits. */
  readonly traceId: string
  /** `00-<trace id>-<span id of this request>-<flags>`. */
  readonly traceparent: string
}

const pool = Buffer.allocUnsafe(4096)
let used = pool.length

/** Random hex digits, never all zero: W3C reserves that for "none". */
const randomHex = (bytes: number): string => {
  if (used + bytes > pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const hex = pool.toString("hex", used, used + bytes)
  used += bytes
  return /^0+$/.test(hex) ? randomHex(bytes) : hex
}

// Version 00 has exactly this form. A later version may have more after the flags, and is read like 00.
const format =
  /^(?:00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})|(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?)$/

/**
 * Continues the trace of a `traceparent` header with a new span, or starts a trace if there is no header or an invalid one, as W3C
 * specifies.
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

/** A `traceparent` with a new span of the same trace, for one of several events of a request. */
export const withNewSpan = (traceparent: string): string =>
  `${traceparent.slice(0, 36)}${randomHex(8)}${traceparent.slice(52)}`
