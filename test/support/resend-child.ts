// A child process that retries the dead letters of a bridge and waits to be killed, just before or just after it sends the first. Used by tests.
//
// node resend-child.ts URL RULES before|after
import * as Effect from "effect/Effect"
import { readFileSync } from "node:fs"
import { Bridge, type BridgeOptions } from "../../src/bridge/definition.ts"
import { readDeadLetters, errorTopics } from "../../src/bridge/dead-letter-reader.ts"
import { BridgeDeadLetterSender } from "../../src/bridge/dead-letter-sender.ts"
import { makeContext } from "../../src/bridge/context.ts"
import { bridgeDeadLetters } from "../../src/system/dead-letters/bridges.ts"
import * as KafkaBridge from "../../src/kafka/bridge-side.ts"
import * as KafkaLog from "../../src/kafka/log/log.ts"
import { connect } from "../../src/postgres/client/client.ts"
import * as PulsarBridge from "../../src/pulsar/bridge-side.ts"
import { optionsFrom } from "../../src/pulsar/client/options.ts"

const [url = "", rules = "", when = "before"] = process.argv.slice(2)
const waitToBeKilled = Effect.andThen(
  Effect.sync(() => process.stdout.write("standing\n")),
  Effect.never
)
const filter = { projection: undefined, subscription: undefined, rule: undefined, topic: undefined, key: undefined }
const main = Effect.gen(function* () {
  const sql = yield* connect(url, { max: 2 })
  const options = KafkaLog.optionsFrom(process.env)!
  const [log, kafka] = [yield* KafkaLog.make(options), KafkaBridge.make(options)]
  const pulsar = yield* PulsarBridge.make(optionsFrom(process.env)!)
  const bridge = Bridge.make(JSON.parse(readFileSync(rules, "utf8")) as BridgeOptions)
  const sources = { kafka: { log, side: kafka }, pulsar: { side: pulsar, tenant: undefined, namespace: undefined } }
  const sender = new BridgeDeadLetterSender(yield* makeContext(bridge, { log, kafka, pulsar }))
  const waiting: typeof sender.send = (deadLetter, to) =>
    when === "before" ? waitToBeKilled : Effect.andThen(sender.send(deadLetter, to), waitToBeKilled)
  const deadLetters = bridgeDeadLetters(sql, {
    names: errorTopics(sources, bridge),
    each: (topic, take) => readDeadLetters(sources, topic, take),
    openSender: Effect.succeed({ aim: sender.aim, isThere: sender.isThere, send: waiting })
  })
  const asked = { ...filter, error: undefined, since: undefined, statuses: ["parked", "retrying"] as const, limit: 9 }
  yield* deadLetters.retry(yield* deadLetters.list(undefined, asked, "retry"), "child")
}).pipe(Effect.scoped)

setInterval(() => undefined, 1_000)
await Effect.runPromise(main)
