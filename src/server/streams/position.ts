// The position of a stream in its topic, its text, and how a request names where a stream begins.
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Log, PartitionBounds, Position, ReadError } from "../../log/log.ts"
import { TokenRefused } from "../../log/token-start.ts"
import { positionAt } from "../../runner/in-append-order.ts"
import { startAtToken } from "../../runner/start-at-token.ts"
import { Problem } from "../http/problem.ts"
import { isToken, tokenProblem } from "../http/token.ts"
import { answerOf, readProblem } from "./problems.ts"
import { counted } from "../../text/counted.ts"
import { dateOf } from "../../text/moment.ts"

/** The position of an HTTP stream in its topic: for each partition, the position that comes next. */
export type StreamPositions = Array<Position>

/** The id of a record: a client that resumes with it continues after that record, in every partition. */
export const streamId = (vector: Readonly<StreamPositions>): string => vector.join(".")

/** Parses an id. Undefined if it is not an id, or has another number of partitions. */
export const parseStreamId = (id: string, partitions: number): StreamPositions | undefined => {
  if (!/^\d{1,15}(\.\d{1,15})*$/.test(id)) return undefined
  const vector = id.split(".").map(Number)
  return vector.length === partitions ? vector : undefined
}

/** The moment that a text names, in epoch milliseconds: a date, or a date and a time with its zone. Undefined for any other text. */
export const timeOf = (text: string): number | undefined => {
  if (!/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d))?$/.test(text)) return undefined
  return dateOf(text)
}

/** What finds positions in a log. */
export interface LogParts {
  readonly log: Log["Service"]
  readonly context: Context.Context<never>
}
/** What finds where a stream begins. */
export interface BeginningParts extends LogParts {
  /** The topics that the stream's topic is derived from. */
  readonly derivedFrom: ReadonlySet<string>
  /** How long a stream waits for a token that the log does not have yet. */
  readonly waitMs: number
  readonly isGone: () => boolean
}

/** In each partition, the position of the first record that the log stored at a time or later. Rejects with a `Problem` 410 or 503. */
export const storedSince = async (
  time: number,
  bounds: ReadonlyArray<PartitionBounds>,
  topic: string,
  { context, log }: LogParts
): Promise<StreamPositions> => {
  const found = Effect.forEach(
    bounds,
    ({ end, partition, start }) => positionAt(log, { topic, partition, from: start, to: end }, time),
    { concurrency: 4 }
  )
  return answerOf(context, found, readProblem)
}

/**
 * Where a stream begins: `latest`, `earliest`, an id, the first records that the log stored at a time or later, or what follows a position
 * token (see `startAtToken`). Rejects with a `Problem` 400, 410 or 504.
 */
export const beginning = async (
  asked: string,
  bounds: ReadonlyArray<PartitionBounds>,
  topic: string,
  { context, derivedFrom, isGone, log, waitMs }: BeginningParts
): Promise<StreamPositions> => {
  if (asked === "latest") return bounds.map(({ end }) => end)
  if (asked === "earliest") return bounds.map(({ start }) => start)
  const time = timeOf(asked)
  if (time !== undefined) return storedSince(time, bounds, topic, { context, log })
  if (isToken(asked)) {
    const found = startAtToken(log, { token: asked, topic, derivedFrom, waitMs, isGone })
    const problemOf = (error: TokenRefused | ReadError) =>
      error instanceof TokenRefused ? tokenProblem(error) : readProblem(error)
    return [...(await answerOf(context, found, problemOf))]
  }
  const vector = parseStreamId(asked, bounds.length)
  if (vector === undefined) {
    const message = `${JSON.stringify(asked)} is not a position in ${topic}, which has ${counted(bounds.length, "partition")}`
    throw new Problem(
      400,
      "invalid_parameter",
      message,
      "use from=latest, from=earliest, the id of a record of this stream, a position token, or a time such as from=2026-01-31T12:00:00Z"
    )
  }
  for (const { end, partition, start } of bounds) {
    const position = vector[partition]!
    if (position >= start && position <= end) continue
    const message = `partition ${partition} of ${topic} has positions ${start} to ${end}, but the stream was at position ${position}`
    throw new Problem(
      410,
      "position_gone",
      message,
      "start again with from=earliest or from=latest, without Last-Event-ID"
    )
  }
  return vector
}
