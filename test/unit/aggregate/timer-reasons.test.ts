// Why a timer's command failed or was rejected, as it is logged and stored: without values of personal fields.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Timers } from "../../../src/aggregate/timers.ts"
import { runTimers } from "../../../src/aggregate/timer-worker.ts"
import { Aggregate, Event, Personal } from "../../../src/index.ts"
import { MemoryEventStore } from "../../../src/testing/testing.ts"

class Known extends Schema.TaggedError<Known>()("Known", { email: Schema.String }) {
  override get message() {
    return `${this.email} is known`
  }
}
const fields = { customer: Schema.String, email: Schema.String }
const options = {
  name: "customer",
  id: "customer",
  commands: { throws: fields, rejects: fields },
  state: Schema.Int,
  initial: 0,
  evolve: { named: (count: number) => count + 1 },
  decide: {
    throws: (_: number, { email }: { readonly email: string }) => {
      throw new RangeError(`no place for ${email}`)
    },
    rejects: (_: number, { email }: { readonly email: string }) => new Known({ email })
  }
} as const
const plain = Aggregate.make({ ...options, events: [Event.make("named", fields)] } as never)
const personal = Aggregate.make({
  ...options,
  subject: ({ customer }: { readonly customer: string }) => customer,
  events: [Event.make("named", { customer: Schema.String, email: Personal(Schema.String) })]
} as never)

/** What is logged of these commands, and what is stored of those that fail. */
const reasonsOf = (aggregate: never, commands: ReadonlyArray<object>) =>
  Effect.gen(function* () {
    const stored: Array<string | undefined> = []
    const logged: Array<string | undefined> = []
    const due = commands.map((command, i) => ({
      id: `00000000-0000-4000-8000-00000000000${i}`,
      projection: "p",
      timer: "t",
      line: undefined,
      aggregate: "customer",
      stream: "c",
      command: JSON.stringify(command),
      failures: 0,
      tenant: undefined,
      traceparent: undefined,
      correlationId: "c",
      causationId: "e"
    }))
    const worker = runTimers({
      aggregates: [aggregate],
      atOnce: 1,
      pollMs: 1,
      settled: (_, outcome, reason) => Effect.sync(() => void logged.push(`${outcome}: ${reason}`))
    }).pipe(
      Effect.provideService(Timers, {
        claim: () => Effect.sync(() => due.splice(0, 1)),
        remove: () => Effect.void,
        postpone: (_, __, failure) => Effect.sync(() => void stored.push(failure)),
        nextMs: Effect.succeed(undefined),
        signals: Effect.succeed(Effect.never)
      }),
      Effect.provide(MemoryEventStore.layer)
    )
    yield* Effect.raceFirst(
      worker,
      Effect.gen(function* () {
        while (logged.length < commands.length) yield* Effect.sleep(1)
      })
    )
    return { logged, stored }
  })
const commands = [
  { type: "throws", customer: "c", email: "ada@example.org" },
  { type: "rejects", customer: "c", email: "ada@example.org" },
  { type: "rejects", customer: "c", email: ["ada@example.org"] }
]

it.live("an aggregate with personal fields says the name of the error and where it was thrown", () =>
  Effect.gen(function* () {
    const { logged, stored } = yield* reasonsOf(personal as never, commands)
    assert.notInclude(JSON.stringify([logged, stored]), "ada@")
    assert.match(
      logged[0]!,
      /^failed: RangeError: its message is hidden, .*; it was thrown at .*timer-reasons\.test\.ts/
    )
    assert.match(logged[1]!, /^rejected: Known: its message is hidden/)
    assert.match(logged[2]!, /^failed: \w+: its message is hidden/)
    assert.deepStrictEqual(
      stored.map((reason) => `failed: ${reason}`),
      [logged[0], logged[2]]
    )
  })
)
it.live("another aggregate says all", () =>
  Effect.gen(function* () {
    const { logged } = yield* reasonsOf(plain as never, commands.slice(0, 2))
    assert.include(logged[0], "no place for ada@example.org")
    assert.strictEqual(logged[1], "rejected: ada@example.org is known")
  })
)
