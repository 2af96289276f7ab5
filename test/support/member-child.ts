// A process that is a member of a group until it is killed. It prints `has <partition>` for each partition that it is assigned.
import * as Effect from "effect/Effect"
import * as KafkaLog from "../../src/kafka/log/log.ts"

const [brokers = "", topic = "", group = "", sessionMs = "0"] = process.argv.slice(2)
const member = Effect.gen(function* () {
  const log = yield* KafkaLog.make({ brokers: brokers.split(","), sessionMs: Number(sessionMs) })
  return yield* log.assign(topic, group, ({ partition }) =>
    Effect.andThen(
      Effect.sync(() => process.stdout.write(`has ${partition}\n`)),
      Effect.never
    )
  )
})
await Effect.runPromise(Effect.scoped(member))
