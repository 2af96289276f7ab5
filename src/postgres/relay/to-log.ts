// The relay target on PostgreSQL: copies segments of the outbox into the log, within the server.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { overtaken } from "../../relay/outbox.ts"
import type { StreamHalt, RelayError, RelayTarget, RelayRound } from "../../relay/target.ts"
import type { Sql } from "../client/client.ts"
import { notifyEnds } from "../log/notify.ts"
import * as Statement from "./to-log-sql.ts"
import { signalsOf } from "./outbox.ts"
import * as Outbox from "./outbox-sql.ts"
import { splitSegment } from "./to-log-by-key.ts"

/** The name of this target. */
export const embedded = "embedded"
export { outboxChannel } from "./outbox.ts"
import { counted } from "../../text/counted.ts"

/** Limits of a round, and a callback. */
export interface LogTargetOptions {
  /** How many segments of one stream a round copies at most. Default 32. */
  readonly segments?: number
  /** How many bytes of values a round copies at most; it may exceed them by one segment. Default 8 MiB. */
  readonly bytes?: number
  /** Called for each partition that grew, before other processes are notified, to wake readers of this process at once. */
  readonly appended?: (topicId: number, partition: number, end: number) => void
}

const run = Outbox.queryFor(embedded)

const haltReason = ({
  first_seq,
  messages,
  partitions,
  seq,
  stop,
  target,
  target_partition
}: Statement.CopyRow): string => {
  switch (stop) {
    case "position":
      return `message ${seq} was the last one published, but the outbox has another one there, or none: the database was restored to another state`
    case "gap":
      return `message ${seq + messages + 1} should be next, but the outbox goes on with ${first_seq}: messages were deleted from it`
    case "topic":
      return `the topic ${target} does not exist; declare it in an application and run 'millrace migrate'`
    default:
      return `${target} has ${counted(partitions ?? 0, "partition")}, but message ${first_seq} is for partition ${target_partition}: the topic was recreated with fewer partitions`
  }
}

type CopyLimits = Required<Pick<LogTargetOptions, "bytes" | "segments">>

/** How often new streams are looked for at least, in milliseconds; they also are whenever the known ones have nothing to copy. */
const discoverMs = 100
/** How often positions are compared with what was committed, in milliseconds. */
const compareMs = 1_000

/** Copies what follows the positions of streams, also of new ones when it is time to look for them. */
const makeCopy = (sql: Sql, limits: CopyLimits) => {
  let discovered = -Infinity
  const copy = () => Statement.copySegments(sql, embedded, limits)
  return async (): Promise<ReadonlyArray<Statement.CopyRow>> => {
    const due = performance.now() > discovered + discoverMs
    if (!due) {
      const rows = await copy()
      if (rows.length > 0) return rows
    }
    const count = await Outbox.startStreams(sql, embedded)
    discovered = performance.now()
    return due || count > 0 ? await copy() : []
  }
}

/** Looks now and then which streams are `overtaken`. */
const makeComparison = (sql: Sql) => {
  let due = -Infinity
  let halted: ReadonlyArray<StreamHalt> = []
  return async (): Promise<ReadonlyArray<StreamHalt>> => {
    if (performance.now() < due) return halted
    const found: Array<StreamHalt> = []
    const marks: Array<Statement.HaltMark> = []
    for (const position of await Outbox.positions(sql, embedded)) {
      const { partition, projection, seq, source } = position
      const reason = overtaken(position)
      if (reason === undefined) continue
      found.push({ projection, source, partition, reason })
      if (position.halted !== reason) marks.push({ projection, source, partition, seq, reason })
    }
    if (marks.length > 0) await Statement.markHalted(sql, embedded, marks)
    due = performance.now() + compareMs
    return (halted = found)
  }
}

/** One round: copies segments, and then splits those whose messages go to several partitions. */
const copyRound = async (
  sql: Sql,
  copy: () => Promise<ReadonlyArray<Statement.CopyRow>>,
  compare: () => Promise<ReadonlyArray<StreamHalt>>
) => {
  const rows = await copy()
  const ends = [...(rows[0]?.ends ?? [])]
  const halted: Array<StreamHalt> = [...(await compare())]
  const marks: Array<Statement.HaltMark> = []
  let messages = 0
  let more = false
  for (const row of rows) {
    const { partition, projection, source, stop } = row
    messages += row.messages
    more ||= row.more
    if (stop === null) continue
    if (stop === "split") {
      // the segments before it are copied first, in another round if this one ended at its limit
      if (row.more) continue
      const done = await splitSegment(sql, embedded, { projection, source, partition, firstSeq: row.first_seq! })
      if ("damage" in done) {
        const reason = `the segment of message ${row.first_seq} is damaged: ${done.damage}`
        halted.push({ projection, source, partition, reason })
        if (row.halted !== reason) marks.push({ projection, source, partition, seq: row.seq + row.messages, reason })
        continue
      }
      messages += done.messages
      ends.push(...done.ends)
      more = true
      continue
    }
    if (row.more) continue
    const reason = haltReason(row)
    halted.push({ projection, source, partition, reason })
    if (row.messages > 0 || row.halted !== reason) {
      marks.push({ projection, source, partition, seq: row.seq + row.messages, reason })
    }
  }
  if (marks.length > 0) await Statement.markHalted(sql, embedded, marks)
  return { round: { messages, more, halted } satisfies RelayRound, ends }
}

const wakeReaders = (ends: ReadonlyArray<string>, appended: NonNullable<LogTargetOptions["appended"]>) => {
  for (const end of ends) {
    const [topicId, partition, next] = end.split(/[.=]/)
    appended(Number(topicId), Number(partition), Number(next))
  }
}

/**
 * The target that copies segments into topics of the log on PostgreSQL. One statement copies them and moves the positions, so each
 * message is copied once, whatever fails; several processes may run it. Listens for commits until the scope closes.
 */
export const make = Effect.fnUntraced(function* (
  sql: Sql,
  options: LogTargetOptions = {}
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  const limits = { segments: options.segments ?? 32, bytes: options.bytes ?? 8 << 20 }
  const copy = makeCopy(sql, limits)
  const compare = makeComparison(sql)
  const { signal, wait } = yield* signalsOf(sql, embedded)
  const scope = yield* Effect.scope
  const publish = Effect.gen(function* () {
    const { ends, round } = yield* run("publish", () => copyRound(sql, copy, compare))
    if (options.appended !== undefined) wakeReaders(ends, options.appended)
    // concurrently with the next round, and not in the statement, where it would slow the commit
    if (ends.length > 0) yield* Effect.forkIn(notifyEnds(sql, ends), scope)
    return round
  })
  return {
    name: embedded,
    // a statement that was sent cannot be cancelled, so its outcome is awaited
    publish: Effect.uninterruptible(publish),
    wait,
    lag: run("lag", () => Outbox.lag(sql, embedded)),
    signal
  }
})

/**
 * Deletes published segments older than the retention (in milliseconds, default 24 h), at most `limit` (default 500), and returns their
 * number. Keeps segments that one of `targets`, or another target with positions, does not have, and the last segment of each stream.
 */
export const collect = (
  sql: Sql,
  options: { readonly targets?: ReadonlyArray<string>; readonly retentionMs?: number; readonly limit?: number } = {}
): Effect.Effect<number, RelayError> =>
  run("collect", async () => {
    const { limit = 500, retentionMs = 86_400_000, targets = [embedded] } = options
    return Outbox.collect(sql, targets, retentionMs, limit)
  })
