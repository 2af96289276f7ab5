// The end of `millrace start`, as a process on Kafka and embedded: in order and at once, whatever is under way and whatever hangs.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { kafka, postgres, type Service } from "../../stack/testing.ts"
import * as KafkaLog from "../../src/kafka/log.ts"
import type { Log } from "../../src/log.ts"
import { connect, query, type Sql } from "../../src/postgres/client.ts"
import * as Cli from "../support/cli.ts"
import { append, type Engine } from "../support/engine.ts"
import { asOperator } from "../support/kafka-engine.ts"
import { recordsOf } from "../support/oracle.ts"
import { owning } from "../support/stack.ts"

const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-drain-"))
const config = "test/support/counting.config.ts"
let broker: Service
let database: Service
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(directory, { recursive: true, force: true })
})
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)
const test = (title: string, body: () => Effect.Effect<void, unknown, Scope.Scope>, timeout = 60_000) =>
  it.live(title, () => Effect.scoped(body()), timeout)

/** An application of its own on the two services. Members that say nothing would be missed after ten minutes only. */
interface Installed {
  readonly name: string
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly environment: Readonly<Record<string, string>>
}
const installed = Effect.fnUntraced(function* (name: string) {
  const brokers = broker.endpoints.MILLRACE_KAFKA_BROKERS!
  const admin = yield* connect(database.endpoints.MILLRACE_DATABASE_URL!, { max: 1 })
  yield* query("create", () => admin.unsafe(`create database ${name}`))
  const url = new URL(database.endpoints.MILLRACE_DATABASE_URL!)
  url.pathname = `/${name}`
  const sql = yield* connect(url.href, { max: 2 })
  const log = yield* KafkaLog.make({ brokers: brokers.split(",") })
  const environment = {
    MILLRACE_KAFKA_BROKERS: brokers,
    MILLRACE_DATABASE_URL: url.href,
    MILLRACE_KAFKA_SESSION_MS: "600000",
    TEST_NAME: name
  }
  const applied = yield* Cli.run(environment, "topics", "apply", "--config", config)
  assert.strictEqual(applied.code, 0, applied.errors)
  return { name, sql, log, environment } satisfies Installed
})
const begin = Effect.fnUntraced(function* (
  environment: Readonly<Record<string, string>>,
  ...more: ReadonlyArray<string>
) {
  const running = yield* Cli.start(environment, "start", "--config", config, "--port", "0", ...more)
  yield* running.said(/^millrace \w+: .*/m)
  return running
})
const pay = ({ log, name }: Installed, from: number, to: number) =>
  Effect.gen(function* () {
    const topic = (yield* Effect.promise(() => import("../support/counting.config.ts"))).payments
    const own = { ...topic, name: `${name}.payments` }
    const values = range(from, to).map((n) => ({
      type: "paid",
      id: `${n}`,
      who: `payer ${n % 50}`,
      at: Date.UTC(2026, 0, 1) + n
    }))
    yield* append({ log } as Engine, own, values)
  })
const counted = ({ sql }: Installed) =>
  Effect.map(
    query("count", () => sql<Array<{ n: number }>>`select coalesce(sum(payments), 0)::int8 as n from counts`),
    ([row]) => row!.n
  )
/** Waits until so many are counted; dies where there are more. */
const until = Effect.fnUntraced(function* (on: Installed, n: number) {
  for (let now = yield* counted(on); now !== n; now = yield* counted(on)) {
    if (now > n) assert.fail(`${now} are counted of ${n}`)
    yield* Effect.sleep(20)
  }
})
/** Waits until the group has so many members, and all have their partitions. */
const members = ({ name }: Installed, n: number) =>
  Effect.gen(function* () {
    const brokers = [broker.endpoints.MILLRACE_KAFKA_BROKERS!]
    const group = `counting_v1/${name}.payments`
    while (true) {
      const { groups } = yield* asOperator(brokers, (admin) => admin.describeGroups([group]))
      const [found] = groups
      if (found?.state === "Stable" && found.members.length === n) return
      yield* Effect.sleep(50)
    }
  })
/** Asks a process to end, and asserts that it does so in order. */
const ends = Effect.fnUntraced(function* (running: Cli.Running, signal: NodeJS.Signals = "SIGTERM") {
  running.process.kill(signal)
  const code = yield* running.ended
  assert.strictEqual(code, 0, running.errors())
  assert.notMatch(running.errors(), /^millrace:|Error|stands still/m)
})
/** Stops a service's process for as long as `during` runs; PostgreSQL's children too. */
const frozen = <A, E, R>(pids: ReadonlyArray<number>, during: Effect.Effect<A, E, R>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => pids.forEach((pid) => process.kill(pid, "SIGSTOP"))),
    () => during,
    () =>
      Effect.sync(() =>
        pids.forEach((pid) => {
          try {
            process.kill(pid, "SIGCONT")
          } catch {
            // it ended meanwhile
          }
        })
      )
  )
