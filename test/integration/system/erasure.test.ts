// Erasure: personal fields are sealed wherever they are stored, and gone everywhere once their subject is erased.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import {
  Aggregate,
  Application,
  Erasures,
  Event,
  EventStore,
  Personal,
  Projection,
  ReadModel
} from "../../../src/index.ts"
import { shapeOf } from "../../../src/aggregate/state.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { diff } from "../../../src/system/diff.ts"
import { eraseSubject } from "../../../src/system/erasure.ts"
import { openEventsOfCommand } from "../../../src/system/open-event-store.ts"
import { promote } from "../../../src/system/promote.ts"
import { beginRebuild, rebuild } from "../../../src/system/rebuild.ts"
import { openSystem, runProjections } from "../../../src/system/system.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { exported } from "../../support/exported.ts"

const scope = Scope.makeUnsafe()
let url: string
beforeAll(async () => {
  url = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const Registered = Event.make("customer.registered", {
  customer_id: Schema.String,
  email: Personal(Schema.String),
  born: Personal(Schema.NullOr(Schema.Int)),
  plan: Schema.String
})
class AlreadyRegistered extends Schema.TaggedError<AlreadyRegistered>()("AlreadyRegistered", {
  email: Schema.String
}) {}
const Moved = Event.make("customer.moved", {
  customer_id: Schema.String,
  city: Personal(Schema.String, { redacted: "?" })
})
const Upgraded = Event.make("customer.upgraded", { customer_id: Schema.String, plan: Schema.String })
const Customer = Aggregate.make({
  name: "customer",
  events: [Registered, Moved, Upgraded],
  commands: {
    register: { customer_id: Schema.String, email: Schema.String, plan: Schema.String },
    move: { customer_id: Schema.String, city: Schema.String }
  },
  state: Schema.Struct({ email: Schema.String, city: Schema.String, moves: Schema.Int }),
  initial: { email: "", city: "", moves: 0 },
  evolve: {
    "customer.registered": (state, { email }) => ({ ...state, email }),
    "customer.moved": (state, { city }) => ({ ...state, city, moves: state.moves + 1 }),
    "customer.upgraded": (state) => state
  },
  decide: {
    register: (state, { customer_id, email, plan }) =>
      state.email === ""
        ? Registered.make({ customer_id, email, born: 1980, plan })
        : new AlreadyRegistered({ email: state.email }),
    move: (_, { city, customer_id }) => Moved.make({ customer_id, city })
  },
  id: "customer_id",
  partitions: 2,
  subject: ({ customer_id }) => customer_id,
  snapshot: { every: 2 }
})
const customers = ReadModel.table("customers", {
  columns: { customer_id: Schema.String, email: Schema.String, city: Schema.NullOr(Schema.String) },
  primaryKey: ["customer_id"]
})
const emails = ReadModel.table("emails", {
  columns: { customer_id: Schema.String, email: Schema.String },
  primaryKey: ["customer_id"]
})
const contacts = ReadModel.table("contacts", {
  columns: { customer_id: Schema.String, email: Schema.String },
  primaryKey: ["customer_id"]
})
const plans = ReadModel.table("plans", {
  columns: { customer_id: Schema.String, plan: Schema.String },
  primaryKey: ["customer_id"]
})
const aware = Projection.make({
  name: "customers",
  version: 1,
  source: [Customer, Erasures],
  writes: [customers],
  handle: {
    "customer.registered": ({ customer_id, email }, out) => out.upsert(customers, { customer_id, email, city: null }),
    "customer.moved": ({ city, customer_id }, out) => out.update(customers, { customer_id, city }),
    "subject.erased": ({ subject }, out) => out.delete(customers, { customer_id: subject })
  }
})
/** The same with what a replay needs: it leaves out what an erasure deletes. */
const replayed = Projection.make({
  name: "contacts",
  version: 1,
  source: [Customer, Erasures],
  writes: [contacts],
  handle: {
    "customer.registered": ({ customer_id, email }, out, { meta }) => {
      if (!meta.erased) out.upsert(contacts, { customer_id, email })
    },
    "subject.erased": ({ subject }, out) => out.delete(contacts, { customer_id: subject })
  }
})
const unaware = Projection.make({
  name: "emails",
  version: 1,
  source: Customer,
  writes: [emails],
  handle: { "customer.registered": ({ customer_id, email }, out) => out.upsert(emails, { customer_id, email }) }
})
/** It reads the same aggregate, and none of the events that it handles has a personal field. */
const plansOf = Projection.make({
  name: "plans",
  version: 1,
  source: Customer,
  writes: [plans],
  handle: { "customer.upgraded": ({ customer_id, plan }, out) => out.upsert(plans, { customer_id, plan }) }
})
const failing = Projection.make({
  name: "failing",
  version: 1,
  source: Customer,
  writes: [],
  handle: {
    "customer.moved": ({ city }) => {
      if (city === "Bern") throw new Error(`no such city: ${city}`)
    }
  }
})
const application = Application.make({
  name: "customers",
  aggregates: [Customer],
  projections: [aware, replayed, unaware, plansOf, failing].map((one) =>
    Projection.async(one as Projection.Of<never, never>)
  )
})

const system = Effect.gen(function* () {
  const database = { ...(yield* databaseOn(url, 8)), embedded: false, failed: Effect.never }
  const opened = yield* openSystem(application, database, { relaysHere: false })
  const running = yield* Effect.forkChild(runProjections(opened))
  return { ...opened, sql: database.sql, running }
})
const rows = <Row = Record<string, unknown>>(sql: Sql, text: string) =>
  query("read", () => sql.unsafe<Array<Row & object>>(text))
/** Waits until a query has so many rows. */
const eventually = (query: Effect.Effect<ReadonlyArray<unknown>, unknown>, count: number) =>
  Effect.gen(function* () {
    while ((yield* query).length !== count) yield* Effect.sleep(20)
  })
/** Every text that the database stores, but keys. */
const stored = (sql: Sql) =>
  Effect.map(
    rows<{ text: string }>(
      sql,
      `select meta || vals as text from millrace.log_batch union all select state from millrace.event_snapshot
       union all select coalesce(value, '') || message from millrace.dead_letters union all select meta || vals from millrace.outbox
       union all select answer from millrace.command
       union all select array_to_string(sample, '') from millrace.projection`
    ),
    (found) => found.map(({ text }) => text).join("\n")
  )
const execute = (store: EventStore["Service"], id: string, command: Aggregate.Command<typeof Customer>) =>
  Effect.provideService(Aggregate.execute(Customer, id, command), EventStore, store)
const register = (id: string, email = `${id}@example.org`) =>
  ({ type: "register", customer_id: id, email, plan: "gold" }) as const
const move = (id: string, city: string) => ({ type: "move", customer_id: id, city }) as const

const test = (title: string, body: () => Effect.Effect<unknown, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body()), 60_000)

describe("Personal data", () => {
  test("is sealed in the log, read by decisions and projections, and gone everywhere after an erasure", () =>
    Effect.gen(function* () {
      const { database, eventStore, running, sql } = yield* system
      yield* execute(eventStore, "ada", register("ada"))
      yield* execute(eventStore, "bob", register("bob"))
      const identified = Aggregate.execute(Customer, "ada", move("ada", "Baden"), { commandId: "k9" })
      yield* Effect.provideService(identified, EventStore, eventStore)
      for (const city of ["Bern", "Zug", "Chur"]) yield* execute(eventStore, "ada", move("ada", city))
      yield* eventually(rows(sql, "select * from customers where city = 'Chur'"), 1)
      yield* eventually(rows(sql, "select * from emails"), 2)
      const log = yield* Effect.map(rows<{ vals: string }>(sql, "select vals from millrace.log_batch"), (found) =>
        found.map(({ vals }) => vals).join("\n")
      )
      assert.notInclude(log, "ada@example.org")
      assert.notInclude(log, "Chur")
      assert.notInclude(log, "1980")
      assert.include(log, "gold")
      const loaded = yield* Effect.provideService(Aggregate.load(Customer, "ada"), EventStore, eventStore)
      assert.deepStrictEqual(loaded.state, { email: "ada@example.org", city: "Chur", moves: 4 })

      yield* eventually(rows(sql, "select * from millrace.dead_letters where projection = 'failing'"), 1)
      // the state is sealed at rest as well, and a process that has the keys reads it
      const snapshots = rows<{ state: string; version: number }>(
        sql,
        "select state, version::int4 from millrace.event_snapshot where stream = 'ada'"
      )
      yield* eventually(snapshots, 1)
      const { state: sealedState, version } = (yield* snapshots)[0]!
      for (const text of ["ada@example.org", "Baden", "Bern", "Zug", "Chur"]) assert.notInclude(sealedState, text)
      const shape = shapeOf(Customer as never)
      const other = yield* Effect.scoped(openEventsOfCommand(application, sql))
      const page = yield* other.eventStore.load("customer", "ada", { shape })
      assert.strictEqual(page.snapshot!.version, version)
      assert.include(page.snapshot!.state, "ada@example.org")
      const letters = yield* rows<{ text: string }>(
        sql,
        "select coalesce(value, '') || message as text from millrace.dead_letters"
      )
      assert.notInclude(letters.map(({ text }) => text).join("\n"), "Bern")
      assert.notInclude(log, "Bern")
      const rejected = Aggregate.execute(Customer, "ada", register("ada"), { commandId: "k0" })
      yield* Effect.flip(Effect.provideService(rejected, EventStore, eventStore))
      assert.include(yield* stored(sql), "ada@example.org")

      const context = { application, sql, ...(yield* openEventsOfCommand(application, sql)) }
      const erased = yield* eraseSubject(context, "ada", "asked")
      assert.strictEqual(erased.keys, 1)
      assert.strictEqual(
        (yield* rows(sql, "select * from millrace.log_batch where entity = 'ada' and command_digest is not null"))
          .length,
        0
      )
      assert.deepStrictEqual(erased.aggregates, [{ aggregate: "customer", streams: 1 }])
      assert.deepStrictEqual(erased.unaware, ["emails"])
      assert.notInclude(yield* stored(sql), "ada@example.org")
      yield* eventually(rows(sql, "select * from customers"), 1)
      const after = yield* Effect.provideService(Aggregate.load(Customer, "ada"), EventStore, eventStore)
      assert.deepStrictEqual(after.state, { email: "[erased]", city: "?", moves: 4 })
      const others = yield* Effect.provideService(Aggregate.load(Customer, "bob"), EventStore, eventStore)
      assert.strictEqual(others.state.email, "bob@example.org")

      // what is decided on a state of before, and by a process that has the key in memory, is refused
      const refused = yield* Effect.flip(execute(eventStore, "ada", move("ada", "Basel")))
      assert.strictEqual(refused._tag, "SubjectErased")
      const again = yield* eraseSubject(context, "ada", "asked")
      assert.strictEqual(again.keys, 0)
      const told = yield* rows(sql, "select * from millrace.log_record where topic = 'millrace-erasures'")
      assert.strictEqual(told.length, 1)
      yield* Fiber.interrupt(running)
      // a start reads events of the history, whether their keys are there or not
      yield* openSystem(application, database, { relaysHere: false })
    }))

  test("is not back after a rebuild by a handler that reads `meta.erased`, whichever source is replayed first", () =>
    Effect.gen(function* () {
      const opened = yield* system
      const { eventStore, log, sql } = opened
      const context = { application, sql, ...(yield* openEventsOfCommand(application, sql)) }
      for (const id of ["ada", "bob"]) yield* execute(eventStore, id, register(id))
      yield* eventually(rows(sql, "select * from contacts"), 2)
      yield* eraseSubject(context, "ada", "asked")
      yield* eventually(rows(sql, "select * from contacts"), 1)
      // as in a live read, which has no erasures beside
      const read = Projection.read(unaware, { stream: "ada" })
      assert.deepStrictEqual(yield* Effect.provideService(read, EventStore, eventStore), {
        emails: [{ customer_id: "ada", email: "[erased]" }]
      })
      const build = yield* beginRebuild(opened, "contacts", { rate: undefined, maxLiveLagMs: undefined }, {})
      yield* rebuild(opened, build, { report: () => Effect.void, onRetry: () => Effect.void })
      const compared = { application, sql, log, on: "PostgreSQL" as const }
      const found = yield* Effect.scoped(
        diff(compared, { name: "contacts", timeoutMs: 10_000, samples: 0, exact: true })
      )
      assert.strictEqual(found.equal, true)
      yield* promote(compared, { name: "contacts", rollback: false, dryRun: false, timeoutMs: 20_000 })
      const left = yield* rows<{ email: string }>(sql, "select * from contacts")
      assert.deepStrictEqual(
        left.map(({ email }) => email),
        ["bob@example.org"]
      )
    }))

  test("of a subject that is admitted again is stored under a new key, and what was erased stays so", () =>
    Effect.gen(function* () {
      const { eventStore, sql } = yield* system
      const context = { application, sql, ...(yield* openEventsOfCommand(application, sql)) }
      yield* execute(eventStore, "eve", register("eve"))
      const once = Aggregate.execute(Customer, "eve", move("eve", "Aarau"), { commandId: "k1" })
      yield* Effect.provideService(once, EventStore, eventStore)
      yield* eraseSubject(context, "eve", "asked")
      // the answer of a command stays its answer
      const repeated = yield* Effect.provideService(once, EventStore, eventStore)
      assert.deepStrictEqual(
        [repeated.repeated, repeated.events],
        [true, [move("eve", "?")].map(({ city, customer_id }) => Moved.make({ city, customer_id }))]
      )
      assert.strictEqual(yield* context.subjectKeys.readmit("eve"), true)
      assert.strictEqual(yield* context.subjectKeys.readmit("eve"), false)
      yield* execute(context.eventStore, "eve", move("eve", "Rom"))
      const { state } = yield* Effect.provideService(Aggregate.load(Customer, "eve"), EventStore, eventStore)
      assert.deepStrictEqual(state, { email: "[erased]", city: "Rom", moves: 2 })
      const events = yield* exported(context, "eve")
      assert.deepStrictEqual(
        events.map(({ event, version }) => ({ event, version })),
        [
          {
            version: 1,
            event: { type: "customer.registered", customer_id: "eve", email: "[erased]", born: null, plan: "gold" }
          },
          { version: 2, event: { type: "customer.moved", customer_id: "eve", city: "?" } },
          { version: 3, event: { type: "customer.moved", customer_id: "eve", city: "Rom" } }
        ]
      )
    }))

  test("is never stored readable by appends that race with its erasure", () =>
    Effect.gen(function* () {
      const { eventStore, sql } = yield* system
      const context = { application, sql, ...(yield* openEventsOfCommand(application, sql)) }
      for (let round = 0; round < 15; round++) {
        const id = `r${round}`
        yield* execute(eventStore, id, register(id))
        const writers = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, i) => i),
          (i) =>
            Effect.forkChild(Effect.exit(execute(i % 2 === 0 ? eventStore : context.eventStore, id, move(id, `C${i}`))))
        )
        yield* eraseSubject(context, id, "race")
        const exits = yield* Effect.forEach(writers, Fiber.join)
        // after the erasure has returned, nothing more is sealed
        const late = yield* Effect.flip(execute(eventStore, id, move(id, "late")))
        assert.strictEqual(late._tag, "SubjectErased")
        const events = yield* exported(context, id)
        assert.strictEqual(events.length, 1 + exits.filter(Exit.isSuccess).length)
        for (const { event } of events) {
          const { city = "?", email = "[erased]" } = event as { readonly city?: string; readonly email?: string }
          assert.deepStrictEqual({ city, email }, { city: "?", email: "[erased]" })
        }
      }
      assert.strictEqual((yield* rows(sql, "select * from millrace.subject_key where key is not null")).length, 0)
      assert.strictEqual((yield* rows(sql, "select * from millrace.event_snapshot")).length, 0)
    }))

  test("that was copied to another event, or was changed, is not decrypted", () =>
    Effect.gen(function* () {
      const { eventStore, sql } = yield* system
      yield* execute(eventStore, "a", register("a"))
      yield* execute(eventStore, "b", register("b"))
      yield* rows(
        sql,
        "update millrace.log_batch b set vals = (select replace(o.vals, '\"a\"', '\"b\"') from millrace.log_batch o where o.entity = 'a') where entity = 'b'"
      )
      const error = yield* Effect.flip(Effect.provideService(Aggregate.load(Customer, "b"), EventStore, eventStore))
      assert.include(error.message, "cannot be decrypted")
    }))

  test("that does not fit its schema becomes a dead letter that names the path of the field, and not its value", () =>
    Effect.gen(function* () {
      const { database, eventStore, running } = yield* system
      yield* Fiber.interrupt(running)
      yield* execute(eventStore, "ada", register("ada", "ada@example.org"))
      // another declaration of the same version, which fits an erased value
      const changedEmail = Personal(Schema.Union([Schema.Int, Schema.Literal("[erased]")]))
      const Changed = Aggregate.make({
        name: "customer",
        id: "customer_id",
        partitions: 2,
        subject: ({ customer_id }) => customer_id,
        events: [Event.make("customer.registered", { customer_id: Schema.String, email: changedEmail })],
        commands: {},
        state: Schema.Null,
        initial: null,
        evolve: { "customer.registered": () => null },
        decide: {}
      })
      const reader = Projection.make({
        name: "reader",
        version: 1,
        source: Changed,
        writes: [],
        handle: () => undefined
      })
      const changed = Application.make({
        name: "customers",
        aggregates: [Changed],
        projections: [Projection.async(reader)]
      })
      const opened = yield* openSystem(changed, database, { relaysHere: false })
      yield* Effect.forkScoped(runProjections(opened))
      const letters = rows<{ error: string; message: string }>(
        database.sql,
        "select error, message from millrace.dead_letters where projection = 'reader'"
      )
      yield* eventually(letters, 1)
      const problem =
        "version 1 of event type customer.registered cannot be decoded: `email` does not fit the schema; its value is left out, because that could be personal data"
      assert.deepStrictEqual({ ...(yield* letters)[0] }, { error: "SchemaError", message: problem })
      const load = Effect.provideService(Aggregate.load(Changed, "ada"), EventStore, opened.eventStore)
      const refused = yield* Effect.flip(load)
      assert.strictEqual(
        refused.message,
        `customer "ada": event 1 of type customer.registered cannot be read: ${problem}; declare the change as a new version of the event type (\`upcast\`)`
      )
    }))

  test("is not read by a system without the key that its keys are encrypted with: it does not start", () =>
    Effect.gen(function* () {
      const name = "MILLRACE_KEY_ENCRYPTION_KEY"
      yield* Effect.addFinalizer(() => Effect.sync(() => delete process.env[name]))
      process.env[name] = "ab".repeat(32)
      const { database, eventStore } = yield* system
      yield* execute(eventStore, "ada", register("ada"))
      delete process.env[name]
      const missing = yield* Effect.flip(openSystem(application, database, { relaysHere: false }))
      assert.include(missing.message, `are encrypted; set ${name}`)
      process.env[name] = "cd".repeat(32)
      const wrong = yield* Effect.flip(openSystem(application, database, { relaysHere: false }))
      assert.include(wrong.message, `encrypted with another ${name}`)
    }))
})
