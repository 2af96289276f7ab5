// Events that cannot be processed: the projection's policy decides what happens to each, and all others count as if it had not been there.
// oxlint-disable unicorn/no-thenable -- `then` is a word of failure policies
import { Schedule } from "effect"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { readStatus } from "../../src/system/status.ts"
import type { NewRecord } from "../../src/log/log.ts"
import { query } from "../../src/postgres/client/client.ts"
import type { FailurePolicy } from "../../src/model/failure-policy.ts"
import { append, type Engine, engine, halts, recordOf, run, settled } from "../support/engine.ts"
import { server } from "../support/postgres.ts"
import { application, assertCounted, calls, done, events, handled, deadLetters, many, start } from "./poison.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

// no relay runs in these tests
const statusOf = ({ log, sql }: Engine) => readStatus({ sql, log, targets: [] })

const test = (
  name: string,
  failure: FailurePolicy,
  body: (made: Engine) => Effect.Effect<void, unknown, Scope.Scope>,
  timeout = 60_000
) => it.live(name, () => Effect.scoped(Effect.flatMap(engine(root, application(failure)), body)), timeout)

describe("an event whose handler fails", () => {
  test(
    "is parked with its error, value and position, and later events are processed",
    {},
    Effect.fnUntraced(function* ({ ...made }) {
      const [before, after] = [many(150), many(150)]
      const poison = done("throw")
      yield* handled(made, [...before, poison, ...after])
      yield* assertCounted(made.sql, [...before, ...after])
      const [deadLetter, ...others] = yield* deadLetters(made.sql)
      assert.lengthOf(others, 0)
      assert.deepInclude(
        { ...deadLetter },
        {
          topic: "p.events",
          status: "parked",
          key: poison.key,
          error: "TypeError",
          message: `cannot handle ${poison.id}`,
          attempts: 1,
          event_time: poison.at,
          trace_id: "0af7651916cd43dd8448eb211c80319c"
        }
      )
      assert.deepStrictEqual(JSON.parse(deadLetter!.value), poison)
      const { records } = yield* made.log.read(deadLetter!.topic, deadLetter!.partition, deadLetter!.position)
      assert.strictEqual(records[0]!.eventId, poison.id)
      const status = yield* statusOf(made)
      assert.deepInclude(status, { healthy: true, dead_letters: 1 })
    })
  )
  test(
    "is retried as the schedule says, and what it wrote before it failed is undone",
    { retry: Schedule.spaced("5 millis").pipe(Schedule.upTo({ times: 4 })) },
    Effect.fnUntraced(function* (made) {
      const [third, hopeless, defect, interrupted, calm] = ["third", "fail", "die", "interrupt", "calm"].map((does) =>
        done(does)
      )
      const others = many(20)
      yield* handled(made, [third, hopeless, ...others, defect, interrupted, calm] as ReadonlyArray<object>)
      assert.strictEqual(calls.get(third!.id), 3)
      assert.strictEqual(calls.get(hopeless!.id), 5)
      yield* assertCounted(made.sql, [third!, calm!, ...others])
      const found = (yield* deadLetters(made.sql)).map(({ attempts, error, message, value }) => ({
        id: (JSON.parse(value) as { id: string }).id,
        error,
        message,
        attempts
      }))
      const byId = new Map(found.map((deadLetter) => [deadLetter.id, deadLetter]))
      assert.deepInclude(byId.get(hopeless!.id), { error: "Refused", message: "refused: call 5", attempts: 5 })
      assert.deepInclude(byId.get(defect!.id), { error: "Error", message: "a defect" })
      assert.isDefined(byId.get(interrupted!.id))
      assert.lengthOf(found, 3)
    })
  )
  test(
    "is skipped, and recorded as skipped, under the policy `skip`",
    { then: "skip" },
    Effect.fnUntraced(function* (made) {
      const others = many(40)
      yield* handled(made, [
        ...others.slice(0, 20),
        done("throw"),
        done("fail"),
        done("nul"),
        done("whole"),
        ...others.slice(20)
      ])
      yield* assertCounted(made.sql, others)
      assert.deepStrictEqual(
        (yield* deadLetters(made.sql)).map(({ status }) => status),
        Array(4).fill("skipped")
      )
      assert.deepInclude(yield* statusOf(made), { healthy: true, dead_letters: 0 })
    })
  )
  for (const [does, error] of [
    ["throw", "cannot handle"],
    ["fail", "refused"],
    ["fold", "the change failed"],
    ["nul", "NUL"],
    ["whole", "22P02"],
    ["unreadable", "Expected number"]
  ] as const) {
    test(
      `stops its partition, and no other, under the policy \`stop\`: ${does}`,
      { then: "stop" },
      Effect.fnUntraced(function* (made) {
        const values = many(80)
        const poison = { ...done(does), key: "k1", ...(does === "unreadable" && { n: "one" as never }) }
        values.splice(40, 0, poison)
        const partition = recordOf(events, poison, 4).partition
        const stands = (value: object) => recordOf(events, value, 4).partition === partition
        yield* handled(made, values)
        // what comes before it in its partition is committed; it and what follows waits
        const flowed = values.filter((value, i) => i < 40 || !stands(value))
        assert.isBelow(flowed.length, 80)
        yield* assertCounted(made.sql, flowed)
        assert.deepStrictEqual([...(yield* halts(made.sql)).keys()], [`poison p.events/${partition}`])
        assert.include([...(yield* halts(made.sql)).values()][0], error)
        assert.isFalse((yield* statusOf(made)).healthy)
        assert.lengthOf(yield* deadLetters(made.sql), 0)
        if (does !== "throw") return
        // once the handler is fixed nothing is lost
        const fixed = yield* engine(root, application({ then: "stop" }, true), { on: made })
        const stop = yield* run(fixed)
        while ((yield* halts(made.sql)).size > 0) yield* Effect.sleep(10)
        yield* settled(fixed)
        yield* stop
        yield* assertCounted(made.sql, values)
        assert.isTrue((yield* statusOf(made)).healthy)
      })
    )
  }
  test(
    "does not fail when it is interrupted because its partition is taken away",
    {},
    Effect.fnUntraced(function* (made) {
      const values = [...many(10), done("slow"), ...many(10)]
      yield* append(made, events, values)
      const stop = yield* run(made)
      while (!calls.has(values[10]!.id)) yield* Effect.sleep(5)
      yield* stop
      assert.lengthOf(yield* deadLetters(made.sql), 0)
      yield* handled(made, [])
      assert.strictEqual(calls.get(values[10]!.id), 2)
      yield* assertCounted(made.sql, values)
      assert.lengthOf(yield* deadLetters(made.sql), 0)
    })
  )
  test(
    "is not remembered as seen, so it may be sent again",
    {},
    Effect.fnUntraced(function* (made) {
      const event = done("throw")
      yield* handled(made, [event, event])
      assert.lengthOf(yield* deadLetters(made.sql), 2)
      const fixed = yield* engine(root, application({}, true), { on: made })
      yield* handled(fixed, [event, event])
      yield* assertCounted(made.sql, [event])
    })
  )
})

