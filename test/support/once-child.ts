// A child process that consumes a subscription effectively once, and waits to be killed. Used by tests.
//
// node once-child.ts URL TOPIC TYPE: counts each message in the table `counted`, and keeps the order of keys in `ordered`.
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { FanOut } from "../../src/subscription/fanout.ts"
import { connect, query } from "../../src/postgres/client/client.ts"
import * as PostgresFanOut from "../../src/postgres/subscription/fanout.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"
import * as Once from "../../src/postgres/subscription/once.ts"
import { Subscription } from "../../src/subscription/subscription.ts"
import { Topic } from "../../src/model/topic.ts"

const [url = "", topic = "", type = "keyShared"] = process.argv.slice(2)

const main = Effect.gen(function* () {
  const sql = yield* connect(url)
  const { log } = yield* PostgresLog.make(sql)
  const fanOut = yield* PostgresFanOut.make(sql, log, { sweepMs: 100 })
  const once = yield* Once.make(sql, { max: 4, mergeMs: 30 })
  const subscription = Subscription.make({
    topic: Topic.records(topic, { key: "key", value: { key: Schema.String, seq: Schema.Int } }),
    name: "sub",
    type: type as "keyShared",
    from: "earliest",
    redeliveryDelayMs: 20,
    // handlers that take longer than this lose their messages, and with them the order of keys
    ackTimeoutMs: type === "keyShared" ? 5_000 : 400,
    maxRedeliveries: 1_000
  })
  yield* Subscription.run(
    subscription,
    ({ key, seq }, message, tx) =>
      Effect.gen(function* () {
        yield* query(
          "count",
          () => tx`insert into counted (stream, seq, process) values (${message.stream!}, ${seq}, ${process.pid})`
        )
        yield* query(
          "order",
          () => tx`insert into ordered as o (key, seqs) values (${key}, ${`{${seq}}`}::int[])
            on conflict (key) do update set seqs = o.seqs || excluded.seqs`
        )
        // some handlers are slow, so that their messages go to others meanwhile, and some fail once they have written
        if (Math.random() < 0.01) yield* Effect.sleep(Math.random() * 600)
        if (Math.random() < 0.05) return yield* Effect.fail("no")
      }),
    { once, concurrency: 4 }
  ).pipe(Effect.provideService(FanOut, fanOut))
}).pipe(Effect.scoped)

setInterval(() => undefined, 1_000)
await Effect.runPromise(main)
