// What the event store on PostgreSQL does beyond the contract: its topics are protected, its rows are a log, and relays can publish them.
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Context from "effect/Context"
import type { Append } from "../../../../src/aggregate/event-store.ts"
import { query } from "../../../../src/postgres/client/client.ts"
import * as PostgresEvents from "../../../../src/postgres/events/events.ts"
import { loadStatement } from "../../../../src/postgres/events/read-sql.ts"
import * as PostgresLog from "../../../../src/postgres/log/log.ts"
import * as Topics from "../../../../src/postgres/log/topic-plan.ts"
import * as Relay from "../../../../src/postgres/relay/to-log.ts"
import * as OutboxSql from "../../../../src/postgres/relay/outbox-sql.ts"
import { appendOf, event, events, numbers } from "../../../contract/event-store-support.ts"
import { databaseOn, server } from "../../../support/postgres.ts"

class Server extends Context.Service<Server, { readonly url: string }>()("test/Server") {
  static readonly layer = Layer.effect(
    Server,
    Effect.map(server, (url) => Server.of({ url }))
  )
}
const spec = { name: "cases", partitions: 2, compacted: false, retentionMs: undefined, isAggregate: true }
const setUp = Effect.gen(function* () {
  const { sql, url } = yield* databaseOn((yield* Server).url)
  const { appended, log } = yield* PostgresLog.make(sql)
  const { statements, store } = PostgresEvents.make(sql, { appended })
  yield* store.declare([{ name: "cases", partitions: 2 }])
  let ids = 0
  const append = (...given: Parameters<typeof appendOf>) => store.append(appendOf(...given), `id ${ids++}`)
  return { sql, url, log, store, append, statements }
})
type Row = Readonly<Record<string, unknown>>

