// Effectively once: whatever happens to consumers, their database and deliveries, each message changes rows once. Without it, not.
import { spawn, type ChildProcess } from "node:child_process"
import { fileURLToPath } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { FanOut, type Message } from "../../../src/subscription/fanout.ts"
import { messageIdentity, type MessageIdentity } from "../../../src/subscription/once.ts"
import { query, type Sql } from "../../../src/postgres/client/client.ts"
import * as Once from "../../../src/postgres/subscription/once.ts"
import { Subscription } from "../../../src/subscription/subscription.ts"
import { Topic } from "../../../src/model/topic.ts"
import { sent, topicWith, Topics, upTo } from "../../contract/fanout-support.ts"
import { fanOutOn } from "../../support/fanout.ts"
import { databaseOn, server, type Database } from "../../support/postgres.ts"
import { randomOf, seed } from "../../support/random.ts"
import { isLong } from "../../support/size.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

type Body = (database: Database) => Effect.Effect<void, unknown, FanOut | Topics | Scope.Scope>
const test = (name: string, body: Body, timeout = 120_000) =>
  it.live(
    name,
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const database = yield* databaseOn(root, 20)
          yield* query("tables", () => database.sql.unsafe(tables))
          const quiet = Layer.succeed(References.MinimumLogLevel, "None")
          yield* Effect.provide(body(database), Layer.mergeAll(fanOutOn(database.sql), quiet))
        })
      ),
    timeout
  )
// `counted` has no key that would prevent a second count
const tables = `
  create table counted (stream text, seq integer, process integer);
  create table ordered (key text primary key, seqs integer[] not null)`
const counts = (sql: Sql) =>
  query(
    "read",
    () => sql<Array<{ seq: number; n: number }>>`select seq, count(*)::integer as n from counted group by 1 order by 1`
  )
const assertOnce = Effect.fnUntraced(function* (sql: Sql, total: number) {
  const rows = yield* counts(sql)
  const twice = rows.filter(({ n }) => n !== 1)
  assert.deepStrictEqual(twice, [], `of ${total}: counted more than once`)
  assert.deepStrictEqual(
    rows.map(({ seq }) => seq),
    upTo(total)
  )
})
/** Waits until this number of messages is counted, and no message is leased or waits. */
const settled = Effect.fnUntraced(function* (sql: Sql, total: number) {
  yield* query(
    "look",
    () => sql<
      Array<{ rest: number }>
    >`select (select sum(undelivered + unacknowledged) from millrace.subscription_lag)::integer as rest,
      (select count(distinct seq) from counted)::integer as n`
  ).pipe(
    Effect.tap(() => Effect.sleep(20)),
    Effect.repeat({ until: ([row]) => row!["rest"] === 0 && (row as { n?: number }).n! >= total })
  )
})
/** Waits until this process has counted a message. */
const counting = (sql: Sql, pid: number) =>
  query("look", () => sql`select from counted where process = ${pid} limit 1`).pipe(
    Effect.tap(() => Effect.sleep(20)),
    Effect.repeat({ until: (rows) => rows.length > 0 })
  )
const subscriptionOf = (topic: string, rest: Partial<Subscription<{ key: string; seq: number }>> = {}) =>
  Subscription.make({
    topic: Topic.records(topic, { key: "key", value: { key: Schema.String, seq: Schema.Int } }),
    name: "sub",
    type: "shared",
    from: "earliest",
    redeliveryDelayMs: 20,
    maxRedeliveries: 1_000,
    ...rest
  })
type Handler = (
  value: { readonly key: string; readonly seq: number },
  message: { readonly stream: string | undefined },
  tx: Once.Session
) => Effect.Effect<void, unknown>
const count: Handler = ({ seq }, { stream }, tx) =>
  Effect.asVoid(query("count", () => tx`insert into counted (stream, seq) values (${stream!}, ${seq})`))

