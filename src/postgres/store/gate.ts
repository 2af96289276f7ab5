// The gate: public views that show the old or the new build by the row of `millrace.live`, so that a promotion changes one row and no view. It is
// opened before the switch and closed once no reader can see the old build any more.
//
// A catalog has no snapshot: a repeatable read transaction that began before the switch would read the new build, as it was then, through a view that
// was replaced meanwhile. So views are replaced only while that changes nothing for any reader.
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { query, session, type Session, type Sql, SqlError, transaction } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import { lockProjections } from "./builds.ts"
import { type GateHolder, type GateState, holdersText, type OpenGate } from "./gate-holders.ts"
import { isGateOpen, planViews, refusalText, type ViewPlan, showsOnly } from "./view-plan.ts"
import { executePlan, readViewFacts, type ViewsRefused } from "./views.ts"

/** The views could not be locked in time: these sessions use them in open transactions. Nothing was changed. */
export class GateBusy extends Data.TaggedError("GateBusy")<{
  readonly projection: string
  readonly holders: ReadonlyArray<GateHolder>
}> {
  override get message() {
    return `the views of projection ${this.projection} are in use by ${holdersText(this.holders)}`
  }
}
/** Another process promotes the projection. */
export class PromotionUnderWay extends Data.TaggedError("PromotionUnderWay")<{
  readonly projection: string
  readonly pid: number | undefined
}> {
  override get message() {
    const { pid, projection } = this
    return `another process promotes projection ${projection}${pid === undefined ? "" : ` (PostgreSQL's session ${pid})`}`
  }
}

// an arbitrary number that other programs are unlikely to use; the second key is a hash of the projection's name
const promotionLock = 721_651_301

/**
 * Opens a session that holds the right to promote a projection until the scope closes or the session is lost. While it is held, no other process
 * closes the projection's gate: so the switch has to be a statement of this session. Fails with `PromotionUnderWay`.
 */
export const promotionSession = Effect.fnUntraced(function* (
  sql: Sql,
  projection: string
): Effect.fn.Return<Session, SqlError | PromotionUnderWay, Scope.Scope> {
  const own = yield* session(sql)
  const [row] = yield* query(
    "lock the promotion",
    () => own<Array<{ readonly locked: boolean; readonly pid: number | null }>>`
      select pg_try_advisory_lock(${promotionLock}, hashtext(${projection})) as locked, (
        select l.pid from pg_locks l where l.locktype = 'advisory' and l.granted and l.classid::int8 = ${promotionLock}
          and l.objid::int8 = (hashtext(${projection})::int8 & 4294967295)
          and l.database = (select oid from pg_database where datname = current_database()) limit 1) as pid`
  )
  if (row?.locked === true) return own
  return yield* new PromotionUnderWay({ projection, pid: row?.pid ?? undefined })
})

/** How long a change of all views of a projection may wait for readers, while others wait behind it, in milliseconds. */
const lockMs = 50
/** Executes a plan, and gives up soon if readers hold a view. The views are locked in the order of their names. */
const changeViews = Effect.fnUntraced(function* (tx: Session, projection: string, plan: ViewPlan) {
  const ms = Math.max(10, Math.ceil(lockMs / Math.max(1, plan.statements.length)))
  yield* query("limit the wait for readers", () => tx.unsafe(`set local lock_timeout = ${ms}`))
  yield* executePlan(tx, projection, plan)
})
/** Limits the wait for locks to the time until the deadline of `performance.now()`; at least 200 ms. */
const limitLocks = (tx: Session, deadline: number) =>
  query("limit the wait for other processes", () =>
    tx.unsafe(`set local lock_timeout = ${Math.max(leastLockMs, Math.ceil(deadline - performance.now()))}`)
  )
const leastLockMs = 200
const isLocked = (error: SqlError | ViewsRefused) =>
  error._tag === "SqlError" && (error.code === "55P03" || error.code === "40P01")

/** Tries again after pauses that grow, until the deadline of `performance.now()`. Undefined if the views were locked until then. */
const untilFree = Effect.fnUntraced(function* <A>(
  deadline: number,
  change: Effect.Effect<A | undefined, SqlError | ViewsRefused>
): Effect.fn.Return<A | undefined, SqlError | ViewsRefused> {
  for (let pauseMs = 20; ; pauseMs = Math.min(400, pauseMs * 1.5)) {
    const done = yield* Effect.catchIf(change, isLocked, () => Effect.undefined)
    if (done !== undefined) return done
    const left = deadline - performance.now()
    if (left <= 0) return undefined
    yield* Effect.sleep(Math.min(left, pauseMs * (0.5 + Math.random())))
  }
})

/** Two builds between which a gate is. */
export interface GateBuilds {
  /** The build that is live when the gate is opened. */
  readonly live: number
  /** The build that is to replace it. */
  readonly next: number
}
/**
 * Opens the gate between two builds: afterwards the views show the one that is live. Changes nothing for readers. Fails with `ViewsRefused` where the
 * columns of the builds cannot be shown in one view, and with `GateBusy` if readers hold the views, or need the gate of an earlier promotion, until
 * the deadline of `performance.now()`.
 */
export const openGate = Effect.fnUntraced(function* (
  sql: Sql,
  projection: string,
  { live, next }: GateBuilds,
  deadline: number
): Effect.fn.Return<ViewPlan, SqlError | ViewsRefused | GateBusy> {
  let holders: ReadonlyArray<GateHolder> = []
  const open = transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      holders = []
      yield* limitLocks(tx, deadline)
      yield* lockProjections(tx)
      const facts = yield* readViewFacts(tx, projection)
      const plan = planViews(facts, { build: next, other: live })
      if (isGateOpen(facts, [live, next])) return plan
      // a reader of a third build, which an earlier gate shows, would see nothing
      if (!showsOnly(facts, live)) holders = yield* readSnapshotHolders(tx, projection)
      if (holders.length > 0) return undefined
      yield* changeViews(tx, projection, plan)
      return plan
    })
  )
  const opened = yield* untilFree(deadline, open)
  if (opened !== undefined) return opened
  return yield* new GateBusy({
    projection,
    holders: holders.length > 0 ? holders : yield* readViewHolders(sql, projection)
  })
})

