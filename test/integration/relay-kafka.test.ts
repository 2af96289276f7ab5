// The relay to Kafka on a real broker and a real PostgreSQL, round by round: order, envelope, bounds, halts, lanes.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as KafkaRelay from "../../src/kafka/relay.ts"
import * as PostgresOutbox from "../../src/postgres/outbox.ts"
import type { Sql } from "../../src/postgres/client.ts"
import type { Log, LogRecord } from "../../src/log.ts"
import { shared } from "../../stack/testing.ts"
import { positions, publish, upTo } from "../support/outbox.ts"
import { databaseOn, server } from "../support/postgres.ts"
import { declare, logOn, recordsOf, sequencesOf } from "../support/relay-kafka.ts"
import { needing } from "../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let root = ""
let brokers: ReadonlyArray<string> = []

interface Case {
  readonly sql: Sql
  readonly log: Log["Service"]
  /** Of topics, groups and transactional ids, so that no two tests meet. */
  readonly name: string
  /** All committed records of a topic. */
  readonly records: (topic: string) => Effect.Effect<ReadonlyArray<LogRecord>, unknown>
  readonly relay: (options?: KafkaRelay.RelayOptions) => Effect.Effect<KafkaRelay.Target, unknown, Scope.Scope>
}
let made = 0
const test = (title: string, body: (_: Case) => Effect.Effect<void, unknown, Scope.Scope>, timeout = 60_000) =>
  it.live(
    title,
    () =>
      Effect.gen(function* () {
        const { sql } = yield* databaseOn(root)
        const log = yield* logOn({ brokers })
        const name = `r${process.pid}-${made++}`
        const relay = (options: KafkaRelay.RelayOptions = {}) =>
          KafkaRelay.make({ brokers, requestMs: 5_000 }, PostgresOutbox.make(sql), { prefix: name, ...options })
        // positions are kept under the source
        yield* declare(log, "events", 8)
        yield* body({ sql, log, name, records: (topic) => recordsOf({ brokers }, log, topic), relay })
      }).pipe(Effect.scoped),
    timeout
  )
/** Rounds until there is no more. */
const shipAll = Effect.fnUntraced(function* (target: KafkaRelay.Target) {
  let messages = 0
  for (let more = true; more;) {
    const shipment = yield* target.ship
    messages += shipment.messages
    more = shipment.more
  }
  return messages
})

suite("relay to Kafka", () => {
  beforeAll(async () => {
    root = await Effect.runPromise(Scope.provide(server, scope))
    const endpoints = await Effect.runPromise(Scope.provide(shared("kafka"), scope))
    brokers = endpoints.MILLRACE_KAFKA_BROKERS!.split(",")
  })
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  test(
    "brings segments with stream and sequence, in order, once",
    Effect.fnUntraced(function* ({ log, name, records, relay, sql }) {
      const [alerts, scores] = [`${name}-alerts`, `${name}-scores`]
      yield* declare(log, alerts, 3)
      yield* declare(log, scores, 3)
      yield* publish(sql, { firstSeq: 1, messages: 3, target: alerts })
      yield* publish(sql, { firstSeq: 4, messages: 2, target: scores })
      yield* publish(sql, { firstSeq: 6, messages: 1, target: alerts })
      yield* publish(sql, { firstSeq: 1, messages: 4, partition: 2, target: alerts })
      const target = yield* relay()
      assert.deepStrictEqual(
        (yield* target.lag).map(({ lag }) => lag),
        [6, 4]
      )
      assert.strictEqual(yield* shipAll(target), 10)
      assert.deepStrictEqual(yield* target.ship, { messages: 0, more: false, halted: [] })
      assert.deepStrictEqual(
        (yield* target.lag).map(({ lag }) => lag),
        [0, 0]
      )
      assert.deepStrictEqual(sequencesOf(yield* records(alerts)), {
        "p/events/0": [1, 2, 3, 6],
        "p/events/2": [1, 2, 3, 4]
      })
      assert.deepStrictEqual(sequencesOf(yield* records(scores)), { "p/events/0": [4, 5] })
      assert.deepStrictEqual(
        (yield* positions(sql)).map(({ seq }) => seq),
        [6, 4]
      )
      assert.deepStrictEqual(upTo(1), [1])
    })
  )
})
