// Turns the text of one event into the record to append, or into the fault that it has. Pure; events do not affect each other.
import { describeError } from "../../dead-letter/event-failure.ts"
import { nameProblem } from "../../log/acceptable.ts"
import { parseJson } from "../../log/json.ts"
import type { Aggregate } from "../../model/aggregate.ts"
import { Erasures } from "../../model/erasures.ts"
import { timeProblem } from "../../model/event-times.ts"
import { UnknownVersion } from "../../model/event.ts"
import type { NewRecord } from "../../log/log.ts"
import type { Catalog, CatalogTopic } from "../http/catalog.ts"
import { schemaFault } from "../http/schema-fault.ts"
import type { Limits } from "../http/limits.ts"
import { jsonFault } from "../http/json-fault.ts"
import { fault, type Fault } from "../http/problem.ts"
import { onOneLine } from "./split.ts"
import { shown } from "../../text/text.ts"

/** What all events of a request share. */
export interface RequestContext {
  /** The topic that the request names; undefined: the type of each event decides. */
  readonly entry: CatalogTopic | undefined
  /** The version of events without one; undefined: the newest version that fits. */
  readonly version: number | undefined
  readonly traceparent: string
  /** The tenant of the credential, which all events get; undefined: each event says which one it is of. */
  readonly tenant: string | undefined
  /** Epoch milliseconds. */
  readonly now: number
}
/** A valid event. Its partition is set later, when the topic's number of partitions is known. */
export interface ValidEvent {
  readonly ok: true
  readonly entry: CatalogTopic
  readonly record: Omit<NewRecord, "partition">
}
/** An invalid event, with its fault. */
export interface InvalidEvent {
  readonly ok: false
  readonly fault: Fault
}

const noHeaders: Readonly<Record<string, string>> = Object.freeze({})

const faulty = (code: Fault["code"], message: string, advice: string, path?: string): InvalidEvent => ({
  ok: false,
  fault: fault(code, message, advice, path)
})

/** How the events of an aggregate come about. */
export const commandAdvice = ({ commands, name }: Aggregate.Any): string =>
  name === Erasures.name
    ? "erase a subject by 'millrace erase SUBJECT'"
    : `send a command, by POST /v1/aggregates/${name}/ID/commands/COMMAND, where COMMAND is one of ${Object.keys(commands).join(", ")}`

/** Checks events by a catalog and limits. */
export class Checker {
  readonly #catalog: Catalog
  readonly #limits: Limits

  constructor(catalog: Catalog, limits: Limits) {
    this.#catalog = catalog
    this.#limits = limits
  }

  /** Checks one event: its trimmed text. Never throws, so that whatever is wrong with an event is that event's fault. */
  check(text: string, request: RequestContext): ValidEvent | InvalidEvent {
    try {
      return this.#check(text, request)
    } catch (error) {
      const message = `the event could not be checked: ${describeError(error).message}`
      return faulty("schema_mismatch", message, "compare the event with its schema in /openapi.json")
    }
  }

