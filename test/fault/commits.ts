// Commits for tests of the store: a small projection, batches that use every part of the statement, and checks of the tables.
import { Schema } from "effect"
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import { Agg, Application, Column, Projection, ReadModel, Topic, Window } from "../../src/index.ts"
import { metaText } from "../../src/runner/segments.ts"
import { query, type Sql } from "../../src/postgres/client/client.ts"
import type { Changes, Claim } from "../../src/runner/store.ts"

export const events = Topic.records("c.events", {
  value: { id: Schema.String, key: Schema.String, n: Schema.Finite, at: Schema.Int },
  key: "key",
  id: "id",
  eventTime: "at",
  partitions: 4
})
export const told = Topic.records("c.told", { value: { key: Schema.String, n: Schema.Finite }, key: "key" })
export const notes = ReadModel.table("notes", {
  columns: { key: Schema.String, n: Schema.Finite, at: Column.timestamptz },
  primaryKey: ["key"]
})
export const sums = Window.tumbling("sums", {
  size: "1 hour",
  key: { key: Schema.String },
  aggregate: { events: Agg.count, n: Agg.sum },
  publish: "c.sums"
})
/** Every version has tables of its own. */
export const counting = (version = 1) =>
  Projection.make({
    name: "counting",
    version,
    source: events,
    dedupe: { within: "1 hour" },
    writes: [notes, sums, told],
    handle: ({ at, key, n }, out) => {
      out.upsert(notes, { key, n, at })
      out.add(sums, { key, events: 1, n })
      out.publish(told, { key, n })
    }
  })
export const application = Application.make({ name: "counting", projections: [Projection.async(counting())] })

/** The changes of a batch with one event for each key, which adds 1 to `events` and 2 to `n`. The position moves by `moved`. */
export const batchOf = (claim: Claim, keys: ReadonlyArray<string>, moved = keys.length): Changes => {
  const at = 3_600_000
  const position = claim.position
  const none = { tenant: undefined, traceparent: undefined, traceId: undefined }
  return {
    position: position + moved,
    fingerprint: "00c0ffee",
    streamTime: at,
    events: keys.length,
    duplicates: 0,
    tables: [{ table: notes, upserts: keys.map((key) => ({ key, n: position, at })), updates: [], deletes: [] }],
    windows: [
      {
        window: sums,
        deltas: keys.map((key) => ({
          row: { key, window_size: "1h", window_start: at, events: 1, n: 2 },
          key,
          partition: 0,
          eventTime: at,
          ...none
        }))
      }
    ],
    segments: [
      {
        topic: told.name,
        partition: 0,
        messages: keys.length,
        meta: `[${keys.map((key) => metaText(key, at, undefined, undefined, undefined)).join(",")}]`,
        vals: keys.map((key) => JSON.stringify({ key, n: 2 })).join("\n")
      }
    ],
    late: [
      {
        position,
        window: "sums",
        size: "1h",
        start: 0,
        key: { key: "x" },
        contribution: {},
        eventTime: 0,
        streamTime: at,
        ...none
      }
    ],
    deadLetters: [
      {
        position,
        status: "parked",
        key: "x",
        error: "Error",
        message: "x",
        attempts: 1,
        value: "{}",
        headers: {},
        eventTime: 0,
        traceId: undefined
      }
    ],
    seen: { minTime: at, maxTime: at, count: keys.length, packed: new Uint8Array(20 * keys.length).fill(7) }
  }
}