describe("a message that is handled once", () => {
  test(
    "takes effect once, however often it is redelivered",
    Effect.fnUntraced(function* ({ sql }) {
      const [topics, topic] = [yield* Topics, yield* topicWith(2)]
      yield* topics.publish(topic, sent(200, 1, 4, 2))
      const marks = yield* Once.make(sql, { mergeMs: 20 })
      const subscription = subscriptionOf(topic, { ackTimeoutMs: 150 })
      // its acknowledgements are lost, so that everything comes again and again
      const forgetful = Layer.succeed(FanOut, forgetting(yield* FanOut, 0.7))
      const other = Layer.succeed(FanOut, yield* topics.another)
      const run = Subscription.run(subscription, count, { once: marks })
      const running = yield* Effect.forkScoped(
        Effect.all(
          [run.pipe(Effect.provide(forgetful)), run.pipe(Effect.provide(forgetful)), run.pipe(Effect.provide(other))],
          {
            concurrency: "unbounded"
          }
        )
      )
      yield* settled(sql, 200)
      yield* Fiber.interrupt(running)
      yield* assertOnce(sql, 200)
    })
  )
  test(
    "takes no effect while its handler fails, and takes effect once it succeeds",
    Effect.fnUntraced(function* ({ sql }) {
      const [topics, topic] = [yield* Topics, yield* topicWith()]
      yield* topics.publish(topic, sent(60))
      const marks = yield* Once.make(sql)
      const tries = new Map<number, number>()
      const handle: Handler = (value, message, tx) =>
        Effect.gen(function* () {
          yield* count(value, message, tx)
          const times = (tries.get(value.seq) ?? 0) + 1
          tries.set(value.seq, times)
          if (value.seq % 3 === 0 && times < 3) return yield* Effect.fail("no")
          if (value.seq % 5 === 0 && times < 3) throw new Error("a bug")
          // it fails in the server, and the handler goes on as if nothing were
          if (value.seq === 7 && times < 2) yield* Effect.ignore(query("fail", () => tx`select 1 / 0`))
          if (value.seq === 8) return yield* Effect.fail("never")
        })
      const subscription = subscriptionOf(topic, { maxRedeliveries: 4 })
      const running = yield* Effect.forkScoped(Subscription.run(subscription, handle, { once: marks }))
      yield* settled(sql, 59)
      yield* Fiber.interrupt(running)
      const rows = yield* counts(sql)
      assert.deepStrictEqual(
        rows.map(({ n, seq }) => [seq, n]),
        upTo(60)
          .filter((seq) => seq !== 8)
          .map((seq) => [seq, 1])
      )
      assert.deepStrictEqual([tries.get(3), tries.get(5), tries.get(7), tries.get(8)], [3, 3, 2, 5])
      const dead = yield* (yield* FanOut).subscribe({
        topic: `${topic}.sub.dlq`,
        name: "d",
        type: "exclusive",
        from: "earliest"
      })
      assert.deepStrictEqual(
        (yield* dead.receive(10)).map(({ seq }) => seq),
        [8]
      )
    })
  )
  test(
    "is recognised after a replay, until its marks are deleted with `forget`",
    Effect.fnUntraced(function* ({ sql }) {
      const [fanOut, topics, topic] = [yield* FanOut, yield* Topics, yield* topicWith()]
      yield* topics.publish(topic, sent(50))
      const marks = yield* Once.make(sql, { mergeMs: 10 })
      const subscription = subscriptionOf(topic)
      const run = Effect.gen(function* () {
        const running = yield* Effect.forkScoped(Subscription.run(subscription, count, { once: marks }))
        yield* settled(sql, 50)
        yield* Fiber.interrupt(running)
      })
      yield* run
      yield* fanOut.seek({ ...subscription, topic }, "earliest")
      yield* run
      yield* assertOnce(sql, 50)
      yield* marks.forget({ topic, name: "sub" })
      yield* fanOut.seek({ ...subscription, topic }, "earliest")
      yield* run
      assert.isTrue((yield* counts(sql)).every(({ n }) => n === 2))
    })
  )
  test(
    "is another one in another incarnation of its stream, for another subscription, and (without a stream) at another position",
    Effect.fnUntraced(function* ({ sql }) {
      const marks = yield* Once.make(sql, { mergeMs: 5 })
      const message = { partition: 1, position: 9, stream: "a", incarnation: "1", seq: 5 } as Message
      const identity = messageIdentity({ topic: "t", name: "s" }, message)
      assert.deepStrictEqual(identity, { topic: "t", subscription: "s", stream: "a", incarnation: "1", seq: 5 })
      const foreign = messageIdentity({ topic: "t", name: "s" }, { ...message, stream: undefined, seq: undefined })
      assert.deepStrictEqual(foreign, { ...identity, stream: "#1", incarnation: "", seq: 9 })
      const outcome = (more: Partial<MessageIdentity>) => marks.handle({ ...identity, ...more }, () => Effect.void)
      const others = [
        {},
        { topic: "u" },
        { subscription: "r" },
        { stream: "b" },
        { incarnation: "2" },
        { seq: 6 },
        { seq: 5 + 8_192 }
      ]
      for (const other of others) assert.strictEqual(yield* outcome(other), "handled", JSON.stringify(other))
      for (let i = 0; i < 3; i++) {
        for (const other of others) assert.strictEqual(yield* outcome(other), "before", JSON.stringify(other))
        yield* Effect.sleep(20)
      }
    })
  )
  test(
    "has no failure counted while the consumer's database is unavailable",
    Effect.fnUntraced(function* ({ sql }) {
      const [topics, topic] = [yield* Topics, yield* topicWith()]
      yield* topics.publish(topic, sent(30))
      const marks = yield* Once.make(sql)
      const killed = new Set<number>()
      const handle: Handler = (value, message, tx) =>
        Effect.gen(function* () {
          yield* count(value, message, tx)
          if (killed.has(value.seq)) return
          killed.add(value.seq)
          const [row] = yield* query("who", () => tx`select pg_backend_pid() as pid`)
          yield* query("terminate", () => sql`select pg_terminate_backend(${row!["pid"] as number})`)
          yield* query("use it", () => tx`select 1`)
        })
      // one failure would be too many
      const subscription = subscriptionOf(topic, { maxRedeliveries: 0 })
      const running = yield* Effect.forkScoped(Subscription.run(subscription, handle, { once: marks, concurrency: 5 }))
      yield* settled(sql, 30)
      yield* Fiber.interrupt(running)
      assert.strictEqual(killed.size, 30)
      yield* assertOnce(sql, 30)
    })
  )
})
/** A fan-out that loses acknowledgements. */
const forgetting = (fanOut: FanOut["Service"], share: number): FanOut["Service"] => ({
  ...fanOut,
  subscribe: (options) =>
    Effect.map(fanOut.subscribe(options), (consumer) => ({
      ...consumer,
      receive: (max) => consumer.receive(max),
      acknowledge: (messages) => consumer.acknowledge(messages.filter(() => Math.random() > share))
    }))
})

