// The fan-out on PostgreSQL while processes and backends die: no message is lost, and the order of keys holds.
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { FanOut, type SubscriptionType } from "../../../src/subscription/fanout.ts"
import { connect, query, type Sql } from "../../../src/postgres/client/client.ts"
import * as PostgresFanOut from "../../../src/postgres/subscription/fanout.ts"
import * as PostgresLog from "../../../src/postgres/log/log.ts"
import { Subscription } from "../../../src/subscription/subscription.ts"
import { Topic } from "../../../src/model/topic.ts"
import { ascending, options, receiveAll, sent, seqs, Topics, upTo } from "../../contract/fanout-support.ts"
import { fanOutOn } from "../../support/fanout.ts"
import { database } from "../../support/postgres.ts"
import { isLong } from "../../support/size.ts"

const child = (url: string, topic: string, type: SubscriptionType) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const file = fileURLToPath(new URL("../../support/fanout-child.ts", import.meta.url))
      const flags = "Deno" in globalThis ? ["run", "-A"] : []
      return spawn(process.execPath, [...flags, file, url, topic, type], { stdio: ["ignore", "pipe", "inherit"] })
    }),
    (process) => Effect.sync(() => process.kill("SIGKILL"))
  )
const lines = (process: ReturnType<typeof spawn>, count: number) =>
  Effect.callback<ReadonlyArray<string>>((resume) => {
    let text = ""
    process.stdout!.on("data", (data: Buffer) => {
      text += data.toString()
      if (text.split("\n").length > count) resume(Effect.succeed(text.trim().split("\n")))
    })
  })

/** A pool that loses the reply of one claim, which was executed. */
const losingAClaim = (sql: Sql): Sql => {
  let lost = false
  return new Proxy(sql, {
    get: (target, name) => {
      if (name !== "unsafe") return Reflect.get(target, name) as unknown
      return (text: string, ...rest: [never, never]) => {
        const sent = target.unsafe(text, ...rest)
        if (lost || !text.includes("insert into millrace.subscription_lease")) return sent
        lost = true
        return sent.then(() => {
          throw Object.assign(new Error("the reply was lost"), { code: "CONNECTION_CLOSED" })
        })
      }
    }
  })
}

