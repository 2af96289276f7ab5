// Topics on Kafka: their settings, holes that compaction leaves, and generations of a group that the brokers forgot.
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import KafkaJs, { Kafka, logLevel } from "kafkajs"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import { Log, type LogError } from "../../../src/log/log.ts"
import { fresh, range, readAll, record } from "../../contract/log-support.ts"
import { brokers, nodeWithLog } from "../../support/kafka.ts"
import { owning } from "../../support/stack.ts"

const withAdmin = <A>(run: (admin: ReturnType<Kafka["admin"]>) => Promise<A>) =>
  Effect.flatMap(brokers, (list) =>
    Effect.promise(async () => {
      const admin = new Kafka({ brokers: list, logLevel: logLevel.NOTHING }).admin()
      await admin.connect()
      try {
        return await run(admin)
      } finally {
        await admin.disconnect()
      }
    })
  )
const settingsOf = (name: string) =>
  Effect.map(
    withAdmin((admin) =>
      admin.describeConfigs({ includeSynonyms: false, resources: [{ type: KafkaJs.ConfigResourceTypes.TOPIC, name }] })
    ),
    ({ resources }) =>
      Object.fromEntries(resources[0]!.configEntries.map(({ configName, configValue }) => [configName, configValue]))
  )
// the broker looks for expired records every second, instead of every half minute
const properties = { "log.initial.task.delay.ms": "500", "log.retention.check.interval.ms": "1000" }
let tries = 0

const suite = await owning("kafka")
suite("with a node of its own", () => {
  vitest.layer(nodeWithLog({}, { properties }), { timeout: "90 seconds", excludeTestServices: true })(
    "Topics on Kafka",
    (it) => {
      it.effect("keeps an event of 2013 as long as one of today, and changes only the retention", () =>
        Effect.gen(function* () {
          const list = yield* brokers
          const log = yield* KafkaLog.make({
            brokers: list,
            minInSyncReplicas: 1,
            topicSettings: { "segment.bytes": "9000000" }
          })
          const spec = {
            name: `old-${process.pid}-${tries++}`,
            partitions: 1,
            compacted: false,
            retentionMs: 3_600_000
          }
          yield* log.declare([spec])
          yield* log.append(spec.name, [record({ eventTime: 1_357_000_000_000.5 })])
          const [read] = (yield* log.read(spec.name, 0, 0)).records
          assert.strictEqual(read!.eventTime, 1_357_000_000_000.5)
          assert.isBelow(Math.abs(read!.appendedAt - Date.now()), 10_000)
          yield* log.declare([{ ...spec, retentionMs: 7_200_000 }])
          const settings = yield* settingsOf(spec.name)
          assert.strictEqual(settings["retention.ms"], "7200000")
          assert.strictEqual(settings["segment.bytes"], "9000000")
          assert.strictEqual(settings["message.timestamp.type"], "LogAppendTime")
          assert.strictEqual(settings["min.insync.replicas"], "1")
          assert.strictEqual((yield* settingsOf(yield* fresh()))["retention.ms"], "-1")
          // the broker expires nothing: the segment's time is the time of the append
          yield* Effect.sleep(2_500)
          assert.deepStrictEqual(yield* log.bounds(spec.name), [{ partition: 0, start: 0, end: 1 }])
        }).pipe(Effect.scoped)
      )

      it.effect("reads over the holes that compaction leaves", () =>
        Effect.gen(function* () {
          const list = yield* brokers
          const log = yield* KafkaLog.make({
            brokers: list,
            topicSettings: { "segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "100" }
          })
          const name = `compacted-${process.pid}-${tries++}`
          yield* log.declare([{ name, partitions: 1, compacted: true, retentionMs: undefined }])
          const keys = ["a", "b", "c"]
          for (const i of range(0, 60)) yield* log.append(name, [record({ key: keys[i % 3]!, value: `${i}` })])
          const left = Effect.gen(function* () {
            while (true) {
              // a new segment starts only when something is appended
              yield* log.append(name, [record({ key: "roll" })])
              const all = yield* readAll(name).pipe(Effect.provideService(Log, log))
              const kept = all.records.filter(({ key }) => key !== "roll")
              if (kept.length === 3) return { ...all, kept }
              yield* Effect.sleep(300)
            }
          })
          const { batches, end, kept } = yield* left
          assert.deepStrictEqual(
            kept.map(({ key, position, value }) => [key, position, value]),
            keys.map((key, i) => [key, 57 + i, `${57 + i}`])
          )
          assert.strictEqual(batches.at(-1)!.next, end)
          const hole = yield* log.read(name, 0, 10, { maxBytes: 1 })
          assert.deepStrictEqual([hole.records.map(({ position }) => position), hole.next], [[57], 58])
          const reader = yield* log.open(name, 0, 5)
          assert.strictEqual((yield* reader.take).records[0]!.position, 57)
        }).pipe(Effect.scoped)
      )

      it.effect("assigns higher generations though the brokers forgot the group", () =>
        Effect.gen(function* () {
          const log = yield* Log
          const topic = yield* fresh(1)
          const generations: Array<number> = []
          const once = Effect.gen(function* () {
            const before = generations.length
            const member = yield* Effect.forkChild(
              log.assign(topic, "group", ({ generation }) =>
                Effect.andThen(
                  Effect.sync(() => generations.push(generation)),
                  Effect.never
                )
              )
            )
            while (generations.length === before) yield* Effect.sleep(20)
            yield* Fiber.interrupt(member)
          })
          for (const _ of range(0, 3)) yield* once
          yield* withAdmin((admin) => admin.deleteGroups([`group/${topic}`]))
          yield* once
          assert.deepStrictEqual(
            generations,
            [...new Set(generations)].toSorted((a, b) => a - b)
          )
        })
      )

      it.effect("reports a topic that was deleted, or recreated with more records than it had", () =>
        Effect.gen(function* () {
          const log = yield* Log
          const topic = yield* fresh(1)
          const five = range(0, 5).map(() => record())
          yield* log.append(topic, five)
          const reader = yield* log.open(topic, 0, 5)
          const before = yield* log.identity(topic)
          yield* withAdmin((admin) => admin.deleteTopics({ topics: [topic] }))
          // the brokers learn of it a moment later
          const error = yield* Effect.flip(Effect.forever(Effect.andThen(log.bounds(topic), Effect.sleep(20))))
          assert.strictEqual(error._tag, "UnknownTopic")
          yield* log.declare([{ name: topic, partitions: 1, compacted: false, retentionMs: undefined }])
          yield* log.append(topic, [...five, ...five])
          assert.notStrictEqual(yield* log.identity(topic), before)
          const other = yield* Effect.flip(reader.take)
          assert.match((other as Error).message, /recreated while it was read/)
          assert.isFalse((other as LogError).retryable)
        }).pipe(Effect.scoped)
      )
    }
  )
})