describe("marks", () => {
  test(
    "are merged while others handle the same messages, and none is lost or duplicated",
    Effect.fnUntraced(function* ({ sql }) {
      const random = randomOf(seed)
      const marks = yield* Once.make(sql, { mergeMs: 1, max: 12 })
      const total = 600
      const deliveries = Array.from({ length: total * 4 }, (_, i) => 1 + (i % total)).map((seq) => ({
        seq,
        at: random.next()
      }))
      const outcomes = yield* Effect.forEach(
        // each message four times, near one another
        deliveries.toSorted((a, b) => a.seq + a.at * 12 - (b.seq + b.at * 12)),
        ({ seq }) =>
          marks.handle({ topic: "t", subscription: "s", stream: "a", incarnation: "1", seq }, (tx) =>
            query("count", () => tx`insert into counted (stream, seq) values ('a', ${seq})`)
          ),
        { concurrency: 12 }
      )
      assert.strictEqual(outcomes.filter((outcome) => outcome === "handled").length, total)
      yield* assertOnce(sql, total)
      const left = query(
        "left",
        () => sql<Array<{ n: number }>>`select count(*)::integer as n from millrace_once.handled`
      )
      yield* Effect.repeat(left, { until: ([row]) => row!.n === 0 })
      const ranges = yield* query("ranges", () => sql`select seqs::text as seqs from millrace_once.handled_range`)
      assert.deepStrictEqual(
        ranges.map((row) => row["seqs"] as string),
        [`{[1,${total + 1})}`]
      )
    })
  )
  test(
    "that are old are deleted",
    Effect.fnUntraced(function* ({ sql }) {
      const marks = yield* Once.make(sql, { mergeMs: 5, keepMs: 0 })
      const handle = (seq: number) =>
        marks.handle({ topic: "t", subscription: "s", stream: "a", incarnation: "1", seq }, () => Effect.void)
      assert.strictEqual(yield* handle(1), "handled")
      const rows = query(
        "left",
        () => sql`select from millrace_once.handled union all select from millrace_once.handled_range`
      )
      yield* Effect.repeat(rows, { until: (left) => left.length === 0 })
      assert.strictEqual(yield* handle(1), "handled")
    })
  )
})

