// What becomes of one record under one rule: where it goes and as what, or why it does not go. It sends nothing. Pure.
import { type BridgeRecord, type BridgeRule, type HeaderFilter, ownHeader } from "./rules.ts"
import { fillPattern, topicNameProblem } from "./topic-pattern.ts"

/** By which systems a record came, each as `bridge@kafka:<cluster id>` or `bridge@pulsar:<name>`, one after another. */
export const originHeader = `${ownHeader}origin`
/** Which partition of the source the record was in, and where there. */
export const streamHeader = `${ownHeader}stream`
export const offsetHeader = `${ownHeader}offset`
/** Marks a text on Pulsar that is empty, since the empty payload alone deletes. */
const emptyHeader = `${ownHeader}empty`
/** The event time of a record that Pulsar cannot tell: before 1970, none in whole milliseconds, or later than any date. */
const timeHeader = `${ownHeader}event-time`

/** What a rule is applied to: the words of the source topic's name, and the systems. */
export interface RouteContext {
  readonly rule: BridgeRule
  readonly words: Readonly<Record<string, string>>
  readonly bridge: string
  /** `kafka:<cluster id>` and `pulsar:<name>`, or the other way round. */
  readonly source: string
  readonly target: string
  /** The source's partition, as the header tells it. */
  readonly stream: string
}
export type RouteResult =
  | { readonly kind: "send"; readonly topic: string; readonly record: BridgeRecord }
  /** `returned`: it came from there. */
  | { readonly kind: "filtered" | "returned" }
  | { readonly kind: "dead"; readonly reason: string }

const dead = (reason: string): RouteResult => ({ kind: "dead", reason })

const fulfils = ({ equals, header, matches, not = false }: HeaderFilter, headers: BridgeRecord["headers"]): boolean => {
  const value = Object.hasOwn(headers, header) ? headers[header] : undefined
  const holds =
    value !== undefined &&
    (equals === undefined || [equals].flat().includes(value)) &&
    (matches === undefined || new RegExp(matches).test(value))
  return holds !== not
}
const wanted = ({ where }: BridgeRule, record: BridgeRecord): boolean =>
  where === undefined ||
  (typeof where === "function" ? where(record) : [where].flat().every((filter) => fulfils(filter, record.headers)))

const keyOf = ({ key }: BridgeRule, record: BridgeRecord): string | null | undefined =>
  key === undefined ? record.key : typeof key === "function" ? key(record) : record.headers[key.header]

const mapped = ({ headers: mapping = {} }: BridgeRule, headers: BridgeRecord["headers"]): Record<string, string> => {
  const { drop = [], rename = {}, set = {} } = mapping
  const all: Record<string, string> = Object.create(null) as Record<string, string>
  for (const name of Object.keys(headers)) {
    if (drop.includes(name)) continue
    if (name.startsWith(ownHeader) && name !== originHeader) continue
    all[Object.hasOwn(rename, name) ? rename[name]! : name] = headers[name]!
  }
  return Object.assign(all, set)
}

/** The tenant's name on the other side. */
const renamed = ({ source, tenants = {} }: BridgeRule, tenant: string): string => {
  if (source.side === "kafka") return Object.hasOwn(tenants, tenant) ? tenants[tenant]! : tenant
  return Object.entries(tenants).find(([, pulsar]) => pulsar === tenant)?.[0] ?? tenant
}
/** Why the record cannot be told on the other side as it is. */
const untold = (rule: BridgeRule, { headers, key, value }: BridgeRecord): string | undefined => {
  const broken = (what: string) => `${what} is no text in UTF-8, and only such is mirrored`
  if (key?.includes("\ufffd") === true) return broken("its key")
  if (value?.includes("\ufffd") === true) return broken("its value")
  for (const [name, text] of Object.entries(headers)) {
    if (name.includes("\ufffd") || text.includes("\ufffd"))
      return `${broken(`its header ${name}`)}: drop it in the rule's \`headers\``
    if (rule.target.side === "pulsar" && (name.includes("\0") || text.includes("\0")))
      return `its header ${name} has a NUL character, which Pulsar's client cuts off`
  }
  return rule.target.side === "pulsar" && key?.includes("\0") === true
    ? "its key has a NUL character, which Pulsar's client cuts off"
    : undefined
}

const decided = (way: RouteContext, given: BridgeRecord, offset: string): RouteResult => {
  const { bridge, rule, source, stream, target, words } = way
  const record = rule.source.side === "pulsar" ? fromPulsar(given) : given
  const origin = record.headers[originHeader]
  if (origin?.split(" ").some((one) => one.slice(one.indexOf("@") + 1) === target) === true) return { kind: "returned" }
  if (!wanted(rule, record)) return { kind: "filtered" }
  const key = keyOf(rule, record)
  if (key === undefined)
    return dead(`it has no header ${(rule.key as { readonly header: string }).header} to be its key`)
  const headers = mapped(rule, record.headers)
  const known = words["tenant"] ?? record.headers["tenant"]
  const tenant = known === undefined ? undefined : renamed(rule, known)
  if (rule.source.side === "pulsar" && words["tenant"] !== undefined) headers["tenant"] = tenant!
  const found = fillPattern(rule.target, tenant === undefined ? words : { ...words, tenant })
  if ("missing" in found) return dead(`it has no ${found.missing}, which '${rule.to}' asks for`)
  const reason = topicNameProblem(rule.target.side, found.name)
  if (reason !== undefined) return dead(`it would go to '${found.name}': ${reason}`)
  const mapping = { ...record, key, headers }
  const unfit = untold(rule, mapping)
  if (unfit !== undefined) return dead(unfit)
  headers[originHeader] = `${origin === undefined ? "" : `${origin} `}${bridge}@${source}`
  headers[streamHeader] = stream
  headers[offsetHeader] = offset
  return { kind: "send", topic: found.name, record: rule.target.side === "pulsar" ? toPulsar(mapping) : mapping }
}
/** Applies a rule to a record. `offset` is where the record is in its partition, as text. Never throws: what the rule's own code throws makes a dead letter. */
export const route = (way: RouteContext, record: BridgeRecord, offset: string): RouteResult => {
  try {
    return decided(way, record, offset)
  } catch (cause) {
    return dead(`the rule's code failed: ${cause instanceof Error ? cause.message : String(cause)}`)
  }
}

/** The last date that there is, in epoch milliseconds. */
const lastDate = 8.64e15
const toPulsar = (record: BridgeRecord): BridgeRecord => {
  const { eventTime, value } = record
  const headers: Record<string, string> = record.headers
  if (value === "") headers[emptyHeader] = "true"
  if (Number.isSafeInteger(eventTime) && eventTime > 0 && eventTime <= lastDate) return record
  headers[timeHeader] = String(eventTime)
  return { ...record, eventTime: Math.min(lastDate, Math.max(1, Math.trunc(eventTime))) }
}
const fromPulsar = (record: BridgeRecord): BridgeRecord => {
  const time = Number(record.headers[timeHeader] ?? Number.NaN)
  return {
    ...record,
    key: record.key === "" ? null : record.key,
    value: record.value === "" && record.headers[emptyHeader] === undefined ? null : record.value,
    eventTime: Number.isFinite(time) ? time : record.eventTime
  }
}
