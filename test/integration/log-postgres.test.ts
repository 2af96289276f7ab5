// Faults of the log on PostgreSQL: lost connections, killed servers and processes, several processes at once. The contract has the rest.
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { assert, it as vitest } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { Log, LogError, type NewRecord } from "../../src/log.ts"
import { connect, query } from "../../src/postgres/client.ts"
import * as LogAppend from "../../src/postgres/log-append.ts"
import { logError } from "../../src/postgres/log-errors.ts"
import * as PostgresLog from "../../src/postgres/log.ts"
import { roster } from "../contract/log-groups.ts"
import { range, record } from "../contract/log-support.ts"
import { type Database, databaseOn, server } from "../support/postgres.ts"

class Server extends Context.Service<Server, { readonly url: string }>()("test/Server") {
  static readonly layer = Layer.effect(
    Server,
    Effect.map(server, (url) => Server.of({ url }))
  )
}
/** A database with a topic, and processes' worth of logs on it, each with its own connections. */
const setUp = Effect.fnUntraced(function* (logs: number, partitions = 4, options: PostgresLog.Options = {}) {
  const { url } = yield* Server
  const database = yield* databaseOn(url)
  const made = yield* Effect.forEach(range(0, logs), () =>
    Effect.map(
      Effect.flatMap(connect(database.url, { max: 3 }), (sql) => PostgresLog.make(sql, options)),
      ({ log }) => log
    )
  )
  yield* made[0]!.declare([{ name: "topic", partitions, compacted: false, retentionMs: undefined }])
  return { ...database, logs: made, log: made[0]! }
})
const kill = ({ sql }: Database, application: string) =>
  query(
    "kill",
    () => sql`
      select pg_terminate_backend(pid) from pg_stat_activity
      where application_name = ${application} and datname = current_database()`
  )
const readAll = Effect.fnUntraced(function* (log: Log["Service"], partition: number) {
  const records = []
  for (let position = 0; ;) {
    const batch = yield* log.read("topic", partition, position)
    if (batch.next === position) return records
    records.push(...batch.records)
    position = batch.next
  }
})
const gapless = (records: ReadonlyArray<{ readonly position: number }>) =>
  assert.deepStrictEqual(
    records.map(({ position }) => position),
    range(0, records.length)
  )
/** Appends until it is there, and checks that only retryable failures come between. The number of those. */
const persistently = (log: Log["Service"], records: ReadonlyArray<NewRecord>) =>
  Effect.gen(function* () {
    for (let failures = 0; ; failures++) {
      const error = yield* log.append("topic", records).pipe(Effect.as(undefined), Effect.catch(Effect.succeed))
      if (error === undefined) return failures
      assert.isTrue(error instanceof LogError && error.retryable, error.message)
      yield* Effect.sleep(20)
    }
  })

