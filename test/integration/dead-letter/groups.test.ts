// The groups of 20,000 dead letters and more: every count is exact, and those of a database take a moment.
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query } from "../../../src/postgres/client/client.ts"
import * as DeadLetters from "../../../src/system/dead-letters/dead-letters.ts"
import { GroupCounter } from "../../../src/system/dead-letters/groups.ts"
import { groups } from "../../../src/system/dead-letters/pages.ts"
import { databaseOn, server } from "../../support/postgres.ts"

it.live(
  "groups of projections and relays count all that match, with the newest as a sample",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql } = yield* databaseOn(yield* server, 2)
        const at = (n: string) => `timestamptz '2026-01-01' + ${n} * interval '1 second'`
        yield* query("dead letters", () =>
          sql.unsafe(`insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message, attempts, headers, failed_at)
            select 'counting', 1, 'orders', n % 4, n, 'parked', 'k' || n % 500, case when n <= 500 then 'TypeError' else 'EarlierParked' end,
              'message ' || n, 1, '{}', ${at("n")} from generate_series(1, 20000) n`)
        )
        yield* query("parked messages", () =>
          sql.unsafe(`insert into millrace.relay_parked (target, projection, source, partition, seq, incarnation, topic, key, meta, val, reason, parked_at)
            select case when n % 3 = 0 then 'pulsar' else 'kafka' end, 'counting', 'orders', 0, n, gen_random_uuid(), 'receipts.v1', 'k' || n % 100, '[[null,0]]', '{}',
              'reason ' || n, ${at("n")} from generate_series(1, 12000) n`)
        )
        yield* query("analyze", () => sql.unsafe("analyze millrace.dead_letters; analyze millrace.relay_parked"))
        const context = { sql, openLog: Effect.die("nothing is appended"), bridgeRules: undefined }
        const of = Effect.fnUntraced(function* (request: Partial<DeadLetters.DeadLetterRequest>) {
          const selection = yield* DeadLetters.selectionOf({ ...request, kinds: ["projection", "relay"], limit: 1 })
          return yield* groups(context, selection)
        })
        const began = performance.now()
        const found = yield* of({})
        const ms = performance.now() - began
        assert.deepStrictEqual(
          found.groups.map(({ count, error, failedIn, keys, lastFailedAt, sample, waiting }) => [
            [failedIn, error, count, keys, waiting],
            [sample.id, sample.message, new Date(lastFailedAt).toISOString()]
          ]),
          [
            [
              ["counting v1", "TypeError", 500, 500, 19_500],
              [500, "message 500", "2026-01-01T00:08:20.000Z"]
            ],
            [
              ["relay to kafka", "Refused", 8_000, 100, 0],
              ["relay:11999", "reason 11999", "2026-01-01T03:19:59.000Z"]
            ],
            [
              ["relay to pulsar", "Refused", 4_000, 100, 0],
              ["relay:12000", "reason 12000", "2026-01-01T03:20:00.000Z"]
            ],
            [
              ["counting v1", "EarlierParked", 19_500, 500, 0],
              [20_000, "message 20000", "2026-01-01T05:33:20.000Z"]
            ]
          ]
        )
        assert.isFalse(found.isPartial)
        // a second would be far too much for a screen; this is what a busy machine takes
        assert.isBelow(ms, 10_000)
        process.stdout.write(`groups of 32,000 dead letters in ${Math.round(ms)} ms\n`)
        const since = yield* of({ since: Date.parse("2026-01-01T05:00:00Z"), error: "EarlierParked" })
        assert.deepStrictEqual(
          since.groups.map(({ count, kind }) => [kind, count]),
          [["projection", 2_001]]
        )
        const ofKey = yield* of({ key: "k7" })
        assert.deepStrictEqual(
          ofKey.groups.map(({ count, keys, kind }) => [kind, count, keys]),
          [
            ["relay", 80, 1],
            ["projection", 1, 1],
            ["relay", 40, 1],
            ["projection", 39, 1]
          ]
        )
      })
    ),
  60_000
)

