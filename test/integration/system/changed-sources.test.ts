// Versions of a projection that read other topics than the live one: with one more source, one fewer, and another one in its place.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Application, Projection, ReadModel, Topic } from "../../../src/index.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { diff } from "../../../src/system/diff.ts"
import { promote, type PromoteRequest } from "../../../src/system/promote.ts"
import { planRebuild } from "../../../src/system/rebuild-plan.ts"
import { beginRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { openSystem, runProjections, runRelay } from "../../../src/system/system.ts"
import { specsOf } from "../../../src/system/topics.ts"
import { recordOf } from "../../support/engine.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const partitions = 2
const topic = (name: string) => Topic.records(name, { value: { id: Schema.String }, key: "id", id: "id", partitions })
const [first, second, third, done] = [topic("first"), topic("second"), topic("third"), topic("done")]
const ids = ReadModel.table("ids", { columns: { id: Schema.String }, primaryKey: ["id"] })
const versionOf = (version: number, source: readonly [typeof first, ...Array<typeof first>]) =>
  Projection.make({
    name: "p",
    version,
    source,
    writes: [ids, done],
    handle: ({ id }, out) => {
      out.upsert(ids, { id })
      out.publish(done, { id })
    }
  })
const seen = ReadModel.table("seen_by_reader", { columns: { id: Schema.String }, primaryKey: ["id"] })
const reader = Projection.make({
  name: "reader",
  version: 1,
  source: done,
  writes: [seen],
  handle: ({ id }, out) => out.upsert(seen, { id })
})
const applicationOf = (...projections: ReadonlyArray<ReturnType<typeof versionOf>>) =>
  Application.make({
    name: "changing",
    projections: [...projections.map((one) => Projection.async(one)), Projection.async(reader)]
  })
const [v1, v2, v3, v4] = [
  versionOf(1, [first]),
  versionOf(2, [first, second]),
  versionOf(3, [second]),
  versionOf(4, [third])
] as const

it.live(
  "sources are added, removed and replaced by promotions, and what each source has is published once while a live build reads it",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
        const { sql } = database
        const application = applicationOf(v1, v2, v3, v4)
        const system = yield* openSystem(application, database)
        const run = (text: string) => query("test", () => sql.unsafe<Array<Record<string, unknown>>>(text))
        let fed = 0
        /** Appends ten events to a topic, and returns their ids. */
        const feed = (to: typeof first) => {
          const added = Array.from({ length: 10 }, () => `${to.name}${++fed}`)
          return Effect.as(
            system.log.append(
              to.name,
              added.map((id) => recordOf(to, { id }, partitions))
            ),
            added
          )
        }
        const published = Effect.map(
          run(
            `select b.vals from millrace.log_batch b join millrace.log_topic t using (topic_id) where t.name = 'done'`
          ),
          (batches) =>
            batches
              .flatMap(({ vals }) => String(vals).split("\n"))
              // a time mark has no value
              .filter((value) => value !== "")
              .map((value) => (JSON.parse(value) as { id: string }).id)
              .toSorted()
        )
        const rows = (build: number) =>
          Effect.map(run(`select id from p_v${build}.ids order by id collate "C"`), (all) => all.map(({ id }) => id))
        const eventually = <A>(effect: Effect.Effect<A, unknown>, expected: A) =>
          Effect.gen(function* () {
            for (let i = 0; i < 800; i++) {
              if (JSON.stringify(yield* effect) === JSON.stringify(expected)) return
              yield* Effect.sleep("25 millis")
            }
            assert.deepStrictEqual(yield* effect, expected)
          })
        const context = { application, sql, log: system.log, on: "PostgreSQL" as const }
        const promoting = (request: Partial<PromoteRequest>) =>
          promote(context, { name: "p", rollback: false, dryRun: false, timeoutMs: 20_000, ...request })
        /** Waits until the reader of the derived topic knows that all streams have reached this time. */
        const readerReaches = (time: number) =>
          eventually(
            Effect.map(
              run(`select bool_and(stream_time >= ${time}) as ok from millrace.progress where projection = 'reader'`),
              ([row]) => row!["ok"]
            ),
            true
          )
        yield* Effect.forkScoped(runProjections(system))
        yield* Effect.forkScoped(runRelay(system))

        const expected = [...(yield* feed(first))]
        const before = yield* feed(second)
        // the follower reads its own source to the end of the log
        yield* eventually(rows(2), [...expected, ...before].toSorted())
        yield* eventually(published, expected.toSorted())
        assert.deepInclude(yield* promoting({ build: 2, dryRun: true }), { state: "ready" })
        assert.deepInclude(yield* promoting({ build: 2 }), { from: 1, to: 2 })
        const added = Date.now()
        expected.push(...(yield* feed(first)), ...(yield* feed(second)))
        yield* eventually(published, expected.toSorted())
        yield* readerReaches(added)

        assert.deepInclude(yield* promoting({ build: 3 }), { from: 2, to: 3 })
        const removed = Date.now()
        const held = yield* feed(first)
        expected.push(...(yield* feed(second)))
        yield* eventually(published, expected.toSorted())
        yield* readerReaches(removed)
        // the replaced build stays where its stream of the removed source ended, and goes on there when it is live again
        assert.deepInclude(yield* promoting({ rollback: true }), { from: 3, to: 2 })
        expected.push(...held, ...(yield* feed(first)), ...(yield* feed(second)))
        yield* eventually(published, expected.toSorted())
        assert.deepInclude(yield* promoting({ build: 3 }), { from: 2, to: 3 })

        const old = yield* feed(third)
        yield* eventually(rows(4), old.toSorted())
        assert.deepInclude(yield* promoting({}), { from: 3, to: 4 })
        const replaced = Date.now()
        expected.push(...(yield* feed(third)))
        yield* eventually(published, expected.toSorted())
        yield* readerReaches(replaced)
        const halted = yield* run(
          "select halted from millrace.progress where halted is not null union all select halted from millrace.relay_position where halted is not null"
        )
        assert.strictEqual(halted.length, 0)
      })
    ),
  60_000
)

