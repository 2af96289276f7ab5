// Rules that every adapter of the event store follows: what may be appended, and how an event becomes a record of the log. Pure.
import { nameProblem } from "../log/acceptable.ts"
import { aggregateHeaders } from "../log/envelope.ts"
import type { LogRecord, NewRecord } from "../log/log.ts"
import { singleLineJson } from "../log/rules.ts"
import { timeProblem } from "../model/event-times.ts"
import { shown } from "../text/text.ts"
import { AppendTooLarge, EventStoreError, EventTimeRefused, InvalidCommandId, InvalidStream } from "./errors.ts"
import type { Append, NewEvent, RecordedEvent } from "./event-store.ts"

const mostInStream = 1_000
const mostInCommandId = 200
/** How many events one append takes, and how many characters their values may have together. */
const mostEvents = 10_000
const mostCharacters = 16 << 20
/** How many events a page of a load has by default. */
export const pageEvents = 2_000
/** How long the answers of commands without events are kept, in milliseconds. */
export const rememberedMs = 7 * 86_400_000

/** The error for the id of a stream that cannot be stored; undefined if it can. */
export const streamProblem = (aggregate: string, stream: string): InvalidStream | undefined => {
  const reason =
    stream.length > mostInStream
      ? `has ${stream.length} characters`
      : stream === "." || stream === ".."
        ? `is "${stream}", which no URL can name`
        : nameProblem(stream)
  return reason === undefined ? undefined : new InvalidStream({ aggregate, reason })
}
/** The error for the id of a command that cannot be stored; undefined if it can. */
export const commandIdProblem = (commandId: string): InvalidCommandId | undefined => {
  const reason = commandId.length > mostInCommandId ? `has ${commandId.length} characters` : nameProblem(commandId)
  return reason === undefined ? undefined : new InvalidCommandId({ reason })
}

