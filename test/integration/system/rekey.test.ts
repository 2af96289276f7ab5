// Events of two aggregates and a topic, re-keyed and projected with `modify` and a fold by two systems on one database: live, taken over, and replayed.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Aggregate, Application, EventStore, Projection } from "../../../src/index.ts"
import { connect, query, type Sql } from "../../../src/postgres/client/client.ts"
import { diff } from "../../../src/system/diff.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { openSystem, runProjections, runRelay } from "../../../src/system/system.ts"
import { untilProcessed } from "../../../src/system/until-processed.ts"
import { record } from "../../contract/log-support.ts"
import { byOrder, delivery, event, Order, parcels, Payment } from "../../support/deliveries.ts"
import { databaseOn, server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const application = Application.make({
  name: "deliveries",
  aggregates: [Order, Payment],
  projections: [Projection.async(byOrder.projection), Projection.async(delivery)]
})
const rows = (sql: Sql, text: string) =>
  Effect.map(
    query("read", () => sql.unsafe<Array<Record<string, unknown>>>(text)),
    (found) => found.map((row) => ({ ...row }))
  )
const orders = Array.from({ length: 12 }, (_, i) => `o${i}`)

it.live(
  "each row is changed by all events of its key, once each, whichever process has a partition, and a replay gives the same rows",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const base = yield* databaseOn(url, 10)
        const open = (sql: Sql) => openSystem(application, { ...base, sql, embedded: false, failed: Effect.never })
        const { sql } = base
        const first = yield* open(sql)
        const second = yield* open(yield* connect(base.url, { max: 10 }))
        for (const system of [first, second]) yield* Effect.forkScoped(runRelay(system))
        const one = yield* Effect.forkScoped(runProjections(first))
        yield* Effect.forkScoped(runProjections(second))
        const step = (n: number) =>
          Effect.forEach(
            orders,
            (order, i) =>
              Effect.gen(function* () {
                yield* Aggregate.execute(Order, order, { type: "place", cents: 100 })
                yield* Aggregate.execute(Payment, `p${i}-${n}`, { type: "receive", order, cents: 30 })
                yield* Aggregate.execute(Payment, `p${i}-${n}`, { type: "receive", order: null, cents: 1_000 })
                yield* first.log.append(parcels.name, [
                  record({
                    partition: n % 2,
                    key: `x${n}`,
                    value: JSON.stringify(event.scanned({ parcel: `x${n}`, order, at: 1 })),
                    eventTime: 1
                  })
                ])
              }),
            { concurrency: 4, discard: true }
          ).pipe(Effect.provideService(EventStore, second.eventStore))
        yield* step(0)
        // one of the processes ends, and the other one takes its partitions over
        yield* Effect.all([step(1), Fiber.interrupt(one)], { concurrency: 2 })
        yield* step(2)
        yield* untilProcessed(second)
        const owners = yield* rows(
          sql,
          "select count(distinct partition)::int4 as n from millrace.progress where projection = 'delivery' and next_position > 0"
        )
        assert.isAbove(owners[0]!["n"] as number, 1)
        const expected = orders
          .map((order_id) => ({
            order_id,
            open_cents: 210,
            scans: 3,
            steps: ["order.placed", "parcel.scanned", "payment.received"].flatMap((type) => [type, type, type])
          }))
          .toSorted((a, b) => (a.order_id < b.order_id ? -1 : 1))
        const found = () => rows(sql, "select d.*, t.steps from deliveries d join trails t using (order_id) order by 1")
        assert.deepStrictEqual(yield* found(), expected)
        assert.deepStrictEqual(yield* rows(sql, "select message from millrace.dead_letters"), [])

        // replays of both: that of the re-keyed events publishes nothing, and that of the rows gives the same
        const context = { application, sql, log: second.log, on: "PostgreSQL" as const }
        for (const name of ["by_order", "delivery"]) {
          const build = yield* beginRebuild(second, name, { rate: undefined, maxLiveLagMs: undefined }, {})
          yield* rebuild(second, build, { report: () => Effect.void, onRetry: () => Effect.void })
          const found = yield* Effect.scoped(diff(context, { name, timeoutMs: 10_000, samples: 0, exact: true }))
          assert.deepStrictEqual([name, found.equal], [name, true])
          yield* promote(context, { name, rollback: false, dryRun: false, timeoutMs: 20_000 })
        }
        yield* step(3)
        yield* untilProcessed(second)
        assert.deepStrictEqual(
          (yield* found()).map(({ open_cents, scans }) => [open_cents, scans]),
          orders.map(() => [280, 4])
        )
      })
    ),
  60_000
)
