// A program for tests: consumes a subscription on Pulsar, acknowledges nothing, and waits to be killed.
//
// node pulsar-child.ts OPTIONS TOPIC TYPE: prints the sequence of each message it gets. PulsarOptions are JSON.
import * as Effect from "effect/Effect"
import * as PulsarFanOut from "../../src/pulsar/subscription/fanout.ts"
import type { PulsarOptions } from "../../src/pulsar/client/options.ts"

const [options = "", topic = "", type = "exclusive"] = process.argv.slice(2)

const main = Effect.gen(function* () {
  const fanOut = yield* PulsarFanOut.make(JSON.parse(options) as PulsarOptions)
  const consumer = yield* fanOut.subscribe({ topic, name: "sub", type: type as "exclusive", from: "earliest" })
  while (true) {
    for (const { seq } of yield* consumer.receive(100)) process.stdout.write(`${seq}\n`)
  }
}).pipe(Effect.scoped)

setInterval(() => undefined, 1_000)
await Effect.runPromise(main)
