// What events see of lookups, on PostgreSQL: one state for each batch, by append times, and the same again in a build that follows.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import { retryRecord } from "../../../src/dead-letter/retry-record.ts"
import type { Log } from "../../../src/log/log.ts"
import * as MemoryLog from "../../../src/memory/log.ts"
import type { Out } from "../../../src/model/handler.ts"
import type { Projection } from "../../../src/model/projection.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { LookupForgetting } from "../../../src/postgres/store/lookup-forgetting.ts"
import {
  type Seen,
  caughtUp,
  count,
  differing,
  event,
  follower,
  open,
  person,
  processed,
  projectionOf,
  record,
  running,
  seen,
  unjournalled,
  userIn
} from "../../support/lookups.ts"
import { server } from "../../support/postgres.ts"
import { randomOf, seed } from "../../support/random.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

describe("a batch", () => {
  it.live("sees one state of its lookups, while its handlers wait and other partitions read on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const [waiting, released] = [Latch.makeUnsafe(), Latch.makeUnsafe()]
        const projection = projectionOf((id) => (id === "a" ? Effect.andThen(waiting.open, released.await) : undefined))
        const { cleaner, log } = MemoryLog.make()
        // append times that are not known: what was read when the batch began alone decides
        const timeless: Log["Service"] = {
          ...log,
          read: (topic, ...where) =>
            Effect.map(log.read(topic, ...where), (batch) => ({
              ...batch,
              records: batch.records.map((one) => ({ ...one, appendedAt: 0 }))
            }))
        }
        const system = yield* open(root, projection, { log: timeless, cleaner })
        const [one, two] = [userIn(0), userIn(1)]
        yield* log.append("people", [person("x", 1), person(one, 1)])
        yield* log.append("source", [event("a", one), event("b", one, "x"), event("c", one, "new")])
        yield* Effect.forkScoped(running(system, projection))
        yield* waiting.await
        yield* log.append("people", [person("x", 2), record(one, null, 0), person("new", 2)])
        yield* log.append("source", [event("d", two, "x"), event("e", two, "new")])
        while ((yield* count(system.sql, "p_v1.seen")) < 2) yield* Effect.sleep(5)
        yield* released.open
        yield* caughtUp(system, projection)
        assert.deepStrictEqual(
          (yield* seen(system)).map(({ friend, id, own }) => [id, own, friend]),
          [
            ["a", 1, 1],
            ["b", 1, 1],
            ["c", 1, -1],
            ["d", -1, 2],
            ["e", -1, 2]
          ]
        )
        const build = yield* follower(system, projection)
        yield* processed(system, build)
        assert.strictEqual(yield* differing(system, 1, 2), 0)
      })
    )
  )
})

describe("an event", () => {
  it.live("sees what was appended before it, however late it is processed", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projection = projectionOf()
        const system = yield* open(root, projection)
        const { log } = system
        const user = userIn(2)
        const put = [
          event("a", user),
          person(user, 1),
          event("b", user),
          person(user, 2),
          event("c", user),
          null,
          event("d", user)
        ]
        for (const one of put) {
          const isEvent = one?.value?.includes('"id"') === true
          yield* log.append(isEvent ? "source" : "people", [one ?? record(user, null, 0)])
          yield* Effect.sleep(3)
        }
        yield* processed(system, projection)
        assert.deepStrictEqual(
          (yield* seen(system)).map(({ id, own }) => [id, own]),
          [
            ["a", -1],
            ["b", 1],
            ["c", 2],
            ["d", -1]
          ]
        )
      })
    )
  )

  it.live("sees by event time the value that was valid then, of those that were read when its batch began", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projection = projectionOf()
        const system = yield* open(root, projection)
        const { log } = system
        const user = userIn(2)
        // the second comes late: it is about the past
        yield* log.append("people", [
          person("x", 1, 100),
          person("x", 3, 300),
          person("x", 2, 200),
          person("x", 4, 200)
        ])
        yield* log.append(
          "source",
          [50, 100, 199, 250, 299, 300, 900].map((at) => event(String(at), user, "x", at))
        )
        yield* processed(system, projection)
        const before = (yield* seen(system)).map(({ id, valid }) => [id, valid])
        assert.deepStrictEqual(before, [
          ["100", 1],
          ["199", 1],
          ["250", 4],
          ["299", 4],
          ["300", 3],
          ["50", -1],
          ["900", 3]
        ])
        // a correction of the past does not join again
        yield* log.append("people", [person("x", 9, 150)])
        yield* log.append("source", [event("a", user, "x", 199)])
        yield* processed(system, projection)
        const build = yield* follower(system, projection)
        yield* processed(system, build)
        assert.strictEqual(yield* differing(system, 1, 2), 0)
        assert.deepStrictEqual(
          (yield* seen(system, 2)).filter(({ id }) => id === "199" || id === "a").map(({ valid }) => valid),
          [1, 9]
        )
      })
    )
  )
})