describe("an event that cannot be read", () => {
  const record = (value: unknown, more: Partial<NewRecord> = {}): NewRecord => ({
    ...recordOf(events, done(), 4),
    partition: 2,
    value: value === null ? null : JSON.stringify(value),
    ...more
  })
  test(
    "is parked, whatever is wrong with it",
    {},
    Effect.fnUntraced(function* (made) {
      const good = [done(), done()]
      const bad = [
        record({ ...done(), n: "many" }),
        record({ ...done(), type: "undone" }),
        record("just text"),
        record(null),
        record(done(), { schemaVersion: 9 }),
        record(JSON.parse('{"__proto__":{"type":"done"}}')),
        record({ ...done(), key: "nul \u0000" }, { key: "nul \u0000" })
      ]
      const of = (value: object) => ({ ...recordOf(events, value, 4), partition: 2 })
      yield* made.log.append("p.events", [of(good[0]!), ...bad, of(good[1]!)])
      yield* handled(made, [])
      yield* assertCounted(made.sql, good)
      const found = yield* deadLetters(made.sql)
      assert.deepStrictEqual(
        found.map(({ error, position }) => [position, error]),
        [
          [1, "SchemaError"],
          [2, "UnknownEventType"],
          [3, "UnknownEventType"],
          [4, "Error"],
          [5, "UnknownVersion"],
          [6, "UnacceptableJson"],
          [7, "UnacceptableRecord"]
        ]
      )
      assert.match(found[0]!.message, /n/)
    })
  )
  test(
    "is parked even if PostgreSQL cannot store its envelope; one whose trace and other headers alone are odd is processed without them",
    {},
    Effect.fnUntraced(function* (made) {
      const traceparent = `00-\u0000","x${"\ud800".repeat(40)}`
      const good = done()
      const odd = { key: good.key, traceparent, headers: { odd: "\u0000 \ud800" } }
      yield* made.log.append("p.events", [
        record(good, odd),
        record("just text", { ...odd, key: null }),
        record(done(), { ...odd, eventId: "\u0000" }),
        record(done(), { ...odd, key: "\u0000", tenant: "\u0000" })
      ])
      yield* handled(made, [])
      yield* assertCounted(made.sql, [good])
      const found = yield* deadLetters(made.sql)
      assert.deepStrictEqual(
        found.map(({ error }) => error),
        ["UnknownEventType", "UnacceptableRecord", "UnacceptableRecord"]
      )
    })
  )
  test(
    "because it is dated too far ahead does not move stream time",
    {},
    Effect.fnUntraced(function* (made) {
      const [before, after] = [many(10), many(10)]
      const ahead = [
        ...[Date.now() + 2 * 3_600_000, 4_102_444_800_000, 9e15].map((at) => done("", { at, key: before[0]!.key })),
        done("", { at: -9e15, key: before[0]!.key })
      ]
      yield* handled(made, [...before, ...ahead, ...after])
      yield* assertCounted(made.sql, [...before, ...after])
      assert.lengthOf(yield* deadLetters(made.sql), 4)
      const late = yield* query("late", () => made.sql`select from millrace.late_events`)
      assert.lengthOf(late, 0)
      const [time] = yield* query("time", () => made.sql`select max(stream_time) as time from millrace.progress`)
      assert.strictEqual(time!["time"], after.at(-1)!.at)
    })
  )
})