const eventProblem = ({ eventId, eventTime, personal = [], sealed, subjects, tags, type, value }: NewEvent) => {
  if (personal.length > 0 && sealed === undefined) return "it has personal fields, which this store does not encrypt"
  if (eventTime !== undefined && !Number.isFinite(eventTime))
    return `the event time is ${eventTime}; it must be a number of milliseconds`
  if (eventId !== undefined && nameProblem(eventId) !== undefined) return `its event id ${nameProblem(eventId)}`
  for (const tag of tags ?? []) if (nameProblem(tag) !== undefined) return `its tag ${nameProblem(tag)}`
  for (const subject of subjects ?? [])
    if (nameProblem(subject) !== undefined) return `its subject ${nameProblem(subject)}`
  const stored = typeOfValue(value)
  if (stored === undefined) return "its value is not the JSON of an object that has a type"
  return stored === type ? undefined : `its type is ${shown(type)}, but its value has the type ${shown(stored)}`
}
/** Every error for what cannot be appended. */
export type AppendProblem = InvalidStream | AppendTooLarge | EventTimeRefused | EventStoreError
/** How far in the future events may be dated. */
export interface TimeLimits {
  /** Epoch milliseconds. */
  readonly now: number
  /** By the name of the aggregate, in milliseconds; undefined: an hour. */
  readonly maxAheadOf: (aggregate: string) => number | undefined
}
const timeRefused = (
  { aggregate, events, stream }: Append,
  i: number,
  now: number | undefined,
  maxAheadMs: number | undefined
) => {
  const { eventTime, timeField: field, type } = events[i]!
  if (eventTime === undefined) return undefined
  const problem = timeProblem(eventTime, now, maxAheadMs)
  if (problem === undefined) return undefined
  const dated = problem.code === "event_time_ahead" ? `dated ${new Date(eventTime).toISOString()}, ` : ""
  const what = `${field === undefined ? "the event time" : `\`${field}\``} of event ${i + 1} of ${events.length} (${type})`
  const reason = `${what} is ${shown(eventTime)}, ${dated}${problem.reason}`
  const error = { aggregate, stream, code: problem.code, eventTime, reason }
  return new EventTimeRefused(field === undefined ? error : { ...error, field })
}
/** The error for what cannot be appended; undefined if it can. Without limits, events may be dated as far in the future as a date goes. */
export const appendProblem = (append: Append, limits?: TimeLimits): AppendProblem | undefined => {
  const { aggregate, events, expected, stream } = append
  const refused = (reason: string) => new EventStoreError({ operation: "append", aggregate, retryable: false, reason })
  const tooLarge = (reason: string) => new AppendTooLarge({ aggregate, stream, reason })
  const invalid = streamProblem(aggregate, stream)
  if (invalid !== undefined) return invalid
  if (typeof expected === "number" && !(Number.isSafeInteger(expected) && expected >= 0))
    return refused(`the expected version is ${expected}; it must be a whole number from 0`)
  if (events.length === 0) return refused("there are no events to append")
  if (events.length > mostEvents)
    return tooLarge(
      `there are ${events.length.toLocaleString("en")} events; one append takes ${mostEvents.toLocaleString("en")} at most`
    )
  let characters = 0
  const maxAheadMs = limits?.maxAheadOf(aggregate)
  for (const [i, event] of events.entries()) {
    const problem = eventProblem(event)
    if (problem !== undefined) return refused(`event ${i + 1} of ${events.length}: ${problem}`)
    const ofTime = timeRefused(append, i, limits?.now, maxAheadMs)
    if (ofTime !== undefined) return ofTime
    characters += event.value.length
  }
  return characters > mostCharacters
    ? tooLarge(
        `the events have ${characters.toLocaleString("en")} characters of JSON; one append takes ${mostCharacters.toLocaleString("en")} at most`
      )
    : undefined
}
/** The error for appends that cannot be made together; undefined if they can. */
export const appendAllProblem = (appends: ReadonlyArray<Append>, limits: TimeLimits): AppendProblem | undefined => {
  const seen = new Set<string>()
  for (const append of appends) {
    const problem = appendProblem(append, limits)
    if (problem !== undefined) return problem
    const { aggregate, stream } = append
    const key = JSON.stringify([aggregate, stream])
    if (seen.has(key)) {
      const reason = `the stream ${shown(stream)} is named twice; put its events into one append`
      return new EventStoreError({ operation: "append", aggregate, retryable: false, reason })
    }
    seen.add(key)
  }
  return undefined
}

/** The tags of an append's events, each once, in the order of their code units. */
export const tagsOf = (events: ReadonlyArray<NewEvent>): ReadonlyArray<string> =>
  [...new Set(events.flatMap(({ tags }) => tags ?? []))].toSorted()

/** Where an append's events go, and the command that they are of. */
export interface AppendTarget {
  readonly partition: number
  readonly commandId: string
  /** The index of the append's first event among all of the command. */
  readonly index: number
  /** Epoch milliseconds: the event time of events that have none. */
  readonly now: number
}
/** An append's events as records of the log. Events with equal headers share the object. */
export const toRecords = (
  { events, stream }: Pick<Append, "events" | "stream">,
  { commandId, index, now, partition }: AppendTarget
): ReadonlyArray<NewRecord> => {
  const shared = new Map<object, Map<string, Readonly<Record<string, string>>>>()
  const headersOf = ({ headers, tags }: NewEvent) => {
    const byTags = shared.get(headers) ?? new Map<string, Readonly<Record<string, string>>>()
    shared.set(headers, byTags)
    const tagText = tags === undefined || tags.length === 0 ? "" : JSON.stringify(tags)
    const made = byTags.get(tagText) ?? {
      ...headers,
      [aggregateHeaders.command]: commandId,
      ...(tagText === "" ? {} : { [aggregateHeaders.tags]: tagText })
    }
    byTags.set(tagText, made)
    return made
  }
  return events.map((event, i) => {
    const { eventId, eventTime, schemaVersion, sealed, tenant, traceparent, value } = event
    return {
      partition,
      key: stream,
      value: singleLineJson(sealed?.value ?? value)!,
      eventTime: eventTime ?? now,
      eventId: eventId ?? `${commandId}/${index + i}`,
      tenant,
      traceparent,
      schemaVersion,
      headers: headersOf(event)
    }
  })
}

const emptyHeaders: Readonly<Record<string, string>> = {}
const noTags: ReadonlyArray<string> = []
/** The type of an event, from its value; undefined if that is not the JSON of an object that has one. */
const typeOfValue = (value: string): string | undefined => {
  try {
    const { type } = (JSON.parse(value) ?? {}) as { readonly type?: unknown }
    return typeof type === "string" ? type : undefined
  } catch {
    return undefined
  }
}
const leadingType = /^\{"type":"([^"\\]+)"/
/** A record of the log as the event that it is. */
export const toEvent = (aggregate: string, record: LogRecord, version: number): RecordedEvent => {
  const {
    appendedAt,
    eventId,
    eventTime,
    headers,
    key,
    partition,
    position,
    schemaVersion,
    tenant,
    traceparent,
    value
  } = record
  // most events have neither, and share the object with others
  const isPlain = headers[aggregateHeaders.tags] === undefined && headers[aggregateHeaders.version] === undefined
  const { [aggregateHeaders.tags]: tags, [aggregateHeaders.version]: _, ...rest } = isPlain ? emptyHeaders : headers
  const others = isPlain ? headers : rest
  return {
    aggregate,
    stream: key!,
    version,
    partition,
    position,
    type: leadingType.exec(value!)?.[1] ?? typeOfValue(value!) ?? "",
    value: value!,
    eventTime,
    appendedAt,
    eventId,
    tenant,
    traceparent,
    schemaVersion,
    headers: others,
    tags: tags === undefined ? noTags : (JSON.parse(tags) as ReadonlyArray<string>)
  }
}
