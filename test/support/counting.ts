// Runs the application of counting.config.ts as processes on Kafka and PostgreSQL, sends payments and reads what was counted.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import type { Log } from "../../src/log/log.ts"
import { connect, query, type Sql } from "../../src/postgres/client/client.ts"
import * as Cli from "./cli.ts"
import { payments } from "./counting.config.ts"
import { recordOf } from "./engine.ts"
import { asOperator } from "./kafka-engine.ts"
import { recordsOf } from "./oracle.ts"

const config = ["--config", "test/support/counting.config.ts"]
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)
type Environment = Readonly<Record<string, string>>

/** An installed application. Its name is that of its database and the prefix of its topics. */
export interface Installed {
  readonly name: string
  readonly brokers: string
  readonly sql: Sql
  readonly log: Log["Service"]
  readonly environment: Environment
}
let made = 0
/** Creates the database and the topics. A test that is retried gets new ones. */
export const installed = Effect.fnUntraced(function* (
  title: string,
  brokers: string,
  server: string,
  more: Environment = {}
) {
  const name = `${title}_${made++}`
  const admin = yield* connect(server, { max: 1 })
  yield* query("create", () => admin.unsafe(`create database ${name}`))
  const url = new URL(server)
  url.pathname = `/${name}`
  const sql = yield* connect(url.href, { max: 2 })
  const log = yield* KafkaLog.make({ brokers: brokers.split(","), requestMs: 5_000, deliveryMs: 120_000 })
  const environment = {
    MILLRACE_KAFKA_BROKERS: brokers,
    MILLRACE_DATABASE_URL: url.href,
    TEST_NAME: name,
    ...more
  }
  const applied = yield* Cli.run(environment, "topics", "apply", ...config)
  assert.strictEqual(applied.code, 0, applied.errors)
  return { name, brokers, sql, log, environment } satisfies Installed
})
/** Starts a process, and waits until it reports that it runs. */
export const begin = Effect.fnUntraced(function* (environment: Environment, ...more: ReadonlyArray<string>) {
  const running = yield* Cli.start(environment, "start", ...config, "--port", "0", ...more)
  yield* running.said(/^millrace \w+: .*/m)
  return running
})
/** Stops a process by a signal, and asserts that it exits with 0 and logs no error. */
export const ends = Effect.fnUntraced(function* (running: Cli.Running, signal: NodeJS.Signals = "SIGTERM") {
  // its own `kill` would leave it without an exit code on Deno
  process.kill(running.process.pid!, signal)
  const code = yield* running.ended
  assert.strictEqual(code, 0, running.errors())
  assert.notMatch(running.errors(), /^millrace:|Error|stands still|is halted/m)
})

/** Sends the payments with these numbers, of 50 payers. It makes no request before the append: a broker may be unavailable. */
export const pay = ({ log, name }: Pick<Installed, "log" | "name">, from: number, to: number) =>
  log.append(
    `${name}.payments`,
    range(from, to).map((n) =>
      recordOf(payments, { type: "paid", id: `${n}`, who: `payer ${n % 50}`, at: Date.UTC(2026, 0, 1) + n }, 6)
    )
  )
/** How many payments the read model counts. */
export const counted = ({ sql }: Installed) =>
  Effect.map(
    query("count", () => sql<Array<{ n: number }>>`select coalesce(sum(payments), 0)::int8 as n from counts`),
    ([row]) => row!.n
  )
/** Waits until so many payments are counted. Fails if there are more. */
export const until = Effect.fnUntraced(function* (on: Installed, n: number) {
  for (let now = yield* counted(on); now !== n; now = yield* counted(on)) {
    if (now > n) assert.fail(`${now} are counted of ${n}`)
    yield* Effect.sleep(20)
  }
})
/** Waits until the derived topic has so many receipts, and returns their ids. */
export const receiptsOf = Effect.fnUntraced(function* ({ log, name }: Installed, n: number) {
  while (true) {
    const found = yield* recordsOf(log, `${name}.receipts`)
    if (found.length >= n) return found.map(({ value }) => (JSON.parse(value!) as { readonly id: string }).id)
    yield* Effect.sleep(20)
  }
})
/** Waits until the projection's group has so many members and is stable. */
export const members = Effect.fnUntraced(function* ({ brokers, name, sql }: Installed, n: number) {
  const [identity] = yield* query(
    "identity",
    () => sql<Array<{ prefix: string }>>`select application || '/' || id as prefix from millrace.system`
  )
  const group = `${identity!.prefix}/counting_v1/${name}.payments`
  while (true) {
    const { groups } = yield* asOperator(brokers.split(","), (admin) => admin.describeGroups([group]))
    const [found] = groups
    if (found?.state === "Stable" && found.members.length === n) return
    yield* Effect.sleep(50)
  }
})
