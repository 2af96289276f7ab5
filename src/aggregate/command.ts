// One command: its check, its digest, the decision on a state, and the decided events as the store takes them. Pure.
import { createHash } from "node:crypto"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { nameProblem, tenantProblem } from "../log/acceptable.ts"
import { aggregateHeaders, isTraceparent } from "../log/envelope.ts"
import { type Aggregate, type Rejection, UnusableText } from "../model/aggregate.ts"
import { givenFor } from "../model/fields.ts"
import { personalFieldsOf } from "../model/personal.ts"
import { shown } from "../text/text.ts"
import type { RejectionAnswer, NewEvent } from "./event-store.ts"
import { AggregateFailed, InvalidCommand, reasonOf } from "./failures.ts"

/** What accompanies a command; every event that it leads to carries it. */
export interface CommandContext {
  /** What the command belongs to, across streams. Default: the command's id. */
  readonly correlationId?: string | undefined
  /** The id of what caused the command, such as an event's. Default: none. */
  readonly causationId?: string | undefined
  /** The user or program that sends the command. */
  readonly actor?: string | undefined
  /** The tenant that the command belongs to. Default: none. */
  readonly tenant?: string | undefined
  /** W3C trace context. Default: the span in which the command is executed. */
  readonly traceparent?: string | undefined
}

/** How many characters a text of a command's context has at most. */
export const mostInContext = 1_000
/** What is wrong with a context; undefined if nothing. */
export const contextProblem = (context: CommandContext): string | undefined => {
  for (const [name, text] of Object.entries(context) as ReadonlyArray<[string, unknown]>) {
    if (text === undefined) continue
    const problem = name === "tenant" ? tenantProblem(text) : nameProblem(text)
    if (problem !== undefined) return `its ${name} ${problem}`
    if ((text as string).length > mostInContext)
      return `its ${name} has ${(text as string).length} characters; use at most ${mostInContext}`
  }
  const { traceparent } = context
  return traceparent !== undefined && !isTraceparent(traceparent)
    ? `its traceparent is ${shown(traceparent)}; use the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>`
    : undefined
}

/** The command with the stream's id in the field that holds it, and its JSON. Throws `InvalidCommand`. */
export const checkedCommand = (
  aggregate: Aggregate.Any,
  stream: string,
  given: unknown
): { readonly command: { readonly type: string }; readonly json: object } => {
  const { id, name } = aggregate
  const type = (given as { readonly type?: unknown } | null | undefined)?.type
  const invalid = (reason: string) =>
    new InvalidCommand({ aggregate: name, command: typeof type === "string" ? type : shown(type), reason })
  if (typeof given !== "object" || given === null) throw invalid(`it is ${shown(given)}; give an object with \`type\``)
  const inCommand = id === undefined ? undefined : (given as Readonly<Record<string, unknown>>)[id]
  if (id !== undefined && inCommand !== undefined && inCommand !== stream)
    throw invalid(`its \`${id}\` is ${shown(inCommand)}, but it was sent to ${shown(stream)}; leave the field out`)
  const command = id === undefined ? given : { ...given, [id]: stream }
  try {
    return { command: command as never, json: aggregate.encodeCommand(command) as object }
  } catch (error) {
    throw invalid(reasonOf(error))
  }
}

/** JSON with the fields of objects in the order of their names. */
const canonical = (value: unknown): string => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null"
  const { toJSON } = value as { readonly toJSON?: () => unknown }
  if (typeof toJSON === "function") return canonical(toJSON.call(value))
  const fields = Object.entries(value).filter(([, field]) => field !== undefined)
  const sorted = fields.toSorted(([a], [b]) => (a < b ? -1 : 1))
  return `{${sorted.map(([name, field]) => `${JSON.stringify(name)}:${canonical(field)}`).join(",")}}`
}
/** The digest of a command's JSON: equal for equal commands, in whatever order their fields are. 64 hex digits. */
export const digestOf = (json: unknown): string => createHash("sha256").update(canonical(json)).digest("hex")

