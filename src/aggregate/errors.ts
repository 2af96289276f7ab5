// The errors of the event store: what was refused, what the store has instead, and what to do.
import * as Schema from "effect/Schema"
import { shown } from "../text/text.ts"

/** What an append expects of its stream, as its errors name it: see `Expected` in `event-store.ts`. */
export const Expectation = Schema.Union([Schema.Literals(["any", "noStream", "exists"]), Schema.Int])

const expectationText = (expected: typeof Expectation.Type): string => {
  if (expected === "noStream" || expected === 0) return "no events were expected"
  return expected === "exists" ? "at least one event was expected" : `version ${expected} was expected`
}

/** Another writer appended to the stream, or its version was never the expected one. `actual`: the version that the stream has. */
export class VersionConflict extends Schema.TaggedError<VersionConflict>()("VersionConflict", {
  aggregate: Schema.String,
  stream: Schema.String,
  expected: Expectation,
  actual: Schema.Int
}) {
  override get message() {
    const { actual, aggregate, expected, stream } = this
    return `${aggregate} ${shown(stream)} has version ${actual} where ${expectationText(expected)}; load it again and decide on its new state`
  }
}

/** Events with the tags of a boundary were appended since the boundary was read. */
export class BoundaryMoved extends Schema.TaggedError<BoundaryMoved>()("BoundaryMoved", {
  tags: Schema.Array(
    Schema.Struct({ aggregate: Schema.String, tag: Schema.String, expected: Schema.Int, actual: Schema.Int })
  )
}) {
  override get message() {
    const tags = this.tags.map(({ aggregate, tag }) => `${shown(tag)} of ${aggregate}`).join(", ")
    return `events were appended with the tags ${tags} since the boundary was read; read it again and decide on what it has now`
  }
}

/** The stream takes no more events. */
export class StreamClosed extends Schema.TaggedError<StreamClosed>()("StreamClosed", {
  aggregate: Schema.String,
  stream: Schema.String,
  reason: Schema.Literals(["archived"])
}) {
  override get message() {
    return `${this.aggregate} ${shown(this.stream)} is ${this.reason} and takes no more events; use another id`
  }
}

/** The command id was used before, for another command. */
export class CommandReused extends Schema.TaggedError<CommandReused>()("CommandReused", { commandId: Schema.String }) {
  override get message() {
    return `the command id ${shown(this.commandId)} was used before for another command; use a new id for each command`
  }
}

/** The timer that the append fires is gone: it was fired or cancelled meanwhile. Nothing was appended. */
export class TimerGone extends Schema.TaggedError<TimerGone>()("TimerGone", { timer: Schema.String }) {
  override get message() {
    return `the timer ${this.timer} was fired or cancelled meanwhile; nothing was appended`
  }
}

/** The events are more than one append takes. Nothing was appended. */
export class AppendTooLarge extends Schema.TaggedError<AppendTooLarge>()("AppendTooLarge", {
  aggregate: Schema.String,
  stream: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.aggregate} ${shown(this.stream)}: ${this.reason}; nothing was appended. Divide the work among several commands`
  }
}

/** The time of an event is outside of the range that the log holds, or too far ahead of the clock. Nothing was appended. */
export class EventTimeRefused extends Schema.TaggedError<EventTimeRefused>()("EventTimeRefused", {
  aggregate: Schema.String,
  stream: Schema.String,
  code: Schema.Literals(["event_time_out_of_range", "event_time_ahead"]),
  /** Epoch milliseconds. */
  eventTime: Schema.Number,
  /** The field of the event that holds the time; absent if a function makes it. */
  field: Schema.optionalKey(Schema.String),
  reason: Schema.String
}) {
  /** What to give instead, and to look at: what follows "send" or the like. */
  get wanted() {
    const clock = this.code === "event_time_ahead" ? ", and check the sender's clock" : ""
    return `epoch milliseconds, such as 1769860800000${clock}`
  }
  override get message() {
    return `${this.aggregate} ${shown(this.stream)}: ${this.reason}; nothing was appended. Give ${this.wanted}`
  }
}

/** The id of a stream cannot be stored. */
export class InvalidStream extends Schema.TaggedError<InvalidStream>()("InvalidStream", {
  aggregate: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `an id of ${this.aggregate} ${this.reason}; use 1 to 1,000 characters of well-formed text without NUL`
  }
}

/** The id of a command cannot be stored. */
export class InvalidCommandId extends Schema.TaggedError<InvalidCommandId>()("InvalidCommandId", {
  reason: Schema.String
}) {
  override get message() {
    return `the command id ${this.reason}; use 1 to 200 characters of well-formed text without NUL`
  }
}

/** The rows of an inline projection cannot be written for these events, so nothing was appended. */
export class InlineFailed extends Schema.TaggedError<InlineFailed>()("InlineFailed", {
  aggregate: Schema.String,
  stream: Schema.String,
  projection: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    const { aggregate, projection, reason, stream } = this
    return `${aggregate} ${shown(stream)}: nothing was appended, because the inline projection ${projection} fails for the events: ${reason}`
  }
}

/** The database has an inline projection that this process does not declare, so it cannot write its rows. Nothing was appended. */
export class InlineMissing extends Schema.TaggedError<InlineMissing>()("InlineMissing", {
  aggregate: Schema.String,
  projection: Schema.String,
  version: Schema.Int
}) {
  override get message() {
    const { aggregate, projection, version } = this
    return (
      `${aggregate}: nothing was appended, because the rows of the inline projection ${projection} are written with the events, and this process does not have its version ${version}; ` +
      `send the command to a process that has it. If this one has a newer version, run millrace promote ${projection}; otherwise replace its code by that of version ${version}`
    )
  }
}

/** The event store failed. `retryable`: the same call, with the same command id, may succeed later. */
export class EventStoreError extends Schema.TaggedError<EventStoreError>()("EventStoreError", {
  operation: Schema.Literals(["declare", "append", "load", "read", "remember", "snapshot", "archive", "list"]),
  aggregate: Schema.String,
  retryable: Schema.Boolean,
  reason: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `event store: ${this.operation}${this.aggregate === "" ? "" : ` of ${this.aggregate}`} failed: ${this.reason}`
  }
}
