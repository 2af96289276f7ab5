// The engine in this process, for tests: a new database with the log, the store, the topics and the runner of an application.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { type Application, topicsOf } from "../../src/model/application.ts"
import { Log, specOf, type NewRecord } from "../../src/log/log.ts"
import { chainsOf } from "../../src/model/chains.ts"
import { partitionOf } from "../../src/model/partitioner.ts"
import { connect, query, type Sql } from "../../src/postgres/client/client.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import * as PostgresRelay from "../../src/postgres/relay/to-log.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import * as Relay from "../../src/relay/relay.ts"
import * as Runner from "../../src/runner/runner.ts"
import { Store } from "../../src/runner/store.ts"
import type { Projection } from "../../src/model/projection.ts"
import type { Topic } from "../../src/model/topic.ts"
import { databaseOn, type Database } from "./postgres.ts"

/** Any application. */
export type AnyApplication = Pick<Application.Any, "name" | "aggregates"> & {
  readonly projections: ReadonlyArray<{ readonly projection: Projection.Any }>
  readonly services: Layer.Layer<never> | Layer.Layer<unknown> | undefined
}
/** The parts of an engine. */
export interface Engine extends Database {
  readonly application: AnyApplication
  readonly log: Log["Service"]
  readonly store: Store["Service"]
}
/** How to create an engine. */
export interface EngineOptions {
  readonly max?: number
  /** Replaces the pool that the store uses. */
  readonly storeSql?: (sql: Sql) => Sql
  /** An existing database, to open an application on it again. */
  readonly on?: Database
}

/** An engine whose runner does not run yet: a new database with the application's topics and tables. */
export const engine = Effect.fnUntraced(function* (
  root: string,
  application: AnyApplication,
  options: EngineOptions = {}
): Effect.fn.Return<Engine, unknown, Scope.Scope> {
  const database = options.on ?? (yield* databaseOn(root, options.max ?? 10))
  const { sql } = database
  const { log } = yield* PostgresLog.make(sql, { pollMs: 250 })
  const topics = topicsOf(application as never)
  yield* log.declare(topics.map(({ partitions, topic }) => specOf(topic, partitions)))
  const store = PostgresStore.make(options.storeSql?.(sql) ?? sql)
  yield* store.prepare(
    application.projections.map(({ projection }) => projection),
    (name) => topics.find(({ topic }) => topic.name === name)?.partitions ?? 1
  )
  return { ...database, application, log, store }
})

/** A second pool on the same database. */
export const another = Effect.fnUntraced(function* ({ url }: Database, max = 10) {
  return { url, sql: yield* connect(url, { max }) } satisfies Database
})

/** Runs all projections until the returned effect stops them, as a process that exits normally does. */
export const run = Effect.fnUntraced(function* ({ application, log, store }: Engine, groups?: Runner.GroupNames) {
  const lookupTables: Runner.LookupTables = new Map()
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const chains = chainsOf(application.projections.map(({ projection }) => projection))
  const runs = application.projections.map(({ projection }) => Runner.run(projection, lookupTables, chains, groups))
  const loops = Effect.all(runs, { concurrency: "unbounded", discard: true }).pipe(
    Effect.provideService(Log, log),
    Effect.provideService(Store, store),
    Effect.provide((application.services ?? Layer.empty) as Layer.Layer<unknown>)
  )
  yield* Effect.forkIn(loops as Effect.Effect<void>, scope)
  return Scope.close(scope, Exit.void)
})
/** Runs the relay into the log, for as long as the scope is open. */
export const relay = Effect.fnUntraced(function* ({ sql }: Database) {
  const target = yield* PostgresRelay.make(sql)
  yield* Effect.forkScoped(Relay.run(target, { pollMs: 50 }))
  return target
})

/** A value of a topic as the record that the gateway would append. */
export const recordOf = (topic: Topic.Any, value: object, partitions: number): NewRecord => {
  const key = topic.keyOf(value)
  return {
    partition: partitionOf(key, topic.partitions ?? partitions),
    key,
    value: JSON.stringify(value),
    eventTime: topic.timeOf?.(value) ?? Date.now(),
    eventId: topic.idOf?.(value),
    tenant: topic.tenantOf?.(value),
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    schemaVersion: 1,
    headers: {}
  }
}
/** Appends values to a topic, in order, in one call. */
export const append = ({ log }: Engine, topic: Topic.Any, values: ReadonlyArray<object>) =>
  Effect.flatMap(log.bounds(topic.name), ({ length }) =>
    log.append(
      topic.name,
      values.map((value) => recordOf(topic, value, length))
    )
  )

/** Why partitions are halted, by `projection topic/partition`. */
export const halts = (sql: Sql) =>
  Effect.map(
    query(
      "halts",
      () =>
        sql<
          Array<{ place: string; halted: string }>
        >`select projection || ' ' || topic || '/' || partition as place, halted from millrace.progress where halted is not null order by 1`
    ),
    (rows) => new Map(rows.map(({ halted, place }) => [place, halted]))
  )
/** Waits until every partition has processed what is in the log now, or is halted. Fails after `withinMs`. */
export const settled = Effect.fnUntraced(function* ({ log, sql }: Engine, withinMs = 20_000) {
  const topics = yield* query(
    "topics",
    () => sql<Array<{ topic: string }>>`select distinct topic from millrace.progress`
  )
  const ends = new Map<string, number>()
  for (const { topic } of topics) {
    for (const { end, partition } of yield* log.bounds(topic)) ends.set(`${topic}/${partition}`, end)
  }
  const began = Date.now()
  for (;;) {
    const behind = (yield* query(
      "positions",
      () => sql`select topic || '/' || partition as place, next_position, halted from millrace.progress`
    )).filter(({ halted, next_position, place }) => halted === null && next_position < (ends.get(place) ?? 0))
    if (behind.length === 0) return
    if (Date.now() - began > withinMs) {
      return yield* Effect.die(new Error(`not settled after ${withinMs} ms: ${JSON.stringify(behind.slice(0, 5))}`))
    }
    yield* Effect.sleep(10)
  }
})
/** Appends values to a topic, and runs the engine until it has processed everything in the log. */
export const processed = Effect.fnUntraced(function* (engine: Engine, topic: Topic.Any, values: ReadonlyArray<object>) {
  yield* append(engine, topic, values)
  const stop = yield* run(engine)
  yield* settled(engine)
  yield* stop
})
/** Sums over all partitions. */
export const totals = (sql: Sql) =>
  Effect.map(
    query(
      "totals",
      () =>
        sql<
          Array<{ events: number; duplicates: number; dead: number }>
        >`select sum(events)::int8 as events, sum(duplicates)::int8 as duplicates, (select count(*) from millrace.dead_letters) as dead from millrace.progress`
    ),
    ([row]) => ({ ...row! })
  )
