// Random applications that are processed live, with restarts, retries and lookups that change, and by a second build from the start of the log.
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Log, type Batch, type NewRecord, type Reader, specOf } from "../../src/log/log.ts"
import * as MemoryLog from "../../src/memory/log.ts"
import { Agg, ReadModel, Window } from "../../src/index.ts"
import { topicsOf } from "../../src/model/application.ts"
import { chainsOf } from "../../src/model/chains.ts"
import { Projection } from "../../src/model/projection.ts"
import type { Topic } from "../../src/model/topic.ts"
import { query, type Sql, transaction } from "../../src/postgres/client/client.ts"
import { createBuild } from "../../src/postgres/store/builds.ts"
import { relationsOf } from "../../src/postgres/store/ddl.ts"
import * as Letters from "../../src/postgres/store/dead-letters.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import * as PostgresRelay from "../../src/postgres/relay/to-log.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import * as Relay from "../../src/relay/relay.ts"
import type { RelayTarget } from "../../src/relay/target.ts"
import * as Runner from "../../src/runner/runner.ts"
import { Store } from "../../src/runner/store.ts"
import { appendRetryRecords, discardProjections } from "../../src/system/dead-letters/projections.ts"
import { recordOf } from "./engine.ts"
import { knownUsers, randomEvents, randomProjection, randomVariant, type Variant } from "./random-projection.ts"
import { randomOf, type Random } from "./random.ts"

/** The log with batches that end anywhere: of one record at least, and `most` at most. */
const chopped = (log: Log["Service"], random: Random, most: number): Log["Service"] =>
  Log.of({
    ...log,
    assign: (topic, group, use, options) =>
      log.assign(
        topic,
        group,
        (assignment) =>
          use({
            ...assignment,
            open: (from, reading) => Effect.map(assignment.open(from, reading), (reader) => chop(reader, random, most))
          }),
        options
      )
  })
const chop = (reader: Reader, random: Random, most: number): Reader => {
  let rest: Batch | undefined
  return {
    take: Effect.suspend(() =>
      Effect.map(rest === undefined ? reader.take : Effect.succeed(rest), (batch): Batch => {
        const count = random.int(1, most)
        rest = undefined
        if (batch.records.length <= count) return batch
        rest = { ...batch, records: batch.records.slice(count) }
        return { ...batch, records: batch.records.slice(0, count), next: rest.records[0]!.position }
      })
    )
  }
}

interface PartitionState {
  readonly at: string
  readonly position: number
  readonly halted: string | null
}
const statesOf = (sql: Sql, version: number) =>
  query(
    "positions",
    () => sql<Array<PartitionState>>`
      select topic || '/' || partition as at, next_position as position, halted from millrace.progress where version = ${version} order by 1`
  )
/** Waits until `isDone`, and looks each few milliseconds. Dies after 60 s, with the positions of the build. */
const until = Effect.fnUntraced(function* (sql: Sql, version: number, isDone: Effect.Effect<boolean, unknown>) {
  const began = Date.now()
  while (!(yield* isDone)) {
    if (Date.now() - began > 60_000) {
      const positions = JSON.stringify(yield* statesOf(sql, version))
      return yield* Effect.die(new Error(`build ${version} has not processed the log within 60 s: ${positions}`))
    }
    yield* Effect.sleep(10)
  }
})

/** What must be the same in all builds, by what it is. */
const contentOf = Effect.fnUntraced(function* (sql: Sql, build: Projection.Any) {
  const { name: projection, version } = build
  const content: Record<string, ReadonlyArray<string>> = {}
  const read = Effect.fnUntraced(function* (name: string, text: string) {
    const rows = yield* query(`read ${name}`, () =>
      sql.unsafe<Array<{ line: string }>>(`select line from (${text}) t order by line collate "C"`)
    )
    content[name] = rows.map(({ line }) => line)
  })
  for (const { name, qualifiedName } of relationsOf(build))
    yield* read(name, `select t::text as line from ${qualifiedName} t`)
  yield* read(
    "late events",
    `select concat_ws('|', topic, partition, position, window_name, window_size, window_start, key, contribution, event_time, stream_time, trace_id) as line
     from millrace.late_events where projection = '${projection}' and version = ${version}`
  )
  yield* read(
    "dead letters",
    `select concat_ws('|', topic, partition, position, status, key, error, message, attempts, value, headers, event_time, trace_id, envelope, stream_time, retried_position) as line
     from millrace.dead_letters where projection = '${projection}' and version = ${version}`
  )
  yield* read(
    "progress",
    `select concat_ws('|', topic, partition, next_position, fingerprint, stream_time, events, duplicates, published) as line
     from millrace.progress where projection = '${projection}' and version = ${version}`
  )
  return content
})