/**
 * Closes the gate of a projection if it is open: its views then show the live build alone. Waits until no snapshot is older than the last
 * switch, and until no reader holds the views, at most until the deadline of `performance.now()`; otherwise the gate stays open, which harms no reader.
 * Does nothing while another process promotes the projection. Also undoes the gate of a promoter that ended before the switch.
 */
export const closeGate = Effect.fnUntraced(function* (
  sql: Sql,
  projection: string,
  deadline: number
): Effect.fn.Return<GateState, SqlError | ViewsRefused> {
  let holders: ReadonlyArray<GateHolder> = []
  const close = transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      holders = []
      if (!(yield* mayClose(tx, projection))) return undefined
      yield* limitLocks(tx, deadline)
      yield* lockProjections(tx)
      const facts = yield* readViewFacts(tx, projection)
      const build = yield* readLive(tx, projection)
      if (build === undefined || showsOnly(facts, build)) return true
      holders = yield* readSnapshotHolders(tx, projection)
      if (holders.length > 0) return undefined
      yield* changeViews(tx, projection, planViews(facts, { build }))
      return true
    })
  )
  const closed = yield* untilFree(deadline, close)
  if (closed !== undefined) return { isClosed: true, holders: [] }
  return { isClosed: false, holders: holders.length > 0 ? holders : yield* readViewHolders(sql, projection) }
})

/** Whether no process promotes the projection; none can begin to until the transaction has ended. */
const mayClose = (tx: Session, projection: string) =>
  query("look for promotions", async () => {
    const [row] = await tx<Array<{ readonly locked: boolean }>>`
      select pg_try_advisory_xact_lock(${promotionLock}, hashtext(${projection})) as locked`
    return row?.locked === true
  })
const readLive = (sql: Sql | Session, projection: string) =>
  query("read the live build", async () => {
    const [row] = await sql.unsafe<Array<{ readonly version: number }>>(
      "select version from millrace.live where projection = $1",
      [projection]
    )
    return row?.version
  })

/** The gates that are open, with who keeps each from being closed. */
export const readOpenGates = Effect.fnUntraced(function* (
  sql: Sql
): Effect.fn.Return<ReadonlyArray<OpenGate>, SqlError> {
  const gates: Array<OpenGate> = []
  for (const projection of yield* readGated(sql)) {
    const build = yield* readLive(sql, projection)
    const facts = yield* readViewFacts(sql, projection)
    if (build === undefined || showsOnly(facts, build)) continue
    const { refusals } = planViews(facts, { build })
    const refusal = refusals.length === 0 ? undefined : refusalText(refusals)
    const old = yield* readSnapshotHolders(sql, projection)
    const holders = old.length > 0 ? old : yield* readViewHolders(sql, projection)
    gates.push({ projection, isClosed: false, holders, refusal })
  }
  return gates
})
/**
 * Closes the gates that promotions have left open, where that is possible now. A gate whose views are refused stays open, with its reason in
 * `readOpenGates`. Returns the projections whose gates were closed.
 */
