// What a command gets whose subject or tag cannot be stored, and what an erasure leaves of optional personal fields.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Schema } from "effect"
import { shapeOf } from "../../../src/aggregate/state.ts"
import {
  Aggregate,
  AggregateFailed,
  Event,
  EventStore,
  InvalidCommand,
  Personal,
  SubjectKeys
} from "../../../src/index.ts"
import { thrownAt } from "../../../src/dead-letter/event-failure.ts"
import { MemoryEventStore } from "../../../src/testing/testing.ts"
import { problemOf } from "../../../src/server/aggregates/answers.ts"

const Registered = Event.make("customer.registered", {
  customer: Schema.String,
  club: Schema.String,
  email: Schema.optionalKey(Personal(Schema.String)),
  phone: Schema.optionalKey(Personal(Schema.String))
})
const Customer = Aggregate.make({
  name: "customer",
  subject: ({ customer }) => customer,
  tags: { club: ({ club }) => club },
  events: [Registered],
  commands: {
    register: {
      customer: Schema.String,
      club: Schema.String,
      email: Schema.optionalKey(Schema.String),
      phone: Schema.optionalKey(Schema.String)
    }
  },
  state: Schema.Struct({ fields: Schema.Array(Schema.String), phone: Schema.NullOr(Schema.String) }),
  initial: { fields: [], phone: null },
  evolve: {
    "customer.registered": (_, event) => ({ fields: Object.keys(event).toSorted(), phone: event.phone ?? null })
  },
  decide: { register: (_, { type: _type, ...fields }) => Registered.make(fields) }
})

for (const [field, given] of [
  ["customer", { customer: "", club: "a" }],
  ["customer", { customer: "x".repeat(1_001), club: "a" }],
  ["customer", { customer: "a\0b", club: "a" }],
  ["club", { customer: "c", club: "" }]
] as const)
  it.effect(
    `a command whose ${field} is ${JSON.stringify(given[field]).slice(0, 9)} is not valid: 422 with the field`,
    () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(Aggregate.execute(Customer, "s", { type: "register", ...given }))
        assert.instanceOf(error, InvalidCommand)
        assert.strictEqual((error as InvalidCommand).field, field)
        const problem = problemOf(error)!
        assert.deepInclude({ ...problem }, { status: 422, code: "schema_mismatch", path: field })
        assert.include(problem.try, field)
        assert.include(problem.message, "Let the schema of the command refuse other texts")
        assert.strictEqual((yield* Aggregate.load(Customer, "s")).version, 0)
      }).pipe(Effect.provide(MemoryEventStore.layer))
  )

it.effect("an optional personal field that was never set stays absent after an erasure", () =>
  Effect.gen(function* () {
    yield* Aggregate.execute(Customer, "s", { type: "register", customer: "c", club: "a", phone: "1" })
    yield* (yield* SubjectKeys).erase("c")
    const { state } = yield* Aggregate.load(Customer, "s")
    assert.deepStrictEqual(state, { fields: ["club", "customer", "phone", "type"], phone: "[erased]" })
  }).pipe(Effect.provide(MemoryEventStore.layer))
)

it("where an error was thrown has nothing of its message", () => {
  const error = new RangeError("ada@example.org\n    at ada (secret.ts:1:1)")
  const at = thrownAt(error)!
  assert.include(at, "subjects.test.ts")
  assert.notInclude(at, "secret")
  error.message = "changed"
  assert.isUndefined(thrownAt(error))
  assert.isUndefined(thrownAt("ada@example.org"))
})

it.effect("an erasure counts the snapshots that it deletes, and a snapshot is read while its keys exist", () =>
  Effect.gen(function* () {
    const Remembering = { ...Customer, snapshotEvery: 1 } as typeof Customer
    yield* Aggregate.execute(Remembering, "s", { type: "register", customer: "c", club: "a", phone: "1" })
    const store = yield* EventStore
    const shape = shapeOf(Remembering as never)
    let page = yield* store.load("customer", "s", { shape })
    while (page.snapshot === undefined) {
      yield* Effect.yieldNow
      page = yield* store.load("customer", "s", { shape })
    }
    assert.include(page.snapshot.state, `"phone":"1"`)
    const erased = yield* (yield* SubjectKeys).erase("c")
    assert.deepInclude(erased, { keys: 1, snapshots: 1 })
    assert.isUndefined((yield* store.load("customer", "s", { shape })).snapshot)
  }).pipe(Effect.provide(MemoryEventStore.layer))
)

it.effect(
  "a `subject` that throws for a stored event fails what reads its stream, with the event, and nothing else",
  () =>
    Effect.gen(function* () {
      const options = {
        name: "note",
        events: [Event.make("noted", { text: Schema.String })],
        commands: { note: { text: Schema.String } },
        state: Schema.Int,
        initial: 0,
        evolve: { noted: (count: number) => count + 1 },
        decide: { note: (_: number, { text }: { readonly text: string }) => ({ type: "noted", text }) as const }
      } as const
      const before = Aggregate.make({ ...options, subject: () => "somebody" })
      const after = Aggregate.make({
        ...options,
        subject: ({ text }) => {
          if (text === "old") throw new RangeError("nobody is known")
          return text
        }
      })
      yield* Aggregate.execute(before, "a", { type: "note", text: "old" })
      for (const read of [Aggregate.load(after, "a"), Aggregate.execute(after, "a", { type: "note", text: "new" })]) {
        const error = yield* Effect.flip(read as Effect.Effect<unknown, unknown, EventStore>)
        assert.instanceOf(error, AggregateFailed)
        assert.include((error as AggregateFailed).message, "`subject` failed: event 1 of type noted: nobody is known")
      }
      yield* Aggregate.execute(after, "b", { type: "note", text: "new" })
      assert.strictEqual((yield* Aggregate.load(after, "b")).state, 1)
    }).pipe(Effect.provide(MemoryEventStore.layer))
)