  #check(text: string, request: RequestContext): ValidEvent | InvalidEvent {
    const { depth, eventBytes } = this.#limits
    if (isLonger(text, eventBytes)) {
      const message = `the event has ${Buffer.byteLength(text)} bytes; the limit is ${eventBytes}`
      return faulty("event_too_large", message, "split it, or store large parts elsewhere and send a reference")
    }
    let json: unknown
    try {
      json = parseJson(text, depth)
    } catch (error) {
      return { ok: false, fault: jsonFault(error, "event") }
    }
    if (typeof json !== "object" || json === null || Array.isArray(json)) {
      return faulty(
        "not_an_object",
        `an event must be a JSON object, but this is ${shown(json)}`,
        'send {"type": …, …}'
      )
    }
    return this.#place(json as Readonly<Record<string, unknown>>, text, request)
  }

  #place(json: Readonly<Record<string, unknown>>, text: string, request: RequestContext): ValidEvent | InvalidEvent {
    const entry = request.entry ?? this.#entryOf(json)
    if ("ok" in entry) return entry
    if (entry.topic.compacted === true && request.tenant !== undefined) {
      const message = `the values of ${entry.topic.name} are read for all tenants, and the credential belongs to ${shown(request.tenant)}`
      return faulty("shared_topic", message, "send it with a credential without a tenant")
    }
    if (entry.topic.compacted === true && json["value"] === null && typeof json["key"] === "string" && isPair(json)) {
      return (
        this.#named(json["key"], "key", json) ??
        checked(entry, request, { key: json["key"], value: null, eventTime: request.now })
      )
    }
    const type = entry.versions.size > 0 ? json["type"] : undefined
    let value: unknown
    let version: number | undefined
    try {
      ;({ value, version } = read(entry, json, type, request.version))
    } catch (error) {
      return { ok: false, fault: schemaFault(error, json, typeof type === "string" ? type : entry.topic.name) }
    }
    return this.#record(entry, value, version, text, request)
  }

  #entryOf({ type }: Readonly<Record<string, unknown>>): CatalogTopic | InvalidEvent {
    const found = typeof type === "string" ? this.#catalog.byType.get(type) : undefined
    if (found?.length === 1) return found[0]!
    const known = [...this.#catalog.byType.keys()].join(", ")
    if (found !== undefined) {
      const names = found.map((entry) => entry.topic.name)
      const message = `the topics ${names.join(" and ")} both have events of type ${shown(type)}`
      return faulty("ambiguous_event_type", message, `name the topic, as ?topic=${names[0]}`, "type")
    }
    if (type === undefined) {
      const advice = `add a type (${known}), or name a topic without event types by ?topic=NAME`
      return faulty(
        "missing_event_type",
        "the field type is missing, so the topic of the event is unknown",
        advice,
        "type"
      )
    }
    const aggregate = [...this.#catalog.topics.values()].find(
      (entry) => typeof type === "string" && entry.aggregate?.eventTypes.has(type) === true
    )?.aggregate
    if (aggregate !== undefined) {
      const message = `events of type ${shown(type)} are appended by commands of the aggregate ${aggregate.name}`
      return faulty("unknown_event_type", message, commandAdvice(aggregate), "type")
    }
    return faulty("unknown_event_type", `no topic has events of type ${shown(type)}`, `send one of ${known}`, "type")
  }

  #record(
    entry: CatalogTopic,
    value: unknown,
    version: number | undefined,
    text: string,
    request: RequestContext
  ): ValidEvent | InvalidEvent {
    const { idOf, keyOf, tenantOf, timeOf } = entry.topic
    let key: string
    let eventId: string | undefined
    let tenant: string | undefined
    let time: number
    try {
      key = keyOf(value)
      eventId = idOf?.(value)
      tenant = tenantOf?.(value) ?? request.tenant
      time = timeOf?.(value) ?? request.now
    } catch (error) {
      const message = `topic ${entry.topic.name} failed to read the key, id, tenant or time of the event: ${describeError(error).message}`
      return faulty("invalid_key", message, "compare the event with its schema in /openapi.json")
    }
    return (
      this.#named(key, "key", value) ??
      (eventId === undefined ? undefined : this.#named(eventId, "event_id", value)) ??
      (tenant === undefined ? undefined : this.#named(tenant, "tenant", value)) ??
      owned(tenant, request, value) ??
      timely(time, entry, request.now, value) ??
      checked(entry, request, {
        key,
        value: onOneLine(text),
        eventTime: Math.floor(time),
        eventId,
        tenant,
        schemaVersion: version
      })
    )
  }

  #named(name: unknown, what: keyof typeof labels, value: unknown): InvalidEvent | undefined {
    const { nameBytes } = this.#limits
    const problem = nameProblem(name)
    if (problem === undefined && !isLonger(name as string, nameBytes)) return undefined
    const label = labels[what]
    const path = fieldOf(value, name)
    if (typeof name !== "string") {
      return faulty(
        "invalid_key",
        `${label} is ${shown(name)}; it must be a string`,
        "compare the event with its schema in /openapi.json",
        path
      )
    }
    if (name === "") return faulty(`empty_${what}`, `${label} is empty`, "send a value that is not empty", path)
    if (problem !== undefined)
      return faulty("forbidden_character", `${label} ${problem}`, "remove it, or encode the text", path)
    const message = `${label} has ${Buffer.byteLength(name)} bytes; the limit is ${nameBytes}`
    return faulty(`${what}_too_long`, message, "send a shorter value, for example a hash", path)
  }
}

