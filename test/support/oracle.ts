// What January's flights must give, and whether a database has exactly that: the oracle's files, and the rules that hold at any moment.
import { withoutTimeMarks } from "../../src/log/time-mark.ts"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { gunzipSync } from "node:zlib"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Log, LogRecord } from "../../src/log/log.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"

const file = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
/** The lines of a gzipped text file of the project. */
export const linesOf = (path: string): ReadonlyArray<string> =>
  gunzipSync(readFileSync(file(path)))
    .toString()
    .trimEnd()
    .split("\n")

export const flightsFile = file("projections/flights/2013-01.ndjson.gz")
export const planesFile = file("projections/flights/planes.ndjson.gz")
export const flights = () => linesOf("projections/flights/2013-01.ndjson.gz")
export const planes = () => linesOf("projections/flights/planes.ndjson.gz")
/** What the input comes to: `late` counts event-window pairs. */
export const january = { events: 27_004, alerts: 320, windows: 79_759, late: 1_222 } as const

type Values = Readonly<Record<string, unknown>>

/** The read models as lines in the oracle's form, in no order: numbers to four decimals. */
const readModels = Effect.fnUntraced(function* (sql: Sql) {
  const alerts = yield* query(
    "read alerts",
    () => sql`
      select concat_ws(e'\t', alert_id, entity_id, to_char(score, 'FM99999999990.0000'), to_char(threshold, 'FM99999999990.0000'), segment,
        (extract(epoch from occurred_at) * 1000)::int8) as line
      from alerts`
  )
  const activity = yield* query(
    "read windows",
    () => sql`
      select concat_ws(e'\t', entity_id, window_size, (extract(epoch from window_start) * 1000)::int8, events, alerts,
        to_char(score_sum, 'FM99999999990.0000'), to_char(score_max, 'FM99999999990.0000')) as line
      from entity_activity`
  )
  const lines = (rows: ReadonlyArray<Values>) => rows.map(({ line }) => line as string)
  return { alerts: lines(alerts), activity: lines(activity) }
})
/** Both tables equal the oracle's files, line by line. */
export const assertOracle = Effect.fnUntraced(function* (sql: Sql) {
  const { activity, alerts } = yield* readModels(sql)
  assertLines("alerts", alerts, linesOf("test/data/2013-01.alerts.tsv.gz"))
  assertLines("entity_activity", activity, linesOf("test/data/2013-01.entity_activity.tsv.gz"))
})
// A few lines say what is wrong; a difference of 80,000 lines says nothing and takes a minute to print.
const assertLines = (what: string, found: ReadonlyArray<string>, expected: ReadonlyArray<string>) => {
  const there = new Set(found)
  const wanted = new Set(expected)
  const missing = expected.filter((line) => !there.has(line))
  const extra = found.filter((line) => !wanted.has(line))
  assert.deepStrictEqual({ missing: missing.slice(0, 5), extra: extra.slice(0, 5) }, { missing: [], extra: [] }, what)
  assert.strictEqual(found.length, expected.length, what)
}

/** What the tables say at one moment; everything of it is written by the same commits, so it fits together at any. */
export interface Moment {
  readonly events: number
  readonly minutes: number
  readonly ids: number
  readonly published: number
  readonly scores: number
  readonly late: number
  readonly dead: number
  readonly broken: number
  readonly shipped: number
  readonly copied: number
  readonly ahead: number
}
/** Reads it, in one statement and so of one snapshot. `broken` counts segments that do not follow the one before. */
export const moment = (sql: Sql) =>
  Effect.map(
    query(
      "look",
      () => sql<Array<Moment>>`
      select
        (select coalesce(sum(events), 0)::int8 from millrace.progress where projection = 'signals') as events,
        (select coalesce(sum(events), 0)::int8 from entity_activity where window_size = '1m')
          + (select count(*) from millrace.late_events where window_size = '1m') as minutes,
        (select coalesce(sum(length(ids)), 0)::int8 / 20 from millrace.seen) as ids,
        (select coalesce(sum(outbox_seq), 0)::int8 from millrace.progress) - (select coalesce(sum(messages), 0)::int8 from millrace.outbox) as published,
        (select coalesce(sum(messages), 0)::int8 from millrace.outbox where target = 'signals.scores.v1') as scores,
        (select count(*) from millrace.late_events) as late,
        (select count(*) from millrace.dead_letters) as dead,
        (select count(*) from (
          select first_seq, coalesce(sum(messages) over (partition by projection, source, partition order by first_seq
            rows between unbounded preceding and 1 preceding), 0) + 1 as expected
          from millrace.outbox) o where first_seq <> expected) as broken,
        (select coalesce(sum(seq), 0)::int8 from millrace.relay_position) as shipped,
        (select coalesce(sum(b.records), 0)::int8 from millrace.log_batch b join millrace.log_topic t using (topic_id)
          where t.name in ('signals.scores.v1', 'alerts.v1', 'alerts.analytics.v1')) as copied,
        (select count(*) from millrace.progress g where exists (select from millrace.relay_position r
          where r.projection = g.projection and r.source = g.topic and r.partition = g.partition and r.seq > g.outbox_seq)) as ahead`
    ),
    ([row]) => row!
  )