it.layer(Server.layer, { timeout: "60 seconds", excludeTestServices: true })("events on PostgreSQL", (it) => {
  it.effect(
    "the topic of an aggregate refuses records from outside, retention, compaction, other partitions and deletion",
    Effect.fnUntraced(function* () {
      const { log, sql, store } = yield* setUp
      const record = {
        partition: 0,
        key: "a",
        value: "{}",
        eventTime: 1,
        eventId: undefined,
        tenant: undefined,
        traceparent: undefined,
        schemaVersion: undefined,
        headers: {}
      }
      const written = yield* Effect.flip(log.append("cases", [record]))
      assert.match(
        written.message,
        /it has the events of an aggregate, which commands append; send the aggregate a command/
      )
      const declared = (given: Partial<typeof spec>) =>
        Effect.map(Effect.flip(log.declare([Object.assign({ ...spec }, given)])), ({ message }) => message)
      assert.match(yield* declared({ compacted: true }), /kept forever; declare it without compaction/)
      assert.match(yield* declared({ retentionMs: 1 as never }), /kept forever; declare it without retention/)
      assert.match(yield* declared({ partitions: 3 }), /2 partitions but is declared with 3/)
      assert.match(yield* declared({ isAggregate: false }), /it has the events of an aggregate; give the other topic/)
      yield* log.declare([Object.assign({ ...spec }, { name: "ordinary", isAggregate: false })])
      const taken = yield* Effect.flip(store.declare([{ name: "ordinary", partitions: 2 }]))
      assert.match(taken.message, /a topic of this name exists already; give the aggregate another name/)
      const [plan] = yield* Topics.make(sql, log).plan([Object.assign({ ...spec }, { partitions: 4 })], {
        allowRepartition: true
      })
      assert.deepInclude(plan!, { action: "refused" })
      for (const change of [
        "delete from millrace.log_topic where name = 'cases'",
        "update millrace.log_topic set retention_ms = 1 where name = 'cases'",
        "update millrace.log_topic set compacted = true where name = 'cases'"
      ]) {
        const error = yield* Effect.flip(query("change", () => sql.unsafe(change)))
        assert.match(error.message, /cannot be deleted|log_topic_aggregate/, change)
      }
      const unknown = yield* Effect.flip(store.load("orders", "a"))
      assert.match(unknown.message, /it was not declared: add it to `aggregates`/)
    }, Effect.scoped)
  )
  it.effect(
    "the view log_record shows events with their versions",
    Effect.fnUntraced(function* () {
      const { append, sql } = yield* setUp
      yield* append("cases", "a", "any", events(2))
      yield* append("cases", "a", "any", [event(3, { headers: { odd: "\u0001 \ud800" } })])
      const rows = yield* query(
        "read",
        () => sql<Array<Row>>`
        select key, headers ->> 'millrace-version' as version, headers ->> 'millrace-command' as command, value::json ->> 'n' as n
        from millrace.log_record order by position`
      )
      assert.deepStrictEqual(
        [...rows],
        [1, 2, 3].map((n) => ({ key: "a", version: String(n), command: n < 3 ? "id 0" : "id 1", n: String(n) }))
      )
    }, Effect.scoped)
  )
  it.effect(
    "many appends to streams of their own take a few statements, and readers are woken",
    Effect.fnUntraced(function* () {
      const { append, log, statements } = yield* setUp
      yield* append("cases", "first", "any")
      const before = statements()
      const reader = yield* log.open("cases", 0, 0)
      yield* Effect.all(
        Array.from({ length: 200 }, (_, i) => append("cases", `s${i}`, "noStream", events(2))),
        { concurrency: "unbounded" }
      )
      // one for each of the two lanes with a partition
      assert.isAtMost(statements() - before, 2)
      const [first, second] = yield* log.ends("cases")
      assert.strictEqual(first! + second!, 401)
      let read = 0
      while (read < first!) read = (yield* reader.take).next
    }, Effect.scoped)
  )
  it.effect(
    "a load of a stream that has most rows of the table reads it by its index",
    Effect.fnUntraced(function* () {
      const { append, sql } = yield* setUp
      yield* append("cases", "a", "any")
      yield* query(
        "fill",
        () => sql`
        insert into millrace.log_batch (topic_id, partition, base_position, next_position, records, bytes, meta, vals, entity, first_version, command_id)
        select topic_id, partition, i, i + 1, 1, bytes, meta, vals, entity, i + 1, gen_random_uuid()
        from millrace.log_batch cross join generate_series(1, 30000) i where entity = 'a'`
      )
      yield* query("analyze", () => sql`analyze millrace.log_batch`)
      const [head] = yield* query(
        "read",
        () => sql<Array<Row>>`select topic_id, partition from millrace.log_batch limit 1`
      )
      const plan = yield* query("explain", () =>
        sql.unsafe<Array<Row>>(`explain ${loadStatement(2_000)}`, [
          head!["topic_id"],
          head!["partition"],
          "a",
          null,
          29_000,
          2 ** 53 - 1,
          null
        ] as never)
      )
      const text = plan.map((row) => String(Object.values(row)[0])).join("\n")
      assert.notMatch(text, /Seq Scan on log_batch/)
      assert.match(text, /log_batch_entity/)
    }, Effect.scoped)
  )
  it.effect(
    "what relays publish is one segment for each partition and statement, with the versions, of what was appended alone",
    Effect.fnUntraced(function* () {
      const { log, sql, store } = yield* setUp
      // before it is published
      yield* store.append(appendOf("cases", "early", "any"), "early")
      yield* PostgresEvents.publish(sql, ["cases"], ["embedded", "kafka"])
      yield* PostgresEvents.publish(sql, ["cases"], ["embedded", "kafka"])
      const one = (stream: string, expected: Append["expected"], id: string, n = 1) =>
        Effect.result(store.append(appendOf("cases", stream, expected, events(n, 1, { headers: { h: "1" } })), id))
      yield* one("a", 0, "a1", 2)
      yield* Effect.all(
        [
          one("a", 2, "a2", 3),
          one("b", 9, "refused"),
          one("c", "any", "c1"),
          one("a", 0, "a1", 2),
          one("d", "any", "d1", 2)
        ],
        { concurrency: "unbounded" }
      )
      yield* store.appendAll([appendOf("cases", "e", "any", events(2)), appendOf("cases", "f", "any")], "all")
      const segments = yield* query(
        "read",
        () => sql<Array<Row & { meta: string; vals: string }>>`
        select partition, first_seq, messages, projection, source, target, target_partition, meta, vals from millrace.outbox order by partition, first_seq`
      )
      for (const partition of [0, 1]) {
        const { records } = yield* log.read("cases", partition, 0)
        const published = segments.filter((segment) => segment["partition"] === partition)
        const early = records.filter(({ key }) => key === "early").length
        const messages = published.flatMap(({ meta, vals }) => {
          const values = vals.split("\n")
          return (JSON.parse(meta) as Array<[string, number, string, null, null, null, Record<string, string>]>).map(
            ([key, eventTime, eventId, , , , headers], i) => ({ key, eventTime, eventId, headers, value: values[i] })
          )
        })
        assert.deepStrictEqual(
          messages,
          records.slice(early).map(({ eventId, eventTime, headers, key, value }) => ({
            key: key!,
            eventTime,
            eventId: eventId!,
            headers: { ...headers },
            value: value!
          }))
        )
        let next = early + 1
        for (const segment of published) {
          assert.strictEqual(segment["first_seq"], next)
          next += Number(segment["messages"])
          assert.deepInclude(segment, {
            projection: "cases",
            source: "cases",
            target: "cases",
            target_partition: partition
          })
        }
        assert.strictEqual(next, records.length + 1)
      }
      // the relay to the log moves past them and copies none
      const ends = yield* log.ends("cases")
      const relay = yield* Relay.make(sql)
      const round = yield* relay.publish
      assert.deepStrictEqual(round.halted, [])
      assert.deepStrictEqual(yield* log.ends("cases"), ends)
      const positions = yield* Effect.promise(() => OutboxSql.positions(sql, "embedded"))
      assert.deepStrictEqual(
        positions.map(({ committed, seq }) => [seq, committed]),
        ends.map((end) => [end, end])
      )
      assert.strictEqual(numbers((yield* store.load("cases", "a")).events).length, 5)
    }, Effect.scoped)
  )
})
