// Writers race for event streams while backends are terminated and replies are lost; then everything that they were answered is compared
// with what the store, its topic and its outbox have.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Append, Appended, EventStore, Expected } from "../../src/aggregate/event-store.ts"
import type { LogRecord } from "../../src/log/log.ts"
import { connect, query, type Sql } from "../../src/postgres/client/client.ts"
import * as PostgresEvents from "../../src/postgres/events/events.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import { appendOf, events } from "../contract/event-store-support.ts"
import { lossy } from "../fault/lossy.ts"
import type { Database } from "./postgres.ts"
import { randomOf, seed } from "./random.ts"

/** What a race does. */
export interface Race {
  readonly writers: number
  readonly streams: number
  /** What the writers expect: nothing, or the version that they have read. */
  readonly expecting: "any" | "version"
  readonly ms: number
  readonly partitions?: number
}
/** A command that was answered. */
interface Acknowledged {
  readonly append: Append
  readonly id: string
  readonly answer: Appended
}
/** What happened in a race. */
export interface Raced {
  readonly acknowledged: number
  readonly conflicts: number
  readonly repeats: number
  readonly terminated: number
  readonly lost: number
}
const aggregate = "race"
type Store = EventStore["Service"]

/** Terminates backends of the database that are busy, and loses replies, until interrupted. */
const disturb = (
  sql: Sql,
  proxies: ReadonlyArray<{ readonly arm: (loss: "executed" | "running") => void }>,
  count: { terminated: number }
) =>
  Effect.gen(function* () {
    const random = randomOf(seed + 1)
    while (true) {
      yield* Effect.sleep(random.int(100, 400))
      random.pick(proxies).arm(random.pick(["executed", "running"]))
      const killed = yield* query(
        "kill",
        () => sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'racer' and state = 'active' limit 1`
      )
      count.terminated += killed.length
    }
  })

/** Runs a race on a database, with four stores that have connections of their own, as processes have. */
export const runRace = Effect.fnUntraced(function* ({ sql, url }: Database, race: Race) {
  const { expecting, ms, partitions = 4, streams, writers } = race
  const proxies = yield* Effect.forEach([1, 2, 3, 4], () => lossy(url))
  const stores = yield* Effect.forEach(proxies, (proxy) =>
    Effect.map(connect(proxy.url, { max: 5, applicationName: "racer" }), (pool) => PostgresEvents.make(pool).store)
  )
  const { store } = PostgresEvents.make(sql)
  yield* store.declare([{ name: aggregate, partitions }])
  yield* PostgresEvents.publish(sql, [aggregate], ["kafka"])
  const acknowledged: Array<Acknowledged> = []
  const refused: Array<string> = []
  const count = { terminated: 0 }
  let repeats = 0
  const end = Date.now() + ms
  const writer = Effect.fnUntraced(function* (number: number) {
    const random = randomOf(seed + 100 + number)
    for (let n = 0; Date.now() < end; n++) {
      const stream = `s${random.int(1, streams)}`
      const one: Store = random.pick(stores)
      const id = `${number}/${n}`
      const version = expecting === "any" ? 0 : (yield* one.load(aggregate, stream, { from: 1 << 30 })).version
      const expected: Expected = expecting === "any" ? "any" : version
      const append = appendOf(aggregate, stream, expected, events(random.int(1, 3)), { digest: id })
      const tries = random.chance(0.1) ? [one, random.pick(stores)] : [one]
      const results = yield* Effect.all(
        tries.map((try_) => Effect.result(try_.append(append, id))),
        { concurrency: "unbounded" }
      )
      for (const result of results) {
        if (result._tag === "Success") acknowledged.push({ append, id, answer: result.success })
        else if (result.failure._tag === "VersionConflict") {
          assert.notStrictEqual(
            result.failure.actual,
            expected,
            "a conflict tells another version than the expected one"
          )
          refused.push(id)
        } else assert.fail(`${result.failure._tag}: ${result.failure.message}`)
      }
      if (random.chance(0.2) && acknowledged.length > 0) {
        const before = random.pick(acknowledged)
        const again = yield* random.pick(stores).append(before.append, before.id)
        assert.deepStrictEqual(again, { ...before.answer, repeated: true }, "the same command gets the same answer")
        repeats++
      }
    }
  })
  const disturbing = yield* Effect.forkScoped(Effect.ignore(disturb(sql, proxies, count)))
  yield* Effect.all(
    Array.from({ length: writers }, (_, i) => writer(i)),
    { concurrency: "unbounded" }
  )
  disturbing.interruptUnsafe()
  yield* compare(sql, store, acknowledged, new Set(refused))
  const lost = proxies.reduce((sum, proxy) => sum + proxy.lost(), 0)
  const conflicts = new Set(refused).size
  return { acknowledged: acknowledged.length, conflicts, repeats, terminated: count.terminated, lost } satisfies Raced
})

/** Compares what writers were answered with what is stored. */
const compare = Effect.fnUntraced(function* (
  sql: Sql,
  store: Store,
  acknowledged: ReadonlyArray<Acknowledged>,
  refused: ReadonlySet<string>
) {
  const byId = new Map<string, Acknowledged>()
  for (const one of acknowledged) {
    const before = byId.get(one.id)
    if (before !== undefined)
      assert.deepStrictEqual(
        [one.answer.firstVersion, one.answer.position, one.answer.version],
        [before.answer.firstVersion, before.answer.position, before.answer.version],
        "two tries of one command get one answer"
      )
    if (before === undefined || !one.answer.repeated) byId.set(one.id, one)
    assert.isFalse(refused.has(one.id), "no command is both answered and refused")
  }
  const expected = new Map<string, string>()
  for (const { answer, append, id } of byId.values())
    for (let i = 0; i < append.events.length; i++)
      expected.set(
        `${answer.partition}:${answer.position + i}`,
        `${append.stream} ${answer.firstVersion + i} ${id}/${i}`
      )
  const { log } = yield* PostgresLog.make(sql)
  const bounds = yield* log.bounds(aggregate)
  const counts = new Map<string, number>()
  let total = 0
  for (const { end, partition } of bounds) {
    const records: Array<LogRecord> = []
    for (let position = 0; position < end;) {
      const batch = yield* log.read(aggregate, partition, position)
      records.push(...batch.records)
      position = batch.next
    }
    assert.strictEqual(records.length, end, "positions have no gap")
    for (const [i, { eventId, headers, key, position }] of records.entries()) {
      assert.strictEqual(position, i)
      const version = (counts.get(key!) ?? 0) + 1
      counts.set(key!, version)
      assert.strictEqual(`${key} ${headers["millrace-version"]}`, `${key} ${version}`, "versions have no gap")
      assert.strictEqual(expected.get(`${partition}:${position}`), `${key} ${version} ${eventId}`)
    }
    total += records.length
    yield* compareSegments(sql, partition, records)
  }
  assert.strictEqual(total, expected.size, "nothing is lost, and nothing doubled")
  const versions = yield* query(
    "read",
    () =>
      sql<
        Array<{ stream: string; version: number }>
      >`select stream, version from millrace.event_stream where version > 0`
  )
  assert.deepStrictEqual(
    new Map(versions.map(({ stream, version }) => [stream, version])),
    new Map(versions.map(({ stream }) => [stream, counts.get(stream)!]))
  )
  for (const [stream, version] of [...counts].slice(0, 3)) {
    const read = yield* Stream.runCollect(store.read(aggregate, stream))
    assert.deepStrictEqual(
      read.map((event) => event.version),
      Array.from({ length: version }, (_, i) => i + 1)
    )
  }
})
/** The outbox has what the topic has, in its order and without a gap. */
const compareSegments = Effect.fnUntraced(function* (sql: Sql, partition: number, records: ReadonlyArray<LogRecord>) {
  const segments = yield* query(
    "read",
    () => sql<Array<{ first_seq: number; messages: number; meta: string; vals: string }>>`
    select first_seq, messages, meta, vals from millrace.outbox where partition = ${partition} order by first_seq`
  )
  let next = 1
  const published: Array<string> = []
  for (const { first_seq, messages, meta, vals } of segments) {
    assert.strictEqual(first_seq, next, "sequences have no gap")
    next += messages
    const metas = JSON.parse(meta) as Array<[string, number, string, null, null, null, Record<string, string>]>
    const values = vals.split("\n")
    assert.deepStrictEqual([metas.length, values.length], [messages, messages])
    for (const [i, [key, , eventId, , , , headers]] of metas.entries())
      published.push(`${key} ${eventId} ${headers["millrace-version"]} ${values[i]}`)
  }
  assert.deepStrictEqual(
    published,
    records.map(({ eventId, headers, key, value }) => `${key} ${eventId} ${headers["millrace-version"]} ${value}`)
  )
})
