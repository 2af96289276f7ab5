// A projection whose topic was deleted, recreated or truncated, on real Kafka: it halts, reports why, and skips nothing.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import { Agg, Application, Event, Projection, Topic, Window } from "../../../src/index.ts"
import type { Log } from "../../../src/log/log.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { readStatus } from "../../../src/system/status.ts"
import { append, type Engine, run, settled, totals } from "../../support/engine.ts"
import { cut, deleteTopic, kafkaEngine } from "../../support/kafka-engine.ts"
import { server } from "../../support/postgres.ts"
import { needing } from "../../support/stack.ts"

const scope = Scope.makeUnsafe()
let postgres = ""
let brokers: ReadonlyArray<string> = []
beforeAll(async () => {
  postgres = await Effect.runPromise(Scope.provide(server, scope))
  brokers = (await Effect.runPromise(shared("kafka"))).MILLRACE_KAFKA_BROKERS!.split(",")
}, 120_000)
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

let made = 0
/** An application with one topic of a unique name and one partition. */
const applicationOf = () => {
  const Paid = Event.make("paid", { id: Schema.String, who: Schema.String, at: Schema.Int })
  const payments = Topic.events(`payments-${process.pid}-${made++}`, {
    events: [Paid],
    id: "id",
    key: "who",
    eventTime: "at",
    partitions: 1
  })
  const counts = Window.tumbling("counts", {
    size: ["1 hour"],
    key: { who: Schema.String },
    aggregate: { payments: Agg.count }
  })
  const counting = Projection.make({
    name: "counting",
    version: 1,
    source: payments,
    writes: [counts],
    handle: { paid: ({ who }, out) => out.add(counts, { who, payments: 1 }) }
  })
  const application = Application.make({ name: "halts", projections: [Projection.async(counting)] })
  const paid = (n: number) => Paid.make({ id: `${n}`, who: "ada", at: Date.UTC(2026, 0, 1) + n })
  return { application: { ...application, services: undefined }, payments, paid }
}
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

const statusOf = ({ log, sql }: Engine) => readStatus({ sql, log, targets: [] })
/** Waits until the only partition is halted, and returns why. */
const halted = Effect.fnUntraced(function* (on: Engine) {
  while (true) {
    const [row] = yield* query(
      "halted",
      () => on.sql<Array<{ halted: string | null }>>`select halted from millrace.progress`
    )
    if (row!.halted !== null) return row!.halted
    yield* Effect.sleep(20)
  }
}, Effect.timeout("30 seconds"))
const handled = (on: Engine) => Effect.map(totals(on.sql), ({ events }) => events)

/** What `status` reports of the only partition. */
const assertUnhealthy = Effect.fnUntraced(function* (on: Engine, reason: RegExp) {
  const { healthy, projections } = yield* statusOf(on)
  assert.isFalse(healthy)
  assert.match(projections[0]!.halted ?? "", reason)
})

/** A log on brokers that are too old to have topic ids. */
const withoutIdentity = (on: Engine): Engine => ({
  ...on,
  log: { ...on.log, identity: () => Effect.succeed(undefined) }
})

const test = (title: string, body: () => Effect.Effect<void, unknown, Scope.Scope>) =>
  it.live(title, () => Effect.scoped(body()), 60_000)

/** Runs a new application over its first events, then stops it. */
const begun = Effect.fnUntraced(function* (log: (on: Engine) => Engine = (on) => on) {
  const parts = applicationOf()
  const on = log(yield* kafkaEngine(brokers, postgres, parts.application))
  yield* append(on, parts.payments, range(0, 10).map(parts.paid))
  const stop = yield* run(on)
  yield* settled(on)
  yield* stop
  assert.strictEqual(yield* handled(on), 10)
  return { ...parts, on }
})
/** Deletes the topic and creates it again with so many records. */
const remake = Effect.fnUntraced(function* (
  { on, paid, payments }: Effect.Success<ReturnType<typeof begun>>,
  records: number
) {
  yield* deleteTopic(brokers, on.log, payments.name)
  yield* declared(on.log, payments.name)
  yield* append(on, payments, range(100, 100 + records).map(paid))
})
const declared = (log: Log["Service"], name: string) =>
  log.declare([{ name, partitions: 1, compacted: false, retentionMs: undefined }])