/** What a command decided on a state. */
export type Outcome<State, Ev> =
  | {
      readonly kind: "events"
      readonly events: ReadonlyArray<Ev>
      readonly recorded: ReadonlyArray<NewEvent>
      /** The state after the events. */
      readonly state: State
    }
  | { readonly kind: "nothing"; readonly rejection: Rejection | undefined }
  | { readonly kind: "failed"; readonly error: AggregateFailed | InvalidCommand }

/** The headers that a command's events share. */
export const headersOf = (commandId: string, context: CommandContext): Readonly<Record<string, string>> => ({
  [aggregateHeaders.correlation]: context.correlationId ?? commandId,
  ...(context.causationId === undefined ? {} : { [aggregateHeaders.causation]: context.causationId }),
  ...(context.actor === undefined ? {} : { [aggregateHeaders.actor]: context.actor })
})
/** The names of an event's personal fields that it has values for, and of those that it has none for. */
const personalNames = (aggregate: Aggregate.Any, event: { readonly type: string }) => {
  const names = [...personalFieldsOf(aggregate.eventTypes, event.type, aggregate.versionOf(event)).keys()]
  const isAbsent = (name: string) => (event as Readonly<Record<string, unknown>>)[name] === undefined
  return { personal: names.filter((name) => !isAbsent(name)), absent: names.filter(isAbsent) }
}
/** Runs a function of the aggregate that makes texts of an event. Names the field of the event that has a text which cannot be used. */
const textsFrom = (event: { readonly type: string }, make: (event: never) => ReadonlyArray<string>) => {
  try {
    return make(event as never)
  } catch (error) {
    if (!(error instanceof UnusableText)) throw error
    const { text } = error
    const field = Object.entries(event).find(([name, value]) => name !== "type" && value === text)?.[0]
    throw new UnusableText(error.message, text, field)
  }
}
/** A decided event as the store takes it. Throws an error that says what is wrong with the event. */
export const newEvent = (
  aggregate: Aggregate.Any,
  stream: string,
  event: { readonly type: string },
  { tenant, traceparent }: CommandContext,
  headers: Readonly<Record<string, string>>
): NewEvent => {
  const value = aggregate.stringify(event)
  if (value === undefined) throw new Error(`an event of type ${event.type} has no JSON form`)
  const key = aggregate.id === undefined ? stream : aggregate.keyOf(event)
  if (key !== stream)
    throw new Error(
      `the \`${aggregate.id}\` of an event of type ${event.type} is ${shown(key)}, which is not the id of its stream`
    )
  const eventTime: unknown = aggregate.timeOf?.(event)
  if (eventTime !== undefined && !Number.isFinite(eventTime))
    throw new Error(`the event time of an event of type ${event.type} is ${shown(eventTime)}; it must be a number`)
  const timeField: unknown = aggregate.timeOf && givenFor(aggregate.timeOf)
  const tags = textsFrom(event, aggregate.tagsOf)
  const subjects = textsFrom(event, (one) => aggregate.subjectsOf(one, { tenant }))
  const { absent, personal } = personalNames(aggregate, event)
  if (personal.length > 0 && subjects.length !== 1)
    throw new Error(
      `an event of type ${event.type} has personal fields (${personal.join(", ")}), but \`subject\` returned ${subjects.length === 0 ? "nobody" : `${subjects.length} subjects`} for it; return one`
    )
  return {
    type: event.type,
    value,
    eventTime: eventTime as number | undefined,
    ...(typeof timeField === "string" ? { timeField } : {}),
    eventId: undefined,
    tenant,
    traceparent,
    schemaVersion: aggregate.versionOf(event),
    headers,
    ...(tags.length === 0 ? {} : { tags }),
    ...(subjects.length === 0 ? {} : { subjects }),
    ...(personal.length === 0 ? {} : { personal, absent })
  }
}