vitest.layer(Server.layer, { timeout: "60 seconds", excludeTestServices: true })("The log on PostgreSQL", (it) => {
  it.effect("gives several processes gapless positions over all partitions, without deadlocks", () =>
    Effect.gen(function* () {
      const { logs, log } = yield* setUp(5)
      const rounds = 60
      const seen: Array<number> = []
      const reader = yield* log.open("topic", 0, 0)
      const following = yield* Effect.forkChild(
        Effect.gen(function* () {
          while (seen.length < 5 * rounds * 2)
            for (const { position } of (yield* reader.take).records) seen.push(position)
        })
      )
      yield* Effect.forEach(
        logs,
        (each, who) =>
          Effect.forEach(range(0, rounds), (round) => {
            const records = range(0, 8).map((i) => record({ partition: i % 4, value: `[${who},${round},${i}]` }))
            return each.append("topic", (who + round) % 2 === 0 ? records : records.toReversed())
          }),
        { concurrency: "unbounded", discard: true }
      )
      yield* Fiber.join(following)
      // in order and without gaps as they became visible, not only in the end
      assert.deepStrictEqual(seen, range(0, 5 * rounds * 2))
      for (const partition of range(0, 4)) {
        const records = yield* readAll(log, partition)
        assert.strictEqual(records.length, 5 * rounds * 2)
        gapless(records)
      }
    })
  )

  it.effect("loses nothing that it answered for when the appending connection is killed", () =>
    Effect.gen(function* () {
      const { log, ...database } = yield* setUp(1)
      let failures = 0
      const appending = yield* Effect.forkChild(
        Effect.forEach(
          range(0, 8),
          (who) =>
            Effect.forEach(range(0, 30), (round) =>
              Effect.gen(function* () {
                const records = range(0, 4).map((partition) => record({ partition, value: `[${who},${round}]` }))
                failures += yield* persistently(log, records)
                yield* Effect.sleep(5)
              })
            ),
          { concurrency: "unbounded", discard: true }
        )
      )
      while (appending.pollUnsafe() === undefined) {
        yield* kill(database, "millrace append")
        yield* Effect.sleep(40)
      }
      yield* Fiber.join(appending)
      assert.isAbove(failures, 0)
      for (const partition of range(0, 4)) {
        const records = yield* readAll(log, partition)
        gapless(records)
        assert.strictEqual(new Set(records.map(({ value }) => value)).size, 8 * 30)
        assert.isAtMost(records.length, 8 * 30 + failures)
      }
    })
  )

  it.effect("wakes readers of another process by notification, not by polling", () =>
    Effect.gen(function* () {
      const { logs, log, ...database } = yield* setUp(2, 1, { pollMs: 60_000 })
      const other = logs[1]!
      const reader = yield* other.open("topic", 0, 0)
      yield* Effect.sleep(200)
      for (const i of range(0, 3)) {
        const fiber = yield* Effect.forkChild(reader.take, { startImmediately: true })
        yield* Effect.sleep(20)
        yield* log.append("topic", [record()])
        assert.strictEqual((yield* Effect.timeout(Fiber.join(fiber), "1 second")).next, i + 1)
      }
      // and again after that connection was lost, of what came while it was, too
      const fiber = yield* Effect.forkChild(reader.take, { startImmediately: true })
      yield* kill(database, "millrace session")
      yield* log.append("topic", [record()])
      assert.strictEqual((yield* Effect.timeout(Fiber.join(fiber), "3 seconds")).next, 4)
    })
  )

  it.effect("polls where a notification was lost", () =>
    Effect.gen(function* () {
      const { log, sql } = yield* setUp(1, 1, { pollMs: 100 })
      const silent = LogAppend.make(sql, () => undefined)
      const reader = yield* log.open("topic", 0, 0)
      const fiber = yield* Effect.forkChild(reader.take, { startImmediately: true })
      yield* Effect.sleep(50)
      const [row] = yield* query("topic", () => sql`select topic_id from millrace.log_topic`)
      yield* silent.append({ topicId: Number(row!["topic_id"]), name: "topic" }, [record()])
      assert.strictEqual((yield* Effect.timeout(Fiber.join(fiber), "2 seconds")).next, 1)
    })
  )

  it.effect("shares partitions among processes, and stops at once where its locks are lost", () =>
    Effect.gen(function* () {
      const { logs, ...database } = yield* setUp(2, 6, { rebalanceMs: 200 })
      const { check, generations, until, use } = roster()
      const [a, b] = yield* Effect.forEach(logs, (log, i) =>
        Effect.forkChild(log.assign("topic", "group", use("ab"[i]!)))
      )
      yield* until({ a: 3, b: 3 })
      const before = new Map([...generations].map(([partition, list]) => [partition, list.length]))
      yield* kill(database, "millrace session")
      // everybody lost everything, and took it again under a higher generation
      while ([...generations].some(([partition, list]) => list.length === before.get(partition)))
        yield* Effect.sleep(10)
      yield* until({ a: 3, b: 3 })
      yield* Fiber.interrupt(a!)
      yield* until({ b: 6 })
      yield* Fiber.interrupt(b!)
      check()
    }).pipe(Effect.timeout("20 seconds"))
  )

  it.effect("takes over from a process that was killed", () =>
    Effect.gen(function* () {
      const { log, url } = yield* setUp(1, 4, { rebalanceMs: 200 })
      const file = fileURLToPath(new URL("../support/log-child.ts", import.meta.url))
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(process.execPath, [...nodeOrDeno, file, url, "topic", "group"], {
            stdio: ["ignore", "pipe", "inherit"]
          })
        ),
        (process) => Effect.sync(() => process.kill("SIGKILL"))
      )
      const having = new Map<number, number>()
      createInterface(child.stdout).on("line", (line) => {
        const [sign, partition, generation] = line.split(" ")
        if (sign === "+") having.set(Number(partition), Number(generation))
        else having.delete(Number(partition))
      })
      while (having.size < 4) yield* Effect.sleep(10)
      const { check, generations, until, use } = roster()
      const member = yield* Effect.forkChild(log.assign("topic", "group", use("me")))
      yield* until({ me: 2 })
      while (having.size > 2) yield* Effect.sleep(10)
      child.kill("SIGKILL")
      yield* until({ me: 4 })
      for (const [partition, list] of generations) assert.isAbove(list.at(-1)!, having.get(partition) ?? 0)
      yield* Fiber.interrupt(member)
      check()
    }).pipe(Effect.timeout("20 seconds"))
  )

  it.effect("says what to do where its tables are missing, or its disk is full", () =>
    Effect.gen(function* () {
      const { url, log, sql } = yield* setUp(1)
      const empty = new URL(url)
      empty.pathname = "/postgres"
      const { log: nothing } = yield* PostgresLog.make(yield* connect(empty.href, { max: 1 }))
      const error = yield* Effect.flip(nothing.bounds("topic"))
      assert.match(error.message, /run 'millrace migrate'/)
      const full = logError("append", "topic")({ code: "53100", message: "could not extend file" })
      assert.isTrue(full.retryable)
      assert.match(full.message, /disk .* is full/)
      // made anew under the feet of a process that knows it
      yield* log.append("topic", [record()])
      yield* query("remove", () => sql`delete from millrace.log_topic`)
      const removed = yield* Effect.flip(log.append("topic", [record()]))
      assert.match(removed.message, /removed, or made anew/)
      yield* log.declare([{ name: "topic", partitions: 4, compacted: false, retentionMs: undefined }])
      assert.deepStrictEqual(yield* log.append("topic", [record()]), [{ partition: 0, position: 0 }])
    })
  )

  it.effect("shows every record to people who look with SQL", () =>
    Effect.gen(function* () {
      const { log, sql } = yield* setUp(1)
      const headers = { a: "1" }
      const trace = "0af7651916cd43dd8448eb211c80319c"
      yield* log.append("topic", [
        record({ key: "nul \0", value: '"\\u0000 \\ud800"', headers, tenant: "half \udc00" }),
        record({
          key: "back \\u0000 slash \\\0\0",
          headers,
          traceparent: `00-${trace}-b7ad6b7169203331-01`
        }),
        record({ key: null, value: null, eventTime: 1e300 })
      ])
      const rows = yield* query("look", () =>
        sql`
          select topic, partition, position, key, tenant, trace_id, headers::text, value, event_time
          from millrace.log_record order by position`.values()
      )
      assert.deepStrictEqual(
        rows.map((row) => Array.from(row)),
        [
          ["topic", 0, 0, "nul \\u0000", "half \\udc00", null, '{"a":"1"}', '"\\u0000 \\ud800"', 1_357_000_000_000],
          ["topic", 0, 1, "back \\u0000 slash \\\\u0000\\u0000", null, trace, '{"a":"1"}', "{}", 1_357_000_000_000],
          ["topic", 0, 2, null, null, null, null, null, null]
        ]
      )
    })
  )
})

const nodeOrDeno = "Deno" in globalThis ? ["run", "-A"] : []
