// Aggregates on PostgreSQL, where several processes execute commands and decisions over tags at the same time.
import { assert, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { Aggregate, Application, Event, EventStore, Projection, ReadModel } from "../../../../src/index.ts"
import * as PostgresEvents from "../../../../src/postgres/events/events.ts"
import { openSystem } from "../../../../src/system/system.ts"
import { book, Courses, move, open, Accounts, race } from "../../../support/courses.ts"
import { databaseOn, server } from "../../../support/postgres.ts"
import { Wallet } from "../../../support/wallet.ts"

class Server extends Context.Service<Server, { readonly url: string }>()("test/Server") {
  static readonly layer = Layer.effect(
    Server,
    Effect.map(server, (url) => Server.of({ url }))
  )
}
/** Three stores of one database, as three processes have them: their queues and locks do not know each other. */
const processes = Effect.gen(function* () {
  const { sql } = yield* databaseOn((yield* Server).url)
  const stores = [1, 2, 3].map(() => PostgresEvents.make(sql))
  yield* stores[0]!.store.declare([Wallet, Courses, Accounts])
  const on = (i: number) => Effect.provideService(EventStore, stores[i % 3]!.store)
  return { sql, on, store: stores[0]!.store, statements: () => stores.reduce((sum, one) => sum + one.statements(), 0) }
})
const deposit = { type: "deposit", at: 1, cents: 1 } as const
const withdraw = { type: "withdraw", at: 1, cents: 3 } as const

it.layer(Server.layer, { timeout: "60 seconds", excludeTestServices: true })("aggregates on PostgreSQL", (it) => {
  it.effect(
    "commands of one stream share statements, and no withdrawal of several processes overdraws it",
    Effect.fnUntraced(function* () {
      const { on, statements, store } = yield* processes
      yield* Aggregate.execute(Wallet, "w", deposit).pipe(on(0))
      const before = statements()
      yield* race(Array.from({ length: 59 }, () => Aggregate.execute(Wallet, "w", deposit).pipe(on(0))))
      assert.isBelow(statements() - before, 20)
      const tries = Array.from({ length: 60 }, (_, i) => Aggregate.execute(Wallet, "w", withdraw).pipe(on(i)))
      const results = yield* race(tries)
      const passed = results.filter(({ _tag }) => _tag === "Success").length
      const { events, version } = yield* store.load("wallet", "w")
      assert.deepStrictEqual(
        events.map((event) => event.version),
        Array.from({ length: version }, (_, i) => i + 1)
      )
      assert.deepStrictEqual([passed, version], [20, 80])
      assert.deepStrictEqual(yield* Aggregate.load(Wallet, "w").pipe(on(1)), {
        version: 80,
        state: { cents: 0, events: 80 }
      })
    })
  )
  it.effect(
    "a command id gets one answer in all processes, also if it decided nothing or was rejected",
    Effect.fnUntraced(function* () {
      const { on } = yield* processes
      const send = (command: typeof deposit | typeof withdraw, commandId: string) =>
        race([0, 1, 2, 3, 4, 5].map((i) => Aggregate.execute(Wallet, "w", command, { commandId }).pipe(on(i))))
      const rejected = yield* send(withdraw, "request 1")
      assert.deepStrictEqual(
        new Set(rejected.map((one) => (one._tag === "Failure" ? one.failure._tag : "passed"))),
        new Set(["Poor"])
      )
      const passed = yield* send(deposit, "request 2")
      assert.deepStrictEqual(
        new Set(passed.map((one) => (one._tag === "Success" ? one.success.version : 0))),
        new Set([1])
      )
      yield* race(Array.from({ length: 5 }, (_, i) => Aggregate.execute(Wallet, "w", deposit).pipe(on(i))))
      const again = yield* send(withdraw, "request 1")
      assert.isTrue(
        again.every((one) => one._tag === "Failure" && (one.failure as { readonly cents?: number }).cents === 0)
      )
      const reused = yield* Aggregate.execute(Wallet, "w", deposit, { commandId: "request 1" }).pipe(on(1), Effect.flip)
      assert.strictEqual(reused._tag, "CommandReused")
    })
  )
  it.effect(
    "seats of a course are sold once, and a transfer overdraws no account, whichever process decides",
    Effect.fnUntraced(function* () {
      const { on, store } = yield* processes
      yield* open("c", 10).pipe(on(0))
      yield* move("t", "bank", "a", 100, ["a"]).pipe(on(0))
      const [booked, moved] = yield* Effect.all(
        [
          race(Array.from({ length: 24 }, (_, i) => book("c", `s${i}`).pipe(on(i)))),
          race(Array.from({ length: 9 }, (_, i) => move(`t${i}`, "a", `b${i}`, 30, ["a"]).pipe(on(i))))
        ],
        { concurrency: "unbounded" }
      )
      const { events } = yield* store.readBoundary("courses", { tags: ["course:c"], types: ["course.booked"] })
      assert.deepStrictEqual([booked.filter(({ _tag }) => _tag === "Success").length, events.length], [10, 10])
      assert.strictEqual(moved.filter(({ _tag }) => _tag === "Success").length, 3)
    })
  )
  it.effect(
    "decisions over tags of several processes are made again where the rows of an inline projection were computed for another version",
    Effect.fnUntraced(function* () {
      const bookings = ReadModel.table("bookings", {
        columns: { course: Schema.String, booked: Schema.Int },
        primaryKey: ["course"]
      })
      const counted = Projection.make({
        name: "bookings",
        version: 1,
        source: Courses,
        writes: [bookings],
        handle: {
          "course.booked": ({ course }, out) =>
            out.modify(bookings, { course }, (row) => ({ course, booked: (row?.booked ?? 0) + 1 }))
        }
      })
      const application = Application.make({
        name: "courses",
        aggregates: [Courses],
        projections: [Projection.inline(counted)]
      })
      const { sql, url } = yield* databaseOn((yield* Server).url, 12)
      const database = { sql, url, embedded: false, failed: Effect.never }
      const systems = yield* Effect.forEach([1, 2, 3], () => openSystem(application, database, { relaysHere: false }))
      const on = (i: number) => Effect.provideService(EventStore, systems[i % 3]!.eventStore)
      yield* open("c", 40).pipe(on(0))
      const booked = yield* race(Array.from({ length: 60 }, (_, i) => book("c", `s${i}`).pipe(on(i))))
      const failed = booked.flatMap((result) => (result._tag === "Success" ? [] : [String(result.failure)]))
      assert.deepStrictEqual(
        [...new Set(failed)].map((text) => text.slice(0, 10)),
        ["CourseFull"]
      )
      assert.strictEqual(booked.length - failed.length, 40)
      const rows = yield* Effect.promise(() => sql.unsafe("select course, booked::int from bookings"))
      assert.deepStrictEqual([...rows], [{ course: "c", booked: 40 }])
    })
  )
  it.effect(
    "a system refuses to start with declarations that cannot read stored events, and names the event type",
    Effect.fnUntraced(function* () {
      const { sql, url } = yield* databaseOn((yield* Server).url, 6)
      const database = { sql, url, embedded: false, failed: Effect.never }
      const rows = ReadModel.table("sums", { columns: { id: Schema.String }, primaryKey: ["id"] })
      const application = (...events: ReadonlyArray<unknown>) => {
        const aggregate = Aggregate.make({
          name: "sum",
          events,
          commands: {},
          state: Schema.Null,
          initial: null,
          evolve: Object.fromEntries(events.map((one) => [(one as { readonly type: string }).type, () => null])),
          decide: {}
        } as never) as unknown as Aggregate.Any
        const projection = Projection.make({
          name: "sums",
          version: 1,
          source: aggregate,
          writes: [rows],
          handle: () => {}
        })
        return Application.make({
          name: "sums",
          aggregates: [aggregate],
          projections: [Projection.async(projection)]
        } as never) as Application.Any
      }
      const Added = Event.make("added", { n: Schema.Int })
      const start = (...events: ReadonlyArray<unknown>) => Effect.scoped(openSystem(application(...events), database))
      const { eventStore } = yield* start(Added)
      const event = {
        type: "added",
        value: '{"type":"added","n":1}',
        eventTime: 1,
        eventId: undefined,
        tenant: undefined
      }
      const append = {
        aggregate: "sum",
        stream: "s",
        expected: 0,
        events: [{ ...event, traceparent: undefined, schemaVersion: 1, headers: {} }]
      }
      yield* eventStore.append(append, "id")
      yield* start(Added)
      const changed = yield* Effect.flip(start(Event.make("added", { n: Schema.Int, by: Schema.String })))
      assert.match(
        String((changed as Error).message),
        /aggregate sum cannot read events that are stored:\s+event type added, version 1: .*by/
      )
      const renamed = yield* Effect.flip(start(Event.make("increased", { n: Schema.Int })))
      assert.match(
        String((renamed as Error).message),
        /event type added, version 1: topic sum has no event type "added"/
      )
      yield* start(Added.upcast({ n: Schema.Int, by: Schema.String }, ({ n }) => ({ n, by: "" })))
    })
  )
})