const labels = { key: "the key", event_id: "the event id", tenant: "the tenant" } as const

// a UTF-16 unit has at most three bytes in UTF-8, so short texts need no counting
const isLonger = (text: string, bytes: number): boolean => text.length * 3 > bytes && Buffer.byteLength(text) > bytes

const isPair = (json: object): boolean => Object.keys(json).length === 2

// The selector may be any function. If a field has the value that it returned, that field is meant.
const fieldOf = (value: unknown, found: unknown): string | undefined =>
  typeof value === "object" && value !== null
    ? Object.entries(value).find(([, inner]) => inner === found)?.[0]
    : undefined

const owned = (tenant: string | undefined, request: RequestContext, value: unknown): InvalidEvent | undefined => {
  if (request.tenant === undefined || tenant === request.tenant) return undefined
  const message = `the event is of the tenant ${shown(tenant)}, and the credential belongs to ${shown(request.tenant)}`
  return faulty("wrong_tenant", message, "send events of the credential's own tenant", fieldOf(value, tenant))
}
const checked = (
  entry: CatalogTopic,
  request: RequestContext,
  record: Pick<NewRecord, "key" | "value" | "eventTime"> & Partial<NewRecord>
): ValidEvent => ({
  ok: true,
  entry,
  record: {
    key: record.key,
    value: record.value,
    eventTime: record.eventTime,
    eventId: record.eventId,
    tenant: record.tenant,
    traceparent: request.traceparent,
    schemaVersion: record.schemaVersion,
    headers: noHeaders
  }
})

const read = (
  entry: CatalogTopic,
  json: Readonly<Record<string, unknown>>,
  type: unknown,
  asked: number | undefined
) => {
  const versions = typeof type === "string" ? entry.versions.get(type) : undefined
  if (versions === undefined) return { value: entry.topic.decode(json), version: undefined }
  const said = versions.ownsVersionField ? undefined : json["schema_version"]
  const version = said === undefined ? asked : said
  if (version === undefined) return versions.read(json)
  // the text "2" would index the versions as well
  if (typeof version !== "number")
    throw new UnknownVersion({ type: versions.eventType.type, version, newest: versions.newest })
  return { value: versions.eventType.decode(json, version), version }
}

/** The field of a value from which a function takes its result; undefined unless it reads exactly one. */
const fieldRead = (take: ((value: unknown) => unknown) | undefined, value: unknown): string | undefined => {
  if (take === undefined || typeof value !== "object" || value === null) return undefined
  const names = new Set<string>()
  const note = (target: object, name: string | symbol): unknown => {
    if (typeof name === "string") names.add(name)
    return Reflect.get(target, name)
  }
  try {
    take(new Proxy(value, { get: note }))
  } catch {
    return undefined
  }
  const [name, ...others] = names
  return others.length === 0 ? name : undefined
}
/** Whether a function returns a time for a value that has a date, as a text, in the field that the function reads. */
const takesDate = (
  take: ((value: unknown) => number) | undefined,
  value: unknown,
  field: string | undefined
): boolean => {
  if (take === undefined || field === undefined) return false
  try {
    return Number.isFinite(take({ ...Object(value), [field]: "2026-01-31T12:00:00Z" }))
  } catch {
    return false
  }
}
const timely = (time: number, entry: CatalogTopic, now: number, value: unknown): InvalidEvent | undefined => {
  const problem = timeProblem(time, now, entry.maxAheadMs)
  if (problem === undefined) return undefined
  if (problem.code === "event_time_out_of_range") {
    const path = fieldRead(entry.topic.timeOf, value)
    const given: unknown = path === undefined ? time : Reflect.get(Object(value), path)
    const message = Number.isNaN(time)
      ? `${path ?? "the event time"} is ${shown(given)}, which is no time`
      : `the event time is ${shown(time)}, ${problem.reason}`
    const advice = takesDate(entry.topic.timeOf, value, path)
      ? "send a date such as 2026-01-31T12:00:00Z"
      : "send epoch milliseconds, such as 1769860800000"
    return faulty(problem.code, message, advice, path)
  }
  return faulty(
    problem.code,
    `the event is dated ${problem.reason}`,
    "send epoch milliseconds, and check the sender's clock",
    fieldRead(entry.topic.timeOf, value)
  )
}
