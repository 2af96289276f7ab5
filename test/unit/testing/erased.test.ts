// Erased events in the test kit: a handler that reads `meta.erased` leaves the same rows in a replay as live, in both orders of the sources.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Aggregate, Erasures, Event, Personal, Projection, ReadModel, SubjectKeys, Topic } from "../../../src/index.ts"
import { MemoryEventStore, ProjectionTest } from "../../../src/testing/testing.ts"

const Registered = Event.make("customer.registered", { id: Schema.String, email: Personal(Schema.String) })
const Upgraded = Event.make("customer.upgraded", { id: Schema.String })
const Customer = Aggregate.make({
  name: "customer",
  id: "id",
  subject: ({ id }) => id,
  events: [Registered, Upgraded],
  commands: { register: { id: Schema.String, email: Schema.String } },
  state: Schema.Null,
  initial: null,
  evolve: { "customer.registered": () => null, "customer.upgraded": () => null },
  decide: { register: (_, { email, id }) => Registered.make({ id, email }) }
})
const customers = ReadModel.table("customers", {
  columns: { id: Schema.String, email: Schema.NullOr(Schema.String), plan: Schema.String },
  primaryKey: ["id"]
})
const base = { version: 1, source: [Customer, Erasures], writes: [customers] } as const
/** Deletes the rows of erased subjects. */
const deleting = Projection.make({
  ...base,
  name: "deleting",
  handle: {
    "customer.registered": ({ email, id }, out, { meta }) => {
      if (!meta.erased) out.upsert(customers, { id, email, plan: "free" })
    },
    // it has no personal fields, so it is never erased, and changes a row only where there is one
    "customer.upgraded": ({ id }, out) => out.update(customers, { id, plan: "gold" }),
    "subject.erased": ({ subject }, out) => out.delete(customers, { id: subject })
  }
})
/** Keeps the rows, and clears what is personal. */
const clearing = Projection.make({
  ...base,
  name: "clearing",
  handle: {
    "customer.registered": ({ email, id }, out, { meta }) =>
      out.upsert(customers, { id, email: meta.erased ? null : email, plan: "free" }),
    "subject.erased": ({ subject }, out) => out.update(customers, { id: subject, email: null })
  }
})
const ada = Registered.make({ id: "ada", email: "ada@example.org" })
const bob = Registered.make({ id: "bob", email: "bob@example.org" })
const erased = { type: "subject.erased", subject: "ada", reason: "asked" } as const
const bobs = { id: "bob", email: "bob@example.org" }

describe("a row of an erased subject is the same", () => {
  const gold = Upgraded.make({ id: "ada" })
  test("deleted live, and in replays of either order", () => {
    const given = ProjectionTest.make(deleting)
    given.when([ada, bob, gold]).then({ customers: [{ id: "ada", plan: "gold" }, bobs] })
    const expected = { customers: [bobs] }
    given.when([ada, bob, gold, erased]).then(expected)
    given.whenErased([ada, gold]).when([bob, erased]).then(expected)
    given.when([erased, bob]).whenErased([ada, gold]).then(expected)
  })
  test("cleared live, and in replays of either order", () => {
    const given = ProjectionTest.make(clearing)
    const expected = { customers: [{ id: "ada", email: null }, bobs] }
    given.when([ada, bob, erased]).then(expected)
    given.whenErased([ada]).when([bob, erased]).then(expected)
    given.when([erased, bob]).whenErased([ada]).then(expected)
  })
  test("and a handler that ignores `meta.erased` brings it back with redacted values", () => {
    const careless = Projection.make({
      ...base,
      name: "careless",
      handle: {
        "customer.registered": ({ email, id }, out) => out.upsert(customers, { id, email, plan: "free" }),
        "subject.erased": ({ subject }, out) => out.delete(customers, { id: subject })
      }
    })
    ProjectionTest.make(careless)
      .when([erased])
      .whenErased([ada])
      .then({ customers: [{ id: "ada", email: "[erased]" }] })
  })
})
test("a live read of a stream whose subject was erased has redacted values, and handlers see it", async () => {
  const program = Effect.gen(function* () {
    for (const { email, id } of [ada, bob]) yield* Aggregate.execute(Customer, id, { type: "register", email })
    yield* (yield* SubjectKeys).erase("ada")
    const projection = Projection.make({
      ...base,
      name: "seen",
      source: Customer,
      handle: (event, out, { meta }) => {
        if (event.type === "customer.registered")
          out.upsert(customers, { id: event.id, email: event.email, plan: meta.erased ? "erased" : "kept" })
      }
    })
    return yield* Effect.forEach(["ada", "bob"], (stream) => Projection.read(projection, { stream }))
  })
  const found = await Effect.runPromise(Effect.provide(program, MemoryEventStore.layer))
  expect(found.flatMap((one) => one.customers)).toEqual([
    { id: "ada", email: "[erased]", plan: "erased" },
    { ...bobs, plan: "kept" }
  ])
})
test("a producer of a topic cannot claim that its event is erased", () => {
  const topic = Topic.events("plain", { events: [Registered], key: "id" })
  const projection = Projection.make({
    version: 1,
    name: "p",
    source: topic,
    writes: [customers],
    handle: ({ email, id }, out, { meta }) => out.upsert(customers, { id, email, plan: String(meta.erased) })
  })
  // in a topic the field is one that is not declared, and the personal field is missing
  ProjectionTest.make(projection)
    .whenErased([ada])
    .then({ deadLetters: [{ key: "ada" }], customers: [] })
})
