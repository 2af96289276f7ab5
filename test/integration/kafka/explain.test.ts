// `millrace explain` on real Kafka: the events of a window in the order of the log, and what retention deleted.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import { Schema } from "effect"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import { Agg, Application, Projection, Topic, Window } from "../../../src/index.ts"
import { append, run, settled } from "../../support/engine.ts"
import { explained, linesOf } from "../../support/explain.ts"
import { cut, kafkaEngine } from "../../support/kafka-engine.ts"
import { server } from "../../support/postgres.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let postgres = ""
let brokers: ReadonlyArray<string> = []

const value = { id: Schema.String, who: Schema.String, to: Schema.String, at: Schema.Int }
const payments = Topic.records(`explained-${process.pid}-${Date.now()}`, {
  value,
  id: "id",
  key: "who",
  eventTime: "at",
  partitions: 3
})
/** Its key is not the events' key, so events of all partitions contribute to a row. */
const received = Window.tumbling("received", {
  size: "1 hour",
  key: { to: Schema.String },
  aggregate: { payments: Agg.count }
})
const counting = Projection.make({
  name: "counting",
  version: 1,
  source: payments,
  writes: [received],
  handle: ({ to }, out) => out.add(received, { to, payments: 1 })
})
const application = Application.make({ name: "explained", projections: [Projection.async(counting)] })
const noon = Date.UTC(2026, 0, 1, 12)
const payment = (i: number) => ({ id: `${i}`, who: `p${i}`, to: i % 3 === 0 ? "ada" : "bob", at: noon + i })

suite("On Kafka", () => {
  beforeAll(async () => {
    postgres = await Effect.runPromise(Scope.provide(server, scope))
    brokers = (await Effect.runPromise(Scope.provide(shared("kafka"), scope))).MILLRACE_KAFKA_BROKERS!.split(",")
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it.live(
    "a row of a window names the events of all partitions, with the times at which Kafka stored them",
    () =>
      Effect.gen(function* () {
        const made = yield* kafkaEngine(brokers, postgres, { ...application, services: undefined })
        for (let i = 0; i < 30; i++) yield* append(made, payments, [payment(i)])
        const stop = yield* run(made)
        yield* settled(made)
        yield* stop
        const key = { to: "ada", window_size: "1h", window_start: noon }
        const found = yield* explained(made, "received", key)
        assert.deepStrictEqual([found.differences, found.stored?.["payments"], found.events.length], [[], 10, 10])
        assert.deepStrictEqual(
          found.events.map(({ eventId }) => Number(eventId)).toSorted((a, b) => a - b),
          [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]
        )
        const times = found.events.map(({ appendedAt }) => appendedAt!)
        assert.deepStrictEqual(times, times.toSorted())
        assert.strictEqual(new Set(linesOf(found).map((line) => line.replace(/^\d+/, ""))).size, 1)
        const { partition, position } = found.events[0]!
        yield* cut(brokers, payments.name, partition, position + 1)
        const after = yield* explained(made, "received", key)
        assert.deepStrictEqual([after.differences, after.events.length], [undefined, 9])
        assert.deepStrictEqual(after.partitions[partition]!.gone, { from: 0, to: position + 1 })
      }).pipe(Effect.scoped),
    60_000
  )
})
