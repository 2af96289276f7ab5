// Commands that handlers send to aggregates, at once or at a time: checked, identified, and folded into a batch's changes. No I/O.
import { createHash } from "node:crypto"
import { UnstorableValue, describeError } from "../dead-letter/event-failure.ts"
import type { Position } from "../log/log.ts"
import { type Aggregate, UnknownCommand } from "../model/aggregate.ts"
import type { Meta } from "../model/handler.ts"
import { checkedDuration } from "../model/options.ts"
import type { CommandCall } from "../model/recorder.ts"
import { isStorable, shown } from "../text/text.ts"

/** A timer's name, and the key of the events that set and cancel it. */
export interface TimerName {
  readonly key: string
  readonly name: string
}
/** A timer's name, and when it is due: at a time (epoch milliseconds), or so many milliseconds after its commit. */
export interface TimerTime {
  readonly name: string
  readonly at: number | undefined
  readonly afterMs: number | undefined
}
/** A command for a stream of an aggregate, as a commit stores it. */
export interface PendingCommand {
  /** A UUID that the projection, the event and the call decide, so that the same call has the same id whenever it is processed. */
  readonly id: string
  /** The key of the event. */
  readonly key: string
  /** Undefined: the command is sent at once, and keeps its order. */
  readonly timer: TimerTime | undefined
  readonly aggregate: string
  readonly stream: string
  /** The command's JSON text. */
  readonly command: string
  /** The position of the event, and the number of the call among those of the event. */
  readonly position: Position
  readonly number: number
  readonly tenant: string | undefined
  readonly traceparent: string | undefined
  readonly correlationId: string
  readonly causationId: string
}
/** What a batch sends, sets and cancels: each timer at most once. */
export interface CommandChanges {
  readonly pending: ReadonlyArray<PendingCommand>
  readonly cancelled: ReadonlyArray<TimerName>
}

/** What a command takes over from its event. */
export interface CommandOrigin extends Meta {
  readonly traceparent: string | undefined
  readonly eventId?: string | undefined
  /** The id that all events of one business process carry. */
  readonly correlationId?: string | undefined
}
/** Whose commands are prepared. */
export interface CommandSource {
  readonly projection: string
  /** The aggregates that it may send commands to. */
  readonly sends: ReadonlyArray<Aggregate.Any>
  /** Of the topic, see `Claim.identity`: a topic that was recreated has the same positions, and other events. */
  readonly identity: string | undefined
}
const longestName = 200
const longestStream = 1_000
/** Dates of JavaScript reach so far from 1970, in milliseconds. */
const lastDate = 8.64e15

const refuse = (where: string, reason: string): never => {
  throw new UnstorableValue({ where, reason })
}
const checkedText = (where: string, what: string, given: unknown, most: number): string => {
  if (typeof given !== "string" || given === "")
    return refuse(where, `${what} is ${shown(given)}; give a text that is not empty`)
  if (given.length > most) return refuse(where, `${what} has ${given.length} characters; it may have ${most}`)
  return isStorable(given) ? given : refuse(where, `${what} has a NUL character or half a surrogate pair; leave it out`)
}
/** The name of a timer. Throws `UnstorableValue`. */
export const checkedTimerName = (where: string, name: unknown): string =>
  checkedText(where, "the timer's name", name, longestName)

const checkedAggregate = (where: string, sends: ReadonlyArray<Aggregate.Any>, given: unknown): Aggregate.Any => {
  const aggregate = given as Partial<Aggregate.Any> | null | undefined
  if (aggregate?.kind !== "aggregate" || typeof aggregate.encodeCommand !== "function")
    return refuse(where, `${shown(aggregate?.name ?? given)} is no aggregate; give what \`Aggregate.make\` declares`)
  const listed = sends.find(({ name }) => name === aggregate.name)
  if (listed !== undefined) return listed
  return refuse(
    where,
    `it was given the aggregate ${aggregate.name}, which the projection does not write; list it in the projection's \`writes\``
  )
}
/** The JSON text of a command for an aggregate. Throws `UnstorableValue`. */
const commandText = (where: string, aggregate: Aggregate.Any, stream: string, given: unknown): string => {
  const { id, name } = aggregate
  if (typeof given !== "object" || given === null)
    return refuse(where, `the command is ${shown(given)}; give an object with its \`type\` and fields`)
  const own = id === undefined ? undefined : (given as Readonly<Record<string, unknown>>)[id]
  if (own !== undefined && own !== stream)
    return refuse(
      where,
      `the command's \`${id}\` is ${shown(own)}, and it is sent to ${shown(stream)}; leave the field out`
    )
  const command = id === undefined || own !== undefined ? given : { ...given, [id]: stream }
  try {
    return JSON.stringify(aggregate.encodeCommand(command))
  } catch (error) {
    const { message } = describeError(error)
    if (error instanceof UnknownCommand) return refuse(where, message)
    const { type } = given as { readonly type?: unknown }
    return refuse(where, `the command ${shown(type)} of ${name} does not fit its schema: ${message}`)
  }
}