it.live(
  "a rebuild reads a source that only it has to the end of the log, and its plan says what of its messages is published; diff compares it",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = { ...(yield* databaseOn(url, 10)), embedded: false, failed: Effect.never }
        const system = yield* openSystem(applicationOf(v1), database)
        const append = (to: typeof first, count: number) =>
          system.log.append(
            to.name,
            Array.from({ length: count }, (_, i) => recordOf(to, { id: `${to.name}${i}` }, partitions))
          )
        yield* append(first, 5)
        yield* Effect.forkScoped(runProjections(system))
        const application = applicationOf(v3)
        yield* system.log.declare(specsOf(application, "PostgreSQL"))
        yield* append(second, 7)
        yield* Effect.sleep("300 millis")
        const { sql } = database
        const context = { application, sql, log: system.log, on: "PostgreSQL" as const }
        const plan = yield* planRebuild(context, "p", undefined)
        assert.deepStrictEqual(
          [plan.events, plan.not_reproduced],
          [
            7,
            [
              "second is a source that the live build does not have: what comes of its events is published from the promotion on",
              "first is no source any more: nothing of it is in the new build, and nothing of it is published after the promotion"
            ]
          ]
        )
        const own = { ...system, application }
        const build = yield* beginRebuild(own, "p", { rate: undefined, maxLiveLagMs: undefined })
        const rebuilt = yield* rebuild(own, build, { report: () => Effect.void, onRetry: () => Effect.void })
        assert.deepInclude(rebuilt, { build: 3, live: 1, events: 7 })
        const found = yield* diff(context, { name: "p", samples: 1, exact: false, timeoutMs: 20_000 })
        assert.deepInclude(found.tables[0], { name: "ids", missing: 5, extra: 7 })
        assert.deepInclude(yield* promote(context, { name: "p", rollback: false, dryRun: false, timeoutMs: 20_000 }), {
          from: 1,
          to: 3
        })
      })
    ),
  60_000
)