describe("a build that follows", () => {
  for (const kind of ["plain", "waiting"] as const)
    it.live(`sees what the live one saw, with ${kind} handlers, whatever the borders of batches`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { chance, int } = randomOf(seed)
          const projection = projectionOf(kind === "plain" ? undefined : () => Effect.sleep("1 millis"))
          const system = yield* open(root, projection)
          const { log } = system
          const total = kind === "plain" ? 1_500 : 600
          const user = () => `k${int(0, 40)}`
          let appended = 0
          // the runner restarts in between
          for (let runs = 1; runs <= 3; runs++)
            yield* Effect.scoped(
              Effect.gen(function* () {
                yield* Effect.forkScoped(running(system, projection))
                for (const until = (total * runs) / 3; ;) {
                  if (appended >= until) break
                  const changes = Array.from({ length: int(1, 5) }, () => {
                    const of = user()
                    return chance(0.15) ? record(of, null, appended) : person(of, int(0, 1e9), int(0, 2_000))
                  })
                  if (chance(0.7)) yield* log.append("people", changes)
                  const events = Array.from({ length: int(1, 30) }, () =>
                    event(String(appended++), user(), user(), int(0, 2_000))
                  )
                  yield* log.append("source", events)
                  if (chance(0.5)) yield* Effect.sleep(3)
                }
              })
            )
          yield* processed(system, projection)
          // the topic loses what was superseded, and what was deleted
          const cleaned = yield* system.cleaner.clean({ topics: ["people"], dirtyShare: 0, deletionsMs: 0 })
          assert.isAbove(cleaned.compacted, 20)
          const before = yield* seen(system)
          assert.strictEqual(before.length, appended)
          assert.isTrue(new Set(before.map(({ own }) => own)).size > 20, `seed ${seed}`)
          for (const [number, maxBytes] of [[2], [3, 3_000]] as const) {
            const build = yield* follower(system, projection)
            yield* processed(system, build, maxBytes)
            assert.strictEqual(yield* differing(system, 1, number), 0, `seed ${seed}, build ${number}`)
          }
          assert.deepStrictEqual(yield* unjournalled(system), [])
        })
      )
    )

  it.live("sees of a retried dead letter's lookups what the retry saw", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projection = projectionOf()
        const strict = {
          ...projection,
          handle: (one: unknown, out: Out<never>, context: object) => {
            if ((context as Seen).own === undefined) throw new Error("nobody is known by that name")
            return projection.handle(one, out, context)
          }
        } satisfies Projection.Any
        const system = yield* open(root, strict)
        const { log, sql } = system
        const user = userIn(0)
        const failing = event("a", user, "x")
        yield* log.append("people", [person("x", 1)])
        yield* log.append("source", [failing])
        yield* processed(system, strict)
        yield* log.append("people", [person(user, 2), person("x", 2)])
        yield* log.append("source", [retryRecord(failing, "p", 0)])
        yield* processed(system, strict)
        yield* log.append("people", [record(user, null, 0), person("x", 3)])
        const build = yield* follower(system, strict)
        yield* processed(system, build)
        assert.strictEqual(yield* count(sql, "millrace.dead_letters where status = 'retried'"), 2)
        for (const number of [1, 2])
          assert.deepStrictEqual(
            (yield* seen(system, number)).map(({ friend, own }) => [own, friend]),
            [[2, 2]]
          )
      })
    )
  )

  it.live("sees today's values where there is no journal, and the store says where", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projection = projectionOf()
        const system = yield* open(root, projection)
        const { log, sql } = system
        const user = userIn(0)
        yield* log.append("people", [person(user, 1), person("x", 1)])
        yield* log.append("source", [event("a", user, "x"), event("b", user, "x")])
        yield* processed(system, projection)
        yield* query("as before the migration", () => sql`delete from millrace.lookup_journal`)
        yield* log.append("source", [event("c", user, "x")])
        yield* processed(system, projection)
        yield* log.append("people", [person(user, 2), person("x", 2)])
        const build = yield* follower(system, projection)
        yield* processed(system, build)
        assert.deepStrictEqual(
          (yield* seen(system, 2)).map(({ friend, id, own }) => [id, own, friend]),
          [
            ["a", 2, 2],
            ["b", 2, 2],
            ["c", 1, 1]
          ]
        )
        assert.deepStrictEqual(yield* unjournalled(system), [
          { topic: "source", partition: 0, lookup: "people", from: 0, to: 2 }
        ])
      })
    )
  )

  it.live("that sees the values of today has a journal of its own, which its followers see", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projection = projectionOf()
        const system = yield* open(root, projection)
        const { log, sql } = system
        const user = userIn(0)
        yield* log.append("people", [person(user, 1)])
        yield* log.append("source", [event("a", user)])
        yield* processed(system, projection)
        yield* log.append("people", [person(user, 2)])
        const again = yield* follower(system, projection, { lookups: "today" })
        yield* processed(system, again)
        assert.deepStrictEqual(
          (yield* seen(system, 2)).map(({ own }) => own),
          [2]
        )
        yield* query("promote", () =>
          sql.unsafe(`update millrace.progress set mode = case when version = 2 then 'live' else 'follower' end;
            update millrace.live set version = 2`)
        )
        yield* log.append("people", [person(user, 3)])
        yield* log.append("source", [event("b", user)])
        yield* processed(system, again)
        yield* processed(system, projection)
        yield* log.append("people", [person(user, 4)])
        const build = yield* follower(system, projection)
        yield* processed(system, build)
        // the build before goes on as what is live sees it
        const own = (number: number) => Effect.map(seen(system, number), (all) => all.map((row) => row.own))
        assert.deepStrictEqual(
          [yield* own(1), yield* own(2), yield* own(3)],
          [
            [1, 3],
            [2, 3],
            [2, 3]
          ]
        )
      })
    )
  )
})

