// Decides what becomes of one record under one rule: where it goes and in which form, or why it does not go. Pure.
import {
  emptyHeader,
  bridgeHeaderPrefix,
  eventTimeHeader,
  offsetHeader,
  originHeader,
  streamHeader
} from "./headers.ts"
import type { BridgeRecord } from "./record.ts"
import type { CheckedRule, HeaderFilter } from "./rule.ts"
import { fillPattern, topicNameProblem } from "./topic-pattern.ts"
import { describeError } from "../dead-letter/event-failure.ts"
import { partitionOf } from "../model/partitioner.ts"
import { syncResult } from "../model/user-code.ts"

/** What one bridge stream applies to each of its records. */
export interface RouteContext {
  readonly rule: CheckedRule
  /** What the words of the rule's `from` stand for in the source topic's name. */
  readonly words: Readonly<Record<string, string>>
  /** The bridge's name. */
  readonly bridge: string
  /** The clusters as `kafka:CLUSTER_ID` and `pulsar:NAME`, or the other way round. */
  readonly sourceCluster: string
  readonly targetCluster: string
  /** The value of the stream header. */
  readonly stream: string
}
/** What becomes of a record. */
export type RouteResult =
  | { readonly kind: "send"; readonly topic: string; readonly record: BridgeRecord }
  /** `filtered`: the rule leaves it out; `returned`: it came from the target cluster. */
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
const synchronous = "write a synchronous function"
const isWanted = ({ where }: CheckedRule, record: BridgeRecord): boolean =>
  where === undefined ||
  (typeof where === "function"
    ? syncResult("`where`", where(record), synchronous)
    : [where].flat().every((filter) => fulfils(filter, record.headers)))

/** Undefined if the record lacks the header that should be its key. */
const keyOf = ({ key }: CheckedRule, record: BridgeRecord): string | null | undefined => {
  if (key === undefined) return record.key
  if (typeof key !== "function") return record.headers[key.header]
  const computed: unknown = syncResult("`key`", key(record), synchronous)
  if (computed === null || typeof computed === "string") return computed
  throw new Error(`\`key\` returned ${describeError(computed).message}; it must return a text or null`)
}

const mapHeaders = ({ headers: mapping = {} }: CheckedRule, headers: BridgeRecord["headers"]) => {
  const { drop = [], rename = {}, set = {} } = mapping
  const all: Record<string, string> = Object.create(null) as Record<string, string>
  for (const name of Object.keys(headers)) {
    if (drop.includes(name)) continue
    if (name.startsWith(bridgeHeaderPrefix) && name !== originHeader) continue
    all[Object.hasOwn(rename, name) ? rename[name]! : name] = headers[name]!
  }
  return Object.assign(all, set)
}

/** The tenant's name on the target's side. */
const mapTenant = ({ source, tenants = {} }: CheckedRule, tenant: string): string => {
  if (source.side === "kafka") return Object.hasOwn(tenants, tenant) ? tenants[tenant]! : tenant
  return Object.entries(tenants).find(([, pulsar]) => pulsar === tenant)?.[0] ?? tenant
}
/** Whether it is text in UTF-8. Pulsar's clients put U+FFFD in place of what is not, in keys and properties. */
const isText = (text: string): boolean => text.isWellFormed() && !text.includes("\ufffd")
/** Why the target's side cannot represent the record unchanged; undefined if it can. */
const textProblem = (rule: CheckedRule, { headers, key, value }: BridgeRecord): string | undefined => {
  const notText = (what: string) => `the record's ${what} is not text in UTF-8, and only text is mirrored`
  const cutOff = (what: string) => `the record's ${what} has a NUL character, at which Pulsar's client cuts it off`
  if (key !== null && !isText(key)) return notText("key")
  if (value !== null && !isText(value)) return notText("value")
  for (const [name, text] of Object.entries(headers)) {
    if (!isText(name) || !isText(text)) return `${notText(`header ${name}`)}; drop it in the rule's \`headers\``
    if (rule.target.side === "pulsar" && (name.includes("\0") || text.includes("\0"))) return cutOff(`header ${name}`)
  }
  return rule.target.side === "pulsar" && key?.includes("\0") === true ? cutOff("key") : undefined
}

