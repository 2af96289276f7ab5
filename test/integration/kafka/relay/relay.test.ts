// The relay to Kafka on a real broker and a real PostgreSQL, round by round: order, envelope, halts, lanes. Faults have a file of their own.
import { randomBytes } from "node:crypto"
import { afterAll, assert, beforeAll } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as KafkaRelay from "../../../../src/kafka/relay/relay.ts"
import { Client, fetch, type KafkaOptions } from "../../../../src/kafka/protocol/protocol.ts"
import { failureOf } from "../../../../src/kafka/protocol/errors.ts"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { partitionOf } from "../../../../src/model/partitioner.ts"
import { query } from "../../../../src/postgres/client/client.ts"
import { pack } from "../../../../src/postgres/log/batch-codec.ts"
import * as PostgresRelay from "../../../../src/postgres/relay/to-log.ts"
import * as Relay from "../../../../src/relay/relay.ts"
import { shared } from "../../../../stack/testing.ts"
import * as Embedded from "../../../support/outbox.ts"
import { incarnation, positions, publish, recordsOf as messagesOf, upTo } from "../../../support/outbox.ts"
import { server } from "../../../support/postgres.ts"
import {
  assertOnce,
  declare,
  intercept,
  offsetsOf,
  sequencesOf,
  shipAll,
  testsOn,
  withAdmin
} from "../../../support/relay-kafka.ts"
import { needing } from "../../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let services: { readonly root: string; readonly brokers: ReadonlyArray<string> } = { root: "", brokers: [] }
const test = testsOn(() => services)

/** The number of the codec of the batch at a position, from its attributes. */
const codecOf = (options: KafkaOptions, topic: string, position: number) =>
  Effect.promise(async () => {
    const client = new Client(options)
    try {
      const { id } = await client.topic(topic)
      const leader = await client.leader(topic, 0)
      const asked = { topic, id, partition: 0, position, maxBytes: 1 << 20, waitMs: 0 }
      const fetched = await client.use(leader, "read", (broker) => fetch(client, broker, asked))
      return fetched!.bytes.readInt16BE(21) & 7
    } finally {
      client.close()
    }
  })

