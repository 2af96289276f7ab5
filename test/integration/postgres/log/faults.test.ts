// The log on PostgreSQL when its server fails, its disk is full, or cleaners collide, and its records as seen through SQL.
import { spawnSync } from "node:child_process"
import { randomBytes } from "node:crypto"
import { mkdtempSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { LogError } from "../../../../src/log/log.ts"
import { connect, query } from "../../../../src/postgres/client/client.ts"
import { compact } from "../../../../src/postgres/log/compact.ts"
import { logError } from "../../../../src/postgres/log/errors.ts"
import * as PostgresLog from "../../../../src/postgres/log/log.ts"
import { migrate } from "../../../../src/postgres/client/migrate.ts"
import { roster } from "../../../contract/log-groups.ts"
import { range, record } from "../../../contract/log-support.ts"
import { gapless, persistently, readAll, Server, setUp } from "../../../support/log-postgres.ts"
import { asSuperuser, clusterOf, processOf, server } from "../../../support/postgres.ts"
import { skipWithout } from "../../../support/stack.ts"

vitest.layer(Server.layer, { timeout: "60 seconds", excludeTestServices: true })(
  "The log on PostgreSQL, faults",
  (it) => {
    it.effect("continues after the server was killed and restarted", () =>
      Effect.gen(function* () {
        const url = yield* server
        const sql = yield* connect(url)
        yield* migrate(sql)
        const { log } = yield* PostgresLog.make(sql, { rebalanceMs: 200 })
        yield* log.declare([{ name: "topic", partitions: 2, compacted: false, retentionMs: undefined }])
        const { check, until, use } = roster()
        const seen = new Map<number, Array<number>>([
          [0, []],
          [1, []]
        ])
        // as a runner does: after a retryable failure it opens another reader at its position
        const following = use("me", ({ open, partition }) => {
          const positions = seen.get(partition)!
          const once = Effect.scoped(
            Effect.gen(function* () {
              const reader = yield* open(positions.length)
              while (true) for (const { position } of (yield* reader.take).records) positions.push(position)
            })
          )
          return Effect.forever(
            once.pipe(
              Effect.catchTag("LogError", (error) => (error.retryable ? Effect.sleep(20) : Effect.die(error))),
              Effect.orDie
            )
          )
        })
        const member = yield* Effect.forkChild(log.assign("topic", "group", following))
        yield* until({ me: 2 })
        const appending = yield* Effect.forkChild(
          Effect.forEach(range(0, 150), (i) =>
            persistently(
              log,
              range(0, 2).map((partition) => record({ partition, value: `${i}` }))
            ).pipe(Effect.tap(() => Effect.sleep(5)))
          )
        )
        yield* Effect.sleep(300)
        process.kill(processOf(url), "SIGKILL")
        const failures = (yield* Fiber.join(appending)).reduce((a, b) => a + b)
        assert.isAbove(failures, 0)
        for (const [partition, positions] of seen) {
          const records = yield* readAll(log, partition)
          gapless(records)
          assert.strictEqual(new Set(records.map(({ value }) => value)).size, 150)
          while (positions.length < records.length) yield* Effect.sleep(10)
          assert.deepStrictEqual(positions, range(0, records.length))
        }
        yield* until({ me: 2 })
        yield* Fiber.interrupt(member)
        check()
      })
    )

    it.effect("loses no record when two cleaners run at once, even without their lock", () =>
      Effect.gen(function* () {
        const { log, sql } = yield* setUp(1, 1)
        yield* log.declare([{ name: "compacted", partitions: 1, compacted: true, retentionMs: undefined }])
        const [row] = yield* query("topic", () => sql`select topic_id from millrace.log_topic where name = 'compacted'`)
        const how = { dirtyShare: 0, deletionsMs: 1000, signal: new AbortController().signal }
        const compacting = query("compact", () => compact(sql, Number(row!["topic_id"]), 0, how)).pipe(
          Effect.catchIf(
            ({ code }) => code === "22012" || code === "23505",
            () => Effect.succeed(0)
          )
        )
        for (const round of range(0, 20)) {
          for (const i of range(0, 5))
            yield* log.append("compacted", [record({ key: `${i % 3}`, value: `${round * 5 + i}` })])
          yield* Effect.all([compacting, compacting, compacting], { concurrency: 3 })
          const [tiles] = yield* query(
            "tiles",
            () => sql`
            select bool_and(base_position = coalesce(before, 0)) as tiled, max(next_position)::int as end
            from (select *, lag(next_position) over (order by base_position) as before from millrace.log_batch
              where topic_id = ${row!["topic_id"]}) b`
          )
          assert.deepStrictEqual({ ...tiles }, { tiled: true, end: round * 5 + 5 })
        }
        yield* compacting
        const { records } = yield* log.read("compacted", 0, 0)
        assert.deepStrictEqual(
          records.map(({ position, value }) => [position, value]),
          [
            [97, "97"],
            [98, "98"],
            [99, "99"]
          ]
        )
      })
    )

    it.effect("aborts the compaction of rows that retention deleted in the meantime", () =>
      Effect.gen(function* () {
        const { log, sql } = yield* setUp(1, 1)
        for (const i of range(0, 6)) yield* log.append("topic", [record({ key: `${i % 2}`, value: `${i}` })])
        const [row] = yield* query("topic", () => sql`select topic_id from millrace.log_topic`)
        const topicId = Number(row!["topic_id"])
        // between the read and the write of compaction, the first two rows are deleted
        const expiring = new Proxy(sql, {
          get: (target, key) => {
            if (key !== "unsafe") return Reflect.get(target, key) as unknown
            return async (...args: Parameters<typeof sql.unsafe>) => {
              if (args[0].includes("with gone")) {
                await sql`delete from millrace.log_batch where topic_id = ${topicId} and base_position < 2`
                await sql`update millrace.log_head set start_position = 2 where topic_id = ${topicId}`
              }
              return target.unsafe(...args)
            }
          }
        })
        const how = { dirtyShare: 0, deletionsMs: 1000, signal: new AbortController().signal }
        const error = yield* Effect.flip(query("compact", () => compact(expiring, topicId, 0, how)))
        assert.strictEqual(logError("clean", "topic")(error).retryable, true)
        assert.deepStrictEqual(
          (yield* log.read("topic", 0, 2)).records.map(({ value }) => value),
          ["2", "3", "4", "5"]
        )
        const [rest] = yield* query("rest", () => sql`select min(base_position)::int as base from millrace.log_batch`)
        assert.strictEqual(rest!["base"], 2)
        assert.strictEqual(yield* query("compact", () => compact(sql, topicId, 0, how)), 2)
      })
    )

    it.effect("fails with advice while the disk is full, and continues without a gap once there is space", ({ skip }) =>
      Effect.gen(function* () {
        const { log, url } = yield* setUp(1, 1)
        const sql = yield* asSuperuser(url)
        const owner = statSync(clusterOf(url))
        const small = mkdtempSync(join(tmpdir(), "millrace-small-"))
        const mounted = spawnSync("mount", [
          "-t",
          "tmpfs",
          "-o",
          `size=6m,uid=${owner.uid},gid=${owner.gid},mode=700`,
          "tmpfs",
          small
        ])
        yield* Effect.addFinalizer(() =>
          Effect.sync(() => (spawnSync("umount", ["-l", small]), rmSync(small, { recursive: true, force: true })))
        )
        if (mounted.status !== 0)
          return skipWithout("tmpfs", "a small file system cannot be mounted. try: as root in a container", skip)
        yield* query("tablespace", () => sql.unsafe(`create tablespace small location '${small}'`))
        yield* query("move", () =>
          sql.unsafe(
            "create table millrace.filler tablespace small as select repeat('x', 1000) from generate_series(1, 3000)"
          )
        )
        yield* query("move", () => sql.unsafe("alter table millrace.log_batch set tablespace small"))
        const noise = () => JSON.stringify(randomBytes(60_000).toString("base64"))
        let there = 0
        const fill = Effect.gen(function* () {
          while (there < 1_000) {
            const [place] = yield* log.append("topic", [record({ value: noise() })])
            assert.strictEqual(place!.position, there++)
          }
        })
        const error = yield* Effect.flip(fill)
        assert.isTrue(error instanceof LogError && error.retryable)
        assert.match(error.message, /^.*the disk of the PostgreSQL server is full: free space, then try again$/)
        assert.isAbove(there, 3)
        const full = there
        yield* query("make room", () => sql.unsafe("drop table millrace.filler"))
        yield* Effect.retry(fill, { times: 0 }).pipe(Effect.ignore)
        assert.isAbove(there, full)
        gapless(yield* readAll(log, 0))
        yield* query("move", () => sql.unsafe("drop table millrace.log_batch cascade"))
        yield* query("move", () => sql.unsafe("drop tablespace small"))
      })
    )

    it.effect("reports what to do if its tables are missing, its disk is full, or a topic was recreated", () =>
      Effect.gen(function* () {
        const { url, log, sql } = yield* setUp(1)
        const empty = new URL(url)
        empty.pathname = "/postgres"
        const { log: nothing } = yield* PostgresLog.make(yield* connect(empty.href, { max: 1 }))
        const error = yield* Effect.flip(nothing.bounds("topic"))
        assert.match(error.message, /run 'millrace migrate'/)
        const full = logError("append", "topic")({ code: "53100", message: "could not extend file" })
        assert.isTrue(full.retryable)
        assert.match(full.message, /the disk of the PostgreSQL server is full: free space, then try again$/)
        // recreated while a process has its number in memory
        yield* log.append("topic", [record()])
        yield* query("remove", () => sql`delete from millrace.log_topic`)
        const removed = yield* Effect.flip(log.append("topic", [record()]))
        assert.match(
          removed.message,
          /the topic was deleted, or recreated, after this process first used it; try again$/
        )
        yield* log.declare([{ name: "topic", partitions: 4, compacted: false, retentionMs: undefined }])
        assert.deepStrictEqual(yield* log.append("topic", [record()]), [{ partition: 0, position: 0 }])
      })
    )

    it.effect("shows every record to people through SQL", () =>
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
  }
)
