// Re-keyed events on real Kafka: several sources of several partitions, two of them aggregates, in processes that are killed, with dead letters that are
// retried. Each event is in the derived topic once, in the order of its source partition.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { shared } from "../../../stack/testing.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import type { Log, LogRecord } from "../../../src/log/log.ts"
import { withoutTimeMarks } from "../../../src/log/time-mark.ts"
import { partitionOf } from "../../../src/model/partitioner.ts"
import { query } from "../../../src/postgres/client/client.ts"
import * as Cli from "../../support/cli.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { isLong } from "../../support/size.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let root = ""
let brokers = ""
const config = ["--config", "test/support/rekeyed.config.ts"]
const types = ["invoice", "payment", "parcel", "return"] as const
type Type = (typeof types)[number]
/** The partitions of the sources, as the application declares them. */
const partitions: Readonly<Record<Type, number>> = { invoice: 3, payment: 2, parcel: 3, return: 2 }
interface Noted {
  readonly type: `${Type}.noted`
  readonly of: string
  readonly order: string | null
  readonly n: number
}
const typeOf = ({ type }: Noted) => type.replace(".noted", "") as Type
/** Where an event is: its source, and the partition there, which keeps the order of its key. */
const placeOf = (event: Noted) => `${typeOf(event)}/${partitionOf(event.of, partitions[typeOf(event)])}`
const textOf = ({ n, of, order, type }: Noted) => `${type} ${of} ${order} ${n}`

const recordsIn = Effect.fnUntraced(function* (log: Log["Service"], topic: string) {
  const found: Array<LogRecord> = []
  for (const { end, partition, start } of yield* log.bounds(topic))
    for (let position = start; position < end;) {
      const batch = yield* log.read(topic, partition, position)
      found.push(...withoutTimeMarks(batch.records))
      position = batch.next
    }
  return found
})