it.live(
  "the filter of each group means exactly the dead letters that it counts, in the list, in a retry and in a discard",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql } = yield* databaseOn(yield* server, 2)
        // three builds of one projection, and messages that two targets refused
        yield* query("dead letters", () =>
          sql.unsafe(`insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message, attempts, headers, failed_at, envelope)
            select 'weather', b, 'readings', 0, n, 'parked', 'k' || n, 'TypeError', 'no', 1, '{}', now(), '{}' from generate_series(1, 3) b, generate_series(1, b + 1) n`)
        )
        yield* query("parked messages", () =>
          sql.unsafe(`insert into millrace.relay_parked (target, projection, source, partition, seq, incarnation, topic, key, meta, val, reason, parked_at)
            select case when n < 4 then 'pulsar' else 'kafka' end, 'weather', 'readings', 0, n, gen_random_uuid(), 'out.v1', 'k', '[[null,0]]', '{}', 'no', now() from generate_series(1, 8) n`)
        )
        const context = { sql, openLog: Effect.die("nothing is appended"), bridgeRules: undefined }
        const all = yield* groups(context, yield* DeadLetters.selectionOf({ kinds: ["projection", "relay"], limit: 1 }))
        assert.deepStrictEqual(all.groups.map(({ count }) => count).toSorted(), [2, 3, 3, 4, 5])
        for (const group of all.groups) {
          const { build, error, kind, projection } = group
          const target = /^relay to (.+)$/.exec(group.failedIn)?.[1]
          const request = { kinds: [kind], projection, build, target, error, limit: 1_000 }
          const listed = yield* DeadLetters.list(context, yield* DeadLetters.selectionOf(request))
          const bulk = yield* DeadLetters.bulkSelectionOf({ ...request, all: false })
          const found = [listed]
          for (const purpose of ["retry", "discard"] as const)
            found.push({ ...(yield* DeadLetters.preview(context, bulk, purpose)), hasMore: false })
          for (const { deadLetters } of found) {
            assert.strictEqual(deadLetters.length, group.count)
            assert.deepStrictEqual([...new Set(deadLetters.map(({ failedIn }) => failedIn))], [group.failedIn])
          }
        }
      })
    ),
  60_000
)

it.live(
  "retries that wait are named by the build that no process runs, with what to do",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql } = yield* databaseOn(yield* server, 2)
        yield* query("dead letters", () =>
          sql.unsafe(`insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message, attempts, headers, failed_at)
            select 'weather', b, 'readings', 0, n, 'retrying', 'k', 'TypeError', 'no', 1, '{}', now() from generate_series(1, 2) b, generate_series(1, 4) n`)
        )
        yield* query("process", () =>
          sql.unsafe(`insert into millrace.process (process_id, host, pid, roles, projections, declares, targets, failing)
            values (gen_random_uuid(), 'a', 1, '{projections}', '{weather_v1}', '{weather_v1}', '{}', '[]')`)
        )
        const context = { sql, openLog: Effect.die("nothing is appended"), bridgeRules: undefined }
        const ids = yield* query("ids", () => sql.unsafe<Array<{ id: number }>>("select id from millrace.dead_letters"))
        assert.deepStrictEqual(
          yield* DeadLetters.waitingRetries(
            context,
            ids.map(({ id }) => id)
          ),
          [
            {
              build: "weather v2",
              count: 4,
              try: "start a process that runs it: millrace start; or, if nobody needs the build, end it: millrace retire weather 2"
            }
          ]
        )
        assert.deepStrictEqual(yield* DeadLetters.waitingRetries(context, []), [])
      })
    ),
  60_000
)

describe("what no database counts", () => {
  const one = (n: number, error = "Redelivered", key: string | null = `k${n % 700}`) => ({
    id: `topic@0:${n}`,
    status: "parked" as const,
    failedIn: "subscription s",
    record: "",
    key,
    error: "",
    attempts: 1,
    failedAt: 1_000 + (n % 10_007),
    details: { error, message: `message ${n}` }
  })
  it("is counted one by one, with the newest as a sample", () => {
    const counter = new GroupCounter()
    for (let n = 0; n < 15_000; n++) counter.add(one(n, n % 3 === 0 ? "Refused" : "Redelivered"))
    counter.add(one(20_000, "Refused", null))
    const { groups: found, isPartial } = counter.result
    assert.isFalse(isPartial)
    assert.deepStrictEqual(
      found.map(({ count, error, firstFailedAt, keys, lastFailedAt, sample }) => [
        error,
        count,
        keys,
        firstFailedAt,
        lastFailedAt,
        sample.id,
        sample.message
      ]),
      [
        ["Refused", 5_001, 701, 1_000, 11_005, "topic@0:10005", "message 10005"],
        ["Redelivered", 10_000, 700, 1_000, 11_006, "topic@0:10006", "message 10006"]
      ]
    )
  })
  it("is limited: more groups or keys than are kept make it partial", () => {
    const many = new GroupCounter()
    for (let n = 0; n < 201; n++) many.add(one(n, `Error${n}`))
    assert.deepStrictEqual([many.result.groups.length, many.result.isPartial], [200, true])
    const keys = new GroupCounter()
    for (let n = 0; n < 200_001; n++) keys.add(one(n, "Refused", `k${n}`))
    assert.deepStrictEqual(
      [keys.result.isPartial, keys.result.groups.map(({ count, keys: known }) => [count, known])],
      [true, [[200_001, 200_000]]]
    )
  })
})
