// Runs `millrace aggregate send|list|show|events|archive`: the same code as the server's routes, on the event store of the system.
import { userInfo } from "node:os"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Aggregate } from "../aggregate/aggregate.ts"
import {
  AppendTooLarge,
  EventTimeRefused,
  CommandReused,
  InlineFailed,
  InlineMissing,
  InvalidCommandId,
  InvalidStream,
  StreamClosed,
  VersionConflict
} from "../aggregate/errors.ts"
import { SubjectErased } from "../erasure/errors.ts"
import { InvalidCommand } from "../aggregate/failures.ts"
import { encodedState } from "../aggregate/state.ts"
import { EventStore, type Expected } from "../aggregate/event-store.ts"
import { aggregateHeaders } from "../log/envelope.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { assertRegistered } from "../system/identity.ts"
import { openEventStore } from "../system/open-event-store.ts"
import { archiveKnown } from "../server/aggregates/archive.ts"
import { assertAggregateTopic } from "../system/topics.ts"
import type { Aggregate as Model } from "../model/aggregate.ts"
import { rejectionOf } from "../server/aggregates/answers.ts"
import { aggregatesByName, assertCommand, knownAggregate } from "../server/aggregates/catalog.ts"
import { commandJson, commandOf } from "../server/aggregates/command.ts"
import { type EventJson, eventsPage } from "../server/aggregates/events.ts"
import { type StreamJson, streamsPage } from "../server/aggregates/streams.ts"
import { defaultLimits } from "../server/http/limits.ts"
import { Problem } from "../server/http/problem.ts"
import { asUnprepared, CommandFailed, exitCodes, usageError } from "./command-failure.ts"
import { fieldsText, NoCommandFields } from "./command-fields.ts"
import { type AnyApplication, loadApplication } from "./config.ts"
import { print } from "./print.ts"
import { tableOf } from "./tables.ts"
import { timeOf } from "../text/moment.ts"
import { parseDuration } from "./time.ts"

/** What all of the commands are given. */
interface AggregateFlags {
  readonly data: string
  readonly config: string | undefined
  readonly name: string
  readonly json: boolean
}
/** What those are given that are about one stream. */
interface TargetFlags extends AggregateFlags {
  readonly id: string
}
/** The flags of `list`. */
export interface ListFlags extends AggregateFlags {
  readonly recent: boolean
  readonly prefix: string | undefined
  readonly after: string | undefined
  readonly limit: number
}
/** The flags of `send`. */
export interface SendFlags extends TargetFlags {
  readonly command: string
  readonly fields: ReadonlyArray<string>
  readonly expected: string | undefined
  readonly commandId: string | undefined
  readonly actor: string | undefined
  readonly timeout: string
}
/** The flags of `show`. */
export interface ShowFlags extends TargetFlags {
  readonly version: number | undefined
  readonly at: string | undefined
}
/** The flags of `events`. */
export interface EventsFlags extends TargetFlags {
  readonly from: number
  readonly limit: number
}

/** Runs what throws a `Problem`, as a usage error with the same text. */
const asUsage = <A>(run: () => A): Effect.Effect<A, CommandFailed> =>
  Effect.try({
    try: run,
    catch: (error) => {
      if (error instanceof Problem) return usageError(error.message, error.try)
      throw error
    }
  })

/** The aggregate of the application, checked before a database is started. */
const targetOf = Effect.fnUntraced(function* ({ config, name }: AggregateFlags) {
  const application = yield* loadApplication(config)
  const aggregate = yield* asUsage(() => knownAggregate(aggregatesByName(application), name))
  return { application, aggregate }
})

/**
 * Runs an effect on the event store of the system, whose processes may run or not: the embedded database is started if none runs it. `appendsTo`:
 * the aggregate whose topic the effect changes; it must be as declared.
 */
const onStore = Effect.fnUntraced(function* <A, E>(
  application: AnyApplication,
  { data }: AggregateFlags,
  run: Effect.Effect<A, E, EventStore>,
  appendsTo?: Model.Any
) {
  yield* assertDatabaseExists(data)
  const database = yield* openDatabase(data, "join", { max: 2 })
  yield* Effect.mapError(assertRegistered(application, database.sql), asUnprepared)
  if (appendsTo !== undefined) yield* assertAggregateTopic(appendsTo, database.sql)
  const store = yield* openEventStore(application, database.sql)
  return yield* Effect.provideService(run, EventStore, store)
})