/** Everything that a commit writes, except incarnations and times. */
export const stateOf = (sql: Sql) =>
  Effect.map(
    query(
      "read everything",
      () => sql<Array<{ part: string; rows: unknown }>>`
      select 'notes' as part, json_agg(t order by key) as rows from counting_v1.notes t
      union all select 'sums', json_agg(t order by key) from counting_v1.sums t
      union all select 'outbox', json_agg(t order by first_seq) from
        (select partition, first_seq, messages, target, meta, vals from millrace.outbox) t
      union all select 'late', json_agg(t order by position) from (select position, window_name from millrace.late_events) t
      union all select 'dead', json_agg(t order by position) from (select position, error from millrace.dead_letters) t
      union all select 'seen', json_agg(t order by chunk) from (select partition, chunk, length(ids) as n from millrace.seen) t
      union all select 'progress', json_agg(t order by version, partition) from
        (select version, partition, commit_no, next_position, outbox_seq, events, seen_fill from millrace.progress where commit_no > 0) t`
    ),
    (rows) => Object.fromEntries(rows.map(({ part, rows }) => [part, rows]))
  )
/** How often each key was counted. Asserts that `n` agrees. */
export const counted = (sql: Sql) =>
  Effect.map(
    query(
      "read sums",
      () =>
        sql<Array<{ key: string; events: number; n: number }>>`select key, events, n from counting_v1.sums order by key`
    ),
    (rows) => {
      for (const { events, n } of rows) assert.strictEqual(n, 2 * events)
      return Object.fromEntries(rows.map(({ events, key }) => [key, events]))
    }
  )
/** Asserts that the segments of each stream follow one another from 1 up to its progress, and that there are `messages` in all. */
export const assertOutbox = Effect.fnUntraced(function* (sql: Sql, messages: number) {
  const segments = yield* query(
    "read the outbox",
    () => sql`select partition, first_seq, messages from millrace.outbox order by partition, first_seq`
  )
  const ends = new Map<number, number>()
  for (const { first_seq, messages, partition } of segments) {
    assert.strictEqual(first_seq, (ends.get(partition) ?? 0) + 1, "a segment follows the one before")
    ends.set(partition, first_seq + messages - 1)
  }
  const progress = yield* query("read progress", () => sql`select partition, outbox_seq from millrace.progress`)
  for (const { outbox_seq, partition } of progress) assert.strictEqual(ends.get(partition) ?? 0, outbox_seq)
  assert.strictEqual(
    [...ends.values()].reduce((a, b) => a + b, 0),
    messages
  )
})

/** The tag of a typed failure. Fails the test if the failure has none. */
export const failureOf = <A, E extends { readonly _tag: string }>(exit: Exit.Exit<A, E>): E["_tag"] | "none" => {
  if (exit._tag === "Success") return "none"
  const error = Cause.squash(exit.cause) as { readonly _tag?: E["_tag"] }
  assert.isDefined(error._tag, Cause.pretty(exit.cause))
  return error._tag!
}
/** Asserts that a check failed by an assertion, and not for any other reason. */
export const assertCaught = <A, E>(exit: Exit.Exit<A, E>) => {
  assert.strictEqual(exit._tag, "Failure", "the check did not notice that the protection is gone")
  if (exit._tag === "Failure") {
    const error = Cause.squash(exit.cause) as Error
    assert.match(error.name, /AssertionError/, Cause.pretty(exit.cause))
  }
}

/** Locks a row of `sums` for so long, and a moment more. */
export const blocking = Effect.fnUntraced(function* (sql: Sql, during: Effect.Effect<unknown, unknown>) {
  const session = yield* Effect.acquireRelease(
    query("reserve", () => sql.reserve()),
    (reserved) => Effect.sync(() => reserved.release())
  )
  yield* query("lock", () => session`begin`)
  yield* query("lock", () => session`select from counting_v1.sums where key = 'a' for update`)
  return yield* Effect.forkChild(
    during.pipe(Effect.andThen(Effect.sleep(200)), Effect.andThen(query("unlock", () => session`commit`)))
  )
})

/** Waits until so many statements wait for a row that another session has locked; by then earlier statements hold their locks. */
export const statementsWait = (sql: Sql, count = 1) =>
  query(
    "look who waits",
    () => sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`
  ).pipe(
    Effect.tap(() => Effect.sleep(5)),
    Effect.repeat({ until: (waiting) => waiting.length >= count, times: 2_000 })
  )