describe("consumers that are killed at random", () => {
  // so many that each of two consumers has some
  const keys = 48
  for (const type of ["keyShared", "shared"] as const) {
    test(
      `${type}: rows count each message once${type === "keyShared" ? ", in the order of its key" : ""} (seed ${seed})`,
      Effect.fnUntraced(function* ({ sql, url }) {
        const random = randomOf(seed)
        const [topics, topic] = [yield* Topics, yield* topicWith(2)]
        const children = yield* Effect.acquireRelease(
          Effect.sync(() => Array.from({ length: 2 }, () => start(url, topic, type))),
          (all) => Effect.sync(() => all.forEach((child) => child.kill("SIGKILL")))
        )
        let total = 0
        // there is always some to count, and never so much that the rest of a slow machine's time goes into that
        const publish = Effect.gen(function* () {
          const [row] = yield* query(
            "count",
            () => sql<Array<{ n: number }>>`select count(*)::integer as n from counted`
          )
          if (total - row!.n < 400) yield* topics.publish(topic, sent((total += 50), total - 49, keys, 2))
        }).pipe(Effect.uninterruptible)
        const publishing = yield* Effect.forkScoped(Effect.repeat(publish, { schedule: Schedule.spaced(100) }))
        for (let kills = 0; kills < (isLong ? 6 : 2); kills++) {
          const at = random.int(0, 1)
          // kills that meet no consumer at work prove nothing
          yield* counting(sql, children[at]!.pid!)
          yield* Effect.sleep(random.int(0, 400))
          children[at]!.kill("SIGKILL")
          children[at] = start(url, topic, type)
        }
        yield* Fiber.interrupt(publishing)
        yield* settled(sql, total)
        yield* assertOnce(sql, total)
        if (type !== "keyShared") return
        const rows = yield* query(
          "order",
          () => sql<Array<{ key: string; seqs: Array<number> }>>`select key, array_to_json(seqs) as seqs from ordered`
        )
        for (const { key, seqs } of rows)
          assert.deepStrictEqual(
            seqs,
            upTo(total).filter((seq) => `k${seq % keys}` === key),
            key
          )
      }),
      120_000
    )
  }
})
const start = (url: string, topic: string, type: string): ChildProcess => {
  const script = fileURLToPath(new URL("../../support/once-child.ts", import.meta.url))
  const args = "Deno" in globalThis ? ["run", "-A", script] : [script]
  return spawn(process.execPath, [...args, url, topic, type], { stdio: ["ignore", "ignore", "inherit"] })
}
