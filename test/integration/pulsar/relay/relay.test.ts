// The relay to Pulsar on a real broker and a real PostgreSQL, on both transports: what arrives where, and what halts.
import type { NewRecord } from "../../../../src/log/log.ts"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query } from "../../../../src/postgres/client/client.ts"
import { orUndefined } from "../../../../src/pulsar/client/admin.ts"
import { PulsarFailure } from "../../../../src/pulsar/client/errors.ts"
import * as PulsarRelay from "../../../../src/pulsar/relay/relay.ts"
import type { TransportProducer } from "../../../../src/pulsar/client/transport.ts"
import { positions } from "../../../support/outbox.ts"
import {
  makeTenant,
  publish,
  rounds,
  sequencesOf,
  servicesOfSuite,
  shipAll,
  testsOn,
  withProduce
} from "../../../support/relay-pulsar.ts"
import { needing, overTransportsConcurrently } from "../../../support/stack.ts"

const suite = await needing("pulsar")

suite("relay to Pulsar", () => {
  const services = servicesOfSuite()

  overTransportsConcurrently((transport) => {
    const test = testsOn(transport, services)

    test(
      "publishes messages to topics of their tenants, with key, time and properties, in order",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        const other = `${name}-b`
        yield* Effect.promise(() => makeTenant(cluster, other))
        yield* publish(sql, { firstSeq: 1, messages: 3 })
        yield* publish(sql, { firstSeq: 4, messages: 2, target: "scores" })
        yield* publish(sql, {
          firstSeq: 6,
          messages: 4,
          record: (seq) => ({ tenant: seq % 2 === 0 ? other : undefined, headers: { a: "é", event_id: "mine" } })
        })
        yield* publish(sql, { firstSeq: 1, messages: 4, partition: 2, record: () => ({ value: null, eventTime: -5 }) })
        const target = yield* relay()
        assert.strictEqual(yield* shipAll(target), 13)
        const own = yield* messages("alerts")
        assert.deepStrictEqual(sequencesOf(own), { "p/events/0": [1, 2, 3, 7, 9], "p/events/2": [1, 2, 3, 4] })
        assert.deepStrictEqual(sequencesOf(yield* messages("scores")), { "p/events/0": [4, 5] })
        const theirs = yield* messages("alerts", other)
        assert.deepStrictEqual(sequencesOf(theirs), { "p/events/0": [6, 8] })
        const [first] = theirs
        assert.strictEqual(first!.key, "k6")
        assert.strictEqual(first!.eventTime, 1_006)
        assert.deepStrictEqual(JSON.parse(first!.value), { from: "p/events/0", seq: 6 })
        assert.deepStrictEqual(first!.properties, {
          a: "é",
          trace_id: "0af7651916cd43dd8448eb211c80319c",
          traceparent: "00-0af7651916cd43dd8448eb211c80319c-0000000000000006-01",
          event_id: "e6",
          tenant: other,
          schema_version: "1",
          "millrace-stream": "p/events/0",
          "millrace-seq": "6",
          "millrace-incarnation": "00000000-0000-4000-8000-000000000001",
          "millrace-sent": "1"
        })
        const deletion = own.find(({ properties }) => properties["millrace-stream"] === "p/events/2")!
        assert.deepStrictEqual([deletion.value, deletion.eventTime], ["", 0])
        assert.deepStrictEqual(
          (yield* positions(sql)).map(({ seq }) => seq),
          [9, 4]
        )
        assert.deepStrictEqual(yield* target.publish, { messages: 0, more: false, halted: [] })
      })
    )

    test(
      "continues where another relay stopped, although topics have more than was recorded",
      Effect.fnUntraced(function* ({ messages, relay, sql }) {
        for (let i = 0; i < 6; i++)
          yield* publish(sql, { firstSeq: 1 + i * 50, messages: 50, target: i % 2 === 0 ? "a" : "b" })
        yield* Effect.scoped(Effect.flatMap(relay(), shipAll))
        // what the first relay recorded last is lost
        yield* query("rewind", () => sql`update millrace.relay_position set seq = 100`)
        yield* query(
          "rewind",
          () => sql`update millrace.relay_topic set seq = 0, sent = 0, place = '' where topic like '%/a'`
        )
        yield* publish(sql, { firstSeq: 301, messages: 10, target: "a" })
        const target = yield* relay()
        yield* shipAll(target)
        const upTo = (from: number) => Array.from({ length: 50 }, (_, i) => from + i)
        assert.deepStrictEqual(sequencesOf(yield* messages("a")), {
          "p/events/0": [...upTo(1), ...upTo(101), ...upTo(201), ...upTo(301).slice(0, 10)]
        })
        assert.deepStrictEqual(sequencesOf(yield* messages("b")), {
          "p/events/0": [...upTo(51), ...upTo(151), ...upTo(251)]
        })
      })
    )

    test(
      "parks a message that Pulsar refuses because of its size, and continues without it",
      Effect.fnUntraced(function* ({ messages, relay, sql }) {
        yield* publish(sql, {
          firstSeq: 1,
          messages: 9,
          record: (seq) => (seq === 4 ? { value: JSON.stringify({ seq, text: "x".repeat(6_000_000) }) } : {})
        })
        const target = yield* relay()
        yield* shipAll(target)
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": [1, 2, 3, 5, 6, 7, 8, 9] })
        const parked = yield* query(
          "parked",
          () => sql`select seq, key, reason, length(val) as bytes from millrace.relay_parked`
        )
        assert.strictEqual(parked.length, 1)
        assert.deepInclude(parked[0], { seq: 4, key: "k4", bytes: 6_000_019 })
        assert.match(parked[0]!["reason"], /exceeds|TooBig/)
      })
    )

    test(
      "parks messages of tenants whose names Pulsar cannot have or would misread",
      Effect.fnUntraced(function* ({ messages, name, relay, sql }) {
        const tenants: Readonly<Record<number, string>> = { 2: `${name}/alerts`, 4: "..", 5: "café" }
        yield* publish(sql, { firstSeq: 1, messages: 6, record: (seq) => ({ tenant: tenants[seq] ?? name }) })
        yield* publish(sql, { firstSeq: 7, messages: 1, record: () => ({ tenant: "a b" }) })
        const target = yield* relay()
        yield* shipAll(target)
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": [1, 3, 6] })
        const parked = yield* query(
          "parked",
          () => sql`select seq::int, reason from millrace.relay_parked order by seq`
        )
        assert.deepStrictEqual(
          parked.map((row) => [row["seq"], /named "(.*)":/.exec(row["reason"])?.[1]]),
          [...Object.entries(tenants), ["7", "a b"]].map(([seq, tenant]) => [Number(seq), tenant])
        )
      })
    )

    test(
      "parks messages with texts that Pulsar or PostgreSQL cannot hold, each once, and sends times that Pulsar has no number for as none",
      Effect.fnUntraced(function* ({ messages, name, relay, sql }) {
        const odd: Readonly<Record<number, Partial<NewRecord>>> = {
          2: { tenant: "a\0b" },
          3: { tenant: "\ud800" },
          4: { tenant: "x".repeat(10_000) },
          6: { key: "k\0" },
          7: { eventId: "e\0" },
          8: { headers: { a: "\udcff" } },
          9: { headers: { "a\0": "b" } }
        }
        const times: Readonly<Record<number, number>> = { 11: -5, 12: 1e300, 13: 1.5 }
        yield* publish(sql, {
          firstSeq: 1,
          messages: 14,
          record: (seq) => ({
            tenant: name,
            ...(times[seq] !== undefined && { eventTime: times[seq] }),
            ...odd[seq]
          })
        })
        const target = yield* relay()
        yield* shipAll(target)
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": [1, 5, 10, 11, 12, 13, 14] })
        const parked = yield* query(
          "parked",
          () => sql<Array<{ seq: number; key: string }>>`select seq::int, key from millrace.relay_parked order by seq`
        )
        assert.deepStrictEqual(
          parked.map(({ seq }) => seq),
          Object.keys(odd).map(Number)
        )
        assert.strictEqual(parked.find(({ seq }) => seq === 6)!.key, String.raw`"k\u0000"`)
        const halted = yield* query("halted", () => sql`select from millrace.relay_position where halted is not null`)
        assert.lengthOf(halted, 0)
      })
    )

    test(
      "waits for a topic that is declared with several partitions to be created, and uses one that exists as it is",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        yield* Effect.promise(() => cluster.admin!.create(`persistent://${name}/alerts/scores`))
        yield* publish(sql, { firstSeq: 1, messages: 20 })
        yield* publish(sql, { firstSeq: 21, messages: 5, target: "scores" })
        const partitions = new Map([
          ["alerts", 3],
          ["scores", 3]
        ])
        const target = yield* relay({ partitions })
        const { halted } = yield* rounds(target, (shipment, lag) => shipment.halted.length > 0 || lag === 0)
        assert.match(
          halted[0]?.reason ?? "",
          /alerts\/alerts\/partitions at .*not found.*; create it first: millrace pulsar apply, with --tenants TENANT if the application does not declare the tenant$/
        )
        const alerts = cluster.admin!.partitions(`persistent://${name}/alerts/alerts`)
        assert.isUndefined(yield* Effect.promise(() => orUndefined(alerts)))
        yield* Effect.promise(() => cluster.admin!.create(`persistent://${name}/alerts/alerts`, 3))
        yield* shipAll(target)
        const byPartition = yield* Effect.forEach([0, 1, 2], (n) => messages(`alerts-partition-${n}`))
        const found = byPartition.flatMap((part) => sequencesOf(part)["p/events/0"] ?? [])
        assert.deepStrictEqual(
          found.toSorted((a, b) => a - b),
          Array.from({ length: 20 }, (_, i) => i + 1)
        )
        assert.isAbove(byPartition.filter((part) => part.length > 0).length, 1)
        assert.deepStrictEqual(sequencesOf(yield* messages("scores")), { "p/events/0": [21, 22, 23, 24, 25] })
      })
    )

    test(
      "is no longer halted once all has arrived, even if it had nothing more to send",
      Effect.fnUntraced(function* ({ cluster, messages, name, outbox, sql }) {
        yield* publish(sql, { firstSeq: 1, messages: 3 })
        // the first producer's messages arrive, but are reported as forbidden
        let refusals = 0
        const refusing = (producer: TransportProducer): TransportProducer => ({
          close: () => producer.close(),
          send: async (message) => {
            await producer.send(message)
            throw new PulsarFailure("forbidden", false, "it is not allowed")
          }
        })
        const flawed = withProduce(cluster, async (settings) => {
          const producer = await cluster.transport.produce(settings)
          return refusals++ === 0 ? refusing(producer) : producer
        })
        const target = yield* PulsarRelay.fromCluster(flawed, outbox, { prefix: name })
        const stood = yield* rounds(target, ({ halted }) => halted.length > 0)
        assert.strictEqual(stood.halted[0]!.reason, "it is not allowed")
        yield* shipAll(target)
        assert.deepStrictEqual((yield* rounds(target, () => true)).halted, [])
        assert.deepStrictEqual([...(yield* positions(sql))], [{ stream: "p/events/0", seq: 3, halted: null }])
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": [1, 2, 3] })
      })
    )

    test(
      "a tenant that does not exist delays its own messages only, and gets them in order once it is created",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        const late = `${name}-late`
        for (let i = 0; i < 10; i++)
          yield* publish(sql, {
            firstSeq: 1 + i * 10,
            messages: 10,
            record: (seq) => ({ tenant: seq % 2 === 0 ? late : name })
          })
        const target = yield* relay()
        const stood = yield* rounds(target, ({ halted }) => halted.length > 0)
        assert.match(stood.halted[0]!.reason, /create it first: millrace pulsar apply/)
        let own = yield* messages("alerts")
        while (own.length < 50) {
          yield* target.publish
          own = yield* messages("alerts")
        }
        assert.strictEqual((yield* positions(sql))[0]!.seq, 0)
        yield* Effect.promise(() => makeTenant(cluster, late))
        yield* shipAll(target)
        const done = yield* rounds(target, ({ halted }) => halted.length === 0)
        assert.deepStrictEqual(done.halted, [])
        assert.deepStrictEqual([...(yield* positions(sql))], [{ stream: "p/events/0", seq: 100, halted: null }])
        const even = Array.from({ length: 50 }, (_, i) => 2 * i + 2)
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts", late)), { "p/events/0": even })
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": even.map((seq) => seq - 1) })
      })
    )
  })
})