/** A row of the second build that is not that of the first. */
const assertSame = (
  live: Readonly<Record<string, ReadonlyArray<string>>>,
  rebuilt: Readonly<Record<string, ReadonlyArray<string>>>
) => {
  for (const [name, lines] of Object.entries(live)) {
    const missing = lines.filter((line) => !rebuilt[name]!.includes(line))
    const extra = rebuilt[name]!.filter((line) => !lines.includes(line))
    assert.deepStrictEqual([extra, rebuilt[name]!.length], [missing, lines.length], name)
  }
}

const quietly = Effect.provideService(References.MinimumLogLevel, "None")
/** How many late contributions and dead letters a play had. */
export interface Played {
  readonly late: number
  readonly parked: number
  readonly retried: number
  readonly discarded: number
}
/** Removes all that an application before left in the database: to create another one takes longer than to play an application. */
const emptied = (sql: Sql) =>
  query("empty the database", () =>
    sql.unsafe(`do $$ declare one record; begin
      for one in select nspname as name from pg_namespace where nspname ~ '_v[0-9]+$' or nspname = 'millrace_shared' loop
        execute format('drop schema %I cascade', one.name);
      end loop;
      for one in select tablename as name from pg_tables where schemaname = 'millrace' and tablename not in ('schema_version', 'system') loop
        execute format('delete from millrace.%I', one.name);
      end loop;
    end $$`)
  )
interface Play {
  readonly sql: Sql
  readonly number: number
  /** How many of the events there are; default: a random number. */
  readonly count: number | undefined
  readonly on: ReplayLog
}
/** The log that an application is played on. */
export interface ReplayLog {
  /** The start of the names of an application's topics. Default: none. */
  readonly topicPrefix?: string
  /** Opens it for an application whose tables are in this database. */
  readonly open: (sql: Sql, number: number) => Effect.Effect<Log["Service"], unknown, Scope.Scope>
  /** Publishes what projections publish into the log; undefined: nothing is published, and there are no chains. */
  readonly relay?: (sql: Sql) => Effect.Effect<RelayTarget, unknown, Scope.Scope>
}
/** A log in memory, without a relay. */
export const inMemory: ReplayLog = { open: () => Effect.sync(() => MemoryLog.make().log) }
/** The log in the same database, and a relay into it. */
export const inPostgres: ReplayLog = {
  open: (sql) => Effect.map(PostgresLog.make(sql, { pollMs: 100, rebalanceMs: 100 }), ({ log }) => log),
  relay: (sql) => PostgresRelay.make(sql)
}

/** A projection of what another one publishes. */
const chained = (said: ReturnType<typeof randomProjection>["said"], random: Random) => {
  const heard = ReadModel.table("heard", {
    columns: { user: Schema.String, seq: Schema.Int, text: Schema.String, times: Schema.Int },
    primaryKey: ["user", "seq"]
  })
  const spoken = Window.global("spoken", {
    key: { user: Schema.String },
    aggregate: { n: Agg.count, weight: Agg.sum }
  })
  const order = random.chance(0.5) && { order: "key" as const }
  return Projection.make({
    name: "listener",
    version: 1,
    source: said,
    writes: [heard, spoken],
    failure: { retry: Schedule.recurs(0), ...order },
    handle: ({ seq, text, user, weight }, out) => {
      out.add(spoken, { user, n: 1, weight: weight / 4 })
      if (text === "{}") throw new RangeError(text)
      out.modify(heard, { user, seq }, (row) => ({ user, seq, text, times: (row?.times ?? 0) + 1 }))
    }
  }) as Projection.Any
}

