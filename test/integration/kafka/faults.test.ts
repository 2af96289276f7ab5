// The log on Kafka through faults of brokers, networks and other producers. Each protection was removed once to see its test fail.
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Kafka, logLevel, Partitioners } from "kafkajs"
import { Appender } from "../../../src/kafka/log/append.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import { Log, LogError, OutOfRange } from "../../../src/log/log.ts"
import { fresh, range, readAll, record } from "../../contract/log-support.ts"
import { brokers, Node, nodeWithLog } from "../../support/kafka.ts"
import { owning } from "../../support/stack.ts"

const client = Effect.map(
  brokers,
  (list) => new Kafka({ brokers: list, logLevel: logLevel.NOTHING, retry: { initialRetryTime: 20, retries: 20 } })
)
const numbers = (records: ReadonlyArray<{ readonly value: string | null }>) => records.map(({ value }) => Number(value))

const layer = nodeWithLog({ heartbeatMs: 200, sessionMs: 2_000, requestMs: 3_000, deliveryMs: 60_000 })
const suite = await owning("kafka")
suite("with a node of its own", () => {
  vitest.layer(layer, { timeout: "90 seconds", excludeTestServices: true })("Log (Kafka) under faults", (it) => {
    it.effect("reads no record of aborted transactions that lie between other records", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const topic = yield* fresh()
        const kafka = yield* client
        const producers = yield* Effect.forEach(range(0, 3), (i) =>
          Effect.acquireRelease(
            Effect.promise(async () => {
              const producer = kafka.producer({
                transactionalId: `${topic}-${i}`,
                idempotent: true,
                maxInFlightRequests: 1,
                createPartitioner: Partitioners.DefaultPartitioner
              })
              await producer.connect()
              return producer
            }),
            (producer) => Effect.promise(() => producer.disconnect())
          )
        )
        const expected: Array<string> = []
        for (const round of range(0, 4)) {
          yield* Effect.promise(async () => {
            const open = []
            for (const producer of producers) open.push(await producer.transaction())
            for (const part of range(0, 3)) {
              for (const [i, transaction] of open.entries()) {
                const messages = range(0, 7).map((n) => ({
                  partition: 0,
                  key: n === 0 ? "\0\0\0\0" : "k",
                  value: `"${round}-${i}-${part}-${n}"`
                }))
                await transaction.send({ topic, acks: -1, messages })
                if (i === round % 3) expected.push(...messages.map(({ value }) => value))
              }
            }
            for (const [i, transaction] of open.entries()) {
              if (i === round % 3) await transaction.commit()
              else await transaction.abort()
            }
          })
          yield* log.append(topic, [record({ value: `"${round}"` })])
          expected.push(`"${round}"`)
        }
        for (const maxBytes of [1, 200, 1 << 20]) {
          const { batches, end, records } = yield* readAll(topic, 0, 0, maxBytes)
          assert.deepStrictEqual(
            records.map(({ value }) => value),
            expected
          )
          assert.strictEqual(batches.at(-1)!.next, end)
        }
        // also from the middle of an aborted transaction
        assert.deepStrictEqual(
          (yield* readAll(topic, 0, 9)).records.map(({ value }) => value),
          (yield* readAll(topic)).records.filter(({ position }) => position >= 9).map(({ value }) => value)
        )
      }).pipe(Effect.scoped)
    )

    it.effect("waits for open transactions, and goes on past a transaction whose records are gone", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const topic = yield* fresh()
        const kafka = yield* client
        const producer = kafka.producer({ transactionalId: topic, maxInFlightRequests: 1, idempotent: true })
        yield* Effect.promise(() => producer.connect())
        const transaction = yield* Effect.promise(() => producer.transaction())
        yield* Effect.promise(() => transaction.send({ topic, messages: [{ partition: 0, value: "1" }] }))
        yield* log.append(topic, [record({ value: "2" })])
        assert.deepStrictEqual(yield* log.bounds(topic), [{ partition: 0, start: 0, end: 0 }])
        const reader = yield* log.open(topic, 0, 0)
        const taken = yield* Effect.forkChild(reader.take, { startImmediately: true })
        yield* Effect.sleep(100)
        assert.isUndefined(taken.pollUnsafe())
        yield* Effect.promise(() => transaction.abort())
        const first = yield* Fiber.join(taken)
        const seen = [...first.records]
        // only the transaction's marker is left, and it moves the reader to the end
        let next = first.next
        while (next < 3) {
          const more = yield* reader.take
          seen.push(...more.records)
          next = more.next
        }
        assert.deepStrictEqual(numbers(seen), [2])
        assert.deepStrictEqual(yield* log.read(topic, 0, next), { records: [], next: 3, end: 3 })
        yield* Effect.promise(() => producer.disconnect())
      }).pipe(Effect.scoped)
    )

    it.effect("fails if retention deleted what a reader needs next, and never changes the position by itself", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const topic = yield* fresh(2)
        yield* log.append(
          topic,
          range(0, 10).map((i) => record({ value: `${i}` }))
        )
        const kafka = yield* client
        const cut = (partition: number, offset: number) =>
          Effect.promise(async () => {
            const admin = kafka.admin()
            await admin.connect()
            await admin.fetchTopicOffsets(topic)
            await admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(offset) }] })
            await admin.disconnect()
          })
        yield* cut(0, 7)
        for (const attempt of [
          log.read(topic, 0, 6),
          Effect.scoped(log.open(topic, 0, 0)),
          Effect.scoped(Effect.flatMap(log.open(topic, 0, 11), ({ take }) => take))
        ]) {
          const error = yield* Effect.flip(attempt as Effect.Effect<unknown, unknown>)
          assert.instanceOf(error, OutOfRange)
          assert.deepStrictEqual([(error as OutOfRange).start, (error as OutOfRange).end], [7, 10])
        }
        assert.deepStrictEqual(numbers((yield* readAll(topic, 0, 7)).records), [7, 8, 9])
        // a following reader returns what it has fetched, then fails
        for (const i of range(0, 5)) yield* log.append(topic, [record({ partition: 1, value: `${i}` })])
        const behind = yield* log.open(topic, 1, 0, { maxBytes: 1 })
        assert.deepStrictEqual(numbers((yield* behind.take).records), [0])
        yield* cut(1, 4)
        const seen: Array<number> = []
        const error = yield* Effect.flip(
          Effect.gen(function* () {
            while (true) seen.push(...numbers((yield* behind.take).records))
          })
        )
        assert.instanceOf(error, OutOfRange)
        assert.deepStrictEqual([seen.length <= 1, (error as OutOfRange).start], [true, 4])
      }).pipe(Effect.scoped)
    )

    it.effect("appends once though answers are lost", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const topic = yield* fresh(2)
        const proto = Appender.prototype as unknown as { send: (...args: ReadonlyArray<unknown>) => Promise<unknown> }
        const { send } = proto
        let lost = 0
        proto.send = async function (this: unknown, ...args) {
          const answer = await send.apply(this, [...args])
          if (lost++ % 3 === 0) return answer
          throw Object.assign(new Error("gone"), { name: "KafkaJSConnectionError" })
        }
        const places = yield* Effect.forEach(range(0, 20), (i) =>
          log.append(topic, [record({ value: `${i}` }), record({ partition: 1, value: `${i}` })])
        ).pipe(Effect.ensuring(Effect.sync(() => (proto.send = send))))
        assert.isAbove(lost, 30)
        for (const partition of [0, 1])
          assert.deepStrictEqual(numbers((yield* readAll(topic, partition)).records), range(0, 20))
        assert.deepStrictEqual(
          places.map((both) => both.map(({ position }) => position)),
          range(0, 20).map((i) => [i, i])
        )
      })
    )

    it.effect("sets no timers while it is idle", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const topic = yield* fresh()
        yield* log.append(topic, [record()])
        yield* log.read(topic, 0, 0)
        const { setTimeout: original } = globalThis
        let timers = 0
        globalThis.setTimeout = Object.assign((...args: Parameters<typeof original>) => {
          timers++
          return original(...args)
        }, original) as typeof original
        yield* Effect.promise(() => new Promise((resolve) => void original(resolve, 500))).pipe(
          Effect.ensuring(Effect.sync(() => (globalThis.setTimeout = original)))
        )
        // kafkajs without the repair sets one in every millisecond for each connection
        assert.isBelow(timers, 20)
      })
    )

    it.effect("loses, duplicates and reorders nothing while the broker is killed and restarted", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const node = yield* Node
        const topic = yield* fresh(3)
        const state = { stop: false }
        const appended = [0, 0, 0]
        const append = (partition: number) =>
          Effect.gen(function* () {
            while (!state.stop) {
              const from = appended[partition]!
              const records = range(from, from + 5).map((i) => record({ partition, value: `${i}` }))
              yield* log.append(topic, records)
              appended[partition] = from + 5
              yield* Effect.sleep(2)
            }
          })
        const seen: Array<Array<number>> = [[], [], []]
        const follow = (partition: number) =>
          Effect.scoped(
            Effect.gen(function* () {
              const reader = yield* log.open(topic, partition, 0)
              while (true) seen[partition]!.push(...numbers((yield* reader.take).records))
            })
          )
        const readers = yield* Effect.forkChild(Effect.forEach(range(0, 3), follow, { concurrency: "unbounded" }))
        const appenders = yield* Effect.forkChild(Effect.forEach(range(0, 3), append, { concurrency: "unbounded" }))
        /** Waits until so many more records were appended to every partition, or appending has failed. */
        const more = Effect.fnUntraced(function* (count: number) {
          const enough = appended.map((n) => n + count)
          while (appended.some((n, i) => n < enough[i]!) && appenders.pollUnsafe() === undefined)
            yield* Effect.sleep(20)
        })
        yield* more(100)
        yield* node.kill
        yield* Effect.sleep(300)
        yield* node.start
        yield* more(100)
        yield* node.restart
        yield* more(100)
        state.stop = true
        yield* Fiber.join(appenders)
        while (seen.some((of, partition) => of.length < appended[partition]!)) yield* Effect.sleep(20)
        for (const partition of range(0, 3)) {
          assert.deepStrictEqual(seen[partition], range(0, appended[partition]!))
          assert.deepStrictEqual(numbers((yield* readAll(topic, partition)).records), range(0, appended[partition]!))
        }
        yield* Fiber.interrupt(readers)
      }).pipe(Effect.timeout("60 seconds"))
    )

    it.effect(
      "drops the connection to a hung broker, interrupts its partitions of a group, and recovers by itself",
      () =>
        Effect.gen(function* () {
          const log = yield* Log
          const node = yield* Node
          const topic = yield* fresh(2)
          const had: Array<string> = []
          const generations: Array<number> = []
          const member = yield* Effect.forkChild(
            log.assign(topic, "group", ({ generation, partition }) =>
              Effect.acquireUseRelease(
                Effect.sync(() => {
                  had.push(`+${partition}`)
                  generations.push(generation)
                }),
                () => Effect.never,
                () => Effect.sync(() => had.push(`-${partition}`))
              )
            )
          )
          while (had.length < 2) yield* Effect.sleep(20)
          const pid = node.pid()!
          process.kill(pid, "SIGSTOP")
          const error = yield* Effect.flip(log.bounds(topic)).pipe(
            Effect.timeout("20 seconds"),
            Effect.tap(() =>
              Effect.gen(function* () {
                while (had.length < 4) yield* Effect.sleep(20)
              })
            ),
            Effect.ensuring(Effect.sync(() => process.kill(pid, "SIGCONT")))
          )
          assert.instanceOf(error, LogError)
          assert.isTrue((error as LogError).retryable)
          while (had.length < 6) yield* Effect.sleep(20)
          assert.deepStrictEqual(had.slice(2, 4).toSorted(), ["-0", "-1"])
          assert.isAbove(generations.at(-1)!, generations[0]!)
          assert.strictEqual((yield* log.bounds(topic)).length, 2)
          yield* Fiber.interrupt(member)
        }).pipe(Effect.timeout("60 seconds"))
    )

    it.effect("reports in one line that no broker answers", () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(KafkaLog.make({ brokers: ["127.0.0.1:1"] }))
        assert.isTrue(error.retryable)
        assert.match(
          error.message,
          /^log: .*no broker answers at 127\.0\.0\.1:1: start it, or correct MILLRACE_KAFKA_BROKERS$/
        )
        const wrong = yield* Effect.flip(KafkaLog.make({ brokers: ["localhost"] }))
        assert.match(wrong.message, /'localhost' is not a broker's address: write host:port/)
      }).pipe(Effect.scoped)
    )
  })
})
