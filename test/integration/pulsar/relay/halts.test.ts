// What keeps the relay to Pulsar from duplicating and losing messages, one protection in each test, on both transports: what it detects, and when it halts.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { query } from "../../../../src/postgres/client/client.ts"
import * as PulsarRelay from "../../../../src/pulsar/relay/relay.ts"
import type { Cluster } from "../../../../src/pulsar/client/cluster.ts"
import { PulsarFailure } from "../../../../src/pulsar/client/errors.ts"
import type { TransportProducer } from "../../../../src/pulsar/client/transport.ts"
import { RelayError } from "../../../../src/relay/target.ts"
import {
  another,
  collectPublished,
  commitEach,
  forgetSequence,
  positions,
  renumber,
  upTo
} from "../../../support/outbox.ts"
import {
  assertOnce,
  publish,
  purge,
  rounds,
  sequencesOf,
  servicesOfSuite,
  shipAll,
  testsOn,
  withProduce
} from "../../../support/relay-pulsar.ts"
import { needing, overTransportsConcurrently } from "../../../support/stack.ts"

const suite = await needing("pulsar")
const other = "00000000-0000-4000-8000-000000000002"
const topicOf = (name: string) => `persistent://${name}/alerts/alerts`
/** Options of the producer of the stream that tests publish. */
const producerOf = (name: string) => ({
  topic: topicOf(name),
  name: `${name}/p/events/0#1`,
  batching: false,
  maxPending: 10
})
const unanswered = new RelayError({ target: "pulsar", operation: "publish", retryable: true, reason: "silent" })