suite("Re-keyed events on Kafka", () => {
  beforeAll(async () => {
    root = await Effect.runPromise(Scope.provide(server, scope))
    brokers = (await Effect.runPromise(Scope.provide(shared("kafka"), scope))).MILLRACE_KAFKA_BROKERS!
  }, 120_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  it.live(
    "of aggregates and topics are published once and in the order of their source partitions, while processes are killed, and after retries",
    () =>
      Effect.gen(function* () {
        const name = `rekey${process.pid}_${Date.now() % 1_000_000}`
        const { sql, url } = yield* databaseOn(root, 4)
        const log = yield* KafkaLog.make({ brokers: brokers.split(",") })
        const environment = { MILLRACE_DATABASE_URL: url, MILLRACE_KAFKA_BROKERS: brokers, TEST_NAME: name }
        const fixed = { ...environment, TEST_FIXED: "yes" }
        const done = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
          const ended = yield* Cli.run(fixed, ...args, ...config)
          assert.strictEqual(ended.code, 0, `${args.join(" ")}: ${ended.output}${ended.errors}`)
          return ended.output
        })
        yield* done("topics", "apply")
        const start = (env: Readonly<Record<string, string>>, roles: string) =>
          Effect.gen(function* () {
            const running = yield* Cli.start(env, "start", ...config, "--roles", roles, "--port", "0", "--json")
            const line = yield* running.said(/^\{.*\}$/m)
            return { ...running, url: (JSON.parse(line) as { readonly url: string }).url }
          })
        const gateway = yield* start(environment, "gateway")
        const post = (path: string, body: unknown, headers: Readonly<Record<string, string>> = {}) =>
          Effect.promise(async () => {
            const response = await fetch(`${gateway.url}${path}`, {
              method: "POST",
              headers: { "content-type": "application/json", ...headers },
              body: JSON.stringify(body)
            })
            assert.isTrue(response.ok, await response.text())
          })
        /** What was sent, of each source partition in its order. */
        const sent = new Map<string, Array<Noted>>()
        let n = 0
        const send = Effect.fnUntraced(function* (count: number, bad = 0) {
          for (let i = 0; i < count; i++) {
            const type = types[n % types.length]!
            const order = i < bad ? `bad${i % 2}` : n % 11 === 0 ? null : `o${n % 7}`
            const event: Noted = { type: `${type}.noted`, of: `${type}${(n >> 2) % 5}`, order, n: n++ }
            const { type: _, ...fields } = event
            yield* type === "invoice" || type === "payment"
              ? post(`/v1/aggregates/${name}-${type}/${event.of}/commands/note`, fields, {
                  "idempotency-key": `${event.n}`
                })
              : post("/v1/events", event)
            sent.set(placeOf(event), [...(sent.get(placeOf(event)) ?? []), event])
          }
        })
        const publishing = () => [...sent.values()].flat().filter(({ order }) => order !== null)
        const rows = Effect.map(
          query(
            "read",
            () => sql<Array<{ order_id: string; events: ReadonlyArray<string> }>>`select * from orders order by 1`
          ),
          (found) => found.map(({ events, order_id }) => ({ order_id, events }))
        )
        /** Waits until so many events are in the rows. */
        const processed = (count: number) =>
          Effect.gen(function* () {
            while ((yield* rows).reduce((sum, { events }) => sum + events.length, 0) < count) yield* Effect.sleep(50)
          })
        const readRekeyed = Effect.map(recordsIn(log, `${name}_by_order`), (found) =>
          found.map(({ key, partition, value }) => ({ key, partition, event: JSON.parse(value!) as Noted }))
        )
        /** Each event once under its order; the good ones of a source partition in their order, in each partition of the derived topic. */
        const assertPublished = Effect.gen(function* () {
          const found = yield* readRekeyed
          assert.deepStrictEqual(
            found.map(({ event }) => textOf(event)).toSorted(),
            publishing().map(textOf).toSorted()
          )
          for (const { event, key, partition } of found) {
            assert.strictEqual(key, event.order)
            assert.strictEqual(partition, partitionOf(key!, 4))
          }
          const isGood = ({ order }: Noted) => order !== null && !order.startsWith("bad")
          for (const [place, events] of sent)
            for (let partition = 0; partition < 4; partition++)
              assert.deepStrictEqual(
                found
                  .filter((one) => one.partition === partition && placeOf(one.event) === place && isGood(one.event))
                  .map(({ event }) => event.n),
                events
                  .filter((event) => isGood(event) && partitionOf(event.order!, 4) === partition)
                  .map((event) => event.n),
                `${place} to ${partition}`
              )
        })

        const deadLetters = (status: string) =>
          query(
            "read",
            () => sql<Array<{ message: string }>>`select message from millrace.dead_letters where status = ${status}`
          )
        const killed = (worker: Cli.Running) =>
          Effect.andThen(
            Effect.sync(() => worker.process.kill("SIGKILL")),
            worker.ended
          )
        let worker = yield* start(environment, "projections,relay")
        let other = yield* start(environment, "projections,relay")
        yield* send(40, 8)
        yield* processed(10)
        // one is killed in the middle of what it does, and the other one or its successor takes its place
        for (let kills = 0; kills < (isLong ? 4 : 1); kills++) {
          yield* Effect.all([send(40), killed(worker)], { concurrency: 2 })
          worker = other
          if (isLong) other = yield* start(environment, "projections,relay")
        }
        yield* processed(publishing().length - 8)
        while ((yield* deadLetters("parked")).length < 8) yield* Effect.sleep(50)
        assert.match((yield* deadLetters("parked"))[0]!.message, /^the order bad\d is not known$/)

        // the dead letters are published once when they are retried with other code
        yield* Effect.all([killed(worker), killed(other)])
        yield* start(fixed, "projections,relay")
        yield* done("dlq", "retry", "--projection", `${name}_by_order`)
        yield* send(20)
        yield* processed(publishing().length)
        while ((yield* deadLetters("retried")).length < 8) yield* Effect.sleep(50)
        yield* assertPublished
        if (!isLong) return

        // another version of the projection that re-keys publishes nothing again, and goes on where the one before was
        yield* start({ ...fixed, TEST_VERSION: "2" }, "projections,relay")
        yield* send(8)
        yield* done("promote", `${name}_by_order`)
        yield* send(8)
        yield* processed(publishing().length)
        yield* assertPublished
        // a replay of the projection that reads them gives the same rows
        yield* done("rebuild", "history")
        yield* done("diff", "history")
      }).pipe(Effect.scoped),
    isLong ? 400_000 : 120_000
  )
})