/** Nothing is torn: each event is in a window or late, its id noted, its score published; the outbox has no gap, the log what the relay says. */
export const assertWhole = Effect.fnUntraced(function* (sql: Sql) {
  const now = yield* moment(sql)
  const { ahead, broken, dead, published } = now
  assert.deepStrictEqual({ ahead, broken, dead, published }, { ahead: 0, broken: 0, dead: 0, published: 0 })
  assert.deepStrictEqual(
    { minutes: now.minutes, ids: now.ids, scores: now.scores, copied: now.copied },
    { minutes: now.events, ids: now.events, scores: now.events, copied: now.shipped }
  )
  return now
})

/** Every record of a topic, partition by partition, in order. */
export const recordsOf = Effect.fnUntraced(function* (log: Log["Service"], topic: string) {
  const found: Array<LogRecord> = []
  for (const { end, partition, start } of yield* log.bounds(topic)) {
    for (let position = start; position < end;) {
      const { next, records } = yield* log.read(topic, partition, position)
      found.push(...records)
      position = next
    }
  }
  return found
})

/** The derived topics hold each stream's sequence 1..n once, in order within each partition, and say what the tables say. */
export const assertDerived = Effect.fnUntraced(function* (sql: Sql, log: Log["Service"]) {
  const topics = ["signals.scores.v1", "alerts.v1", "alerts.analytics.v1"] as const
  const streams = new Map<string, Array<number>>()
  const values = new Map<string, ReadonlyArray<Values>>()
  for (const topic of topics) {
    const records = yield* recordsOf(log, topic)
    const last = new Map<string, number>()
    for (const { headers, partition } of records) {
      const stream = headers["millrace-stream"]!
      const seq = Number(headers["millrace-seq"])
      const place = `${partition}/${stream}`
      assert.isAbove(seq, last.get(place) ?? 0, `order of ${stream} in ${topic}/${partition}`)
      last.set(place, seq)
      const seqs = streams.get(stream)
      if (seqs === undefined) streams.set(stream, [seq])
      else seqs.push(seq)
    }
    values.set(
      topic,
      // another projection reads the alerts, so that streams send their times as well
      withoutTimeMarks(records).map(({ value }) => JSON.parse(value!) as Values)
    )
  }
  const ends = yield* query(
    "read sequences",
    () => sql`select projection || '/' || topic || '/' || partition as stream, outbox_seq from millrace.progress`
  )
  for (const { outbox_seq, stream } of ends) {
    const seqs = (streams.get(stream as string) ?? []).toSorted((a, b) => a - b)
    assert.strictEqual(seqs.length, outbox_seq, `messages of ${stream}`)
    assert.isTrue(
      seqs.every((seq, i) => seq === i + 1),
      `${stream} is 1..n`
    )
  }
  assertScores(values.get("signals.scores.v1")!)
  const alerts = values.get("alerts.v1")!.map(({ alert_id }) => alert_id as string)
  assert.strictEqual(alerts.length, january.alerts)
  assert.strictEqual(new Set(alerts).size, january.alerts)
  yield* assertAnalytics(sql, values.get("alerts.analytics.v1")!)
})
const assertScores = (scores: ReadonlyArray<Values>) => {
  const weights = new Map(
    planes()
      .map((line) => JSON.parse(line))
      .map((plane) => [plane.entity_id, plane.risk_weight])
  )
  const expected = new Map(
    flights()
      .map((line) => JSON.parse(line))
      .map((event) => [event.event_id, event.amount * (weights.get(event.entity_id) ?? 1)])
  )
  assert.strictEqual(scores.length, january.events)
  for (const { event_id, score } of scores) {
    if (expected.get(event_id) !== score)
      assert.fail(`${event_id} has score ${score}, or twice; ${expected.get(event_id)}`)
    expected.delete(event_id)
  }
}
/** The last record of each window is what the table has. */
const assertAnalytics = Effect.fnUntraced(function* (sql: Sql, records: ReadonlyArray<Values>) {
  const keyOf = (row: Values) => `${row["entity_id"]} ${row["window_size"]} ${row["window_start"]}`
  const textOf = (row: Values) => [row["events"], row["alerts"], row["score_sum"], row["score_max"]].join(" ")
  const last = new Map(records.map((record) => [keyOf(record), textOf(record)]))
  const rows = yield* query("read windows", () => sql`select * from entity_activity`)
  assert.strictEqual(last.size, rows.length)
  const wrong = rows.filter((row) => last.get(keyOf(row)) !== textOf(row)).slice(0, 3)
  assert.deepStrictEqual(
    wrong.map((row) => [row, last.get(keyOf(row))]),
    []
  )
})
