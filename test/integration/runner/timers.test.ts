// Timers and sent commands on PostgreSQL: written by the commit of their batch and by no follower, set again, cancelled, and identified by their event.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Aggregate, Application, Event, Policy, ReadModel, Topic } from "../../../src/index.ts"
import type { Sql } from "../../../src/postgres/client/client.ts"
import { append, engine, run, settled, type Engine } from "../../support/engine.ts"
import { server } from "../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const Asked = Event.make("inquiry.asked", { order_id: Schema.String })
const Inquiry = Aggregate.make({
  name: "inquiry",
  id: "order_id",
  events: [Asked],
  commands: { ask: { order_id: Schema.String, at: Schema.Int } },
  state: Schema.Null,
  initial: null,
  evolve: { "inquiry.asked": () => null },
  decide: { ask: (_, { order_id }) => Asked.make({ order_id }) }
})
const step = { order_id: Schema.String, at: Schema.Int }
const Paid = Event.make("order.paid", step)
const Scanned = Event.make("order.scanned", step)
const Told = Event.make("order.told", step)
const orders = Topic.events("orders", {
  events: [Paid, Scanned, Told],
  key: "order_id",
  eventTime: "at",
  partitions: 4
})
const open = ReadModel.table("open_orders", { columns: { order_id: Schema.String }, primaryKey: ["order_id"] })
const later = Date.now() + 3_600_000
const policy = Policy.make({
  name: "scans",
  version: 1,
  source: orders,
  writes: [open, Inquiry],
  handle: {
    "order.paid": ({ at, order_id }, out) => {
      out.upsert(open, { order_id })
      out.timer("scan", { at: later + at, send: [Inquiry, order_id, { type: "ask", at }] })
    },
    "order.scanned": (_, out) => out.cancel("scan"),
    "order.told": ({ at, order_id }, out) => {
      out.send(Inquiry, "all", { type: "ask", at })
      out.send(Inquiry, order_id, { type: "ask", at })
    }
  }
})
const application = Application.make({ name: "orders", aggregates: [Inquiry], projections: [], policies: [policy] })

interface TimerRow {
  readonly timer_id: string
  readonly key: string
  readonly name: string | null
  readonly due: number
  readonly stream: string
  readonly command: string
  readonly position: number
  readonly number: number
  readonly correlation_id: string
  readonly traceparent: string | null
}
const timers = (sql: Sql) =>
  Effect.promise(
    () => sql<
      Array<TimerRow>
    >`select timer_id, key, name, (extract(epoch from due) * 1000)::float8 as due, stream, command, position, number,
      correlation_id, traceparent from millrace.timer order by name nulls first, key, position, number`
  )
const processed = Effect.fnUntraced(function* (system: Engine, events: ReadonlyArray<object>) {
  yield* append(system, orders, events)
  yield* settled(system)
})

it.live(
  "a commit sets timers, sets them again under their name, and cancels them, in each partition and with its rows",
  () =>
    Effect.scoped(
      Effect.gen(function* () {
        const system = yield* engine(root, application)
        yield* run(system)
        // many keys: small commits of several partitions share a statement
        const keys = Array.from({ length: 20 }, (_, i) => `o${String(i).padStart(2, "0")}`)
        yield* processed(
          system,
          keys.map((order_id) => Paid.make({ order_id, at: 1 }))
        )
        const first = yield* timers(system.sql)
        assert.deepStrictEqual(
          first.map(({ command, due, key, name, stream }) => ({
            command: JSON.parse(command) as object,
            due,
            key,
            name,
            stream
          })),
          keys.map((key) => ({
            command: { type: "ask", order_id: key, at: 1 },
            due: later + 1,
            key,
            name: "scan",
            stream: key
          }))
        )
        assert.strictEqual(new Set(first.map(({ timer_id }) => timer_id)).size, 20)
        assert.strictEqual(first[0]?.traceparent?.slice(0, 3), "00-")
        yield* processed(system, [Paid.make({ order_id: "o00", at: 2 }), Scanned.make({ order_id: "o01", at: 2 })])
        const second = yield* timers(system.sql)
        assert.deepStrictEqual(
          second.map(({ key }) => key),
          keys.filter((key) => key !== "o01")
        )
        // it is another timer, so that whoever fires the first one finds it gone
        assert.strictEqual(second[0]?.due, later + 2)
        assert.notStrictEqual(second[0]?.timer_id, first[0]?.timer_id)
        // in one batch the last call decides
        yield* processed(system, [
          Scanned.make({ order_id: "o02", at: 3 }),
          Paid.make({ order_id: "o02", at: 4 }),
          Paid.make({ order_id: "new", at: 5 }),
          Scanned.make({ order_id: "new", at: 6 })
        ])
        const third = yield* timers(system.sql)
        assert.strictEqual(third.find(({ key }) => key === "o02")?.due, later + 4)
        assert.isUndefined(third.find(({ key }) => key === "new"))
        const rows = yield* Effect.promise(() => system.sql`select count(*) as n from open_orders`)
        assert.strictEqual(rows[0]?.["n"], 21)
      })
    )
)

it.live("commands that are sent at once keep their numbers, and a follower's commit has none of them", () =>
  Effect.scoped(
    Effect.gen(function* () {
      const system = yield* engine(root, application)
      const stop = yield* run(system)
      yield* processed(system, [Told.make({ order_id: "a", at: 1 }), Told.make({ order_id: "a", at: 2 })])
      const sent = yield* timers(system.sql)
      assert.deepStrictEqual(
        sent.map(({ number, stream }) => [stream, number]),
        [
          ["all", 0],
          ["a", 1],
          ["all", 0],
          ["a", 1]
        ]
      )
      yield* stop
      yield* Effect.promise(() =>
        system.sql.unsafe(`delete from millrace.timer;
        insert into millrace.projection (name, version, declared, definition) values ('scans', 2, 2, '');
        insert into millrace.progress (projection, version, topic, partition, mode, next_position)
          select projection, 2, topic, partition, 'live', 1000 from millrace.progress;
        update millrace.progress set mode = 'follower' where version = 1;
        update millrace.live set version = 2`)
      )
      yield* run(system)
      yield* append(system, orders, [Told.make({ order_id: "a", at: 3 }), Paid.make({ order_id: "a", at: 3 })])
      const events = Effect.promise(
        () => system.sql`select sum(events)::int8 as n from millrace.progress where version = 1`
      )
      while ((yield* events)[0]?.["n"] !== 4) yield* Effect.sleep(20)
      assert.lengthOf(yield* timers(system.sql), 0)
    })
  )
)