describe("an event whose values cannot be stored", () => {
  for (const [does, error, message] of [
    ["nul", "UnstorableValue", /rows.note.*NUL/],
    ["surrogate", "UnstorableValue", /rows.note.*surrogate/],
    ["fold", "RangeError", /the change failed/],
    ["whole", "Unstorable", /9223372036854776000 is not a whole number.*22P02/],
    ["long", "KeyTooLong", /the row.s key has 4016 bytes/],
    ["json", "UnencodableValue", /column json: Expected array/]
  ] as const) {
    test(
      `is found in the middle of a big batch: ${does}`,
      {},
      Effect.fnUntraced(function* (made) {
        const values = Array.from({ length: 1_000 }, () => done("", { key: "k1" }))
        const poison = done(does, { key: "k1" })
        yield* handled(made, [...values.slice(0, 617), poison, ...values.slice(617)])
        yield* assertCounted(made.sql, values)
        const found = yield* deadLetters(made.sql)
        assert.lengthOf(found, 1)
        assert.deepInclude({ ...found[0] }, { position: 617, error, status: "parked" })
        assert.match(found[0]!.message, message)
        const [progress] = yield* query("read", () => made.sql`select max(commit_no) as n from millrace.progress`)
        // halves, and not one by one
        assert.isBelow(progress!["n"], 30)
      })
    )
  }
  test(
    "because they overflow a stored total is parked alone",
    {},
    Effect.fnUntraced(function* (made) {
      const first = done("", { key: "k1", n: 1.5e308 })
      yield* handled(made, [first])
      const values = [...many(30), done("", { key: "k1", n: 1.5e308 }), ...many(30)]
      yield* handled(made, values)
      yield* assertCounted(made.sql, [first, ...values.filter(({ n }) => n === 1)])
      const found = yield* deadLetters(made.sql)
      assert.lengthOf(found, 1)
      assert.match(found[0]!.message, /overflow.*22003/)
      // and one that overflows within its batch
      const again = [done("", { key: "k2", n: 1.5e308 }), done("", { key: "k2", n: 1.5e308 }), done("", { key: "k2" })]
      yield* handled(made, again)
      assert.lengthOf(yield* deadLetters(made.sql), 2)
      const [sum] = yield* query("sum", () => made.sql`select n from sums where key = 'k2'`)
      assert.strictEqual(sum!["n"], 1.5e308)
    })
  )
  test(
    "moves stream time as any other event does, so a replay finds the same events late",
    {},
    Effect.fnUntraced(function* (made) {
      const poison = done("whole", { key: "k1", at: start + 10 * 3_600_000 })
      const thrown = done("throw", { key: "k2", at: start + 10 * 3_600_000 })
      const [late1, late2] = [done("", { key: "k1" }), done("", { key: "k2" })]
      yield* handled(made, [poison, late1])
      yield* handled(made, [thrown, late2])
      const late = yield* query(
        "late",
        () => made.sql`select key ->> 'key' as key from millrace.late_events order by 1`
      )
      assert.deepStrictEqual(
        late.map(({ key }) => key as string),
        ["k1", "k2"]
      )
    })
  )
  test(
    "is found in bounded time, also if there are two hundred in one batch",
    {},
    Effect.fnUntraced(function* (made) {
      const values = Array.from({ length: 2_000 }, (_, i) => done(i % 10 === 3 ? "whole" : "", { key: "k1" }))
      yield* handled(made, values)
      yield* assertCounted(
        made.sql,
        values.filter(({ does }) => does === "")
      )
      assert.lengthOf(yield* deadLetters(made.sql), 200)
    }),
    60_000
  )
})
