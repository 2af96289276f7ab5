// A process of the harness that consumes: subscriptions of every type, which write a row for each message with effectively-once handling.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { FanOut } from "../../../src/subscription/fanout.ts"
import { connect, query } from "../../../src/postgres/client/client.ts"
import type { Once } from "../../../src/subscription/once.ts"
import { make as makeOnce, type Session } from "../../../src/postgres/subscription/once.ts"
import * as PulsarFanOut from "../../../src/pulsar/subscription/fanout.ts"
import type { PulsarOptions } from "../../../src/pulsar/client/options.ts"
import { Subscription } from "../../../src/subscription/subscription.ts"
import { Topic } from "../../../src/model/topic.ts"
import { type Subscribed, subscriptions } from "./subscriptions.ts"

/** What the harness passes as JSON in MILLRACE_FAULT. */
export interface ConsumerGiven {
  readonly url: string
  readonly options: PulsarOptions
  /** How many of a hundred handlers fail after they have written; those of failover subscriptions never do. */
  readonly failing: number
  /** How many of a hundred handlers are slow, up to twice the time that a shared subscription allows. */
  readonly slow: number
}
const { failing, options, slow, url } = JSON.parse(process.env["MILLRACE_FAULT"]!) as ConsumerGiven
const again = {
  while: ({ retryable }: { readonly retryable: boolean }) => retryable,
  schedule: Schedule.spaced("200 millis")
}
const chance = (ofHundred: number) => Math.random() * 100 < ofHundred

const consume = Effect.fnUntraced(function* ({ name, tenant, topic, type }: Subscribed, once: Once<Session>) {
  const fanOut = yield* PulsarFanOut.make({ ...options, tenant })
  const subscription = Subscription.make({
    topic: Topic.records(topic, { key: "key", value: { key: Schema.String, seq: Schema.Int } }),
    name,
    type,
    from: "earliest",
    redeliveryDelayMs: 50,
    // handlers that take longer than this lose their messages, and with them the order of keys
    ackTimeoutMs: type === "shared" ? 700 : 30_000,
    maxRedeliveries: 1_000_000
  })
  return yield* Subscription.run(
    subscription,
    ({ key, seq }, message, tx) =>
      Effect.gen(function* () {
        yield* query(
          "handle",
          () => tx`insert into handled (subscription, stream, seq, key, process)
            values (${name}, ${message.stream!}, ${seq}, ${key}, ${process.pid})`
        )
        if (chance(slow)) yield* Effect.sleep(Math.random() * (type === "shared" ? 1_400 : 200))
        // redelivery to a failover consumer breaks the order
        if (type !== "failover" && chance(failing)) {
          process.stdout.write("point: given back\n")
          return yield* Effect.fail("no")
        }
      }),
    { once, concurrency: type === "failover" ? 1 : 4 }
  ).pipe(Effect.provideService(FanOut, fanOut))
}, Effect.scoped)

const running = new AbortController()
process.once("SIGTERM", () => running.abort())
const main = Effect.gen(function* () {
  const sql = yield* Effect.retry(connect(url, { max: 4 }), again)
  const once = yield* Effect.retry(makeOnce(sql, { max: 8, mergeMs: 100 }), again)
  process.stdout.write("point: up\n")
  yield* Effect.raceAllFirst(subscriptions.map((one) => consume(one, once)))
})
const exit = await Effect.runPromiseExit(Effect.scoped(main), { signal: running.signal })
if (!running.signal.aborted) process.stderr.write(`${JSON.stringify(exit)}\n`)
process.exit(running.signal.aborted ? 0 : 1)