/** Removes all messages of the topic, as retention does once all subscriptions had them. */
const removeAll = async ({ admin }: Cluster, name: string) => {
  const path = topicOf(name).replace("://", "/")
  await admin!.call("POST", `namespaces/${name}/alerts/retention`, { retentionTimeInMinutes: 0, retentionSizeInMB: 0 })
  // the cursor of deduplication keeps them as well
  await admin!.call("POST", `namespaces/${name}/alerts/deduplication`, false)
  while ((await admin!.lastMessageId(topicOf(name))) !== undefined) {
    await admin!.call("PUT", `${path}/unload`)
    await admin!.call("POST", `${path}/trim`)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  await admin!.call("POST", `namespaces/${name}/alerts/retention`, {
    retentionTimeInMinutes: -1,
    retentionSizeInMB: -1
  })
  await admin!.call("POST", `namespaces/${name}/alerts/deduplication`, true)
}
/** The cluster with producers that behave differently. */
const withProducers = (cluster: Cluster, change: (producer: TransportProducer) => TransportProducer): Cluster =>
  withProduce(cluster, async (options) => change(await cluster.transport.produce(options)))

suite("the protections of the relay to Pulsar", () => {
  const services = servicesOfSuite()

  overTransportsConcurrently((transport) => {
    const test = testsOn(transport, services)

    test(
      "messages that the broker no longer knows as sent are found in the topic",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        yield* publish(sql, { firstSeq: 1, messages: 100 })
        yield* publish(sql, { firstSeq: 101, messages: 100 })
        yield* Effect.scoped(Effect.flatMap(relay(), shipAll))
        yield* query("rewind", () => sql`update millrace.relay_position set seq = 100`)
        yield* query("rewind", () => sql`update millrace.relay_topic set seq = 0, sent = 0, place = ''`)
        yield* Effect.promise(() => purge(cluster, name))
        yield* publish(sql, { firstSeq: 201, messages: 50 })
        yield* shipAll(yield* relay())
        assertOnce(yield* messages("alerts"), { "p/events/0": 250 })
      })
    )

    test(
      "the relay waits for a producer name that another connection has",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        const holder = yield* Effect.promise(() => cluster.transport.produce(producerOf(name)))
        yield* publish(sql, { firstSeq: 1, messages: 20 })
        const target = yield* relay()
        const { halted } = yield* rounds(target, (shipment) => shipment.halted.length > 0)
        assert.match(halted[0]!.reason, /ProducerBusy|already connected/)
        assert.deepStrictEqual(yield* messages("alerts"), [])
        yield* Effect.promise(() => holder.close())
        yield* shipAll(target)
        assertOnce(yield* messages("alerts"), { "p/events/0": 20 })
      })
    )

    test(
      "two relays that both believe to hold a stream send each message once between them",
      Effect.fnUntraced(function* ({ messages, outbox, relay, sql }) {
        const unclaimed: typeof outbox = {
          ...outbox,
          lanes: (target, lanes, idOf) =>
            Effect.map(outbox.lanes(target, lanes, idOf), (own) => ({
              ...own,
              claim: () => Effect.succeed({ held: [0], surplus: 0 })
            }))
        }
        const run = Effect.scoped(
          Effect.gen(function* () {
            const target = yield* relay({}, unclaimed)
            yield* rounds(target, (_, lag) => lag === 0)
          })
        )
        for (let i = 0; i < 10; i++)
          for (const partition of [0, 1, 2]) yield* publish(sql, { partition, firstSeq: 1 + i * 40, messages: 40 })
        yield* Effect.all([run, run], { concurrency: 2 })
        assertOnce(yield* messages("alerts"), { "p/events/0": 400, "p/events/1": 400, "p/events/2": 400 })
      })
    )

    test(
      "nothing is sent after the database has not answered for too long",
      Effect.fnUntraced(function* ({ cluster, messages, name, outbox, relay, sql }) {
        let silent = false
        const deaf: typeof outbox = {
          ...outbox,
          lanes: (target, lanes, idOf) =>
            Effect.map(outbox.lanes(target, lanes, idOf), (own) => ({
              ...own,
              grouping: Effect.suspend(() => (silent ? Effect.fail(unanswered) : own.grouping))
            }))
        }
        const holder = yield* Effect.promise(() => cluster.transport.produce(producerOf(name)))
        yield* publish(sql, { firstSeq: 1, messages: 10 })
        const target = yield* relay({ leaseMs: 1_500 }, deaf)
        const { halted } = yield* rounds(target, (shipment) => shipment.halted.length > 0)
        assert.match(halted[0]!.reason, /already connected|ProducerBusy/)
        silent = true
        while ((yield* Effect.exit(target.publish))._tag === "Success") yield* Effect.sleep(20)
        yield* Effect.sleep(1_600)
        // the name is free, and tried again every two seconds at most
        yield* Effect.promise(() => holder.close())
        yield* Effect.sleep(5_000)
        assert.deepStrictEqual(yield* messages("alerts"), [])
        silent = false
        yield* shipAll(target)
        assertOnce(yield* messages("alerts"), { "p/events/0": 10 })
      })
    )

    test(
      "a stream halts if the broker dropped a message as a duplicate that the topic does not have",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        const stranger = yield* Effect.promise(() =>
          cluster.transport.produce({ ...producerOf(name), initialSequenceId: 499 })
        )
        const outgoing = { key: "", value: "stranger", eventTime: 1, properties: {}, sequenceId: 500 }
        yield* Effect.promise(() => stranger.send(outgoing))
        yield* Effect.promise(() => stranger.close())
        yield* publish(sql, { firstSeq: 1, messages: 5 })
        yield* publish(sql, { firstSeq: 1, messages: 5, partition: 1 })
        const target = yield* relay()
        const { halted } = yield* rounds(target, (shipment, lag) => shipment.halted.length > 0 && lag === 5)
        assert.match(halted[0]!.reason, /Pulsar dropped message \d as a duplicate, but .* does not have it/)
        assertOnce(
          (yield* messages("alerts")).filter(({ value }) => value !== "stranger"),
          { "p/events/1": 5 }
        )
        // after a person adopts the position, producers have other names
        yield* query(
          "adopt",
          () => sql`update millrace.relay_position set adopt = true, incarnation = null where partition = 0`
        )
        yield* shipAll(target)
        assertOnce(
          (yield* messages("alerts")).filter(({ value }) => value !== "stranger"),
          { "p/events/0": 5, "p/events/1": 5 }
        )
      })
    )

    test(
      "streams halt after the database was restored to another state, until a person sets their positions",
      Effect.fnUntraced(function* ({ messages, relay, sql }) {
        yield* publish(sql, { firstSeq: 1, messages: 10 })
        yield* publish(sql, { firstSeq: 11, messages: 10 })
        yield* Effect.scoped(Effect.flatMap(relay(), shipAll))
        // the second commit is lost, and another one has its numbers
        yield* query("restore", () => sql`delete from millrace.outbox where first_seq = 11`)
        yield* query("restore", () => sql`update millrace.relay_position set seq = 10`)
        yield* query(
          "restore",
          () => sql`
          update millrace.relay_topic set seq = 10, sent = 10, place = ''`
        )
        yield* publish(sql, { firstSeq: 11, messages: 5, incarnation: other })
        const target = yield* relay()
        const { halted } = yield* rounds(target, (shipment) => shipment.halted.length > 0)
        assert.match(halted[0]!.reason, /has a different message 11 of this stream than the outbox.*adopt = true/)
        assert.strictEqual((yield* positions(sql))[0]!.seq, 10)
        yield* query("adopt", () => sql`update millrace.relay_position set seq = 10, adopt = true, incarnation = null`)
        yield* shipAll(target)
        assert.strictEqual((yield* messages("alerts")).length, 25)
        const [row] = yield* query("generation", () => sql`select generation, adopt from millrace.relay_position`)
        assert.deepStrictEqual({ ...row }, { generation: 2, adopt: false })
      })
    )

    test(
      "a stream halts where its numbers begin again with a collected outbox, and goes on when they are corrected",
      Effect.fnUntraced(function* ({ messages, relay, sql }) {
        yield* commitEach(sql, 5, {}, publish)
        const target = yield* relay()
        assert.strictEqual(yield* shipAll(target), 5)
        assert.deepStrictEqual((yield* target.publish).halted, [])
        yield* collectPublished(sql, "pulsar")
        yield* forgetSequence(sql)
        yield* commitEach(sql, 3, { incarnation: another }, publish)
        const { halted } = yield* rounds(target, (shipment) => shipment.halted.length > 0)
        assert.match(halted[0]!.reason, /^message 5 was the last one published, but projection p has committed 3/)
        assert.match((yield* positions(sql))[0]!.halted ?? "", /its numbers began again/)
        assert.strictEqual((yield* messages("alerts")).length, 5)
        yield* renumber(sql, 5)
        yield* rounds(target, (shipment, lag) => shipment.halted.length === 0 && lag === 0)
        const sent = (yield* messages("alerts")).map(({ properties }) => Number(properties["millrace-seq"]))
        assert.deepStrictEqual(sent, upTo(8))
      })
    )

    test(
      "a stream halts at a position that the outbox does not have, and at a gap",
      Effect.fnUntraced(function* ({ relay, sql }) {
        yield* publish(sql, { firstSeq: 1, messages: 10 })
        yield* publish(sql, { firstSeq: 1, messages: 10, partition: 1 })
        yield* Effect.scoped(Effect.flatMap(relay(), shipAll))
        yield* query("restore", () => sql`update millrace.outbox set incarnation = ${other} where partition = 0`)
        yield* publish(sql, { firstSeq: 12, messages: 10, partition: 1 })
        const target = yield* relay()
        const { halted } = yield* rounds(target, (shipment) => shipment.halted.length === 2)
        const of = (partition: number) => halted.find((halt) => halt.partition === partition)!.reason
        assert.match(of(0), /message 10 .* was the last one published, but the outbox has another one there/)
        assert.match(of(1), /message 11 should be next, but the outbox goes on with 12/)
      })
    )

    test(
      "a message of an earlier connection that arrives late, and whose copy is dropped as a duplicate, is found",
      Effect.fnUntraced(function* ({ cluster, messages, name, outbox, sql }) {
        yield* publish(sql, { firstSeq: 1, messages: 50 })
        let doubled = 0
        const late = withProducers(cluster, (producer) => {
          let first = true
          return {
            ...producer,
            close: () => producer.close(),
            send: async (message) => {
              if (!first || doubled > 0) return producer.send(message)
              first = false
              doubled++
              await producer.send(message)
              // the interface counts what it sends: there the same message is another one
              return cluster.transport.sendsSequenceIds
                ? producer.send(message)
                : { id: { ledger: -1, entry: -1, batch: -1, batchSize: 1 }, duplicate: true }
            }
          }
        })
        const target = yield* PulsarRelay.fromCluster(late, outbox, { prefix: name })
        yield* shipAll(target)
        assert.strictEqual(doubled, 1)
        assertOnce(yield* messages("alerts"), { "p/events/0": 50 })
      })
    )

    test(
      "a message that is refused while later ones are accepted is parked, and not sent after them",
      Effect.fnUntraced(function* ({ cluster, messages, name, outbox, sql }) {
        yield* publish(sql, { firstSeq: 1, messages: 9 })
        let refused = 0
        const flawed = withProducers(cluster, (producer) => ({
          ...producer,
          close: () => producer.close(),
          send: async (message) => {
            if (message.properties["millrace-seq"] !== "4" || refused++ > 0) return producer.send(message)
            throw new PulsarFailure("other", true, "not this one")
          }
        }))
        // the answers to the later messages come before the channel reconnects
        const target = yield* PulsarRelay.fromCluster(flawed, outbox, { prefix: name })
        yield* shipAll(target)
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), { "p/events/0": [1, 2, 3, 5, 6, 7, 8, 9] })
        const parked = yield* query("parked", () => sql`select seq, reason from millrace.relay_parked`)
        assert.strictEqual(parked.length, 1)
        assert.match(parked[0]!["reason"], /Pulsar accepted message 5, but not this earlier one.*not this one/)
      })
    )

    test(
      "a topic whose messages retention removed continues from its position",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        yield* publish(sql, { firstSeq: 1, messages: 50 })
        yield* Effect.scoped(Effect.flatMap(relay(), shipAll))
        yield* Effect.promise(() => removeAll(cluster, name))
        assert.deepStrictEqual(yield* messages("alerts"), [])
        yield* publish(sql, { firstSeq: 51, messages: 50 })
        const target = yield* relay()
        yield* rounds(target, ({ halted }, lag) => {
          assert.deepStrictEqual(halted, [])
          return lag === 0
        })
        assert.deepStrictEqual(sequencesOf(yield* messages("alerts")), {
          "p/events/0": Array.from({ length: 50 }, (_, i) => 51 + i)
        })
      })
    )

    test(
      "batches start only after as many messages as may be in flight, and messages are found in them",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        const published = Effect.forEach(
          Array.from({ length: 30 }, (_, i) => i),
          (i) => publish(sql, { firstSeq: 1 + i * 100, messages: 100 })
        )
        yield* published
        yield* Effect.scoped(Effect.flatMap(relay({ batched: ["alerts"] }), shipAll))
        yield* query("rewind", () => sql`update millrace.relay_position set seq = 1500`)
        yield* query("rewind", () => sql`update millrace.relay_topic set seq = 0, sent = 0, place = ''`)
        yield* Effect.promise(() => purge(cluster, name))
        yield* publish(sql, { firstSeq: 3_001, messages: 100 })
        yield* shipAll(yield* relay({ batched: ["alerts"] }))
        const found = yield* messages("alerts")
        assertOnce(found, { "p/events/0": 3_100 })
        const batched = found.map(({ id }) => id.batch >= 0)
        assert.isAtLeast(batched.indexOf(true), 1_000)
        assert.isFalse(batched.slice(3_000).includes(true))
      })
    )

    test(
      "keys of a partitioned topic keep their partitions when partitions are added",
      Effect.fnUntraced(function* ({ cluster, messages, name, relay, sql }) {
        const path = `persistent/${name}/alerts/alerts/partitions`
        yield* Effect.promise(() => cluster.admin!.call("PUT", path, 2))
        yield* publish(sql, { firstSeq: 1, messages: 50 })
        yield* Effect.scoped(Effect.flatMap(relay(), shipAll))
        yield* Effect.promise(() => cluster.admin!.call("POST", path, 5))
        yield* publish(sql, { firstSeq: 51, messages: 50 })
        yield* shipAll(yield* relay())
        const byPartition = [yield* messages("alerts-partition-0"), yield* messages("alerts-partition-1")]
        const keys = byPartition.map((part) => new Set(part.map(({ key }) => key)))
        assert.strictEqual(keys[0]!.size + keys[1]!.size, 7)
        assert.isTrue(keys.every(({ size }) => size > 0))
        const all = byPartition.flat().map(({ properties }) => Number(properties["millrace-seq"]))
        assert.deepStrictEqual(
          all.toSorted((a, b) => a - b),
          Array.from({ length: 100 }, (_, i) => i + 1)
        )
      })
    )
  })
})
