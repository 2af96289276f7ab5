// The bridge against real Kafka and Pulsar, in peace: what arrives, as what, where, and what does not. Faults are in bridge-fault.test.ts.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import type * as Scope from "effect/Scope"
import { shared } from "../../stack/testing.ts"
import { once } from "../../src/bridge-run.ts"
import { type Both, both, declare, full, messagesOf, placesOf, recordOf, unique } from "../support/bridge.ts"
import { transports, type TransportName } from "../support/pulsar.ts"
import { needing } from "../support/stack.ts"

const suite = await needing("kafka", "pulsar")
const quietly = Effect.provideService(References.MinimumLogLevel, "Fatal")

const test = (
  name: string,
  body: (ends: Both) => Effect.Effect<void, unknown, Scope.Scope>,
  transport: TransportName = "native"
) =>
  it.live(
    `${name} (${transport})`,
    () =>
      Effect.gen(function* () {
        const places = placesOf(yield* shared("kafka", "pulsar"), transport)
        yield* body(yield* both(places))
      }).pipe(Effect.scoped, quietly),
    120_000
  )
const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

suite("bridge", () => {
  for (const transport of transports) {
    test(
      "from Kafka to Pulsar: each record once, with key, event time, headers and trace",
      Effect.fnUntraced(function* (ends) {
        const [name, topic] = [unique("bridge"), unique("alerts")]
        yield* declare(ends.log, topic, 2)
        const records = Array.from({ length: 500 }, (_, i) =>
          recordOf(`k${i % 7}`, JSON.stringify({ i }), {
            partition: i % 2,
            eventTime: 1_357_000_000_000 + i,
            eventId: `e${i}`,
            tenant: "acme",
            traceparent,
            schemaVersion: 3,
            headers: { colour: "rot ü" }
          })
        )
        yield* ends.log.append(topic, records)
        const options = { name, rules: [{ name: "out", from: `kafka:${topic}`, to: `pulsar:${full(topic)}` }] }
        const first = yield* once(yield* ends.bridge(options))
        assert.strictEqual(
          first.reduce((sum, { mirrored }) => sum + mirrored, 0),
          500
        )
        yield* once(yield* ends.bridge(options))
        const found = yield* messagesOf(ends, full(topic))
        assert.deepStrictEqual(
          found.map(({ value }) => JSON.parse(value).i).toSorted((a, b) => a - b),
          records.map((_, i) => i)
        )
        const one = found.find(({ value }) => value === '{"i":7}')!
        assert.strictEqual(one.key, "k0")
        assert.strictEqual(one.eventTime, 1_357_000_000_007)
        assert.deepInclude(one.properties, {
          event_id: "e7",
          tenant: "acme",
          traceparent,
          trace_id: traceparent.slice(3, 35),
          schema_version: "3",
          colour: "rot ü",
          "millrace-bridge-offset": "3"
        })
      }),
      transport
    )
  }
})
