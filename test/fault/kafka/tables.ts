// Compares the tables with the fold of the log: read models, windows, late events, dead letters, duplicates and the progress of each partition.
import type postgres from "postgres"
import type { Differences } from "../harness/differences.ts"
import type { Fold } from "./fold.ts"

type Sql = postgres.Sql
const page = 20_000

/** Compares every table of the application, which must have processed everything. */
export const compareTables = async (sql: Sql, fold: Fold, differences: Differences): Promise<void> => {
  await alerts(sql, fold, differences)
  await windows(sql, fold, differences)
  await late(sql, fold, differences)
  await dead(sql, fold, differences)
  await progress(sql, fold, differences)
}

const alerts = async (sql: Sql, fold: Fold, differences: Differences) => {
  let found = 0
  const query = sql<Array<Record<string, string | number>>>`
    select alert_id, entity_id, score, threshold, segment, tenant, trace_id,
      (extract(epoch from occurred_at) * 1000)::float8 as at from alerts`
  for await (const rows of query.cursor(page)) {
    for (const row of rows) {
      found++
      const expected = fold.alerts.get(row["alert_id"] as string)
      if (expected === undefined) {
        differences.add("wrong", `row ${row["alert_id"]} of alerts is not an alert of the log`)
        continue
      }
      const { at, entity, score, segment, tenant, threshold, trace } = expected
      const text = [entity, score, threshold, segment, tenant, trace ?? null, at].join(" ")
      const is = [row["entity_id"], row["score"], row["threshold"], row["segment"], row["tenant"], row["trace_id"]]
      differences.same(`alert ${row["alert_id"]}`, [...is, row["at"]].join(" "), text)
    }
  }
  if (found < fold.alerts.size) differences.add("lost", "rows of alerts", fold.alerts.size - found)
}

const windows = async (sql: Sql, fold: Fold, differences: Differences) => {
  let found = 0
  const query = sql<Array<Record<string, string | number>>>`
    select entity_id || ' ' || window_size || ' ' || (extract(epoch from window_start) * 1000)::int8 as key,
      events::int4 as events, alerts::int4 as alerts, score_sum, score_max from entity_activity`
  for await (const rows of query.cursor(page)) {
    for (const row of rows) {
      found++
      const { alerts, events, key, score_max, score_sum } = row
      const expected = fold.windows.get(key as string)
      if (expected === undefined) {
        differences.add("wrong", `window ${key} counts ${events} events, and the log has none for it`)
        continue
      }
      const count = expected.sum.length
      if (Number(events) < count) differences.add("lost", `window ${key} counts ${events} of ${count} events`)
      else if (Number(events) > count) differences.add("doubled", `window ${key} counts ${events} of ${count} events`)
      else {
        const text = [expected.alerts.at(-1), expected.sum.at(-1), expected.max.at(-1)].join(" ")
        differences.same(`window ${key}`, [alerts, score_sum, score_max].join(" "), text)
      }
    }
  }
  if (found < fold.windows.size) differences.add("lost", "rows of windows", fold.windows.size - found)
}

/** Adds the elements that only one of two sets has. */
const compareSets = (what: string, found: ReadonlySet<string>, expected: ReadonlySet<string>, into: Differences) => {
  for (const one of expected) if (!found.has(one)) into.add("lost", `${what} ${one}`)
  for (const one of found) if (!expected.has(one)) into.add("wrong", `${what} ${one} should not be there`)
}
const late = async (sql: Sql, fold: Fold, differences: Differences) => {
  const rows = await sql<Array<{ text: string }>>`
    select partition || ' ' || position || ' ' || window_size || ' ' || (extract(epoch from window_start) * 1000)::int8 as text
    from millrace.late_events where topic = 'events.raw.v1'`
  const expected = fold.partitions.flatMap(({ late }, partition) => [...late].map((text) => `${partition} ${text}`))
  if (new Set(rows.map(({ text }) => text)).size < rows.length) differences.add("doubled", "rows of late events")
  compareSets("late event", new Set(rows.map(({ text }) => text)), new Set(expected), differences)
}
const dead = async (sql: Sql, fold: Fold, differences: Differences) => {
  const rows = await sql<Array<{ text: string }>>`
    select partition || ' ' || position || ' ' || status as text from millrace.dead_letters where topic = 'events.raw.v1'`
  const expected = fold.partitions.flatMap(({ dead }, partition) =>
    [...dead].map((offset) => `${partition} ${offset} parked`)
  )
  compareSets("dead letter", new Set(rows.map(({ text }) => text)), new Set(expected), differences)
}

const progress = async (sql: Sql, fold: Fold, differences: Differences) => {
  const rows = await sql<Array<Record<string, number>>>`
    select partition, next_position::float8 as next, stream_time::float8 as time, events::int4 as events,
      duplicates::int4 as duplicates from millrace.progress where projection = 'signals'`
  differences.same("partitions with progress", rows.length, fold.partitions.length)
  for (const row of rows) {
    const partition = fold.partitions[row["partition"]!]!
    const what = `of partition ${row["partition"]}`
    if (row["next"]! < partition.next)
      differences.add("lost", `position ${row["next"]} ${what} lies before the last record's, ${partition.next}`)
    differences.same(`stream time ${what}`, row["time"], partition.streamTime)
    differences.same(`events ${what}`, row["events"], partition.scores.length)
    differences.same(`duplicates ${what}`, row["duplicates"], partition.duplicates)
  }
}
