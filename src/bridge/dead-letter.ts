// The form of a bridge's dead letter in its error topic: how a record is written as one, and how one is read. Pure.
import { storable } from "../text/text.ts"
import { errorHeader, nameHeader, offsetHeader, ruleHeader, streamHeader } from "./headers.ts"
import type { BridgeRecord } from "./record.ts"
import type { RouteContext } from "./route.ts"
import type { Side } from "./topic-pattern.ts"

/** A reason is cut to so many characters. */
const maxReasonLength = 1_000

/** A record as a dead letter: unchanged, with headers for the reason, the rule, the bridge, and the record's position. */
export const toDeadLetter = (
  { bridge, rule, stream }: Pick<RouteContext, "bridge" | "rule" | "stream">,
  record: BridgeRecord,
  offset: string,
  reason: string
): BridgeRecord => ({
  ...record,
  headers: {
    ...record.headers,
    [errorHeader]: storable(reason.slice(0, maxReasonLength).toWellFormed()),
    [ruleHeader]: rule.name,
    [nameHeader]: bridge,
    [streamHeader]: stream,
    [offsetHeader]: offset
  }
})

/** The bridge stream that writes a dead letter. Two rules that mirror one partition are two. */
export interface DeadLetterOwner {
  readonly bridge: string
  readonly rule: string
  readonly stream: string
}
/** Whether headers are those of a dead letter that this bridge stream wrote. */
export const isFrom = ({ bridge, rule, stream }: DeadLetterOwner, headers: BridgeRecord["headers"]): boolean =>
  headers[streamHeader] === stream && headers[ruleHeader] === rule && headers[nameHeader] === bridge

/** A record that a bridge could not mirror. */
export interface BridgeDeadLetter {
  /** The error topic that it is in. */
  readonly errors: string
  /** The side of the source, and of the error topic. */
  readonly side: Side
  readonly bridge: string
  readonly rule: string
  /** The source topic, and the record's position in it. */
  readonly topic: string
  readonly partition: number
  readonly offset: string
  /** The value of the stream header. */
  readonly stream: string
  readonly reason: string
  /** The source's record, without the bridge's own headers other than the origin: they are written again when it is sent. */
  readonly record: BridgeRecord
  /** When the error topic stored it, in epoch milliseconds. */
  readonly failedAt: number
}

/** The topic and the partition that a stream header names; undefined if it is not one of this rule's. */
const sourceOf = (side: Side, stream: string, prefix: string) => {
  const found =
    side === "pulsar"
      ? /^(.*?)(?:-partition-(\d+))?$/.exec(stream)
      : stream.startsWith(prefix)
        ? /^(.+)\/(\d+)(?:#\w*)?$/.exec(stream.slice(prefix.length))
        : null
  return found === null ? undefined : { topic: found[1]!, partition: Number(found[2] ?? 0) }
}
const ownHeaders = new Set([errorHeader, ruleHeader, nameHeader, streamHeader, offsetHeader])

/** The dead letter that a record of an error topic is; undefined if no bridge wrote the record. */
export const parseDeadLetter = (
  side: Side,
  errors: string,
  { headers, ...record }: BridgeRecord,
  failedAt: number
): BridgeDeadLetter | undefined => {
  const [bridge, rule] = [headers[nameHeader], headers[ruleHeader]]
  const [stream, offset] = [headers[streamHeader], headers[offsetHeader]]
  if (bridge === undefined || rule === undefined || stream === undefined || offset === undefined) return undefined
  const source = sourceOf(side, stream, `${bridge}/${rule}/`)
  if (source === undefined) return undefined
  const kept = Object.fromEntries(Object.entries(headers).filter(([name]) => !ownHeaders.has(name)))
  const where = { ...source, errors, side, bridge, rule, offset, stream }
  return { ...where, reason: headers[errorHeader] ?? "", record: { ...record, headers: kept }, failedAt }
}
