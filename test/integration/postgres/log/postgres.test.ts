// The log on PostgreSQL used by several processes: order, wake-ups and groups, while connections and processes are killed.
import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { query } from "../../../../src/postgres/client/client.ts"
import * as LogAppend from "../../../../src/postgres/log/append.ts"
import * as PostgresLog from "../../../../src/postgres/log/log.ts"
import { roster } from "../../../contract/log-groups.ts"
import { range, record } from "../../../contract/log-support.ts"
import { gapless, kill, persistently, readAll, Server, setUp } from "../../../support/log-postgres.ts"

vitest.layer(Server.layer, { timeout: "60 seconds", excludeTestServices: true })(
  "The log on PostgreSQL, several processes",
  (it) => {
    it.effect("gives appends of several processes gapless positions in all partitions, without deadlocks", () =>
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
        // in order and without gaps as they become visible, not only in the end
        assert.deepStrictEqual(seen, range(0, 5 * rounds * 2))
        for (const partition of range(0, 4)) {
          const records = yield* readAll(log, partition)
          assert.strictEqual(records.length, 5 * rounds * 2)
          gapless(records)
        }
      })
    )

    it.effect("loses no acknowledged record when the appending connection is killed", () =>
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
          yield* kill(database, "millrace log append")
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
        const { logs, log, ...database } = yield* setUp(2, 1, { pollMs: 600_000 })
        const other = logs[1]!
        const reader = yield* other.open("topic", 0, 0)
        yield* Effect.sleep(200)
        for (const i of range(0, 3)) {
          const fiber = yield* Effect.forkChild(reader.take, { startImmediately: true })
          yield* Effect.sleep(20)
          yield* log.append("topic", [record()])
          assert.strictEqual((yield* Fiber.join(fiber)).next, i + 1)
        }
        // and again after that connection was lost, also for what was appended in between
        const fiber = yield* Effect.forkChild(reader.take, { startImmediately: true })
        yield* kill(database, "millrace log session")
        yield* log.append("topic", [record()])
        assert.strictEqual((yield* Fiber.join(fiber)).next, 4)
      })
    )

    it.effect("finds records by polling if a notification was lost", () =>
      Effect.gen(function* () {
        const { log, sql } = yield* setUp(1, 1, { pollMs: 100 })
        const silent = LogAppend.make(sql, () => undefined)
        const reader = yield* log.open("topic", 0, 0)
        const fiber = yield* Effect.forkChild(reader.take, { startImmediately: true })
        yield* Effect.sleep(50)
        const [row] = yield* query("topic", () => sql`select topic_id from millrace.log_topic`)
        yield* silent.append({ topicId: Number(row!["topic_id"]), name: "topic" }, [record()])
        assert.strictEqual((yield* Fiber.join(fiber)).next, 1)
      })
    )

    it.effect("misses no append during a reader's query, and sends no queries while it waits", () =>
      Effect.gen(function* () {
        const { sql } = yield* setUp(1, 1)
        let queries = 0
        // its answers are delayed, so that they are outdated when they arrive
        const slow = new Proxy(sql, {
          get: (target, key) => {
            if (key !== "unsafe") return Reflect.get(target, key) as unknown
            queries += 1
            return (...args: Parameters<typeof sql.unsafe>) =>
              target.unsafe(...args).then((rows) => sleep(5).then(() => rows))
          }
        })
        const { log } = yield* PostgresLog.make(slow, { pollMs: 600_000 })
        const reader = yield* log.open("topic", 0, 0)
        for (let next = 0; next < 100;) {
          const appending = log.append("topic", [record(), record()])
          const [, batch] = yield* Effect.all([appending, reader.take], { concurrency: 2 })
          next = batch.next
        }
        const opened = yield* log.open("topic", 0, 100)
        yield* log.append("topic", [record()])
        assert.strictEqual((yield* opened.take).next, 101)
        yield* reader.take
        const waiting = yield* Effect.forkChild(reader.take)
        // it queries once; a reader that queried again and again would never be idle
        let before = 0
        do {
          before = queries
          yield* Effect.sleep(300)
        } while (queries !== before)
        assert.isUndefined(waiting.pollUnsafe())
        yield* Fiber.interrupt(waiting)
      })
    )

    it.effect("shares partitions among processes, and stops at once when its locks are lost", () =>
      Effect.gen(function* () {
        const { logs, ...database } = yield* setUp(2, 6, { rebalanceMs: 200 })
        const { alone, generations, growing, until, use } = roster()
        const [a, b] = yield* Effect.forEach(logs, (log, i) =>
          Effect.forkChild(log.assign("topic", "group", use("ab"[i]!)))
        )
        yield* until({ a: 3, b: 3 })
        alone()
        const before = new Map([...generations].map(([partition, list]) => [partition, list.length]))
        yield* kill(database, "millrace log session")
        // every process lost all partitions, and took them again with a higher generation
        while ([...generations].some(([partition, list]) => list.length === before.get(partition)))
          yield* Effect.sleep(10)
        yield* until({ a: 3, b: 3 })
        yield* Fiber.interrupt(a!)
        yield* until({ b: 6 })
        yield* Fiber.interrupt(b!)
        growing()
      })
    )

    it.effect("takes over the partitions of a killed process", () =>
      Effect.gen(function* () {
        const { log, url } = yield* setUp(1, 4, { rebalanceMs: 200 })
        const file = fileURLToPath(new URL("../../../support/log-child.ts", import.meta.url))
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
      })
    )
  }
)

const nodeOrDeno = "Deno" in globalThis ? ["run", "-A"] : []