export const closeGates = Effect.fnUntraced(function* (sql: Sql): Effect.fn.Return<ReadonlyArray<string>, SqlError> {
  const closed: Array<string> = []
  for (const projection of yield* readGated(sql)) {
    const build = yield* readLive(sql, projection)
    if (build === undefined || showsOnly(yield* readViewFacts(sql, projection), build)) continue
    const { isClosed } = yield* closeGate(sql, projection, performance.now()).pipe(
      Effect.catchTag("ViewsRefused", () => Effect.succeed({ isClosed: false }))
    )
    if (isClosed) closed.push(projection)
  }
  return closed
})
/** The projections that have a view with a gate, also one that stays so because its read model is gone. */
const readGated = (sql: Sql) =>
  query("look for gates", async () => {
    const rows = await sql.unsafe<Array<{ readonly projection: string }>>(
      `select l.projection from millrace.live l where exists (
        select from pg_depend d join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
        join pg_depend o on o.classid = d.classid and o.objid = d.objid and o.refclassid = 'pg_class'::regclass
        join pg_class t on t.oid = o.refobjid join pg_namespace n on n.oid = t.relnamespace
        where d.refclassid = 'pg_class'::regclass and d.refobjid = 'millrace.live'::regclass
          and starts_with(n.nspname, l.projection || '_v') and substr(n.nspname, length(l.projection) + 3) ~ '^[0-9]{1,6}$')
      order by 1`
    )
    return rows.map(({ projection }) => projection)
  })

/**
 * Who may have a snapshot from before the last switch of a projection. $1: the projection. A row's `backend_xmin` is visible to every role, when its
 * transaction began only to itself and to pg_read_all_stats. A walsender, or the slot of a standby with hot_standby_feedback, holds what the standby's
 * readers hold. A database that was copied to another server has no old snapshots there.
 */
const snapshotHoldersSql = `
with switch as (
  select xid from millrace.promotion where projection = $1
    and xid < pg_snapshot_xmax(pg_current_snapshot())
    and (pg_snapshot_xmax(pg_current_snapshot())::text::int8 - xid::text::int8) < 2000000000
  order by at desc limit 1
),
old as (select age(xid::xid) as age from switch)
select case when a.datid is null or a.datid = 0 then 'standby' else 'session' end as kind, a.pid, a.usename::text as user,
  a.application_name as name, (extract(epoch from clock_timestamp() - a.xact_start) * 1000)::float8 as "sinceMs"
from pg_stat_activity a, old
where a.backend_xmin is not null and a.pid <> pg_backend_pid() and a.usesysid is not null and age(a.backend_xmin) >= old.age
  and (a.datname = current_database() or a.datid is null or a.datid = 0)
union all
select 'prepared transaction', null, p.owner::text, p.gid, (extract(epoch from clock_timestamp() - p.prepared) * 1000)::float8
from pg_prepared_xacts p, old where p.database = current_database() and age(p.transaction) >= old.age
union all
select 'standby', s.active_pid, null, s.slot_name::text, null from pg_replication_slots s, old where s.xmin is not null and age(s.xmin) >= old.age
order by 5 desc nulls last, 2`
const readSnapshotHolders = (sql: Sql | Session, projection: string) =>
  query("look for old snapshots", () => sql.unsafe<Array<GateHolder>>(snapshotHoldersSql, [projection]))

/** Who holds locks on the views of a projection. */
const readViewHolders = Effect.fnUntraced(function* (sql: Sql, projection: string) {
  const { views } = yield* readViewFacts(sql, projection)
  const names = arrayOf(views.map(({ name }) => name))
  return yield* query("look who uses the views", () =>
    sql.unsafe<Array<GateHolder>>(
      `select 'session' as kind, a.pid, a.usename::text as user, a.application_name as name,
        (extract(epoch from clock_timestamp() - min(a.xact_start)) * 1000)::float8 as "sinceMs"
      from pg_locks l join pg_class c on c.oid = l.relation and c.relnamespace = 'public'::regnamespace
      join pg_stat_activity a on a.pid = l.pid
      where l.locktype = 'relation' and l.granted and l.database = (select oid from pg_database where datname = current_database())
        and c.relname = any($1::text[]) and l.pid <> pg_backend_pid()
      group by a.pid, a.usename, a.application_name order by 5 desc nulls last, 2`,
      [names]
    )
  )
})
