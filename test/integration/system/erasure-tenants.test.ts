// Erasure and export of a subject whom several tenants have: refused unless they are named, and names that keep them apart.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Aggregate, Application, Event, EventStore, Personal } from "../../../src/index.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { eraseSubject } from "../../../src/system/erasure.ts"
import { exportSubject } from "../../../src/system/subject-export.ts"
import { openEventsOfCommand } from "../../../src/system/open-event-store.ts"
import { openSystem } from "../../../src/system/system.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { exported } from "../../support/exported.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const Moved = Event.make("customer.moved", {
  customer_id: Schema.String,
  city: Personal(Schema.String, { redacted: "?" })
})
/** The aggregate, with subjects of these names, and another declaration of its events. */
const customerOf = (
  subject: (event: { readonly customer_id: string }, about: { readonly tenant: string | undefined }) => string,
  moved = Moved
) =>
  Aggregate.make({
    name: "customer",
    events: [moved],
    commands: { move: { customer_id: Schema.String, city: Schema.String } },
    state: Schema.Struct({ city: Schema.String }),
    initial: { city: "" },
    evolve: { "customer.moved": (_, { city }) => ({ city }) },
    decide: { move: (_, { city, customer_id }) => Moved.make({ customer_id, city }) },
    id: "customer_id",
    partitions: 2,
    subject,
    snapshot: { every: 2 }
  })
const Customer = customerOf(({ customer_id }) => customer_id)
const application = Application.make({ name: "customers", aggregates: [Customer], projections: [] })

const system = Effect.gen(function* () {
  const database = { ...(yield* databaseOn(url, 8)), embedded: false, failed: Effect.never }
  return { ...(yield* openSystem(application, database, { relaysHere: false })), sql: database.sql }
})
const rows = <Row = Record<string, unknown>>(sql: Sql, text: string) =>
  query("read", () => sql.unsafe<Array<Row & object>>(text))
/** Waits until a query has so many rows. */
const eventually = (query: Effect.Effect<ReadonlyArray<unknown>, unknown>, count: number) =>
  Effect.gen(function* () {
    while ((yield* query).length !== count) yield* Effect.sleep(20)
  })
const move = (id: string, city: string) => ({ type: "move", customer_id: id, city }) as const
const test = (title: string, body: () => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body()), 60_000)