/** Why the event store refuses what is asked, with the exit code that says so; any other error as it is. */
const asRefused = (error: unknown): unknown => {
  if (error instanceof InvalidStream || error instanceof InvalidCommandId || error instanceof InvalidCommand)
    return usageError(error.message)
  if (error instanceof CommandReused)
    return refused(error.message, "leave --command-id out, or send the same command as before")
  if (error instanceof VersionConflict)
    return refused(
      error.message,
      `millrace aggregate show, then --expected ${error.actual} if the command still makes sense`
    )
  if (error instanceof InlineFailed || error instanceof InlineMissing)
    return new CommandFailed({ message: error.message, exitCode: 1 })
  if (error instanceof AppendTooLarge || error instanceof EventTimeRefused) return refused(error.message)
  return error instanceof StreamClosed || error instanceof SubjectErased ? refused(error.message) : error
}
const refused = (message: string, advice?: string) =>
  new CommandFailed({ message, exitCode: exitCodes.refused, ...(advice !== undefined && { try: advice }) })

const expectedOf = (text: string | undefined): Effect.Effect<Expected | undefined, CommandFailed> => {
  if (text === undefined || text === "exists" || text === "noStream") return Effect.succeed(text)
  return /^\d{1,15}$/.test(text)
    ? Effect.succeed(Number(text))
    : Effect.fail(
        usageError(`--expected is '${text}'; it must be a version`, "--expected 3, --expected 0 or --expected exists")
      )
}
const userName = (): string => {
  try {
    return userInfo().username
  } catch {
    // a container may run as a user without a name
    return "unknown"
  }
}

/** Sends a command, and prints the events that it appended. */
export const send = Effect.fnUntraced(function* (flags: SendFlags) {
  const { command: commandName, commandId, fields, id, json } = flags
  const { aggregate, application } = yield* targetOf(flags)
  const [expected, timeoutMs] = [yield* expectedOf(flags.expected), yield* parseDuration(flags.timeout, "--timeout")]
  yield* asUsage(() => assertCommand(aggregate, commandName))
  const text = fieldsText(aggregate.commands[commandName]!, fields)
  if (text instanceof NoCommandFields) return yield* usageError(text.message, text.advice)
  const command = yield* asUsage(() => commandOf(aggregate, id, commandName, commandJson(text, defaultLimits)))
  const options = {
    context: { actor: flags.actor ?? userName() },
    ...(expected !== undefined && { expected }),
    ...(commandId !== undefined && { commandId })
  }
  const executed = onStore(application, flags, Aggregate.execute(aggregate, id, command, options), aggregate)
  const answer = yield* executed.pipe(
    Effect.catch((error) => {
      const rejection = rejectionOf(error)
      return rejection === undefined ? Effect.fail(asRefused(error)) : Effect.succeed({ rejection })
    }),
    Effect.timeoutOption(timeoutMs)
  )
  if (Option.isNone(answer)) return yield* noAnswer(flags)
  if ("rejection" in answer.value) {
    const { fields: why, message, tag } = answer.value.rejection
    if (json) yield* print(JSON.stringify({ rejection: { _tag: tag, ...why } }))
    return yield* refused(`${aggregate.name} ${id} rejected ${commandName}: ${message}`)
  }
  const { events, repeated, version } = answer.value
  const encoded = events.map((event) => aggregate.encode(event))
  if (json) yield* print(JSON.stringify({ version, events: encoded, repeated }))
  else {
    const lines = encoded.map((event, i) => `${version - encoded.length + 1 + i}  ${JSON.stringify(event)}`)
    const told = repeated ? "was answered before" : events.length === 0 ? "nothing was to be done" : "done"
    yield* print([...lines, `${aggregate.name} ${id} has version ${version}: ${told}`].join("\n"))
  }
  return 0
})
const noAnswer = ({ commandId, timeout }: SendFlags) =>
  new CommandFailed({
    message: `there was no answer within ${timeout}; the command may be stored all the same`,
    exitCode: exitCodes.timedOut,
    try:
      commandId === undefined
        ? "look at the events first; with --command-id the command can be sent again safely"
        : `send it again with --command-id ${commandId}: it is stored once`
  })

/** The most streams that `list` prints. */
const mostStreams = 1_000
/** Prints the streams of an aggregate. */
export const list = Effect.fnUntraced(function* (flags: ListFlags) {
  const { after, json, limit, prefix, recent } = flags
  if (limit < 1 || limit > mostStreams)
    return yield* usageError(`--limit is ${limit}; it must be from 1 to ${mostStreams}`, "--limit 100")
  if (recent && after !== undefined)
    return yield* usageError("--recent and --after exclude each other", "--after ID without --recent")
  const { aggregate, application } = yield* targetOf(flags)
  const options = { order: recent ? "recent" : "id", limit, prefix, after } as const
  const page = yield* onStore(application, flags, streamsPage(aggregate, options))
  yield* print(json ? JSON.stringify(page) : streamsText(page))
  return 0
})
const streamsText = ({
  next,
  streams
}: {
  readonly next: string | null
  readonly streams: ReadonlyArray<StreamJson>
}) => {
  const rows = streams.map(({ appended_at, closed, id, tenant, version }) => [
    id,
    version,
    new Date(appended_at).toISOString(),
    tenant,
    closed
  ])
  const table = tableOf(["id", "events", "last event", "tenant", "closed"], rows)
  return next === null ? table : `${table}\nmore: --after ${JSON.stringify(next)}`
}

