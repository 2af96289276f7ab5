// Runs `millrace subscribe`: prints the messages of a topic as they arrive, and acknowledges each when it is written.
import { randomInt } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { parseToken } from "../log/position-token.ts"
import { FanOut, type FanOutError, type Message, type StartAt, type SubscriptionType } from "../subscription/fanout.ts"
import { isRetryForAnother } from "../subscription/dead-letter.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { kafkaOptions, pulsarOptions } from "../system/environment.ts"
import { layer } from "../system/layer.ts"
import { logTopicNames } from "../system/topic-list.ts"
import { CommandFailed, isBrokenPipe, usageError } from "./command-failure.ts"
import { terminalLine, terminalText } from "./terminal-text.ts"
import { timeOf } from "../text/moment.ts"
import { unknownTopic } from "./unknown-topic.ts"

/** The flags and the argument of the command. */
export interface SubscribeFlags {
  readonly data: string
  readonly topic: string
  readonly type: SubscriptionType
  /** Undefined: a new subscription, which is deleted when the command ends. */
  readonly name: string | undefined
  readonly from: string
  readonly seek: boolean
  readonly max: number | undefined
  readonly json: boolean
}

/** The start of a subscription that a text names: earliest, latest, a date, a duration before `now`, positions as `partition:position`, or a position token. Undefined if it names none. */
export const startOf = (text: string, now: number): StartAt | undefined => {
  if (text === "earliest" || text === "latest") return text
  if (/^\d+:\d+(,\d+:\d+)*$/.test(text)) {
    const places = text.split(",").map((place) => {
      const [partition = 0, position = 0] = place.split(":").map(Number)
      return { partition, position }
    })
    return { places }
  }
  if (parseToken(text) !== undefined) return { token: text }
  const time = timeOf(text, now)
  return time === undefined ? undefined : { time }
}

const jsonOf = ({ value, ...message }: Message): string => {
  const { eventTime, ...rest } = message
  let parsed: unknown = value
  try {
    parsed = JSON.parse(value)
  } catch {
    // messages of other writers need not be JSON; they are printed as text
  }
  return terminalText(JSON.stringify({ ...rest, event_time: new Date(eventTime).toISOString(), value: parsed }))
}
const lineOf = ({ eventTime, key, partition, position, value }: Message): string =>
  terminalLine(`${new Date(eventTime).toISOString()}  ${partition}:${position}  ${key}  ${value}`)
/** Writes to standard output. True when the reader, or the pipe to it, has the lines; false if the reader has closed the pipe. */
const write = (lines: string) =>
  Effect.callback<boolean, CommandFailed>((resume) => {
    process.stdout.write(lines, (error) => {
      const failed = () => new CommandFailed({ message: `cannot write to standard output: ${error?.message}` })
      resume(error == null || isBrokenPipe(error) ? Effect.succeed(error == null) : Effect.fail(failed()))
    })
  })

const retrySchedule = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.setInputType<FanOutError>(),
  Schedule.while(({ input }) => input.retryable)
)
const batchSize = 100

/** Fails for a number of records below 1. */
export const assertMax = ({
  max = Infinity
}: {
  readonly max: number | undefined
}): Effect.Effect<void, CommandFailed> =>
  max >= 1
    ? Effect.void
    : Effect.fail(usageError(`--max is ${max}; it must be at least 1`, "--max 10, or no --max to print until stopped"))

/** Fails if the flags make no sense, or if there is no system whose topics could be read: the command must not create one. */
const assertReadable = Effect.fnUntraced(function* ({ data, from, max }: SubscribeFlags) {
  if (startOf(from, Date.now()) === undefined) {
    return yield* usageError(
      `--from is '${from}'; it must be earliest, latest, a duration, a date, positions or a token`,
      '--from earliest, latest, "2 hours", 2026-01-31T12:00Z, 0:42,1:17 for positions of partitions, or the token of an answer to events'
    )
  }
  yield* assertMax({ max })
  // topics on Kafka or Pulsar are read without a database
  if ((yield* kafkaOptions) === undefined && (yield* pulsarOptions) === undefined) yield* assertDatabaseExists(data)
})

/** The error of a topic that does not exist, with the derived topic of the application, or the topic of the database, that may have been meant. */
const unknown = Effect.fnUntraced(function* ({ data, topic }: SubscribeFlags, message: string) {
  const stored = Effect.gen(function* () {
    yield* assertDatabaseExists(data)
    const database = yield* openDatabase(data, "join", { max: 1 })
    return yield* logTopicNames({ on: "PostgreSQL", sql: database.sql })
  })
  const isElsewhere = (yield* kafkaOptions) !== undefined || (yield* pulsarOptions) !== undefined
  return yield* unknownTopic(message, topic, isElsewhere ? [] : yield* Effect.orElseSucceed(stored, () => []))
})

/** Prints messages until interrupted, or until `max` are printed. Returns the exit code. */
export const subscribe = Effect.fnUntraced(
  function* (options: SubscribeFlags) {
    const { json, max = Infinity, seek, topic, type } = options
    // checked before
    const from = startOf(options.from, Date.now())!
    const fanOut = yield* FanOut
    const name = options.name ?? `cli-${randomInt(2 ** 40).toString(36)}`
    if (options.name === undefined) {
      yield* Effect.addFinalizer(() => Effect.ignore(fanOut.unsubscribe(topic, name)))
    }
    if (seek) yield* fanOut.seek({ topic, name, type }, from)
    const consumer = yield* fanOut.subscribe({ topic, name, type, from, receiveQueue: Math.min(max, 1_000) })
    for (let left = max; left > 0;) {
      const messages = yield* Effect.retry(consumer.receive(Math.min(left, batchSize)), retrySchedule)
      // a retry of a dead letter of another subscription: this subscription has processed the message before
      const shown = messages.filter((message) => !isRetryForAnother(name, message))
      const lines = shown.map((message) => `${json ? jsonOf(message) : lineOf(message)}\n`).join("")
      const printed = yield* Effect.uninterruptible(
        Effect.tap(write(lines), (written) =>
          written ? Effect.retry(consumer.acknowledge(messages), retrySchedule) : Effect.void
        )
      )
      if (!printed) return 0
      left -= shown.length
    }
    return 0
  },
  Effect.scoped,
  (run, options) =>
    Effect.andThen(assertReadable(options), Effect.provide(run, layer({ dataDir: options.data }))).pipe(
      Effect.catchTag("UnknownTopic", ({ advice, reason }) => {
        const message = `there is no topic ${options.topic}: ${reason}${advice === undefined ? "" : `; ${advice}`}`
        return Effect.scoped(Effect.flatMap(unknown(options, message), Effect.fail))
      })
    )
)
