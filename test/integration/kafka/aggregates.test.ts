// Aggregates where the log is on Kafka: the event store is the truth, and relays publish every event to the topic of the aggregate's name, once
// and in the order of its stream.
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Schema from "effect/Schema"
import { shared } from "../../../stack/testing.ts"
import { Aggregate } from "../../../src/aggregate/aggregate.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import type { Log, LogRecord } from "../../../src/log/log.ts"
import { Application } from "../../../src/model/application.ts"
import { Event } from "../../../src/model/event.ts"
import type { Database } from "../../../src/system/database.ts"
import { EventStore } from "../../../src/aggregate/event-store.ts"
import { Personal } from "../../../src/model/personal.ts"
import { Projection } from "../../../src/model/projection.ts"
import { ReadModel } from "../../../src/model/read-model.ts"
import { Topic } from "../../../src/model/topic.ts"
import { query } from "../../../src/postgres/client/client.ts"
import { openSystem, runProjections, runRelay } from "../../../src/system/system.ts"
import { appendOf, events } from "../../contract/event-store-support.ts"
import { counterOf } from "../../support/counter.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("kafka")
const scope = Scope.makeUnsafe()
let root = ""
let brokers = ""

const readAll = Effect.fnUntraced(function* (log: Log["Service"], topic: string) {
  const found = yield* Effect.forEach(yield* log.bounds(topic), ({ end, partition }) =>
    Effect.gen(function* () {
      const records: Array<LogRecord> = []
      for (let position = 0; position < end;) {
        const batch = yield* log.read(topic, partition, position)
        records.push(...batch.records)
        position = batch.next
      }
      return records
    })
  )
  return found
})
const textOf = ({ eventId, eventTime, headers, key, partition, value }: LogRecord) =>
  `${partition} ${key} ${headers["millrace-version"]} ${headers["millrace-command"]} ${eventId} ${eventTime} ${value}`

/** An application with one aggregate, of its own name. */
const counting = (name: string, partitions: number) =>
  Application.make({ name, aggregates: [counterOf(name, partitions)], projections: [] })