/** How many events `events` loads and prints at once. */
const pageEvents = 500
const noEvents = ({ id, name }: TargetFlags, at?: number) =>
  new CommandFailed({
    message: `${name} ${id} ${at === undefined ? "has no events" : `had no events at ${new Date(at).toISOString()}`}`
  })

/** Prints the state of a stream. */
export const show = Effect.fnUntraced(function* (flags: ShowFlags) {
  const { id, json, version: asked } = flags
  const { aggregate, application } = yield* targetOf(flags)
  const at = flags.at === undefined ? undefined : timeOf(flags.at, Date.now())
  if (flags.at !== undefined && at === undefined)
    return yield* usageError(
      `--at '${flags.at}' is neither a duration nor a date`,
      '--at "2 hours", or --at 2026-01-31T12:00Z'
    )
  if (asked !== undefined && (at !== undefined || asked < 1))
    return yield* usageError(
      at === undefined ? `--version is ${asked}; the first version is 1` : "--version and --at are both given",
      "--version 3, or --at 2026-01-31T12:00Z"
    )
  const past = { ...(asked !== undefined && { version: asked }), ...(at !== undefined && { at }) }
  const load = onStore(application, flags, Aggregate.load(aggregate, id, past))
  const { state, version } = yield* Effect.mapError(load, asRefused)
  if (version === 0) return yield* noEvents(flags, at)
  if (asked !== undefined && version < asked)
    return yield* new CommandFailed({
      message: `${aggregate.name} ${id} has version ${version}, not yet ${asked}`,
      try: `--version from 1 to ${version}`
    })
  const encoded = yield* Effect.mapError(encodedState(aggregate, id, state), asRefused)
  yield* print(
    json
      ? JSON.stringify({ version, state: encoded })
      : `${aggregate.name} ${id}, version ${version}\n${JSON.stringify(encoded, null, 2)}`
  )
  return 0
})

/** Prints the events of a stream. */
export const events = Effect.fnUntraced(function* (flags: EventsFlags) {
  const { from, id, json, limit } = flags
  const { aggregate, application } = yield* targetOf(flags)
  for (const [flag, value] of Object.entries({ "--from": from, "--limit": limit }))
    if (value < 1) return yield* usageError(`${flag} is ${value}; it must be at least 1`, `${flag} 1`)
  const printing = Effect.gen(function* () {
    let next = from
    for (let left = limit; left > 0;) {
      const page = yield* eventsPage(aggregate, id, { from: next, limit: Math.min(left, pageEvents) })
      if (page.version === 0) return yield* noEvents(flags)
      if (page.events.length === 0) return 0
      yield* print(json ? page.events.map((event) => JSON.stringify(event)).join("\n") : eventsTable(page.events))
      next += page.events.length
      left -= page.events.length
    }
    return 0
  })
  return yield* Effect.mapError(onStore(application, flags, printing), asRefused)
})
const eventsTable = (events: ReadonlyArray<EventJson>): string =>
  tableOf(
    ["version", "appended at", "type", "fields", "actor"],
    events.map(({ appended_at, event, headers, version }) => {
      const { type, ...fields } = event as Readonly<Record<string, unknown>>
      const actor = headers[aggregateHeaders.actor]
      return [version, new Date(appended_at).toISOString(), type, JSON.stringify(fields), actor]
    })
  )

/** Archives a stream, and prints what was done, or would be. */
export const archive = Effect.fnUntraced(function* (flags: TargetFlags & { readonly dryRun: boolean }) {
  const { dryRun, id, json } = flags
  const { aggregate, application } = yield* targetOf(flags)
  const found = yield* Effect.mapError(
    onStore(application, flags, archiveKnown(aggregate, id, dryRun), aggregate),
    asRefused
  )
  if (found === undefined) return yield* noEvents(flags)
  const { repeated, version } = found
  const done = repeated ? "was archived before" : dryRun ? "would be archived" : "is archived"
  yield* print(
    json
      ? JSON.stringify(dryRun ? { dry_run: true, ...found } : found)
      : `${aggregate.name} ${id} ${done}, at version ${version}: it ${dryRun && !repeated ? "would take" : "takes"} no more events, and those it has stay`
  )
  return 0
})
