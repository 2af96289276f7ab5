// How far everything has come: positions against the log's ends, relays against the outbox, and what stands still and why. It changes nothing.
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type Bounds, type Log, OutOfRange, type ReadError } from "../log/log.ts"
import { query, type Sql, type SqlError } from "../postgres/client/client.ts"
import { arrayOf } from "../postgres/client/columns.ts"

/** How far everything has come, as `status` prints it. */
export interface Status {
  readonly healthy: boolean
  readonly projections: ReadonlyArray<{
    readonly name: string
    readonly version: number
    readonly topic: string
    readonly partition: number
    readonly position: number
    readonly end: number
    readonly lag: number
    readonly epoch: number
    readonly stream_time: number | null
    readonly mode: string
    /** Why it stands still: as its runner wrote down, or as the log tells where no runner has seen it yet. */
    readonly halted: string | null
  }>
  readonly relays: ReadonlyArray<{ readonly target: string; readonly lag: number; readonly halted: string | null }>
  readonly dead_letters: number
  /** Messages that relays parked, for the target refuses them. */
  readonly parked_messages: number
}
type Place = Status["projections"][number]
/** A place as the database has it. `quiet`: nothing was committed for as long as `stalledMs`. */
type Row = Omit<Place, "end" | "lag"> & { readonly quiet: boolean }

/** Lagging this long without a commit is not healthy: nothing works on it. Milliseconds. */
const stalledMs = 60_000
/** Questions to the log that are under way at once. */
const concurrency = 16

const rowsOf = (sql: Sql) =>
  query(
    "read positions",
    () => sql<Array<Row>>`
      select g.projection as name, g.version, g.topic, g.partition, g.next_position as position, g.epoch, g.stream_time, g.mode, g.halted,
        coalesce(g.committed_at, 'epoch') < now() - ${stalledMs}::float8 * interval '1 millisecond' as quiet
      from millrace.progress g order by 1, 2, 3, 4`
  )
const relaysOf = (sql: Sql, targets: ReadonlyArray<string>) =>
  query(
    "read relays",
    () => sql<Array<Status["relays"][number]>>`
      select target, coalesce(sum(greatest(lag, 0)), 0)::int8 as lag, string_agg(distinct halted, '; ') as halted from (
        select t.target, (select max(o.outbox_seq) from millrace.progress o where o.projection = s.projection
            and o.topic = s.topic and o.partition = s.partition) - coalesce(r.seq, 0) as lag, r.halted
        from unnest(${arrayOf(targets)}::text[]) as t(target)
        cross join (select distinct projection, topic, partition from millrace.progress) s
        left join millrace.relay_position r on r.target = t.target and r.projection = s.projection and r.source = s.topic
          and r.partition = s.partition
      ) lanes group by target order by target`
  )

/** The topic's bounds, or why it has none. */
const boundsOf = (log: Log["Service"], topic: string) =>
  Effect.catchTag(log.bounds(topic), "UnknownTopic", (error) => Effect.succeed(error.message))

/** Whether a record waits for longer than `stalledMs`, and nothing was committed meanwhile. */
const isStalled = Effect.fnUntraced(function* (log: Log["Service"], { lag, partition, position, topic }: Place) {
  if (lag === 0) return false
  const { records } = yield* log.read(topic, partition, position, { maxBytes: 1 })
  const waits = records[0]
  return waits !== undefined && waits.appendedAt < (yield* Clock.currentTimeMillis) - stalledMs
})

const placeOf = ({ quiet: _, ...row }: Row, bounds: ReadonlyArray<Bounds> | string): Place => {
  const { halted, partition, position, topic } = row
  const still = (reason: string): Place => ({ ...row, end: position, lag: 0, halted: halted ?? reason })
  if (typeof bounds === "string") return still(bounds)
  const found = bounds.find((other) => other.partition === partition)
  if (found === undefined) return still(`${topic}/${partition}: the log has no such partition any more`)
  const { end, start } = found
  const reason =
    position < start || position > end ? new OutOfRange({ topic, partition, position, start, end }).message : null
  return { ...row, end, lag: Math.max(0, end - position), halted: halted ?? reason }
}

/**
 * Reads the status. `targets` are the names of the relays' targets. Positions are read before the log's ends and before the relays, so
 * what shows no lag has none. Fails where the database or the log does not answer.
 */
export const readStatus = Effect.fnUntraced(function* (
  sql: Sql,
  log: Log["Service"],
  targets: ReadonlyArray<string>
): Effect.fn.Return<Status, SqlError | ReadError> {
  const rows = yield* rowsOf(sql)
  const topics = [...new Set(rows.map(({ topic }) => topic))]
  const bounds = new Map(
    yield* Effect.forEach(topics, (topic) => Effect.map(boundsOf(log, topic), (found) => [topic, found] as const), {
      concurrency
    })
  )
  const relays = yield* relaysOf(sql, targets)
  const [dead] = yield* query(
    "count dead letters",
    () =>
      sql<Array<{ letters: number; messages: number }>>`
        select (select count(*) from millrace.dead_letters where status in ('parked', 'retrying')) as letters,
          (select count(*) from millrace.relay_parked where status in ('parked', 'retrying')) as messages`
  )
  const projections = rows.map((row) => placeOf(row, bounds.get(row.topic)!))
  const suspects = projections.filter(({ halted }, i) => rows[i]!.quiet && halted === null)
  const stalled = yield* Effect.forEach(suspects, (place) => isStalled(log, place), { concurrency })
  const healthy =
    projections.every(({ halted }) => halted === null) &&
    relays.every(({ halted }) => halted === null) &&
    !stalled.includes(true)
  const { letters, messages } = dead!
  return { healthy, projections, relays: [...relays], dead_letters: letters, parked_messages: messages }
})