describe("Personal data", () => {
  test("of a subject that tenants share is neither erased nor exported without a word, and names keep tenants apart", () =>
    Effect.gen(function* () {
      const { eventStore, sql } = yield* system
      const context = { application, sql, ...(yield* openEventsOfCommand(application, sql)) }
      const as = (tenant: string | undefined, id: string, command: Aggregate.Command<typeof Customer>, of = Customer) =>
        Effect.provideService(Aggregate.execute(of, id, command, { context: { tenant } }), EventStore, eventStore)
      // tenants' names with what JSON escapes, and an id with what the stored text escapes twice
      const [acme, other] = [`ac"me\\u0041`, "ötä 😀"]
      yield* as(acme, "c1", move("c1", "Bern"))
      const alone = yield* eraseSubject(context, "c1", "asked", { tenant: acme })
      assert.deepStrictEqual([alone.keys, alone.tenants], [1, [acme]])

      // a stream that a service without a tenant and two tenants write
      yield* as(undefined, "c2", move("c2", "Zug"))
      yield* as(acme, "c2", move("c2", "Bern"))
      yield* as(other, "c2", move("c2", "Rom"))
      for (const choice of [{}, { tenant: acme }]) {
        const refused = yield* Effect.flip(eraseSubject(context, "c2", "asked", choice))
        assert.strictEqual(refused._tag, "SharedSubject")
        for (const name of ["no tenant", JSON.stringify(acme), other]) assert.include(refused.message, name)
      }
      const none = yield* Effect.flip(eraseSubject(context, "c3", "asked", { tenant: acme }))
      assert.include(none.message, "there is none")
      const found = (choice: { readonly tenant?: string; readonly allTenants?: boolean }) =>
        Effect.map(exported(context, "c2", choice), (all) => all.map(({ version }) => version))
      assert.strictEqual((yield* Effect.flip(found({})))._tag, "SharedSubject")
      assert.deepStrictEqual(yield* found({ tenant: acme }), [2])
      assert.deepStrictEqual(yield* found({ allTenants: true }), [1, 2, 3])
      const read = Effect.provideService(Aggregate.load(Customer, "c2"), EventStore, eventStore)
      assert.strictEqual((yield* read).state.city, "Rom")
      const all = yield* eraseSubject(context, "c2", "asked", { allTenants: true })
      assert.deepStrictEqual(all.tenants, [null, acme, other])
      assert.deepStrictEqual(all.aggregates, [{ aggregate: "customer", streams: 1 }])
      assert.strictEqual((yield* read).state.city, "?")

      // what `subject` makes of the tenant is the key's name in events, in snapshots, and after a read
      const Apart = customerOf(({ customer_id }, { tenant }) => `${tenant}/${customer_id}`)
      const apart = {
        ...context,
        application: Application.make({ name: "apart", aggregates: [Apart], projections: [] })
      }
      for (const tenant of ["a", "b"])
        for (const city of ["Uri", "Chur", "Zug", "Biel"]) yield* as(tenant, "c9", move("c9", city), Apart)
      const snapshots = rows<{ subjects: ReadonlyArray<string> }>(
        sql,
        "select to_jsonb(subjects) as subjects from millrace.event_snapshot where stream = 'c9'"
      )
      yield* eventually(snapshots, 1)
      for (const { subjects } of yield* snapshots) assert.notInclude(subjects, "c9")
      yield* eraseSubject(apart, "a/c9", "asked")
      yield* as("b", "c9", move("c9", "Jura"), Apart)
      assert.strictEqual((yield* Effect.flip(as("a", "c9", move("c9", "Jura"), Apart)))._tag, "SubjectErased")
      const cities = yield* exported(apart, "b/c9")
      assert.deepStrictEqual(
        cities.map(({ event }) => (event as { readonly city?: string }).city),
        ["Uri", "Chur", "Zug", "Biel", "Jura"]
      )
    }))

  test("is exported but for what cannot be read, whose streams are named", () =>
    Effect.gen(function* () {
      const { eventStore, sql } = yield* system
      const context = { application, sql, ...(yield* openEventsOfCommand(application, sql)) }
      const shared = customerOf(() => "p")
      for (const id of ["c1", "c2", "c3"])
        for (const city of ["Bern", "Uri", "Zug"])
          yield* Effect.provideService(Aggregate.execute(shared, id, move(id, city)), EventStore, eventStore)
      /** What an application with these aggregates exports: the versions of each stream, and what it left out. */
      const exportedBy = (...aggregates: ReadonlyArray<Aggregate.Any>) =>
        Effect.map(
          Stream.runCollect(exportSubject({ ...context, application: { ...application, aggregates } as never }, "p")),
          (parts) => ({
            events: parts.flatMap((part) =>
              part._tag === "Event" ? [`${part.event.stream} ${part.event.version}`] : []
            ),
            left: parts.flatMap((part) => (part._tag === "LeftOut" ? [part.leftOut] : []))
          })
        )

      const throwing = customerOf(({ customer_id }) => {
        if (customer_id === "c2") throw new Error("secret-customer")
        return "p"
      })
      const thrown = yield* exportedBy(throwing)
      assert.deepStrictEqual(thrown.events, ["c1 1", "c1 2", "c1 3", "c3 1", "c3 2", "c3 3"])
      assert.deepStrictEqual(
        thrown.left.map(({ aggregate, events, stream }) => ({ aggregate, stream, events })),
        [{ aggregate: "customer", stream: "c2", events: 3 }]
      )
      assert.match(thrown.left[0]!.reason, /^event 1 of type customer\.moved has no subject: `subject` threw Error: /)
      // it may quote what is personal
      assert.notInclude(thrown.left[0]!.reason, "secret-customer")

      // an event that does not fit its type is left out alone
      const narrow = Event.make("customer.moved", {
        customer_id: Schema.String,
        city: Personal(Schema.Literals(["Bern", "Zug"]), { redacted: "Bern" })
      })
      const unreadable = yield* exportedBy(customerOf(() => "p", narrow as never))
      assert.deepStrictEqual(unreadable.events, ["c1 1", "c1 3", "c2 1", "c2 3", "c3 1", "c3 3"])
      assert.deepStrictEqual(
        unreadable.left.map(({ events, stream }) => [stream, events]),
        [
          ["c1", 1],
          ["c2", 1],
          ["c3", 1]
        ]
      )
      assert.match(unreadable.left[0]!.reason, /^event 2 of type customer\.moved cannot be read: /)
      assert.notInclude(unreadable.left[0]!.reason, "Uri")

      const none = yield* exportedBy()
      assert.deepStrictEqual(none.events, [])
      assert.deepStrictEqual(
        none.left.map(({ events, reason, stream }) => [stream, events, reason]),
        ["c1", "c2", "c3"].map((id) => [
          id,
          undefined,
          "the application has no aggregate customer, which could read them"
        ])
      )
    }))
})