/** What decides. */
export interface Decider<State> {
  readonly aggregate: Aggregate.Any
  readonly stream: string
  /** The command's name, for errors. */
  readonly command: string | undefined
  readonly commandId: string
  readonly context: CommandContext
  readonly decide: (state: State) => unknown
  readonly evolve: (state: State, event: never) => State
}
const isEvents = (decision: unknown): decision is ReadonlyArray<{ readonly type: string }> => Array.isArray(decision)
/** Decides. Never throws: what the aggregate's functions throw is an outcome. */
export const decideOn = <State, Ev>(decider: Decider<State>, state: State): Outcome<State, Ev> => {
  const { aggregate, command, commandId, context, stream } = decider
  let operation: AggregateFailed["operation"] = "decide"
  try {
    const decision = decider.decide(state)
    if (!isEvents(decision)) return { kind: "nothing", rejection: decision as Rejection }
    if (decision.length === 0) return { kind: "nothing", rejection: undefined }
    operation = "event"
    const headers = headersOf(commandId, context)
    const recorded = decision.map((event) => newEvent(aggregate, stream, event, context, headers))
    operation = "evolve"
    const next = decision.reduce<State>((current, event) => decider.evolve(current, event as never), state)
    return { kind: "events", events: decision as ReadonlyArray<never>, recorded, state: next }
  } catch (thrown) {
    if (thrown instanceof UnusableText) {
      const { field, message: reason } = thrown
      const invalid = { aggregate: aggregate.name, command: command ?? "of a decision over tags", reason }
      return { kind: "failed", error: new InvalidCommand(field === undefined ? invalid : { ...invalid, field }) }
    }
    const error = { aggregate: aggregate.name, stream, command, operation, reason: reasonOf(thrown), cause: thrown }
    return { kind: "failed", error: new AggregateFailed(error) }
  }
}

/** The fields of a rejection as JSON, without its tag: by its schema, if it is a `Schema.TaggedError`. */
export const rejectionFields = (rejection: Rejection): Readonly<Record<string, unknown>> => {
  const fields = encodedRejection(rejection)
  const { _tag, ...others } = fields
  return others
}
const encodedRejection = (rejection: Rejection): Readonly<Record<string, unknown>> => {
  const schema: unknown = rejection.constructor
  if (Schema.isSchema(schema)) {
    try {
      return Schema.encodeUnknownSync(Schema.toCodecJson(schema as Schema.Codec<unknown>))(rejection) as never
    } catch {
      // a rejection that does not fit its own schema still has fields
    }
  }
  try {
    return JSON.parse(JSON.stringify({ ...rejection })) as never
  } catch {
    return {}
  }
}

/** A rejection that a command was answered before, of no known class. It has the tag, the fields (as JSON) and the message of then. */
class RepeatedRejection extends Error {
  readonly _tag: string
  constructor({ fields, message, tag }: RejectionAnswer) {
    super(message ?? tag)
    this._tag = tag
    Object.assign(this, fields)
    Object.defineProperty(this, "name", { value: tag })
  }
}
const decidedRejections = new WeakSet<object>()
/** Notes that an error is a rejection: `decide` returned it, or the command was answered so before. */
export const asRejection = <R extends Rejection>(rejection: R): R => {
  decidedRejections.add(rejection)
  return rejection
}
/** Whether an error of `execute` is a rejection. Where it comes from says so: other errors have a `_tag` and fields as well. */
export const isRejection = (error: unknown): error is Rejection =>
  typeof error === "object" && error !== null && decidedRejections.has(error)
const repeatedRejections = new WeakSet<object>()
/** What the store remembers of a rejection. */
export const answerOfRejection = (rejection: Rejection): RejectionAnswer => ({
  tag: rejection._tag,
  fields: rejectionFields(rejection),
  message: rejection.message
})
const instanceOf = (aggregate: Aggregate.Any, { fields, tag }: RejectionAnswer): Rejection | undefined => {
  for (const schema of aggregate.rejections) {
    const decoded = Schema.decodeUnknownOption(Schema.toCodecJson(schema))({ ...fields, _tag: tag })
    if (Option.isSome(decoded) && decoded.value._tag === tag) return decoded.value
  }
  return undefined
}
/** The rejection that the store remembered: an instance of its class, if the aggregate lists the class and the fields still fit it. */
export const rejectionOfAnswer = (aggregate: Aggregate.Any, answer: RejectionAnswer): Rejection => {
  const rejection = instanceOf(aggregate, answer) ?? new RepeatedRejection(answer)
  repeatedRejections.add(rejection)
  return asRejection(rejection)
}
/** Whether a rejection is the answer that the same command was given before. */
export const isRepeatedRejection = (rejection: object): boolean => repeatedRejections.has(rejection)