/** A hash as a UUID (version 8, for what no standard defines). */
const uuidOf = (text: string): string => {
  const hash = createHash("sha256").update(text).digest("hex")
  return `${hash.slice(0, 8)}-${hash.slice(8, 12)}-8${hash.slice(13, 16)}-a${hash.slice(17, 20)}-${hash.slice(20, 32)}`
}

/** Identifies a timer of a projection by its name and key, as a UUID. */
export const slotOf = (projection: string, { key, name }: TimerName): string =>
  uuidOf(JSON.stringify([projection, key, name]))
/** Identifies the commands that keep their order: those of one partition of a projection for one stream, as a UUID. */
export const lineOf = (
  at: { readonly projection: string; readonly topic: string; readonly partition: number },
  { aggregate, stream }: Pick<PendingCommand, "aggregate" | "stream">
): string => uuidOf(JSON.stringify([at.projection, at.topic, at.partition, aggregate, stream]))

const timeOf = (where: string, { after, at, name }: NonNullable<CommandCall["timer"]>): Omit<TimerTime, "name"> => {
  const what = `the timer ${shown(name)}`
  if (after !== undefined && at !== undefined) return refuse(where, `${what} has both \`at\` and \`after\`; give one`)
  if (after !== undefined) {
    try {
      return { at: undefined, afterMs: checkedDuration("after", after as never) }
    } catch (error) {
      return refuse(where, `${what}: ${describeError(error).message}`)
    }
  }
  if (typeof at === "number" && Math.abs(at) <= lastDate) return { at: Math.floor(at), afterMs: undefined }
  return refuse(where, `${what} is set to ${shown(at)}; give a time in epoch milliseconds, or \`after\` a duration`)
}
/** Checks a call of `out.send` or `out.timer`. Throws `UnstorableValue`. */
export const preparedCommand = (
  source: CommandSource,
  given: unknown,
  { command, id, timer }: CommandCall,
  origin: CommandOrigin,
  number: number
): PendingCommand => {
  const where = timer === undefined ? "out.send" : "out.timer"
  const name = timer && checkedTimerName(where, timer.name)
  const aggregate = checkedAggregate(where, source.sends, given)
  const stream = checkedText(where, `the id of the ${aggregate.name}`, id, longestStream)
  const { eventId, key, partition, position, tenant, topic, traceparent } = origin
  const causationId = eventId ?? `${topic}/${partition}/${position}`
  return {
    id: uuidOf(
      JSON.stringify([source.projection, key, name ?? number, topic, source.identity ?? null, partition, position])
    ),
    key,
    timer: timer && { name: name!, ...timeOf(where, timer) },
    aggregate: aggregate.name,
    stream,
    command: commandText(where, aggregate, stream, command),
    position,
    number,
    tenant,
    traceparent,
    correlationId: origin.correlationId ?? causationId,
    causationId
  }
}

/** The commands of a batch while it grows. */
export class BatchCommands {
  private readonly sent: Array<PendingCommand> = []
  private readonly timers = new Map<string, PendingCommand | TimerName>()

  /** Adds a command, or the name of a timer to cancel. The last call for a timer decides. Never throws. */
  add(command: PendingCommand | TimerName): void {
    const name = "id" in command ? command.timer?.name : command.name
    if (name === undefined) this.sent.push(command as PendingCommand)
    else this.timers.set(JSON.stringify([command.key, name]), command)
  }
  /** What the batch sends, sets and cancels; undefined if nothing. */
  changes(): CommandChanges | undefined {
    const timers = [...this.timers.values()]
    const set = timers.filter((one) => "id" in one)
    const cancelled = timers.filter((one): one is TimerName => !("id" in one))
    const pending = [...this.sent, ...set]
    return pending.length + cancelled.length === 0 ? undefined : { pending, cancelled }
  }
}
