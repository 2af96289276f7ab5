// A child process that consumes a subscription, acknowledges nothing, and waits to be killed. Used by tests.
//
// node fanout-child.ts URL TOPIC TYPE: prints the sequence number of each message that it receives.
import * as Effect from "effect/Effect"
import { connect } from "../../src/postgres/client/client.ts"
import * as PostgresFanOut from "../../src/postgres/subscription/fanout.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"

const [url = "", topic = "", type = "exclusive"] = process.argv.slice(2)

const main = Effect.gen(function* () {
  const sql = yield* connect(url)
  const { log } = yield* PostgresLog.make(sql)
  const fanOut = yield* PostgresFanOut.make(sql, log)
  const consumer = yield* fanOut.subscribe({ topic, name: "sub", type: type as "exclusive", from: "earliest" })
  while (true) {
    for (const { seq } of yield* consumer.receive(100)) process.stdout.write(`${seq}\n`)
  }
}).pipe(Effect.scoped)

setInterval(() => undefined, 1_000)
await Effect.runPromise(main)