const play = Effect.fnUntraced(function* ({ count, number, on, sql }: Play) {
  const random = randomOf(number)
  const partitions = random.int(1, 3)
  const waits = random.chance(0.3)
  const asOf = random.pick(["appendTime", "eventTime"] as const)
  const { topicPrefix = "" } = on
  const published = { live: new Map<string, Array<string>>(), follower: new Map<string, Array<string>>() }
  // an event that is handled again publishes what it does the last time
  const onHandle: Variant["onHandle"] = (replaying, event) => {
    const messages: Array<string> = []
    published[replaying ? "follower" : "live"].set(event, messages)
    return (topic, value) => void messages.push(`${topic.name} ${JSON.stringify(value)}`)
  }
  const variant = { ...randomVariant(random), waits, asOf, topicPrefix, onHandle }
  const { known, projection, said, second, source } = randomProjection(random, partitions, variant)
  const projections = [projection as Projection.Any, ...(on.relay === undefined ? [] : [chained(said, random)])]
  const sources = variant.hasTwoSources ? [source, second] : [source]
  const all = randomEvents(random, random.int(20, 80), variant)
  // rows that two sources write are those of the one that came last: a user has events in one of them
  const typeOf = (user: string) => (variant.hasTwoSources && user.length % 2 === 0 ? "moved" : "happened")
  const events = all.slice(0, count).map((event) =>
    // some cannot be read, and some need another lookup value than there may be
    Object.assign(
      {},
      event,
      { type: typeOf(event.user) },
      random.chance(0.02) && { friend: 5 },
      random.chance(0.2) && { steps: [...event.steps, { do: "need" }] }
    )
  )
  yield* emptied(sql)
  const log = yield* on.open(sql, number)
  const topics = topicsOf({ name: "any", projections: projections.map((one) => Projection.async(one)) } as never)
  yield* log.declare(topics.map((topic) => specOf(topic.topic, topic.partitions)))
  const partitionsOf = (name: string) => topics.find(({ topic }) => topic.name === name)!.partitions
  const store = PostgresStore.make(sql)
  yield* store.prepare(projections, partitionsOf)
  const relay = on.relay && (yield* on.relay(sql))
  if (relay !== undefined) yield* Effect.forkScoped(Relay.run(relay, { pollMs: 20 }))
  const append = (topic: Topic.Any, values: ReadonlyArray<object>) =>
    log.append(
      topic.name,
      values.map((value) => recordOf(topic, value, partitions))
    )
  yield* append(known, knownUsers)

  const started = Effect.fnUntraced(function* (builds: ReadonlyArray<Projection.Any>) {
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    const own = chopped(log, random, random.pick([1, 5, 40, 1_000]))
    const loop = Effect.all(
      builds.map((build) => Runner.run(build, new Map(), chainsOf(builds))),
      { concurrency: "unbounded", discard: true }
    ).pipe(Effect.provideService(Log, own), Effect.provideService(Store, store))
    yield* Effect.forkIn(loop as Effect.Effect<void>, scope)
    return Scope.close(scope, Exit.void)
  })
  const ends = Effect.fnUntraced(function* () {
    const found = new Map<string, number>()
    for (const { name } of projections.flatMap((one) => one.sources))
      for (const { end, partition } of yield* log.bounds(name)) found.set(`${name}/${partition}`, end)
    return found
  })
  const hasProcessed = Effect.gen(function* () {
    const to = yield* ends()
    return (yield* statesOf(sql, 1)).every(({ at, halted, position }) => halted !== null || position >= to.get(at)!)
  })
  const isSettled = Effect.gen(function* () {
    if (!(yield* hasProcessed)) return false
    if (relay === undefined) return true
    const isPublished = (yield* relay.lag).every(({ lag }) => lag === 0)
    // what was published meanwhile is processed, too
    return isPublished && (yield* hasProcessed)
  })
  const rebuilt = transaction(sql, (tx) =>
    Effect.forEach(projections, (one) => createBuild(tx, one, { partitionsOf, startOf: () => 0 }))
  )

  let builds: ReadonlyArray<Projection.Any> | undefined
  let stopBuild: Effect.Effect<void> = Effect.void
  for (let from = 0; from < events.length;) {
    const part = events.slice(from, from + random.int(5, 40))
    from += part.length
    for (const topic of sources)
      yield* append(
        topic,
        part.filter(({ type }) => topic.types!.includes(type))
      )
    // a life that ends anywhere, and one that processes everything
    if (random.chance(0.4)) {
      const stop = yield* started(projections)
      yield* Effect.sleep(random.int(0, 25))
      yield* stop
    }
    yield* query("forget halts", () => sql`update millrace.progress set halted = null`)
    const stop = yield* started(projections)
    yield* until(sql, 1, isSettled)
    yield* stop
    if (random.chance(0.7)) {
      const changed = changeKnown(random, known, partitions, random.pick(events).at)
      if (changed.length > 0) yield* log.append(known.name, changed)
    }
    if (random.chance(0.8)) yield* decideSome(random, sql, log)
    if (builds === undefined && random.chance(0.2)) {
      builds = yield* rebuilt
      stopBuild = yield* started(builds)
    }
  }
  yield* query("forget halts", () => sql`update millrace.progress set halted = null`)
  const stop = yield* started(projections)
  yield* until(sql, 1, isSettled)
  yield* stop
  builds ??= yield* rebuilt
  const { version } = builds[0]!
  yield* stopBuild
  const before = yield* Effect.forEach(projections, (one) => contentOf(sql, one))
  const stopAgain = yield* started(builds)
  const behind = Effect.gen(function* () {
    const live = yield* statesOf(sql, 1)
    return (yield* statesOf(sql, version)).every(({ position }, i) => position === live[i]!.position)
  })
  yield* until(sql, version, behind)
  yield* stopAgain
  for (const [i, live] of before.entries()) {
    assertSame(live, yield* contentOf(sql, builds[i]!))
    assertSame(live, yield* contentOf(sql, projections[i]!))
  }
  // either may have handled further events, in batches that were not committed
  const both = [...published.live.keys()].filter((event) => published.follower.has(event))
  for (const event of both)
    assert.deepStrictEqual(published.follower.get(event), published.live.get(event), `what ${event} published`)
  const linesOf = (what: string) => before.flatMap((content) => content[what]!)
  const letters = linesOf("dead letters")
  return {
    late: linesOf("late events").length,
    parked: letters.filter((line) => line.includes("|parked|")).length,
    retried: letters.filter((line) => line.includes("|retried|")).length,
    discarded: letters.filter((line) => line.includes("|discarded|")).length
  } satisfies Played
})
/** Retries and discards some dead letters of the live build, as `millrace dlq` does. */
const decideSome = Effect.fnUntraced(function* (random: Random, sql: Sql, log: Log["Service"]) {
  const ids = (yield* query(
    "dead letters",
    () => sql<Array<{ id: number }>>`
      select id from millrace.dead_letters where version = 1 and status in ('parked', 'skipped') order by topic, partition, position`
  )).map(({ id }) => id)
  const discarded = ids.filter(() => random.chance(0.2))
  const retried = ids.filter((id) => random.chance(0.7) && !discarded.includes(id))
  const lettersOf = (some: ReadonlyArray<number>) =>
    query("dead letters", () => Letters.retryable(sql, { ids: some, statuses: ["parked", "skipped"], limit: 1_000 }))
  if (retried.length > 0) yield* appendRetryRecords(sql, log, yield* lettersOf(retried), "tester")
  if (discarded.length > 0)
    yield* Effect.scoped(
      discardProjections({ openLog: Effect.succeed(log), sql }, yield* lettersOf(discarded), "tester")
    )
})
/** Changes what the lookup topic knows of some users, or deletes it. */
const changeKnown = (random: Random, topic: Topic.Any, partitions: number, at: number): ReadonlyArray<NewRecord> =>
  [...knownUsers]
    .filter(() => random.chance(0.5))
    .map((known) => {
      const record = recordOf(topic, { ...known, weight: random.int(1, 9), at }, partitions)
      return random.chance(0.2) ? Object.assign(record, { value: null }) : record
    })

/** Plays the application with this number. If it fails, finds fewer of its events with which it fails, too. */
export const playReplay = (sql: Sql, on: ReplayLog, number: number, count?: number): Effect.Effect<Played> =>
  Effect.gen(function* () {
    const attempt = (of: number | undefined) =>
      Effect.exit(quietly(Effect.scoped(play({ sql, on, number, count: of }))))
    let failed = yield* attempt(count)
    if (Exit.isSuccess(failed)) return failed.value
    let least = count
    for (let of = 40; of >= 1; of = Math.floor(of / 2)) {
      const smaller = yield* attempt(of)
      if (Exit.isSuccess(smaller)) break
      failed = smaller
      least = of
    }
    const again = `MILLRACE_TEST_SEED=${number} MILLRACE_TEST_RUNS=1${least === undefined ? "" : ` MILLRACE_TEST_EVENTS=${least}`}`
    return yield* Effect.die(Object.assign(Cause.squash(failed.cause) as Error, { again }))
  })
