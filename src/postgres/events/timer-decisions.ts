// What people see of and decide about timers and commands that wait: the queries of `millrace timers`.
import { timerChannel } from "./timers.ts"
import { query, type Session, type Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"

/** A timer or a sent command that waits, as `millrace timers list --json` prints it. */
export interface ListedTimer {
  /** A UUID: the id of the timer, and of its command. */
  readonly id: string
  readonly state: "waiting" | "due" | "failing"
  readonly projection: string
  /** The name of the timer; null: the command was sent at once. */
  readonly timer: string | null
  /** The key of the event that set it. */
  readonly key: string
  readonly aggregate: string
  readonly stream: string
  readonly command: Readonly<Record<string, unknown>>
  /** ISO 8601. */
  readonly due: string
  readonly next_try: string
  /** How often it failed, and why the last time. */
  readonly failures: number
  readonly reason: string | null
}
/** Which timers are meant: those that fit all that is given. An id that is no UUID fits none. */
export interface TimerSelection {
  readonly ids: ReadonlyArray<string>
  readonly projection: string | undefined
  readonly aggregate: string | undefined
  /** Only those that failed and are tried again. */
  readonly failing: boolean
}

const chosen = `(cardinality($1::text[]) = 0 or timer_id::text = any($1::text[])) and ($2::text is null or projection = $2::text)
  and ($3::text is null or aggregate = $3::text) and (not $4::boolean or failed is not null)`
const parametersOf = ({ aggregate, failing, ids, projection }: TimerSelection) => [
  arrayOf(ids.map((id) => id.toLowerCase())),
  projection ?? null,
  aggregate ?? null,
  failing
]

/** Timers that wait, the next one first, at most `limit`. */
export const listTimers = (sql: Sql, selection: TimerSelection, limit: number) =>
  query("list timers", () =>
    sql.unsafe<Array<ListedTimer>>(
      `select timer_id::text as id, case when failed is not null then 'failing' when due <= now() then 'due' else 'waiting' end as state,
        projection, name as timer, key, aggregate, stream, command::jsonb as command,
        to_char(due at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as due,
        to_char(next_try at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as next_try, attempts as failures, failed as reason
      from millrace.timer where ${chosen} order by timer.due, timer_id limit $5::int4`,
      [...parametersOf(selection), limit]
    )
  )
/** Tries timers that failed at once, and those that wait behind them in their order. Returns the ids of those that failed. */
export const retryTimers = (sql: Sql, selection: TimerSelection) =>
  query("retry timers", async () => {
    const rows = await sql.unsafe<Array<{ readonly id: string }>>(
      `with chosen as (select timer_id, line from millrace.timer where ${chosen} and failed is not null), changed as (
        update millrace.timer t set next_try = now() from chosen c where t.timer_id = c.timer_id or t.line = c.line
      ), told as (select pg_notify('${timerChannel}', '') from chosen limit 1)
      select timer_id::text as id from chosen left join told on true`,
      parametersOf(selection)
    )
    return rows.map(({ id }) => id)
  })
/** Deletes timers, whose commands are then never executed. One that is being executed fires, or is deleted: not both. Returns the ids. */
export const discardTimers = (sql: Sql, selection: TimerSelection) =>
  query("discard timers", async () => {
    const rows = await sql.unsafe<Array<{ readonly id: string }>>(
      `with gone as (delete from millrace.timer where ${chosen} returning timer_id),
        told as (select pg_notify('${timerChannel}', '') from gone limit 1)
      select timer_id::text as id from gone left join told on true`,
      parametersOf(selection)
    )
    return rows.map(({ id }) => id)
  })

/** How many timers and commands of a projection wait. */
export const countTimersOf = (sql: Sql, projection: string) =>
  query("count the timers of a projection", async () => {
    const [row] = await sql<Array<{ readonly n: number }>>`
      select count(*)::int8 as n from millrace.timer where projection = ${projection}`
    return Number(row!.n)
  })
/** Deletes all timers and commands of a projection that wait, in the transaction of the caller. Returns how many. */
export const deleteTimersOf = (tx: Session, projection: string) =>
  query("delete the timers of a projection", async () => {
    const rows = await tx`delete from millrace.timer where projection = ${projection} returning 1`
    return rows.length
  })