const suite = await needing("kafka")
suite("On Kafka a projection", () => {
  test("goes on with the topic that it started on, however often its partitions are claimed", () =>
    Effect.gen(function* () {
      const { on, paid, payments } = yield* begun()
      for (const i of range(1, 4)) {
        yield* append(on, payments, [paid(10 * i)])
        const stop = yield* run(on)
        yield* settled(on)
        yield* stop
      }
      assert.strictEqual(yield* handled(on), 13)
      assert.isTrue((yield* statusOf(on)).healthy)
    }))

  for (const records of [3, 10, 25]) {
    test(`halts if the topic was recreated with ${records} records after 10 were processed`, () =>
      Effect.gen(function* () {
        const before = yield* begun()
        yield* remake(before, records)
        yield* run(before.on)
        assert.match(yield* halted(before.on), /was recreated/)
        yield* assertUnhealthy(before.on, /was recreated/)
        assert.strictEqual(yield* handled(before.on), 10)
      }))

    test(`recognizes by the last record that the topic was recreated with ${records} records, if brokers have no topic ids`, () =>
      Effect.gen(function* () {
        const before = yield* begun(withoutIdentity)
        yield* remake(before, records)
        yield* run(before.on)
        assert.match(yield* halted(before.on), /was recreated/)
        assert.strictEqual(yield* handled(before.on), 10)
      }))
  }

  test("halts while it runs when the topic is recreated with more records than were processed", () =>
    Effect.gen(function* () {
      const before = yield* begun()
      yield* run(before.on)
      yield* append(before.on, before.payments, [before.paid(10)])
      yield* settled(before.on)
      yield* remake(before, 30)
      // either that it did not exist for a moment, or that it is another topic: whichever it notices first
      assert.match(yield* halted(before.on), /recreated|does not exist/)
      assert.strictEqual(yield* handled(before.on), 11)
    }))

  test("halts when its topic is deleted", () =>
    Effect.gen(function* () {
      const { on, payments } = yield* begun()
      yield* run(on)
      yield* deleteTopic(brokers, on.log, payments.name)
      assert.match(yield* halted(on), /the topic does not exist/)
      yield* assertUnhealthy(on, /the topic does not exist/)
    }))

  test("starts at the first position that the topic has, and halts on a recreated one though it has processed nothing yet", () =>
    Effect.gen(function* () {
      const parts = applicationOf()
      const log = (yield* kafkaEngine(brokers, postgres, applicationOf().application)).log
      yield* declared(log, parts.payments.name)
      const appended = { ...parts, on: { log } as Engine }
      yield* append(appended.on, parts.payments, range(0, 10).map(parts.paid))
      yield* cut(brokers, parts.payments.name, 0, 10)
      const on = yield* kafkaEngine(brokers, postgres, parts.application)
      const stop = yield* run(on)
      yield* settled(on)
      // claimed, and nothing processed
      while (((yield* statusOf(on)).projections[0]?.epoch ?? 0) === 0) yield* Effect.sleep(20)
      yield* stop
      const [row] = yield* query(
        "positions",
        () => on.sql`select first_position, next_position, fingerprint from millrace.progress`
      )
      assert.deepStrictEqual({ ...row }, { first_position: 10, next_position: 10, fingerprint: null })
      yield* remake({ ...parts, on }, 30)
      yield* run(on)
      assert.match(yield* halted(on), /was recreated/)
      assert.strictEqual(yield* handled(on), 0)
    }))

  test("goes on after retention deleted what was processed, and halts after it deleted more", () =>
    Effect.gen(function* () {
      const { on, paid, payments } = yield* begun()
      yield* cut(brokers, payments.name, 0, 10)
      yield* append(on, payments, range(10, 15).map(paid))
      const stop = yield* run(on)
      yield* settled(on)
      yield* stop
      assert.strictEqual(yield* handled(on), 15)
      yield* append(on, payments, range(15, 20).map(paid))
      yield* cut(brokers, payments.name, 0, 18)
      // also before any runner has noticed it
      yield* assertUnhealthy(on, /retention deleted records before they were processed/)
      yield* run(on)
      assert.match(yield* halted(on), /has positions 18 to 20, but position 15 was requested: retention deleted/)
      assert.strictEqual(yield* handled(on), 15)
    }))
})
