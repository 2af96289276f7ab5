// What `millrace subscribe` does: prints a topic's messages as they come, and acknowledges each once it is written.
import { randomInt } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { FanOut, type FanOutError, type Message, type StartAt, type SubscriptionType } from "../subscription/fanout.ts"
import { isRetryForAnother } from "../subscription/dead-letter.ts"
import { layer } from "../system/layer.ts"
import { CommandFailed, exitCodes, isBrokenPipe } from "./command-failure.ts"
import { timeOf } from "./time.ts"

/** What the command is given. */
export interface Options {
  readonly data: string
  readonly topic: string
  readonly type: SubscriptionType
  /** Undefined: one that is forgotten when the command ends. */
  readonly name: string | undefined
  readonly from: string
  readonly seek: boolean
  readonly max: number | undefined
  readonly json: boolean
}

/** Where to begin: earliest, latest, a date, a duration before `now`, or places as `partition:position`. Undefined: it is none. */
export const startOf = (text: string, now: number): StartAt | undefined => {
  if (text === "earliest" || text === "latest") return text
  if (/^\d+:\d+(,\d+:\d+)*$/.test(text)) {
    const places = text.split(",").map((place) => {
      const [partition = 0, position = 0] = place.split(":").map(Number)
      return { partition, position }
    })
    return { places }
  }
  const time = timeOf(text, now)
  return time === undefined ? undefined : { time }
}

const jsonOf = ({ value, ...message }: Message): string => {
  const { eventTime, ...rest } = message
  let parsed: unknown = value
  try {
    parsed = JSON.parse(value)
  } catch {
    // another's message may be anything; it is shown as it is
  }
  return JSON.stringify({ ...rest, event_time: new Date(eventTime).toISOString(), value: parsed })
}
const lineOf = ({ eventTime, key, partition, position, value }: Message): string =>
  `${new Date(eventTime).toISOString()}  ${partition}:${position}  ${key}  ${value}`
/** True: written, so that whoever reads has taken it, or the system holds it for him. False: nobody reads any more. */
const write = (lines: string) =>
  Effect.callback<boolean, CommandFailed>((resume) => {
    process.stdout.write(lines, (error) => {
      const failed = () => new CommandFailed({ message: `cannot print: ${error?.message}` })
      resume(error == null || isBrokenPipe(error) ? Effect.succeed(error == null) : Effect.fail(failed()))
    })
  })

const patient = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("1 second")]).pipe(
  Schedule.setInputType<FanOutError>(),
  Schedule.while(({ input }) => input.retryable)
)
const atOnce = 100

/** Prints messages until interrupted, or until `max` are printed. */
export const subscribe = Effect.fnUntraced(
  function* (options: Options) {
    const { json, max = Infinity, seek, topic, type } = options
    const from = startOf(options.from, Date.now())
    if (from === undefined) {
      const hint = '--from earliest, latest, "2 hours", 2026-01-31T12:00Z, or 0:42,1:17 for positions of partitions'
      return yield* new CommandFailed({
        message: `--from ${options.from} is no place`,
        try: hint,
        exitCode: exitCodes.usage
      })
    }
    if (max < 1) {
      return yield* new CommandFailed({
        message: `--max ${max} is no number of messages`,
        try: "--max 10, or leave it out to go on until stopped",
        exitCode: exitCodes.usage
      })
    }
    const fanOut = yield* FanOut
    const name = options.name ?? `cli-${randomInt(2 ** 40).toString(36)}`
    if (options.name === undefined) {
      yield* Effect.addFinalizer(() => Effect.ignore(fanOut.unsubscribe(topic, name)))
    }
    if (seek) yield* fanOut.seek({ topic, name, type }, from)
    const consumer = yield* fanOut.subscribe({ topic, name, type, from, receiveQueue: Math.min(max, 1_000) })
    for (let left = max; left > 0;) {
      const messages = yield* Effect.retry(consumer.receive(Math.min(left, atOnce)), patient)
      // another subscription's dead letter that comes again was here before
      const shown = messages.filter((message) => !isRetryForAnother(name, message))
      const lines = shown.map((message) => `${json ? jsonOf(message) : lineOf(message)}\n`).join("")
      const printed = yield* Effect.uninterruptible(
        Effect.tap(write(lines), (written) =>
          written ? Effect.retry(consumer.acknowledge(messages), patient) : Effect.void
        )
      )
      if (!printed) return 0
      left -= shown.length
    }
    return 0
  },
  Effect.scoped,
  (run, { data }) => Effect.provide(run, layer({ dataDir: data }))
)