const decide = (context: RouteContext, given: BridgeRecord, offset: string): RouteResult => {
  const { bridge, rule, sourceCluster, stream, targetCluster, words } = context
  const record = rule.source.side === "pulsar" ? fromPulsar(given) : given
  const origin = record.headers[originHeader]
  const cameThrough = origin?.split(" ").map((one) => one.slice(one.indexOf("@") + 1)) ?? []
  if (cameThrough.includes(targetCluster)) return { kind: "returned" }
  if (!isWanted(rule, record)) return { kind: "filtered" }
  const key = keyOf(rule, record)
  if (key === undefined) {
    const { header } = rule.key as { readonly header: string }
    return dead(`the record has no header ${header}, which is to be its key`)
  }
  const headers = mapHeaders(rule, record.headers)
  const sourceTenant = words["tenant"] ?? record.headers["tenant"]
  const tenant = sourceTenant === undefined ? undefined : mapTenant(rule, sourceTenant)
  if (rule.source.side === "pulsar" && words["tenant"] !== undefined) headers["tenant"] = tenant!
  const topic = fillPattern(rule.target, tenant === undefined ? words : { ...words, tenant })
  if ("missing" in topic) return dead(`the record has no ${topic.missing}, which \`to\` ('${rule.to}') needs`)
  const nameProblem = topicNameProblem(rule.target.side, topic.name)
  if (nameProblem !== undefined) return dead(`the record would go to '${topic.name}': ${nameProblem}`)
  const mapped = { ...record, key, headers }
  const problem = textProblem(rule, mapped)
  if (problem !== undefined) return dead(problem)
  headers[originHeader] = `${origin === undefined ? "" : `${origin} `}${bridge}@${sourceCluster}`
  headers[streamHeader] = stream
  headers[offsetHeader] = offset
  return { kind: "send", topic: topic.name, record: rule.target.side === "pulsar" ? toPulsar(mapped) : mapped }
}
/**
 * Applies a rule to a record. `offset` is the record's position in its partition, as text. Never throws: if the rule's own code throws, the
 * record is dead.
 */
export const route = (context: RouteContext, record: BridgeRecord, offset: string): RouteResult => {
  try {
    return decide(context, record, offset)
  } catch (cause) {
    return dead(`the rule's code failed: ${describeError(cause).message}`)
  }
}

/** The partition of a target topic that a record goes to: its key's, or without a key the source's. */
export const targetPartition = (sourcePartition: number, { key }: BridgeRecord, count: number): number =>
  key === null ? sourcePartition % count : partitionOf(key, count)

/** The last moment that a JavaScript date can be, in epoch milliseconds. */
const lastDate = 8.64e15
const toPulsar = (record: BridgeRecord): BridgeRecord => {
  const { eventTime, value } = record
  const headers: Record<string, string> = record.headers
  if (value === "") headers[emptyHeader] = "true"
  if (Number.isSafeInteger(eventTime) && eventTime > 0 && eventTime <= lastDate) return record
  headers[eventTimeHeader] = String(eventTime)
  return { ...record, eventTime: Math.min(lastDate, Math.max(1, Math.trunc(eventTime))) }
}
const fromPulsar = (record: BridgeRecord): BridgeRecord => {
  const time = Number(record.headers[eventTimeHeader] ?? Number.NaN)
  return {
    ...record,
    key: record.key === "" ? null : record.key,
    value: record.value === "" && record.headers[emptyHeader] === undefined ? null : record.value,
    eventTime: Number.isFinite(time) ? time : record.eventTime
  }
}
