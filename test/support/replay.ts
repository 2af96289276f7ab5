// Random applications that are processed live, with restarts, retries and lookups that change, and by a second build from the start of the log.
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { Log, type Batch, type NewRecord, type Reader } from "../../src/log/log.ts"
import * as MemoryLog from "../../src/memory/log.ts"
import type { Projection } from "../../src/model/projection.ts"
import type { Topic } from "../../src/model/topic.ts"
import { query, type Sql, transaction } from "../../src/postgres/client/client.ts"
import { createBuild } from "../../src/postgres/store/builds.ts"
import { relationsOf } from "../../src/postgres/store/ddl.ts"
import * as Letters from "../../src/postgres/store/dead-letters.ts"
import * as PostgresStore from "../../src/postgres/store/store.ts"
import * as Runner from "../../src/runner/runner.ts"
import { Store } from "../../src/runner/store.ts"
import { appendRetryRecords, discardProjections } from "../../src/system/dead-letters/projections.ts"
import { recordOf } from "./engine.ts"
import { knownUsers, randomEvents, randomProjection, randomVariant } from "./random-projection.ts"
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
/** Waits until `isDone`, and looks each few milliseconds. Dies after 30 s. */
const until = Effect.fnUntraced(function* (what: string, isDone: Effect.Effect<boolean, unknown>) {
  const began = Date.now()
  while (!(yield* isDone)) {
    if (Date.now() - began > 30_000) return yield* Effect.die(new Error(`${what}: not within 30 s`))
    yield* Effect.sleep(3)
  }
})

/** What must be the same in all builds, by what it is. */
const contentOf = Effect.fnUntraced(function* (sql: Sql, build: Projection.Any) {
  const { version } = build
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
     from millrace.late_events where version = ${version}`
  )
  yield* read(
    "dead letters",
    `select concat_ws('|', topic, partition, position, status, key, error, message, attempts, value, headers, event_time, trace_id, envelope, stream_time, retried_position) as line
     from millrace.dead_letters where version = ${version}`
  )
  yield* read(
    "progress",
    `select concat_ws('|', topic, partition, next_position, fingerprint, stream_time, events, duplicates) as line
     from millrace.progress where version = ${version}`
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
}
const play = Effect.fnUntraced(function* ({ count, number, sql }: Play) {
  const random = randomOf(number)
  const partitions = random.int(1, 3)
  const variant = randomVariant(random)
  const { known, projection, second, source } = randomProjection(random, partitions, variant)
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
  const { log } = MemoryLog.make()
  for (const { compacted = false, name } of [...sources, known])
    yield* log.declare([{ name, partitions, compacted, retentionMs: undefined }])
  const store = PostgresStore.make(sql)
  yield* store.prepare([projection], () => partitions)
  const append = (topic: Topic.Any, values: ReadonlyArray<object>) =>
    log.append(
      topic.name,
      values.map((value) => recordOf(topic, value, partitions))
    )
  yield* append(known, knownUsers)

  const started = Effect.fnUntraced(function* (build: Projection.Any) {
    const scope = yield* Scope.make()
    yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
    const own = chopped(log, random, random.pick([1, 5, 40, 1_000]))
    const loop = Runner.run(build).pipe(Effect.provideService(Log, own), Effect.provideService(Store, store))
    yield* Effect.forkIn(loop as Effect.Effect<void>, scope)
    return Scope.close(scope, Exit.void)
  })
  const ends = Effect.fnUntraced(function* () {
    const found = new Map<string, number>()
    for (const { name } of sources)
      for (const { end, partition } of yield* log.bounds(name)) found.set(`${name}/${partition}`, end)
    return found
  })
  const isSettled = Effect.gen(function* () {
    const to = yield* ends()
    return (yield* statesOf(sql, 1)).every(({ at, halted, position }) => halted !== null || position >= to.get(at)!)
  })
  const rebuilt = Effect.gen(function* () {
    return yield* transaction(sql, (tx) =>
      createBuild(tx, projection as Projection.Any, { partitionsOf: () => partitions, startOf: () => 0 })
    )
  })

  let build: Projection.Any | undefined
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
      const stop = yield* started(projection)
      yield* Effect.sleep(random.int(0, 25))
      yield* stop
    }
    yield* query("forget halts", () => sql`update millrace.progress set halted = null`)
    const stop = yield* started(projection)
    yield* until("live", isSettled)
    yield* stop
    if (random.chance(0.7)) {
      const changed = changeKnown(random, known, partitions)
      if (changed.length > 0) yield* log.append(known.name, changed)
    }
    if (random.chance(0.8)) yield* decideSome(random, sql, log)
    if (build === undefined && random.chance(0.2)) {
      build = yield* rebuilt
      stopBuild = yield* started(build)
    }
  }
  yield* query("forget halts", () => sql`update millrace.progress set halted = null`)
  const stop = yield* started(projection)
  yield* until("live", isSettled)
  yield* stop
  build ??= yield* rebuilt
  yield* stopBuild
  const before = yield* contentOf(sql, projection)
  const stopAgain = yield* started(build)
  const behind = Effect.gen(function* () {
    const live = yield* statesOf(sql, 1)
    return (yield* statesOf(sql, build!.version)).every(({ position }, i) => position === live[i]!.position)
  })
  yield* until("the second build", behind)
  yield* stopAgain
  const after = yield* contentOf(sql, build)
  assertSame(before, after)
  assertSame(before, yield* contentOf(sql, projection))
  const letters = before["dead letters"]!
  return {
    late: before["late events"]!.length,
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
const changeKnown = (random: Random, topic: Topic.Any, partitions: number): ReadonlyArray<NewRecord> =>
  [...knownUsers]
    .filter(() => random.chance(0.5))
    .map((known) => {
      const record = recordOf(topic, { ...known, weight: random.int(1, 9) }, partitions)
      return random.chance(0.2) ? Object.assign(record, { value: null }) : record
    })

/** Plays the application with this number. If it fails, finds fewer of its events with which it fails, too. */
export const playReplay = (sql: Sql, number: number, count?: number): Effect.Effect<Played> =>
  Effect.gen(function* () {
    const attempt = (of: number | undefined) => Effect.exit(quietly(Effect.scoped(play({ sql, number, count: of }))))
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