suite("relay to Kafka", () => {
  beforeAll(async () => {
    const root = await Effect.runPromise(Scope.provide(server, scope))
    const endpoints = await Effect.runPromise(Scope.provide(shared("kafka"), scope))
    services = { root, brokers: endpoints.MILLRACE_KAFKA_BROKERS!.split(",") }
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test(
    "publishes segments with stream and sequence, in order, once, and stores the position on Kafka",
    Effect.fnUntraced(function* ({ log, name, options, records, relay, sql }) {
      const [alerts, scores] = [`${name}-alerts`, `${name}-scores`]
      yield* declare(log, alerts, 3)
      yield* declare(log, scores, 3)
      yield* publish(sql, { firstSeq: 1, messages: 3, target: alerts })
      yield* publish(sql, { firstSeq: 4, messages: 2, target: scores })
      yield* publish(sql, { firstSeq: 6, messages: 1, target: alerts })
      yield* publish(sql, { firstSeq: 1, messages: 4, partition: 2, target: alerts })
      const target = yield* relay()
      const lags = Effect.map(target.lag, (list) => list.map(({ lag }) => lag))
      assert.deepStrictEqual(yield* lags, [6, 4])
      assert.strictEqual(yield* shipAll(target), 10)
      assert.deepStrictEqual(yield* target.publish, { messages: 0, more: false, halted: [] })
      assert.deepStrictEqual(yield* lags, [0, 0])
      assert.deepStrictEqual(sequencesOf(yield* records(alerts)), {
        "p/events/0": [1, 2, 3, 6],
        "p/events/2": [1, 2, 3, 4]
      })
      assert.deepStrictEqual(sequencesOf(yield* records(scores)), { "p/events/0": [4, 5] })
      assert.deepStrictEqual(
        (yield* positions(sql)).map(({ seq }) => seq),
        [6, 4]
      )
      assert.deepStrictEqual(yield* offsetsOf(options, `${name}/p`, "events"), [
        { partition: 0, seq: 6, incarnation },
        { partition: 2, seq: 4, incarnation }
      ])
    })
  )

  test(
    "compresses what it publishes with zstd, or as the options say",
    Effect.fnUntraced(function* ({ log, name: target, options, outbox, records, sql }) {
      yield* declare(log, target, 1)
      const codecs: Array<number> = []
      for (const [i, compression] of ([undefined, "none", "gzip"] as const).entries()) {
        yield* publish(sql, { firstSeq: 1 + 5 * i, messages: 5, target })
        const own = { ...options, ...(compression !== undefined && { compression }) }
        yield* Effect.scoped(Effect.flatMap(KafkaRelay.make(own, outbox, { prefix: target }), shipAll))
        codecs.push(yield* codecOf(options, target, 6 * i))
      }
      assert.deepStrictEqual(codecs, [4, 0, 1])
      assert.deepStrictEqual(sequencesOf(yield* records(target)), { "p/events/0": upTo(15) })
    })
  )

  test(
    "publishes records with the key, value and headers that the log on PostgreSQL gives, and partitions them by key as it does",
    Effect.fnUntraced(function* ({ log, name, records, relay, sql }) {
      yield* declare(log, name, 4)
      yield* Embedded.declare(sql, name, 4)
      const traceparent = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01"
      const messages = upTo(60).map((i) =>
        Object.assign(messagesOf("p", 0, i, 1)[0]!, {
          key: i % 9 === 0 ? null : i % 2 === 0 ? `kéy"${i % 7}` : `kéy${i % 7}`,
          value: i % 5 === 0 ? null : JSON.stringify({ text: `"${i}" ü\n` }),
          tenant: i % 3 === 0 ? undefined : "t",
          traceparent: i % 4 === 0 ? undefined : traceparent,
          schemaVersion: i % 6 === 0 ? 2 : undefined
        })
      )
      for (const [from, to, partition] of [
        [0, 20, 1],
        [20, 45, null],
        [45, 60, 3]
      ] as const) {
        const { meta, vals } = pack(messages.slice(from, to))
        yield* query(
          "publish",
          () => sql`
          insert into millrace.outbox
            (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
          values ('p', 'events', 0, ${from + 1}, ${to - from}, ${incarnation}, ${name}, ${partition}, ${meta}, ${vals})`
        )
      }
      yield* shipAll(yield* relay())
      const embedded = yield* PostgresRelay.make(sql)
      for (let more = true; more;) more = (yield* embedded.publish).more
      const found = yield* records(name)
      const reference: Array<unknown> = []
      const { unpack } = yield* Effect.promise(() => import("../../../../src/postgres/log/batch-codec.ts"))
      for (const row of yield* query(
        "read",
        () => sql`select * from millrace.log_batch order by partition, base_position`
      )) {
        const into: Array<(typeof found)[number]> = []
        const { base_position: base, meta, next_position: next, partition, vals } = row
        const origin = { stream: row["stream"], firstSeq: row["first_seq"], incarnation: row["incarnation"] }
        unpack({ partition, base, next, bytes: 0, appendedAt: 0, meta, vals, ...origin }, 0, into)
        reference.push(...into.map(({ appendedAt: _, position: __, ...record }) => record))
      }
      assert.strictEqual(found.length, 60)
      assert.deepStrictEqual(
        found.map(({ appendedAt: _, position: __, ...record }) => record),
        reference as never
      )
      for (const { headers, key, partition } of found) {
        const seq = Number(headers["millrace-seq"])
        assert.strictEqual(partition, seq <= 20 ? 1 : seq > 45 ? 3 : partitionOf(key ?? "", 4))
      }
      // trace_id is a header for other readers; the log's reader takes it from traceparent
      assert.isFalse(found.some(({ headers }) => "trace_id" in headers))
    })
  )

  test(
    "skips topics that go elsewhere, and moves its position past them",
    Effect.fnUntraced(function* ({ log, name, options, records, relay, sql }) {
      yield* declare(log, name, 2)
      for (let i = 0; i < 10; i++) {
        yield* publish(sql, { firstSeq: 1 + i * 2, messages: 2, target: i % 2 === 0 ? name : "elsewhere" })
        yield* publish(sql, { firstSeq: 1 + i, messages: 1, partition: 1, target: "elsewhere" })
      }
      const target = yield* relay({ accepts: (topic) => topic === name, segments: 3 })
      assert.strictEqual(yield* shipAll(target), 10)
      assert.deepStrictEqual(sequencesOf(yield* records(name)), { "p/events/0": [1, 2, 5, 6, 9, 10, 13, 14, 17, 18] })
      // positions that only moved past other targets' segments are written later
      while ((yield* target.lag).some(({ lag }) => lag > 0)) yield* shipAll(target)
      assert.deepStrictEqual(
        (yield* offsetsOf(options, `${name}/p`, "events")).map(({ seq }) => seq),
        [20, 10]
      )
    })
  )

  test(
    "halts a stream at a gap and never skips; the other streams go on",
    Effect.fnUntraced(function* ({ log, name: target, records, relay, sql }) {
      yield* declare(log, target, 3)
      yield* publish(sql, { firstSeq: 1, messages: 3, target })
      yield* publish(sql, { firstSeq: 5, messages: 3, target })
      yield* publish(sql, { firstSeq: 2, messages: 1, partition: 1, target })
      yield* publish(sql, { firstSeq: 1, messages: 1, partition: 2, target })
      const kafka = yield* relay()
      assert.strictEqual(yield* shipAll(kafka), 4)
      const { halted } = yield* kafka.publish
      assert.deepStrictEqual(
        halted.map(({ partition }) => partition),
        [0, 1]
      )
      assert.match(halted[0]!.reason, /message 4 should be next, but the outbox goes on with 5/)
      assert.match(halted[1]!.reason, /message 1 should be next, but the outbox goes on with 2/)
      assert.deepStrictEqual(
        (yield* positions(sql)).map((one) => [one.seq, one.halted]),
        [
          [3, halted[0]!.reason],
          [0, halted[1]!.reason],
          [1, null]
        ]
      )
      yield* publish(sql, { firstSeq: 4, messages: 1, target })
      assert.strictEqual(yield* shipAll(kafka), 4)
      assert.deepStrictEqual((yield* positions(sql))[0], { stream: "p/events/0", seq: 7, halted: null })
      assert.deepStrictEqual(sequencesOf(yield* records(target))["p/events/0"], upTo(7))
    })
  )

  test(
    "halts a stream if its topic is missing, has too few partitions, or refuses a record; the other streams go on, and so does this one once that is corrected",
    Effect.fnUntraced(function* ({ log, name, records, relay, sql }) {
      const [alerts, later, small] = [`${name}-alerts`, `${name}-later`, `${name}-small`]
      yield* declare(log, alerts, 2)
      yield* declare(log, small, 1)
      yield* withAdmin({ brokers: services.brokers }, (admin) =>
        admin.alterConfigs({
          validateOnly: false,
          resources: [{ type: 2, name: small, configEntries: [{ name: "max.message.bytes", value: "20000" }] }]
        })
      )
      yield* publish(sql, { firstSeq: 1, messages: 1, target: alerts })
      yield* publish(sql, { firstSeq: 2, messages: 1, target: later })
      yield* publish(sql, { firstSeq: 3, messages: 1, target: alerts })
      yield* publish(sql, { firstSeq: 1, messages: 1, partition: 1, targetPartition: 5, target: alerts })
      // the broker judges compressed batches, so the text is one that compression leaves above the limit
      const large = { ...messagesOf("p", 2, 51, 1)[0]!, value: JSON.stringify(randomBytes(37_500).toString("base64")) }
      const { meta, vals } = pack([...messagesOf("p", 2, 1, 50), large, ...messagesOf("p", 2, 52, 3)])
      yield* query(
        "publish",
        () => sql`
        insert into millrace.outbox
          (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
        values ('p', 'events', 2, 1, 54, ${incarnation}, ${small}, 0, ${meta}, ${vals})`
      )
      yield* publish(sql, { firstSeq: 1, messages: 700, partition: 3, targetPartition: 0, target: small })
      yield* publish(sql, { firstSeq: 1, messages: 5, partition: 4, targetPartition: 0, target: alerts })
      const kafka = yield* relay()
      yield* shipAll(kafka)
      const { halted } = yield* kafka.publish
      assert.deepStrictEqual(
        halted.map(({ partition }) => partition),
        [0, 1, 2]
      )
      assert.match(halted[0]!.reason, /no topic .*-later on Kafka: declare it/)
      assert.match(halted[1]!.reason, /has 2 partitions, but message 1 is for partition 5/)
      assert.match(
        halted[2]!.reason,
        /message 51, of 3\d\d\d\d bytes, for .*-small: a record is larger than the topic takes/
      )
      assert.deepStrictEqual(sequencesOf(yield* records(small)), { "p/events/3": upTo(700) })
      yield* declare(log, later, 1)
      yield* withAdmin({ brokers: services.brokers }, (admin) =>
        admin.alterConfigs({
          validateOnly: false,
          resources: [{ type: 2, name: small, configEntries: [{ name: "max.message.bytes", value: "200000" }] }]
        })
      )
      // a halted stream tries again by itself
      while ((yield* positions(sql)).some(({ halted: reason, stream }) => reason !== null && stream !== "p/events/1")) {
        yield* kafka.publish
        yield* Effect.sleep(20)
      }
      assertOnce([yield* records(alerts), yield* records(later), yield* records(small)], {
        "p/events/0": 3,
        "p/events/1": 0,
        "p/events/2": 54,
        "p/events/3": 700,
        "p/events/4": 5
      })
    })
  )

  test(
    "halts a stream whose segment is damaged; the other streams go on",
    Effect.fnUntraced(function* ({ log, name: target, records, relay, sql }) {
      yield* declare(log, target, 2)
      yield* publish(sql, { firstSeq: 1, messages: 3, target })
      yield* query("break", () => sql`update millrace.outbox set vals = '1'`)
      yield* publish(sql, { firstSeq: 1, messages: 3, partition: 1, target })
      const kafka = yield* relay()
      yield* shipAll(kafka)
      const { halted } = yield* kafka.publish
      assert.match(halted[0]!.reason, /the segment of message 1 is damaged: .* texts for 1 of 3/)
      assert.deepStrictEqual(sequencesOf(yield* records(target)), { "p/events/1": upTo(3) })
    })
  )

  test(
    "several processes share the lanes, and take over those of a process that ends",
    Effect.fnUntraced(function* ({ log, name: target, outbox, records, relay, sql }) {
      yield* declare(log, target, 8)
      const scopes = yield* Effect.all([Scope.make(), Scope.make()])
      let fenced = 0
      yield* intercept((_, send) =>
        send().catch((cause: unknown) => {
          if (failureOf(cause).code === "INVALID_PRODUCER_EPOCH") fenced++
          throw cause
        })
      )
      const fibers = []
      for (const one of scopes) {
        const kafka = yield* Scope.provide(relay({ lanes: 4 }), one)
        fibers.push(yield* Effect.forkIn(Relay.run(kafka, { pollMs: 20 }), one))
      }
      const third = yield* Scope.make()
      const lanes = yield* Scope.provide(
        outbox.lanes("kafka", undefined, () => ""),
        third
      )
      const held = query(
        "held",
        () => sql`
        select count(*)::int as lanes from pg_locks l join millrace.relay_grouping g on l.classid::bigint = 1820000001 + 2 * g.number
        where l.locktype = 'advisory' and l.granted group by l.pid order by 1`
      )
      // this test takes part as well
      while (JSON.stringify(yield* held) !== '[{"lanes":1},{"lanes":1},{"lanes":2}]') {
        const { held: own, surplus } = yield* lanes.claim(4)
        if (surplus > 0) yield* lanes.release(own.at(-1)!)
        yield* Effect.sleep(20)
      }
      const shipped = (n: number) =>
        Effect.gen(function* () {
          while ((yield* positions(sql)).filter(({ seq }) => seq === n).length < 8) yield* Effect.sleep(20)
        })
      yield* Scope.close(third, Exit.void)
      yield* Scope.close(scopes[0]!, Exit.void)
      for (let partition = 0; partition < 8; partition++)
        yield* publish(sql, { firstSeq: 1, messages: 3, partition, target })
      yield* shipped(3)
      assert.strictEqual(fenced, 0)
      assertOnce([yield* records(target)], Object.fromEntries(upTo(8).map((n) => [`p/events/${n - 1}`, 3])))
      yield* Scope.close(scopes[1]!, Exit.void)
      yield* Effect.forEach(fibers, Fiber.await)
    })
  )
})