describe("versions that no event can see any more", () => {
  it.live("are deleted, and a replay of the events that are left sees the same", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const projection = projectionOf()
        const system = yield* open(root, projection)
        const { cleaner, log, sql } = system
        const [user, other] = [userIn(0), userIn(1)]
        // as a value without its object, as processes run it
        const { run: forget } = new LookupForgetting(sql, log, new Set())
        for (let n = 1; n <= 4; n++) {
          yield* log.append("people", [
            person("x", n),
            person(user, n),
            n === 2 ? record("gone", null, 0) : person("gone", n)
          ])
          yield* log.append("source", [event(`a${n}`, user, "x"), event(`b${n}`, other, "gone")])
          yield* processed(system, projection)
          yield* Effect.sleep(3)
        }
        assert.strictEqual(yield* forget, 0)
        // retention takes the first two events of each partition
        yield* query("expire", () =>
          sql.unsafe(`update millrace.log_topic set retention_ms = 3600000 where name = 'source';
            update millrace.log_batch b set appended_at = appended_at - interval '2 hours'
            from millrace.log_topic t where t.topic_id = b.topic_id and t.name = 'source' and b.base_position < 2`)
        )
        yield* cleaner.clean({ topics: ["source"] })
        assert.deepStrictEqual(
          (yield* log.bounds("source")).map(({ start }) => start),
          [2, 2, 0, 0]
        )
        // of each key the newest that the third event saw, and what came later; the deletion has nothing behind it
        assert.strictEqual(yield* forget, 6)
        assert.strictEqual(yield* count(sql, "millrace.lookup_version"), 6)
        assert.strictEqual(yield* forget, 0)
        const build = yield* follower(system, projection)
        yield* query(
          "from the start of the log",
          () => sql`update millrace.progress set next_position = 2 where version = 2 and partition < 2`
        )
        yield* processed(system, build)
        assert.strictEqual(
          yield* count(
            sql,
            "p_v2.seen a join p_v1.seen b using (id) where (a.own, a.friend) is distinct from (b.own, b.friend)"
          ),
          0
        )
        assert.strictEqual(yield* count(sql, "p_v2.seen"), 4)
      })
    )
  )
})
