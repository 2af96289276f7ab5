// A dead letter of a bridge, as its topic of errors has it: how it is written, and what is read of it. It reads and writes no topic. Pure.
import { type BridgeRecord, ownHeader } from "./rules.ts"
import type { Side } from "./topic-pattern.ts"
import { offsetHeader, streamHeader, type RouteContext } from "./route.ts"

const errorHeader = `${ownHeader}error`
const ruleHeader = `${ownHeader}rule`
const nameHeader = `${ownHeader}name`
const reasonBytes = 1_000

/** A record as a dead letter: as it was, with headers that say why, under which rule of which bridge, and where it was. */
export const deadLetter = (
  { bridge, rule, stream }: Pick<RouteContext, "bridge" | "rule" | "stream">,
  record: BridgeRecord,
  offset: string,
  reason: string
): BridgeRecord => ({
  ...record,
  headers: {
    ...record.headers,
    [errorHeader]: reason.slice(0, reasonBytes),
    [ruleHeader]: rule.name,
    [nameHeader]: bridge,
    [streamHeader]: stream,
    [offsetHeader]: offset
  }
})
/** Whether a letter is one that a stream of a rule wrote. */
export const isFrom = (
  { bridge, rule, stream }: { readonly bridge: string; readonly rule: string; readonly stream: string },
  headers: BridgeRecord["headers"]
): boolean => headers[streamHeader] === stream && headers[ruleHeader] === rule && headers[nameHeader] === bridge

/** A record that a bridge could not mirror. */
export interface BridgeDeadLetter {
  /** The topic of errors, and the side that it and the source are on. */
  readonly errors: string
  readonly side: Side
  readonly bridge: string
  readonly rule: string
  /** The source, and where the record was in it. */
  readonly topic: string
  readonly partition: number
  readonly offset: string
  /** The same as the headers of the mirrored record say it. */
  readonly stream: string
  readonly reason: string
  /** As it was, but for the bridge's own headers beside the origin, which the way across makes anew. */
  readonly record: BridgeRecord
  /** When the topic took it, epoch milliseconds. */
  readonly failedAt: number
}

/** The topic and the partition of a stream's name. */
const sourceOf = (side: Side, stream: string, prefix: string) => {
  const found =
    side === "pulsar"
      ? /^(.*?)(?:-partition-(\d+))?$/.exec(stream)
      : stream.startsWith(prefix)
        ? /^(.+)\/(\d+)(?:#\w*)?$/.exec(stream.slice(prefix.length))
        : null
  return found === null ? undefined : { topic: found[1]!, partition: Number(found[2] ?? 0) }
}
const own = new Set([errorHeader, ruleHeader, nameHeader, streamHeader, offsetHeader])

/** The letter that a record of a topic is; undefined where no bridge wrote it. */
export const letterOf = (
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
  const kept = Object.fromEntries(Object.entries(headers).filter(([name]) => !own.has(name)))
  const where = { ...source, errors, side, bridge, rule, offset, stream }
  return { ...where, reason: headers[errorHeader] ?? "", record: { ...record, headers: kept }, failedAt }
}