const backends = (sql: Sql) =>
  Effect.map(
    query(
      "backends",
      () => sql<Array<{ pid: number }>>`select pid from pg_stat_activity where backend_type = 'client backend'`
    ),
    (rows) => rows.map(({ pid }) => pid)
  )

const suite = await owning("kafka", "postgres")
suite("millrace start on Kafka", () => {
  beforeAll(async () => {
    const services = Effect.all([kafka(), postgres()], { concurrency: 2 })
    ;[broker, database] = await Effect.runPromise(Scope.provide(services, scope))
  }, 120_000)

  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`leaves its group at once on ${signal}, so that another process goes on with its partitions`, () =>
      Effect.gen(function* () {
        const on = yield* installed(`leaves_${signal.toLowerCase()}`)
        const first = yield* begin(on.environment, "--roles", "projections,relay")
        yield* members(on, 1)
        const second = yield* begin(on.environment, "--roles", "projections,relay")
        yield* members(on, 2)
        yield* pay(on, 0, 300)
        yield* until(on, 300)
        yield* ends(first, signal)
        yield* pay(on, 300, 600)
        yield* until(on, 600)
        // the relay's lane went over too, and brought everything once
        let receipts = yield* recordsOf(on.log, `${on.name}.receipts`)
        while (receipts.length < 600) receipts = yield* recordsOf(on.log, `${on.name}.receipts`)
        const ids = receipts.map(({ value }) => (JSON.parse(value!) as { readonly id: string }).id)
        assert.strictEqual(ids.length, 600)
        assert.strictEqual(new Set(ids).size, 600)
        yield* ends(second, signal)
      }))
  }

  test("drops the batch under way, and nothing of it is lost or counted twice", () =>
    Effect.gen(function* () {
      const on = yield* installed("drops")
      const slow = yield* begin({ ...on.environment, TEST_SLEEP_MS: "3600000" })
      yield* pay(on, 0, 300)
      // every partition is within its first event's hour
      yield* members(on, 1)
      const claimed = query(
        "claims",
        () => on.sql<Array<{ n: number }>>`select count(*) as n from millrace.progress where epoch > 0`
      )
      while ((yield* claimed)[0]!.n < 6) yield* Effect.sleep(20)
      yield* ends(slow)
      assert.strictEqual(yield* counted(on), 0)
      const fast = yield* begin(on.environment)
      yield* until(on, 300)
      yield* ends(fast)
    }))

  test("ends though the broker hangs", () =>
    Effect.gen(function* () {
      const on = yield* installed("broker_hangs")
      const running = yield* begin(on.environment)
      yield* members(on, 1)
      yield* pay(on, 0, 60)
      yield* until(on, 60)
      yield* frozen([broker.pid()!], Effect.andThen(Effect.sleep(1_000), ends(running)))
    }))

  test("ends though the database hangs", () =>
    Effect.gen(function* () {
      const on = yield* installed("database_hangs")
      const running = yield* begin(on.environment)
      yield* members(on, 1)
      yield* pay(on, 0, 60)
      yield* until(on, 60)
      const pids = [database.pid()!, ...(yield* backends(on.sql))]
      yield* frozen(pids, Effect.andThen(Effect.andThen(pay(on, 60, 120), Effect.sleep(1_000)), ends(running)))
      const again = yield* begin(on.environment)
      yield* until(on, 120)
      yield* ends(again)
    }))

  test("makes its connections anew where the broker has hung, and goes on", () =>
    Effect.gen(function* () {
      const on = yield* installed("goes_on")
      const running = yield* begin({ ...on.environment, MILLRACE_KAFKA_REQUEST_MS: "1500" })
      yield* members(on, 1)
      yield* pay(on, 0, 60)
      yield* until(on, 60)
      // a fetch that waits has its second on top
      yield* frozen([broker.pid()!], Effect.sleep(6_000))
      yield* pay(on, 60, 120)
      yield* until(on, 120)
      assert.isNull(running.process.exitCode)
      yield* ends(running)
    }))
})

describe("millrace start, embedded", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`ends in order on ${signal}`, () =>
      Effect.gen(function* () {
        const dataDir = join(directory, signal)
        const environment = { TEST_NAME: "embedded", TEST_SLEEP_MS: "0" }
        const running = yield* begin(environment, "--data", dataDir)
        yield* ends(running, signal)
      }))
  }
})
