// Runs `millrace tail`: prints the records of a topic as they come, for people and for programs.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import { isForReaders } from "../dead-letter/retry-record.ts"
import type { Log, LogRecord, PartitionBounds } from "../log/log.ts"
import { derivedFrom } from "../model/application.ts"
import { positionAt } from "../runner/in-append-order.ts"
import { startAtToken } from "../runner/start-at-token.ts"
import type { StartAt } from "../subscription/fanout.ts"
import { assertDatabaseExists, openDatabase } from "../system/database.ts"
import { kafkaOptions } from "../system/environment.ts"
import { openLog, type OpenedLog } from "../system/open-log.ts"
import { logTopicNames } from "../system/topic-list.ts"
import { CommandFailed, usageError } from "./command-failure.ts"
import { loadApplicationIfAny } from "./config.ts"
import { assertMax, startOf } from "./print-messages.ts"
import { writeOut } from "./print.ts"
import { eventTypeOf, recordJson, recordLine } from "./record-text.ts"
import { unknownTopic } from "./unknown-topic.ts"

/** The flags and the argument of the command. */
export interface TailFlags {
  readonly data: string
  readonly config: string | undefined
  readonly topic: string
  readonly key: string | undefined
  readonly tenant: string | undefined
  readonly type: string | undefined
  /** Undefined: of a topic latest, of a view earliest. */
  readonly from: string | undefined
  /** Of a topic: the only partition to read. */
  readonly partition: number | undefined
  readonly max: number | undefined
  readonly json: boolean
}

/** Whether a record is one that the flags ask for. */
export const isWanted =
  ({ key, partition, tenant, type }: Pick<TailFlags, "key" | "partition" | "tenant" | "type">) =>
  (record: LogRecord): boolean =>
    isForReaders(record) &&
    (partition === undefined || record.partition === partition) &&
    (key === undefined || record.key === key) &&
    (tenant === undefined || record.tenant === tenant) &&
    (type === undefined || eventTypeOf(record.value) === type)

/** Opens the log. One on Kafka needs a database only for the topics of aggregates. */
export const openForReading = Effect.fnUntraced(function* (data: string) {
  const database = Effect.gen(function* () {
    yield* assertDatabaseExists(data)
    return (yield* openDatabase(data, "join", { max: 2 })).sql
  })
  const hasDatabase = yield* Effect.match(assertDatabaseExists(data), {
    onSuccess: () => true,
    onFailure: () => false
  })
  const isOnKafka = (yield* kafkaOptions) !== undefined
  return yield* openLog(database, isOnKafka && !hasDatabase ? { aggregates: "none" } : {})
})

/** The error of a topic that the log does not have, with the name that may have been meant. */
const unknownTopicOf = Effect.fnUntraced(function* (opened: OpenedLog, { config, topic }: TailFlags) {
  const stored = yield* Effect.orElseSucceed(logTopicNames(opened), () => [])
  return yield* unknownTopic(`the log on ${opened.on} has no topic ${topic}`, topic, stored, config)
})

/** The positions that a token means for a topic. */
const startsOfToken = Effect.fnUntraced(function* (log: Log["Service"], { config, topic }: TailFlags, token: string) {
  const application = yield* Effect.orElseSucceed(loadApplicationIfAny(config), () => undefined)
  const sources = application === undefined ? new Set<string>() : derivedFrom(application, topic)
  return yield* startAtToken(log, { token, topic, derivedFrom: sources }).pipe(
    Effect.catchTag("TokenRefused", ({ advice, text }) =>
      Effect.fail(new CommandFailed({ message: text, try: advice }))
    )
  )
})

/** The start that `--from` names; the newest records without one. Fails for a text that names none. */
export const askedStart = ({ from = "latest" }: Pick<TailFlags, "from">): Effect.Effect<StartAt, CommandFailed> => {
  const asked = startOf(from, Date.now())
  return asked === undefined
    ? Effect.fail(
        usageError(
          `--from is '${from}'; it must be latest, earliest, a duration, a date, positions or a token`,
          '--from latest, earliest, "2 hours", 2026-01-31T12:00Z, 0:42,1:17 for positions of partitions, or the token of an answer to events'
        )
      )
    : Effect.succeed(asked)
}
/** The failure of `--partition` with a number that the topic does not have. */
export const noPartition = (partition: number, topic: string, partitions: number): CommandFailed =>
  usageError(
    `--partition is ${partition}, and ${topic} has ${partitions} partitions`,
    "partitions are numbered from 0; millrace topics list shows them"
  )
