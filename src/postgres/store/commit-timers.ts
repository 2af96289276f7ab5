// The parts of a commit statement that write `millrace.timer`: commands that are sent, and timers that are set and cancelled.
import { type CommandChanges, lineOf, slotOf } from "../../runner/commands.ts"
import { storable } from "../../text/text.ts"
import type { Parameter, PartitionCommit, StatementParts } from "./commit-parts.ts"

const columns = [
  ["part", "int4"],
  ["timer_id", "uuid"],
  ["slot", "uuid"],
  ["line", "uuid"],
  ["position", "int8"],
  ["number", "int4"],
  ["key", "text"],
  ["name", "text"],
  // epoch milliseconds; null: at once
  ["at", "float8"],
  // milliseconds after the commit
  ["after", "float8"],
  ["aggregate", "text"],
  ["stream", "text"],
  ["command", "text"],
  ["tenant", "text"],
  ["traceparent", "text"],
  ["correlation_id", "text"],
  ["causation_id", "text"]
] as const
const slotColumns = [
  ["part", "int4"],
  ["slot", "uuid"]
] as const

const none: CommandChanges = { pending: [], cancelled: [] }
/** Every timer that a commit sets or cancels. */
export const slotsOf = (
  { projection }: PartitionCommit["claim"],
  { cancelled, pending }: CommandChanges
): ReadonlyArray<string> => [
  ...pending.flatMap(({ key, timer }) => (timer === undefined ? [] : [slotOf(projection, { key, name: timer.name })])),
  ...cancelled.map((name) => slotOf(projection, name))
]
const rowsOf = ({ changes: { commands = none }, claim }: PartitionCommit, part: number, isTimer: boolean) =>
  commands.pending
    .filter(({ timer }) => (timer !== undefined) === isTimer)
    .map((one): ReadonlyArray<Parameter> => {
      const { key, timer } = one
      return [
        part,
        one.id,
        timer === undefined ? null : slotOf(claim.projection, { key, name: timer.name }),
        timer === undefined ? lineOf(claim, one) : null,
        one.position,
        one.number,
        storable(key),
        timer?.name ?? null,
        timer?.at ?? null,
        timer?.afterMs ?? null,
        one.aggregate,
        one.stream,
        one.command,
        one.tenant ?? null,
        one.traceparent ?? null,
        storable(one.correlationId),
        storable(one.causationId)
      ]
    })

const written = columns
  .slice(1)
  .map(([name]) => name)
  .filter((name) => name !== "at" && name !== "after")
/** Inserts commands. A follower's commit has none: the fence would refuse them. */
const insert = (parts: StatementParts, rows: ReadonlyArray<ReadonlyArray<Parameter>>, onConflict: string) => {
  if (rows.length === 0) return
  const input = parts.input(`select * from ${parts.manyRows(columns, rows, "u")}`)
  parts.write(
    (after) => `insert into millrace.timer as t (projection, topic, partition, ${written.join(", ")}, due, next_try)
    select f.projection, f.topic, f.partition, ${written.map((name) => `c.${name}`).join(", ")},
      d.due, d.due
    from fence f join ${input} c on c.part = f.part cross join lateral (
      select coalesce(to_timestamp(c.at / 1000.0), clock_timestamp() + coalesce(c.after, 0) * interval '1 ms') as due) d${after} where f.mode = 'live' order by c.slot
    ${onConflict} returning 1`
  )
}

/**
 * Stores the commands of each commit. A timer that is set again replaces the one that waits, under another id, so that a worker that is about
 * to fire that one finds it gone. Rows that exist are locked in the order of their slots before any is changed.
 */
export const timerParts = (parts: StatementParts, commits: ReadonlyArray<PartitionCommit>) => {
  const changed = commits.filter(({ changes }) => changes.commands !== undefined)
  if (changed.length === 0) return
  const slots = commits.flatMap(({ changes: { commands = none }, claim }, part) =>
    slotsOf(claim, commands).map((slot) => [part, slot])
  )
  if (slots.length > 0)
    parts.write(
      (after) => `select t.timer_id from fence f join ${parts.manyRows(slotColumns, slots, "s")} on s.part = f.part
    join millrace.timer t on t.slot = s.slot${after} where f.mode = 'live' order by t.slot for update of t`
    )
  const cancelled = commits.flatMap(({ changes: { commands = none }, claim }, part) =>
    commands.cancelled.map((name) => [part, slotOf(claim.projection, name)])
  )
  if (cancelled.length > 0)
    parts.write(
      (after) => `delete from millrace.timer t using (select s.slot from fence f
      join ${parts.manyRows(slotColumns, cancelled, "s")} on s.part = f.part${after} where f.mode = 'live') c
    where t.slot = c.slot returning 1`
    )
  insert(
    parts,
    commits.flatMap((commit, part) => rowsOf(commit, part, true)),
    `on conflict (slot) do update set (topic, partition, ${written.join(", ")}, due, next_try, attempts, failed, failing_since)
      = (excluded.topic, excluded.partition, ${written.map((name) => `excluded.${name}`).join(", ")}, excluded.due, excluded.next_try, 0, null, null)`
  )
  // the same call of the same event has the same id
  insert(
    parts,
    commits.flatMap((commit, part) => rowsOf(commit, part, false)),
    "on conflict (timer_id) do nothing"
  )
}