suite("Aggregates on Kafka", () => {
  beforeAll(async () => {
    root = await Effect.runPromise(Scope.provide(server, scope))
    const endpoints = await Effect.runPromise(Scope.provide(shared("kafka"), scope))
    brokers = endpoints.MILLRACE_KAFKA_BROKERS!
    process.env["MILLRACE_KAFKA_BROKERS"] = brokers
  }, 120_000)
  afterAll(async () => {
    delete process.env["MILLRACE_KAFKA_BROKERS"]
    await Effect.runPromise(Scope.close(scope, Exit.void))
  })

  it.live(
    "the topic has every event of the store once, in the order of its stream, with its version",
    () =>
      Effect.gen(function* () {
        const name = `counted${process.pid}${Date.now() % 100_000}`
        const application = counting(name, 3)
        const own = yield* databaseOn(root, 8)
        const database: Database = { ...own, embedded: false, failed: Effect.never }
        const system = yield* openSystem(application, database, { makesTopics: true })
        const store = system.eventStore
        const append = (i: number) => store.append(appendOf(name, `s${i % 7}`, "any", events((i % 3) + 1)), `c${i}`)
        const all = (from: number) =>
          Effect.all(
            Array.from({ length: 150 }, (_, i) => append(from + i)),
            { concurrency: "unbounded" }
          )
        yield* all(0)
        yield* Effect.forkScoped(runRelay(system))
        yield* all(150)
        // the same commands again publish nothing
        yield* all(100)
        const stored = yield* readAll(system.log, name)
        const count = stored.reduce((sum, records) => sum + records.length, 0)
        assert.strictEqual(count, 600)
        const kafka = yield* KafkaLog.make({ brokers: brokers.split(",") })
        let published: ReadonlyArray<ReadonlyArray<LogRecord>> = []
        do {
          yield* Effect.sleep("100 millis")
          published = yield* readAll(kafka, name)
        } while (published.reduce((sum, records) => sum + records.length, 0) < count)
        assert.deepStrictEqual(
          published.map((records) => records.map(textOf)),
          stored.map((records) => records.map(textOf))
        )
        for (const records of published)
          assert.deepStrictEqual(
            records.map(({ headers }) => headers["millrace-seq"]),
            records.map((_, i) => String(i + 1))
          )
        const refused = yield* Effect.flip(system.log.append(name, [{ ...stored.flat()[0]!, partition: 0 }]))
        assert.match(refused.message, /it has the events of an aggregate/)
      }).pipe(Effect.scoped),
    120_000
  )

  it.live(
    "the events of an aggregate are published from the time on at which its database gets Kafka, and earlier ones stay readable",
    () =>
      Effect.gen(function* () {
        const name = `moved${process.pid}${Date.now() % 100_000}`
        const application = counting(name, 1)
        const database: Database = { ...(yield* databaseOn(root, 8)), embedded: false, failed: Effect.never }
        delete process.env["MILLRACE_KAFKA_BROKERS"]
        yield* Effect.scoped(
          Effect.flatMap(openSystem(application, database, { makesTopics: true }), ({ eventStore }) =>
            eventStore.append(appendOf(name, "s", "any", events(2)), "before")
          )
        ).pipe(Effect.ensuring(Effect.sync(() => (process.env["MILLRACE_KAFKA_BROKERS"] = brokers))))
        const system = yield* openSystem(application, database, { makesTopics: true })
        yield* Effect.forkScoped(runRelay(system))
        yield* system.eventStore.append(appendOf(name, "s", 2, events(1)), "after")
        const kafka = yield* KafkaLog.make({ brokers: brokers.split(",") })
        let published: ReadonlyArray<LogRecord> = []
        while (published.length === 0) {
          yield* Effect.sleep("100 millis")
          published = (yield* readAll(kafka, name)).flat()
        }
        assert.deepStrictEqual(
          published.map(({ headers }) => [headers["millrace-version"], headers["millrace-seq"]]),
          [["3", "3"]]
        )
        assert.strictEqual((yield* readAll(system.log, name)).flat().length, 3)
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "a database that has the log of a topic is refused with Kafka, where the topic is empty, and goes on without",
    () =>
      Effect.gen(function* () {
        const name = `staying${process.pid}${Date.now() % 100_000}`
        const Seen = Event.make("seen", { id: Schema.String })
        const seen = Topic.events(name, { events: [Seen], id: "id", key: "id", partitions: 2 })
        const ids = ReadModel.table("ids", { columns: { id: Schema.String }, primaryKey: ["id"] })
        const projection = Projection.make({
          name: "ids",
          version: 1,
          source: seen,
          writes: [ids],
          handle: ({ id }, out) => out.upsert(ids, { id })
        })
        const application = Application.make({ name, projections: [Projection.async(projection)] })
        const database: Database = { ...(yield* databaseOn(root, 8)), embedded: false, failed: Effect.never }
        const open = openSystem(application, database, { makesTopics: true })
        const onDatabase = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.suspend(() => {
            delete process.env["MILLRACE_KAFKA_BROKERS"]
            return Effect.ensuring(
              effect,
              Effect.sync(() => (process.env["MILLRACE_KAFKA_BROKERS"] = brokers))
            )
          })
        const record = { value: `{"type":"seen","id":"a"}`, key: "a", eventTime: 1, eventId: "a" }
        const rest = { partition: 0, tenant: undefined, traceparent: undefined, schemaVersion: undefined, headers: {} }
        yield* onDatabase(Effect.scoped(Effect.flatMap(open, ({ log }) => log.append(name, [{ ...record, ...rest }]))))
        const refused = yield* Effect.flip(Effect.scoped(open))
        assert.include(refused, { _tag: "LogNotMoved" })
        assert.match(refused.message, /the events of staying\d+ are in the database, and the topic on Kafka is empty/)
        yield* onDatabase(Effect.scoped(open))
      }).pipe(Effect.scoped),
    60_000
  )

  it.live(
    "the topic has encrypted text of personal fields alone, and projections read them",
    () =>
      Effect.gen(function* () {
        const name = `sealed${process.pid}${Date.now() % 100_000}`
        const Named = Event.make("named", { id: Schema.String, name: Personal(Schema.String), plan: Schema.String })
        const Person = Aggregate.make({
          name,
          partitions: 1,
          id: "id",
          subject: ({ id }) => id,
          events: [Named],
          commands: { name: { id: Schema.String, name: Schema.String } },
          state: Schema.Int,
          initial: 0,
          evolve: { named: (state) => state + 1 },
          decide: { name: (_, { id, name }) => Named.make({ id, name, plan: "gold" }) }
        })
        const persons = ReadModel.table("persons", {
          columns: { id: Schema.String, name: Schema.String },
          primaryKey: ["id"]
        })
        const projection = Projection.make({
          name: "persons",
          version: 1,
          source: Person,
          writes: [persons],
          handle: { named: ({ id, name }, out) => out.upsert(persons, { id, name }) }
        })
        const projections = [Projection.async(projection)]
        const application = Application.make({ name, aggregates: [Person], projections })
        const own = yield* databaseOn(root, 8)
        const database: Database = { ...own, embedded: false, failed: Effect.never }
        const system = yield* openSystem(application, database, { makesTopics: true })
        yield* Effect.forkScoped(runRelay(system))
        yield* Effect.forkScoped(runProjections(system))
        const command = { type: "name", id: "p1", name: "plain-name" } as const
        yield* Effect.provideService(Aggregate.execute(Person, "p1", command), EventStore, system.eventStore)
        const kafka = yield* KafkaLog.make({ brokers: brokers.split(",") })
        let published: ReadonlyArray<LogRecord> = []
        while (published.length === 0) {
          yield* Effect.sleep("100 millis")
          published = (yield* readAll(kafka, name)).flat()
        }
        const text = JSON.stringify(published)
        assert.include(text, "$sealed")
        assert.include(text, "gold")
        assert.notInclude(text, "plain-name")
        const read = query("read", () => own.sql<Array<{ name: string }>>`select name from persons`)
        let rows = yield* read
        while (rows.length === 0) rows = yield* Effect.andThen(Effect.sleep("50 millis"), read)
        assert.strictEqual(rows[0]!.name, "plain-name")
      }).pipe(Effect.scoped),
    120_000
  )
})