/** The position of each partition to begin at. */
const startsOf = Effect.fnUntraced(function* (
  log: Log["Service"],
  flags: TailFlags,
  bounds: ReadonlyArray<PartitionBounds>
) {
  const { topic } = flags
  const asked = yield* askedStart(flags)
  if (asked === "latest") return bounds.map(({ end }) => end)
  if (asked === "earliest") return bounds.map(({ start }) => start)
  if ("token" in asked) return yield* startsOfToken(log, flags, asked.token)
  if ("time" in asked)
    return yield* Effect.forEach(
      bounds,
      ({ end, partition, start }) => positionAt(log, { topic, partition, from: start, to: end }, asked.time),
      { concurrency: 8 }
    )
  for (const { partition, position } of asked.places) {
    const found = bounds.find((one) => one.partition === partition)
    if (found === undefined)
      return yield* usageError(
        `--from names partition ${partition}, and ${topic} has ${bounds.length}`,
        "millrace topics list shows the partitions and their ends"
      )
    if (position < found.start || position > found.end)
      return yield* usageError(
        `--from names position ${position}, and partition ${partition} of ${topic} has positions ${found.start} to ${found.end}`,
        "millrace topics list shows the partitions and their ends"
      )
  }
  // as a subscription does, a partition that is not named begins with its first record
  return bounds.map(
    ({ partition, start }) => asked.places.find((place) => place.partition === partition)?.position ?? start
  )
})

/** Returns what prints the records of a topic that are wanted, call by call. It resolves to false when no more are: `max` are printed, or the output is closed. */
export const recordPrinter = (flags: TailFlags): ((records: ReadonlyArray<LogRecord>) => Promise<boolean>) => {
  const { json, max = Infinity, topic } = flags
  const wants = isWanted(flags)
  let left = max
  return async (records) => {
    const shown = records.filter(wants).slice(0, left)
    if (left === 0) return false
    if (shown.length === 0) return true
    left -= shown.length
    const lines = shown.map((record) => `${json ? recordJson(topic, record) : recordLine(record)}\n`)
    return (await writeOut(lines.join(""), true)) && left > 0
  }
}
const again = Schedule.spaced("1 second")

/** Prints records until interrupted, until `max` are printed, or until the reader of the output has closed it. Returns the exit code. */
export const tail = Effect.fnUntraced(function* (flags: TailFlags) {
  const { data, topic } = flags
  yield* assertMax(flags)
  const opened = yield* openForReading(data)
  const { log } = opened
  const bounds = yield* log
    .bounds(topic)
    .pipe(Effect.catchTag("UnknownTopic", () => Effect.flatMap(unknownTopicOf(opened, flags), Effect.fail)))
  const starts = yield* startsOf(log, flags, bounds)
  const read = bounds.filter(({ partition }) => flags.partition === undefined || partition === flags.partition)
  if (read.length === 0) return yield* noPartition(flags.partition!, topic, bounds.length)
  const output = Semaphore.makeUnsafe(1)
  const print = recordPrinter(flags)
  const show = (records: ReadonlyArray<LogRecord>) => output.withPermits(1)(Effect.promise(() => print(records)))
  const follow = (partition: number, start: number) => {
    let next = start
    const reading = Effect.scoped(
      Effect.gen(function* () {
        const reader = yield* log.open(topic, partition, next)
        while (true) {
          const batch = yield* reader.take
          if (!(yield* show(batch.records))) return 0
          next = batch.next
        }
      })
    )
    // the broker or the database may be away for a while
    return Effect.retry(reading, { schedule: again, while: (error) => error._tag === "LogError" && error.retryable })
  }
  return yield* Effect.raceAllFirst(read.map((one) => follow(one.partition, starts[bounds.indexOf(one)]!)))
})
