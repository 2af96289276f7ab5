// The embedded target of the relay: the outbox's segments become records of the log on PostgreSQL, copied within the server.
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { StreamHalt, RelayError, RelayTarget, RelayRound } from "../../relay/target.ts"
import type { Sql } from "../client/client.ts"
import { notifyEnds } from "../log/notify.ts"
import * as Statement from "./to-log-sql.ts"
import { signalsOf } from "./outbox.ts"
import * as Outbox from "./outbox-sql.ts"
import { split } from "./to-log-by-key.ts"

/** The name of the embedded target. */
export const embedded = "embedded"
export { outboxChannel } from "./outbox.ts"

/** How much a round takes, and who is told. */
export interface Options {
  /** Segments of one stream that a round takes at most. Default 32. */
  readonly segments?: number
  /** Bytes of values that a round takes, at least one segment; it may pass them by one. Default 8 MiB. */
  readonly bytes?: number
  /** Told of each partition that grew, before other processes are: to wake readers of this process at once. */
  readonly appended?: (topicId: number, partition: number, end: number) => void
}

const run = Outbox.queryFor(embedded)

const reasonOf = ({
  first_seq,
  messages,
  partitions,
  seq,
  stop,
  target,
  target_partition
}: Statement.ShipRow): string => {
  switch (stop) {
    case "position":
      return `message ${seq} was the last one shipped, and the outbox has another one there, or none: the database was restored to another state`
    case "gap":
      return `message ${seq + messages + 1} should be next, and the outbox goes on with ${first_seq}: something deleted from it`
    case "topic":
      return `there is no topic ${target}: declare it in an application and run 'millrace migrate'`
    default:
      return `${target} has ${partitions} partitions, and message ${first_seq} is for partition ${target_partition}: it was made anew with fewer`
  }
}

type Bounds = Required<Pick<Options, "bytes" | "segments">>

/** New streams are looked for at least this often, in milliseconds, and whenever those that are known have nothing. */
const discoverMs = 100

/** The copy, of new streams too where it is time to look for them. */
const makeCopy = (sql: Sql, bounds: Bounds) => {
  let discovered = -Infinity
  const copy = () => Statement.ship(sql, embedded, bounds)
  return async (): Promise<ReadonlyArray<Statement.ShipRow>> => {
    const due = performance.now() > discovered + discoverMs
    if (!due) {
      const rows = await copy()
      if (rows.length > 0) return rows
    }
    const count = await Outbox.begin(sql, embedded)
    discovered = performance.now()
    return due || count > 0 ? await copy() : []
  }
}

/** One round: the copy, then segments that must be parted. */
const shipRound = async (sql: Sql, copy: () => Promise<ReadonlyArray<Statement.ShipRow>>) => {
  const rows = await copy()
  const ends = [...(rows[0]?.ends ?? [])]
  const halted: Array<StreamHalt> = []
  const marks: Array<Statement.Mark> = []
  let messages = 0
  let more = false
  for (const row of rows) {
    const { partition, projection, source, stop } = row
    messages += row.messages
    more ||= row.more
    if (stop === null) continue
    if (stop === "split") {
      // what stands before it is shipped first, in a further round where this one ended at its bound
      if (row.more) continue
      const done = await split(sql, embedded, { projection, source, partition, firstSeq: row.first_seq! })
      messages += done.messages
      ends.push(...done.ends)
      more = true
      continue
    }
    if (row.more) continue
    const reason = reasonOf(row)
    halted.push({ projection, source, partition, reason })
    if (row.messages > 0 || row.halted !== reason) {
      marks.push({ projection, source, partition, seq: row.seq + row.messages, reason })
    }
  }
  if (marks.length > 0) await Statement.mark(sql, embedded, marks)
  return { shipment: { messages, more, halted } satisfies RelayRound, ends }
}

const wakeOwn = (ends: ReadonlyArray<string>, appended: NonNullable<Options["appended"]>) => {
  for (const end of ends) {
    const [topicId, partition, next] = end.split(/[.=]/)
    appended(Number(topicId), Number(partition), Number(next))
  }
}

/**
 * The target that copies segments into the topics of the log on PostgreSQL: the copy and the position move in one statement, so
 * each message is there once whatever dies, and several processes may run it. Listens until the scope closes.
 */
export const make = Effect.fnUntraced(function* (
  sql: Sql,
  options: Options = {}
): Effect.fn.Return<RelayTarget, RelayError, Scope.Scope> {
  const bounds = { segments: options.segments ?? 32, bytes: options.bytes ?? 8 << 20 }
  const copy = makeCopy(sql, bounds)
  const { signal, wait } = yield* signalsOf(sql, embedded)
  const scope = yield* Effect.scope
  const ship = Effect.gen(function* () {
    const { ends, shipment } = yield* run("publish", () => shipRound(sql, copy))
    if (options.appended !== undefined) wakeOwn(ends, options.appended)
    // beside the next round; not in the statement: that would cost its commit more
    if (ends.length > 0) yield* Effect.forkIn(notifyEnds(sql, ends), scope)
    return shipment
  })
  return {
    name: embedded,
    // a statement that was sent cannot be taken back; its outcome is worth knowing
    publish: Effect.uninterruptible(ship),
    wait,
    lag: run("lag", () => Outbox.lag(sql, embedded)),
    signal
  }
})

/**
 * Deletes shipped segments older than the retention (milliseconds, default 24 h), at most `limit` (default 500), and returns how
 * many. Keeps what one of `targets`, or one that has positions already, lacks, and the last segment of each stream.
 */
export const collect = (
  sql: Sql,
  options: { readonly targets?: ReadonlyArray<string>; readonly retentionMs?: number; readonly limit?: number } = {}
): Effect.Effect<number, RelayError> =>
  run("collect", async () => {
    const { limit = 500, retentionMs = 86_400_000, targets = [embedded] } = options
    return Outbox.collect(sql, targets, retentionMs, limit)
  })
