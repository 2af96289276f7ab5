// A projection with lookups on PostgreSQL, for tests of what its events see.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Projection, ReadModel, Topic } from "../../src/index.ts"
import type { LogCleaner } from "../../src/log/cleaner.ts"
import { type Assignment, Log, type NewRecord, specOf } from "../../src/log/log.ts"
import { partitionOf } from "../../src/model/partitioner.ts"
import { query, type Sql, transaction } from "../../src/postgres/client/client.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import { type BuildOptions, createBuild } from "../../src/postgres/store/builds.ts"
import { readUnjournalled } from "../../src/postgres/store/lookups.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import * as Runner from "../../src/runner/runner.ts"
import { Store } from "../../src/runner/store.ts"
import { databaseOn } from "./postgres.ts"

/** The number of partitions of both topics. */
export const partitions = 4
/** The events: each looks up its own key, and a friend's. */
export const source = Topic.records("source", {
  value: { id: Schema.String, user: Schema.String, friend: Schema.String, at: Schema.Finite },
  key: "user",
  eventTime: "at",
  partitions
})
/** The lookup topic. */
export const people = Topic.compacted("people", {
  value: { user: Schema.String, n: Schema.Finite, since: Schema.Finite },
  key: "user",
  eventTime: "since",
  partitions
})
/** What each event saw; -1 if nothing. */
export const rows = ReadModel.table("seen", {
  columns: { id: Schema.String, own: Schema.Finite, friend: Schema.Finite, valid: Schema.Finite },
  primaryKey: ["id"]
})
/** The lookups of an event. */
export interface Seen {
  readonly own: { readonly n: number } | undefined
  readonly friend: { readonly n: number } | undefined
  readonly valid: { readonly n: number } | undefined
}
/** Runs before the handler of the event with this id. */
export type Handled = (id: string) => Effect.Effect<void> | undefined
/** The projection, whose rows say what each event saw. */
export const projectionOf = (before: Handled = () => undefined): Projection.Any =>
  Projection.make({
    name: "p",
    version: 1,
    source,
    enrich: {
      own: people,
      friend: { topic: people, by: "friend" },
      valid: { topic: people, by: "friend", asOf: "eventTime" }
    },
    writes: [rows],
    handle: ({ id }, out, { friend, own, valid }: Seen) => {
      const done = () => out.upsert(rows, { id, own: own?.n ?? -1, friend: friend?.n ?? -1, valid: valid?.n ?? -1 })
      const first = before(id)
      return first === undefined ? done() : Effect.andThen(first, Effect.sync(done))
    }
  }) as Projection.Any

/** A log and its cleaner. */
export interface LogAndCleaner {
  readonly log: Log["Service"]
  readonly cleaner: LogCleaner["Service"]
}
/** A database, with a log and a store. */
export interface System extends LogAndCleaner {
  readonly sql: Sql
  readonly store: Store["Service"]
}
/** Creates a database with the topics and the first build, on the log there or on a given one. */
export const open = Effect.fnUntraced(function* (root: string, projection: Projection.Any, given?: LogAndCleaner) {
  const { sql } = yield* databaseOn(root, 8)
  const { cleaner, log } = given ?? (yield* PostgresLog.make(sql, { pollMs: 50 }))
  yield* log.declare([specOf(source), specOf(people), { ...specOf(source, 1), name: "source.p.dlq" }])
  const store = PostgresStore.make(sql)
  yield* store.prepare([projection], () => partitions)
  return { sql, log, cleaner, store } satisfies System
})
/** Runs a build. `maxBytes`: how large its batches are. */
export const running = ({ log, store }: System, projection: Projection.Any, maxBytes?: number) => {
  const limited: (assignment: Assignment) => Assignment = (assignment) =>
    maxBytes === undefined ? assignment : { ...assignment, open: (from) => assignment.open(from, { maxBytes }) }
  const assign = (...[topic, group, use]: Parameters<typeof log.assign>) =>
    log.assign(topic, group, (assignment) => use(limited(assignment)))
  return Runner.run(projection).pipe(
    Effect.provideService(Log, { ...log, assign: assign as typeof log.assign }),
    Effect.provideService(Store, store)
  ) as Effect.Effect<void>
}
/** Runs a build until it has processed everything. */
export const processed = Effect.fnUntraced(function* (system: System, build: Projection.Any, maxBytes?: number) {
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* Effect.forkScoped(running(system, build, maxBytes))
      yield* caughtUp(system, build)
    })
  )
})
/** Waits until a build has processed everything. */
export const caughtUp = Effect.fnUntraced(function* ({ log, sql }: System, { version }: Projection.Any) {
  const end = (yield* log.ends("source")).reduce((sum, one) => sum + one, 0)
  const done = () =>
    count(
      sql,
      `(select sum(next_position) as at from millrace.progress where version = ${version}) p where at >= ${end}`
    )
  for (let waits = 0; (yield* done()) === 0; waits++) {
    assert.isBelow(waits, 2_000, `build ${version} does not catch up`)
    yield* Effect.sleep(10)
  }
})
/** Creates the next build. */
export const follower = ({ sql }: System, projection: Projection.Any, options?: BuildOptions) =>
  transaction(sql, (tx) => createBuild(tx, projection, { partitionsOf: () => partitions, startOf: () => 0 }, options))

/** A record of either topic. */
export const record = (key: string, value: object | null, eventTime: number): NewRecord => ({
  partition: partitionOf(key, partitions),
  key,
  value: value === null ? null : JSON.stringify(value),
  eventTime,
  eventId: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: 1,
  headers: {}
})
/** A value of the lookup topic. */
export const person = (user: string, n: number, since = 0) => record(user, { user, n, since }, since)
/** An event. */
export const event = (id: string, user: string, friend = user, at = 1_000) => record(user, { id, user, friend, at }, at)
/** The rows of a build. */
export const seen = ({ sql }: System, build = 1) =>
  query("read rows", () =>
    sql.unsafe<Array<{ id: string; own: number; friend: number; valid: number }>>(
      `select id, own, friend, valid from p_v${build}.seen order by id`
    )
  )
/** How many rows a relation has. */
export const count = (sql: Sql, text: string) =>
  Effect.map(
    query("count", () => sql.unsafe<Array<{ n: number }>>(`select count(*)::int4 as n from ${text}`)),
    ([row]) => row!.n
  )
/** How many rows of two builds differ, or are in one of them only. */
export const differing = ({ sql }: System, a: number, b: number) =>
  count(sql, `p_v${a}.seen a full join p_v${b}.seen b using (id) where a is distinct from b`)
/** A user whose events are in this partition. */
export const userIn = (partition: number): string =>
  Array.from({ length: 100 }, (_, i) => `user-${i}`).find((user) => partitionOf(user, partitions) === partition)!

/** Which events have no journal. */
export const unjournalled = ({ sql }: System) =>
  readUnjournalled(
    sql,
    "p",
    ["people"],
    Array.from({ length: partitions }, (_, partition) => ({ topic: "source", partition, start: 0 }))
  )
