// Timers on PostgreSQL: the table `millrace.timer`, which commits of projections write. Workers share it by leases on its rows.
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import { type DueCommand, leaseMs as defaultLeaseMs, Timers, TimersError } from "../../aggregate/timers.ts"
import { storable } from "../../text/text.ts"
import { answered } from "../client/answer.ts"
import { query, type Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { retrying } from "../client/retrying.ts"
import { answerMs, patienceMs } from "./errors.ts"

/** The channel of notifications after commits with commands that are due soon. */
export const timerChannel = "millrace_timer"
/** How many commands of a line are claimed with its first one, that one included. */
const ofLine = 50

interface DueRow {
  readonly timer_id: string
  readonly projection: string
  readonly name: string | null
  readonly line: string | null
  readonly position: number
  readonly number: number
  readonly aggregate: string
  readonly stream: string
  readonly command: string
  readonly attempts: number
  readonly tenant: string | null
  readonly traceparent: string | null
  readonly correlation_id: string
  readonly causation_id: string
}
const dueOf = (row: DueRow): DueCommand => ({
  id: row.timer_id,
  projection: row.projection,
  timer: row.name ?? undefined,
  line: row.line ?? undefined,
  aggregate: row.aggregate,
  stream: row.stream,
  command: row.command,
  failures: row.attempts,
  tenant: row.tenant ?? undefined,
  traceparent: row.traceparent ?? undefined,
  correlationId: row.correlation_id,
  causationId: row.causation_id
})
/** The first command of its line, or one that is in none. A command behind another one waits until that is gone, whoever claims it. */
const isFirst = `(t.line is null or not exists (select from millrace.timer e
  where e.line = t.line and (e.position, e.number) < (t.position, t.number)))`
/**
 * The statement that claims commands, at most `$1`. Rows that another worker's claim has locked are skipped: waiting for them would only find them
 * claimed.
 */
export const claimText = (leaseMs: number) => `with first as materialized (
    select t.timer_id, t.line from millrace.timer t where t.next_try <= now() and ${isFirst}
    order by t.next_try limit $1::int4 for update of t skip locked
  ), taken as materialized (
    select timer_id from first where line is null
    union all
    select n.timer_id from first f cross join lateral (
      select timer_id from millrace.timer n where n.line = f.line order by position, number limit ${ofLine}) n
  )
  update millrace.timer t set next_try = now() + interval '${leaseMs} ms' from taken where t.timer_id = taken.timer_id
  returning t.timer_id, t.projection, t.name, t.line, t.position, t.number, t.aggregate, t.stream, t.command, t.attempts, t.tenant,
    t.traceparent, t.correlation_id, t.causation_id`
const nextText = `select (extract(epoch from min(t.next_try) - clock_timestamp()) * 1000)::float8 as ms from millrace.timer t where ${isFirst}`
const postponeText = `update millrace.timer set next_try = clock_timestamp() + $2::float8 * interval '1 ms',
    attempts = attempts + case when timer_id = $3::uuid then 1 else 0 end,
    failed = case when timer_id = $3::uuid then $4::text else failed end,
    failing_since = case when timer_id = $3::uuid then coalesce(failing_since, clock_timestamp()) else failing_since end
  where timer_id = any ($1::uuid[])`

/** The timers over a pool of connections. `leaseMs`: how long a claim lasts. */
export const make = (sql: Sql, leaseMs = defaultLeaseMs): Timers["Service"] => {
  const run = <A>(operation: TimersError["operation"], statement: () => PromiseLike<A>) =>
    // a claim whose reply was lost is made again when its lease ends
    retrying(
      query(operation, () => answered(statement(), answerMs)),
      { forMs: patienceMs }
    ).pipe(Effect.mapError((cause) => new TimersError({ operation, reason: cause.reason, cause })))
  const send = <Row extends object>(text: string, parameters: Array<string | number | null>) =>
    sql.unsafe<Array<Row>>(text, parameters, { prepare: true })
  return Timers.of({
    claim: (most) =>
      run("claim", () => send<DueRow>(claimText(leaseMs), [most])).pipe(
        Effect.map((rows) => rows.toSorted((a, b) => a.position - b.position || a.number - b.number).map(dueOf))
      ),
    remove: (id) => Effect.asVoid(run("remove", () => sql`delete from millrace.timer where timer_id = ${id}`)),
    postpone: (ids, ms, failure) =>
      Effect.asVoid(
        run("postpone", () =>
          send(postponeText, [
            arrayOf(ids),
            ms,
            failure === undefined ? null : (ids[0] ?? null),
            failure === undefined ? null : storable(failure)
          ])
        )
      ),
    nextMs: run("next", () => send<{ readonly ms: number | null }>(nextText, [])).pipe(
      Effect.map(([row]) => row?.ms ?? undefined)
    ),
    signals: Effect.gen(function* () {
      const signals = yield* Queue.sliding<void>(1)
      const signal = () => void Queue.offerUnsafe(signals, undefined)
      yield* Effect.acquireRelease(
        // also called after a reconnect, because notifications in between are lost
        run("listen", () => sql.listen(timerChannel, signal, signal)),
        ({ unlisten }) => Effect.ignore(run("listen", unlisten))
      )
      return Queue.take(signals)
    })
  })
}
