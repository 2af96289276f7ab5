// The shutdown of a `millrace start` process, on Kafka and embedded: orderly and quick, whatever is under way and whatever hangs.
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { kafka, postgres, type Service } from "../../../stack/testing.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import { begin, counted, ends, installed, members, pay, receiptsOf, until } from "../../support/counting.ts"
import { owning } from "../../support/stack.ts"

const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-drain-"))
let broker: Service
let database: Service
afterAll(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  rmSync(directory, { recursive: true, force: true })
})
const test = (title: string, body: () => Effect.Effect<void, unknown, Scope.Scope>, timeout = 120_000) =>
  it.live(title, () => Effect.scoped(body()), timeout)

/** The application on the two services. With this session timeout a member that only dies would be noticed after ten minutes. */
const on = (name: string) =>
  installed(name, broker.endpoints.MILLRACE_KAFKA_BROKERS!, database.endpoints.MILLRACE_DATABASE_URL!, {
    MILLRACE_KAFKA_SESSION_MS: "600000"
  })

/** Stops processes with SIGSTOP for as long as `during` runs. */
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
            // the process has ended meanwhile
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
    test(`leaves its group at once on ${signal}, so that another process continues with its partitions`, () =>
      Effect.gen(function* () {
        const app = yield* on(`leaves_${signal.toLowerCase()}`)
        const first = yield* begin(app.environment, "--roles", "projections,relay")
        yield* members(app, 1)
        const second = yield* begin(app.environment, "--roles", "projections,relay")
        yield* members(app, 2)
        yield* pay(app, 0, 300)
        yield* until(app, 300)
        yield* ends(first, signal)
        yield* pay(app, 300, 600)
        yield* until(app, 600)
        // the relay's lane moved to the second process, too, and every message was published once
        const ids = yield* receiptsOf(app, 600)
        assert.strictEqual(ids.length, 600)
        assert.strictEqual(new Set(ids).size, 600)
        yield* ends(second, signal)
      }))
  }

  test("drops the batch that is under way, and no event of it is lost or counted twice", () =>
    Effect.gen(function* () {
      const app = yield* on("drops")
      const slow = yield* begin({ ...app.environment, TEST_SLEEP_MS: "3600000" })
      yield* pay(app, 0, 300)
      // every partition is in its first event, which sleeps for an hour
      yield* members(app, 1)
      const claimed = query(
        "claims",
        () => app.sql<Array<{ n: number }>>`select count(*) as n from millrace.progress where epoch > 0`
      )
      while ((yield* claimed)[0]!.n < 6) yield* Effect.sleep(20)
      yield* ends(slow)
      assert.strictEqual(yield* counted(app), 0)
      const fast = yield* begin(app.environment)
      yield* until(app, 300)
      yield* ends(fast)
    }))

  test("ends even if the broker hangs", () =>
    Effect.gen(function* () {
      const app = yield* on("broker_hangs")
      const running = yield* begin(app.environment)
      yield* members(app, 1)
      yield* pay(app, 0, 60)
      yield* until(app, 60)
      yield* frozen([broker.pid()!], Effect.andThen(Effect.sleep(1_000), ends(running)))
    }))

  test("ends even if the database hangs", () =>
    Effect.gen(function* () {
      const app = yield* on("database_hangs")
      const running = yield* begin(app.environment)
      yield* members(app, 1)
      yield* pay(app, 0, 60)
      yield* until(app, 60)
      const pids = [database.pid()!, ...(yield* backends(app.sql))]
      yield* frozen(pids, Effect.andThen(Effect.andThen(pay(app, 60, 120), Effect.sleep(1_000)), ends(running)))
      const again = yield* begin(app.environment)
      yield* until(app, 120)
      yield* ends(again)
    }))

  test("reconnects after the broker has hung, and continues", () =>
    Effect.gen(function* () {
      const app = yield* on("goes_on")
      const running = yield* begin({ ...app.environment, MILLRACE_KAFKA_REQUEST_MS: "1500" })
      yield* members(app, 1)
      yield* pay(app, 0, 60)
      yield* until(app, 60)
      // a fetch waits one second longer than other requests
      yield* frozen([broker.pid()!], Effect.sleep(6_000))
      yield* pay(app, 60, 120)
      yield* until(app, 120)
      assert.isNull(running.process.exitCode)
      yield* ends(running)
    }))
})

describe("millrace start, embedded", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    test(`ends with exit code 0 on ${signal}`, () =>
      Effect.gen(function* () {
        const dataDir = join(directory, signal)
        const environment = { TEST_NAME: "embedded", TEST_SLEEP_MS: "0" }
        const running = yield* begin(environment, "--data", dataDir)
        yield* ends(running, signal)
      }))
  }
})