describe("fan-out on PostgreSQL, under faults", () => {
  it.live("messages whose claim lost its reply are delivered again at once", () =>
    Effect.gen(function* () {
      const { sql } = yield* database
      yield* Effect.gen(function* () {
        const [fanOut, topics] = [yield* FanOut, yield* Topics]
        for (const type of ["exclusive", "shared", "keyShared"] as const) {
          yield* topics.declare(type, 2)
          yield* topics.publish(type, sent(6, 1, 4, 2))
          yield* Effect.scoped(
            Effect.gen(function* () {
              const consumer = yield* fanOut.subscribe(options(type, type))
              const messages = yield* receiveAll(consumer, 6).pipe(Effect.retry({ times: 1 }))
              assert.deepStrictEqual(ascending(seqs(messages)), upTo(6), type)
              assert.isTrue(messages.every(({ redeliveries }) => redeliveries === 0))
              yield* consumer.acknowledge(messages)
            })
          )
        }
      }).pipe(Effect.provide(fanOutOn(losingAClaim(sql))), Effect.scoped)
    }).pipe(Effect.scoped)
  )

  it.live("the subscription and the messages of a killed process are free at once", () =>
    Effect.gen(function* () {
      const { sql, url } = yield* database
      yield* Effect.gen(function* () {
        const [fanOut, topics] = [yield* FanOut, yield* Topics]
        for (const type of ["exclusive", "failover", "shared", "keyShared"] as const) {
          yield* topics.declare(type, 2)
          yield* topics.publish(type, sent(6, 1, 4, 2))
          const process = yield* child(url, type, type)
          assert.strictEqual((yield* lines(process, 6)).length, 6)
          if (type === "exclusive") {
            const busy = yield* Effect.flip(Effect.scoped(fanOut.subscribe(options(type, type))))
            assert.strictEqual(busy._tag, "ConsumerBusy")
          }
          process.kill("SIGKILL")
          const from = performance.now()
          yield* Effect.scoped(
            Effect.gen(function* () {
              const consumer = yield* fanOut
                .subscribe(options(type, type))
                .pipe(Effect.retry({ times: 200, schedule: Schedule.spaced("50 millis") }))
              const messages = yield* receiveAll(consumer, 6)
              assert.deepStrictEqual(ascending(seqs(messages)), upTo(6), type)
              assert.isTrue(
                messages.every(({ redeliveries }) => redeliveries === 1),
                type
              )
            })
          )
          // and not when its time to acknowledge has run out, which is a minute
          assert.isBelow(performance.now() - from, 30_000)
        }
      }).pipe(Effect.provide(fanOutOn(sql)), Effect.scoped)
    }).pipe(Effect.scoped)
  )

  it.live(
    "while backends die every message is handled, those of a key in order, and no lease is left",
    () =>
      Effect.gen(function* () {
        const { sql, url } = yield* database
        const total = isLong ? 1_500 : 600
        const handled: Record<string, Map<string, Array<number>>> = {
          shared: new Map(),
          keyShared: new Map(),
          failover: new Map()
        }
        const topics = Object.keys(handled)
        const values = (name: string) =>
          Topic.records(name, { key: "key", value: { key: Schema.String, seq: Schema.Int } })
        const handle =
          (type: string) =>
          ({ key, seq }: { readonly key: string; readonly seq: number }) =>
            Effect.gen(function* () {
              yield* Effect.sleep(Math.random() * 3)
              if (Math.random() < 0.01) return yield* Effect.fail("not now")
              const before = handled[type]!.get(key) ?? []
              // what was acknowledged by a reply that was lost comes again
              if (!before.includes(seq)) handled[type]!.set(key, [...before, seq])
            })
        const consume = Effect.fnUntraced(function* (n: number) {
          const client = yield* connect(url, { applicationName: `victim ${n}`, max: 4 })
          const { log } = yield* PostgresLog.make(client, { pollMs: 200 })
          const fanOut = yield* PostgresFanOut.make(client, log, { sweepMs: 200 })
          const run = (type: string) =>
            Subscription.run(
              Subscription.make({
                topic: values(type),
                name: "sub",
                type: type as SubscriptionType,
                from: "earliest",
                redeliveryDelayMs: 50,
                maxRedeliveries: 100
              }),
              handle(type)
            ).pipe(
              Effect.catch((error) => Effect.logWarning(`run ended: ${error.message}`)),
              Effect.andThen(Effect.sleep(50)),
              Effect.forever
            )
          return yield* Effect.all(topics.map(run), { concurrency: "unbounded" }).pipe(
            Effect.provideService(FanOut, fanOut)
          )
        }, Effect.scoped)
        yield* Effect.gen(function* () {
          const publisher = yield* Topics
          for (const topic of topics) yield* publisher.declare(topic, 3)
          // a backend may die while it is opened
          const lasting = [1, 2, 3].map((n) => Effect.retry(consume(n), Schedule.spaced("50 millis")))
          const consumers = yield* Effect.forkChild(Effect.all(lasting, { concurrency: "unbounded" }))
          const killed: Array<number> = []
          const killer = yield* Effect.forkChild(
            Effect.forever(
              Effect.gen(function* () {
                yield* Effect.sleep(Math.random() * 150)
                const rows = yield* query(
                  "terminate",
                  () => sql`
                  select pid, pg_terminate_backend(pid) from pg_stat_activity
                  where datname = current_database() and (application_name like 'victim%' or application_name = 'millrace session')
                  order by random() limit 1`
                )
                for (const row of rows) killed.push(row["pid"] as number)
              })
            )
          )
          for (let from = 1; from <= total; from += 50) {
            for (const topic of topics)
              yield* publisher.publish(topic, sent(from + 49, from, 17, 3)).pipe(Effect.retry({ times: 10 }))
            yield* Effect.sleep(100)
          }
          while (killed.length <= (isLong ? 15 : 6)) yield* Effect.sleep(20)
          yield* Fiber.interrupt(killer)
          const count = (type: string) => [...handled[type]!.values()].flat().length
          const from = performance.now()
          while (topics.some((type) => count(type) < total) && performance.now() - from < 60_000)
            yield* Effect.sleep(50)
          for (const type of topics)
            assert.deepStrictEqual(ascending([...handled[type]!.values()].flat()), upTo(total), type)
          const left = query(
            "left",
            () =>
              sql`select topic, undelivered, unacknowledged from millrace.subscription_lag where undelivered + unacknowledged > 0`
          )
          while ((yield* left).length > 0) yield* Effect.sleep(50)
          yield* Fiber.interrupt(consumers)
          assert.deepStrictEqual([...(yield* left)], [])
          for (const [key, numbers] of handled["keyShared"]!) assert.deepStrictEqual(numbers, ascending(numbers), key)
        }).pipe(Effect.provide(fanOutOn(sql)))
      }).pipe(Effect.scoped),
    120_000
  )
})
