// A child process that is a member of a group and prints its partitions. Used by tests.
//
// node log-child.ts URL TOPIC GROUP: prints `+ partition generation` and `- partition` as they come and go.
import * as Effect from "effect/Effect"
import { connect } from "../../src/postgres/client/client.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"

const [url = "", topic = "", group = ""] = process.argv.slice(2)
const say = (text: string) => Effect.sync(() => process.stdout.write(`${text}\n`))

const main = Effect.gen(function* () {
  const sql = yield* connect(url, { max: 2 })
  const { log } = yield* PostgresLog.make(sql)
  return yield* log.assign(topic, group, ({ generation, partition }) =>
    Effect.acquireUseRelease(
      say(`+ ${partition} ${generation}`),
      () => Effect.never,
      () => say(`- ${partition}`)
    )
  )
})
await Effect.runPromise(Effect.scoped(main))
