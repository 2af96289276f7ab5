// The commands on real Kafka and PostgreSQL: topics are created first, then tables and topics become the same as embedded.
import { withoutTimeMarks } from "../../../src/log/time-mark.ts"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { kafka, type Service } from "../../../stack/testing.ts"
import * as Embedded from "../../../src/postgres/embedded/embedded.ts"
import * as KafkaLog from "../../../src/kafka/log/log.ts"
import type { Log } from "../../../src/log/log.ts"
import { connect, query, type Sql } from "../../../src/postgres/client/client.ts"
import * as PostgresLog from "../../../src/postgres/log/log.ts"
import type { Status } from "../../../src/system/status.ts"
import * as Cli from "../../support/cli.ts"
import { assertDerived, assertOracle, flightsFile, january, planesFile, recordsOf } from "../../support/oracle.ts"
import { databaseOn, server } from "../../support/postgres.ts"
import { owning } from "../../support/stack.ts"

const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-system-"))
let postgres = ""
let node: Service
const suite = await owning("kafka")
beforeAll(async () => {
  postgres = await Effect.runPromise(Scope.provide(server, scope))
}, 60_000)
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(directory, { recursive: true, force: true })
})

/** A new database on the node. Tests share the node's topics, so only one of them may run the application at a time. */
const installed = Effect.fnUntraced(function* () {
  const { sql, url } = yield* databaseOn(postgres, 4)
  const brokers = node.endpoints.MILLRACE_KAFKA_BROKERS!
  const log = yield* KafkaLog.make({ brokers: brokers.split(",") })
  const environment = { MILLRACE_KAFKA_BROKERS: brokers, MILLRACE_DATABASE_URL: url }
  return { sql, log, environment }
})
const test = (title: string, body: () => Effect.Effect<void, unknown, Scope.Scope>, timeout = 120_000) =>
  it.live(title, () => Effect.scoped(body()), timeout)

const derived = ["signals.scores.v1", "alerts.v1", "alerts.analytics.v1"]
/** The messages of a derived topic by key, in order; of a window only the last one, because batches decide how often it is published. */
const sayings = Effect.fnUntraced(function* (log: Log["Service"], topic: string) {
  const byKey = new Map<string, Array<string>>()
  for (const { key, partition, value } of withoutTimeMarks(yield* recordsOf(log, topic))) {
    const place = `${partition} ${key}`
    const { score_sum: _, ...said } = JSON.parse(value!) as Record<string, unknown>
    const text = JSON.stringify(said)
    if (topic !== "alerts.analytics.v1") byKey.set(place, [...(byKey.get(place) ?? []), text])
    else byKey.set(`${place} ${String(said["window_size"])} ${String(said["window_start"])}`, [text])
  }
  return [...byKey].map(([key, said]) => `${key} ${said.join(" ")}`).toSorted()
})
/** The rows of every table after January's flights, without the last bits of sums, which depend on where batches end. */
const tablesOf = Effect.fnUntraced(function* (sql: Sql) {
  const ask = (text: string) => query("read", () => sql.unsafe<Array<Record<string, unknown>>>(text))
  const asText = (rows: ReadonlyArray<Record<string, unknown>>) => rows.map((row) => JSON.stringify(row))
  return {
    alerts: asText(
      yield* ask(
        "select alert_id, entity_id, score, threshold, segment, tenant, occurred_at from alerts order by alert_id"
      )
    ),
    activity: asText(
      yield* ask(
        "select entity_id, window_size, window_start, events, alerts, round(score_sum::numeric, 6) as score_sum, score_max from entity_activity order by 1, 2, 3"
      )
    ),
    late: asText(
      yield* ask(
        "select window_name, window_size, window_start, key, contribution, event_time, count(*) from millrace.late_events group by 1, 2, 3, 4::text, key, 5::text, contribution, 6 order by 1, 2, 3, key::text, contribution::text, 6"
      )
    )
  }
})
const isSame = (found: ReadonlyArray<string>, expected: ReadonlyArray<string>, what: string) => {
  const at = expected.findIndex((line, i) => line !== found[i])
  if (at >= 0) assert.strictEqual(found[at], expected[at], `${what} ${at}`)
  assert.strictEqual(found.length, expected.length, what)
}

const everything = ["--features", planesFile, "--input", flightsFile, "--once", "--json", "--port", "0"]
suite("The commands on Kafka", () => {
  beforeAll(async () => {
    node = await Effect.runPromise(Scope.provide(kafka(), scope))
  }, 120_000)

  test("report which topics are missing, create them, and then report that nothing is left to do", () =>
    Effect.gen(function* () {
      const { environment } = yield* installed()
      const early = yield* Cli.run(environment, "start", "--port", "0")
      assert.strictEqual(early.code, 1)
      assert.match(
        early.errors,
        /^millrace: 10 topics do not exist on Kafka: alert-case, events\.raw\.v1, .*\ntry: millrace topics apply$/m
      )
      const unready = yield* Cli.run(environment, "topics", "check", "--json")
      assert.strictEqual(unready.code, 3)
      assert.isTrue((JSON.parse(unready.output) as { differs: boolean }).differs)
      const applied = yield* Cli.run(environment, "topics", "apply")
      assert.strictEqual(applied.code, 0, applied.errors)
      assert.match(applied.output, /^events\.raw\.v1 +12 partitions: create$/m)
      const ready = yield* Cli.run(environment, "topics", "check")
      assert.strictEqual(ready.code, 0, ready.output)
      assert.match(ready.output, /^alerts\.v1 +12 partitions: nothing to do$/m)
      const before = yield* Cli.run(environment, "status")
      assert.strictEqual(before.code, 0, before.errors)
    }))

  test(
    "produce the same tables and topics of January's flights as the embedded system",
    () =>
      Effect.gen(function* () {
        const { environment, log, sql } = yield* installed()
        const onKafka = yield* Cli.run(environment, "dev", ...everything)
        assert.strictEqual(onKafka.code, 0, onKafka.errors)
        const dataDir = join(directory, "embedded")
        const embedded = yield* Cli.run({}, "dev", "--data", dataDir, ...everything)
        assert.strictEqual(embedded.code, 0, embedded.errors)
        for (const { output } of [onKafka, embedded]) {
          const result = JSON.parse(output.trim().split("\n").at(-1)!) as Record<string, number>
          assert.deepInclude(result, {
            events: january.events,
            duplicates: 0,
            late: january.late,
            alerts: january.alerts,
            dead_letters: 0
          })
        }
        yield* assertOracle(sql)
        yield* assertDerived(sql, log)
        const own = yield* connect((yield* Embedded.use({ dataDir })).url, { max: 4 })
        const ownLog = (yield* PostgresLog.make(own)).log
        const [here, there] = [yield* tablesOf(sql), yield* tablesOf(own)]
        for (const table of ["alerts", "activity", "late"] as const) isSame(here[table], there[table], table)
        for (const topic of derived) isSame(yield* sayings(log, topic), yield* sayings(ownLog, topic), topic)
        const status = yield* Cli.run(environment, "status", "--json")
        assert.strictEqual(status.code, 0, status.output)
        const { projections, relays } = JSON.parse(status.output) as {
          projections: ReadonlyArray<{ name: string; lag: number; end: number }>
          relays: Status["relays"]
        }
        assert.strictEqual(
          projections.filter(({ name }) => name === "signals").reduce((sum, { end }) => sum + end, 0),
          january.events
        )
        assert.strictEqual(relays.length, 1)
        assert.deepInclude(relays[0], { target: "kafka", lag: 0, oldest_ms: null, halted: null, halted_streams: 0 })
      }),
    480_000
  )
})
