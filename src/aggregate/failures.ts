// What can go wrong with a command besides what the store refuses: invalid input, code of the aggregate that throws, and contention.
import * as Schema from "effect/Schema"
import { UnknownVersion, upcasterOf } from "../model/event.ts"
import { UnknownEventType } from "../model/topic.ts"
import { shown } from "../text/text.ts"

/** The command, or what came with it, does not fit the aggregate's declaration. Nothing was decided. */
export class InvalidCommand extends Schema.TaggedError<InvalidCommand>()("InvalidCommand", {
  aggregate: Schema.String,
  command: Schema.String,
  reason: Schema.String,
  /** The field that is not valid; absent if it is not known, or several. */
  field: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    return `command ${this.command} of ${this.aggregate} is not valid: ${this.reason}`
  }
}

/**
 * A function of the aggregate threw, or decided an event that does not fit its schema. Nothing was appended. `command` is undefined where
 * the state was loaded without a command.
 */
export class AggregateFailed extends Schema.TaggedError<AggregateFailed>()("AggregateFailed", {
  aggregate: Schema.String,
  stream: Schema.String,
  command: Schema.UndefinedOr(Schema.String),
  operation: Schema.Literals(["decide", "evolve", "event", "subject"]),
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    const { aggregate, command, operation, reason, stream } = this
    const doing = command === undefined ? "" : `command ${command}: `
    const failed = operation === "event" ? "the decided event is not valid" : `\`${operation}\` failed`
    return `${aggregate} ${shown(stream)}: ${doing}${failed}: ${reason}`
  }
}

/** What to do about a stored event that the declarations do not read, by the error of decoding it; undefined if that says so itself. */
export const unreadableAdvice = (error: unknown): string | undefined => {
  if (upcasterOf(error) !== undefined) return "correct the upcaster"
  try {
    if (error instanceof UnknownVersion) return undefined
    if (error instanceof UnknownEventType) return "keep event types that have stored events in `events`"
    if (Schema.isSchemaError(error)) return "declare the change as a new version of the event type (`upcast`)"
  } catch {
    // asking a revoked proxy for its class throws
  }
  return "correct the schema or the upcaster that throws this"
}
/** The message of an error of decoding, with the upcaster that it came from, if it came from one. */
export const namingUpcaster = (error: unknown, message: string): string => {
  const upcaster = upcasterOf(error)
  return upcaster === undefined || message.includes(upcaster) ? message : `${upcaster} threw: ${message}`
}
/** Why a stored event cannot be read, and what to do. `message`: that of the error, or what may be shown of it. */
export const unreadableReason = (error: unknown, message: string): string => {
  const [advice, reason] = [unreadableAdvice(error), namingUpcaster(error, message)]
  return advice === undefined ? reason : `${reason}; ${advice}`
}

/** A stored event cannot be read by this application's declaration of its type. `reason` says what to do as well. */
export class UnreadableEvent extends Schema.TaggedError<UnreadableEvent>()("UnreadableEvent", {
  aggregate: Schema.String,
  stream: Schema.String,
  version: Schema.Int,
  type: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    const { aggregate, reason, stream, type, version } = this
    return `${aggregate} ${shown(stream)}: event ${version} of type ${type} cannot be read: ${reason}`
  }
}

/** Too many commands of one stream, or of one boundary, at once. The same command may succeed later. */
export class StreamBusy extends Schema.TaggedError<StreamBusy>()("StreamBusy", {
  aggregate: Schema.String,
  stream: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.aggregate} ${shown(this.stream)} is busy: ${this.reason}; send the command again later`
  }
}

/** What an error, or anything else that was thrown, says. */
export const reasonOf = (thrown: unknown): string => (thrown instanceof Error ? thrown.message : shown(thrown))
