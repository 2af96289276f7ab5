// A process of its own that retries every dead letter, and stops just before or after it appends to wait to be killed; not a test itself.
//
// node retry-child.ts URL before|after
import * as Effect from "effect/Effect"
import { appendRetryRecords } from "../../src/system/dead-letters/projections.ts"
import { connect, query } from "../../src/postgres/client/client.ts"
import { retryable } from "../../src/postgres/store/dead-letters.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"

const [url = "", when = "before"] = process.argv.slice(2)
const stand = Effect.andThen(
  Effect.sync(() => process.stdout.write("standing\n")),
  Effect.never
)
const main = Effect.gen(function* () {
  const sql = yield* connect(url, { max: 2 })
  const { log } = yield* PostgresLog.make(sql)
  const letters = yield* query("read", () => retryable(sql, { statuses: ["parked", "retrying"], limit: 100 }))
  const standing: typeof log.append = (topic, records) =>
    when === "before" ? stand : Effect.andThen(log.append(topic, records), stand)
  yield* appendRetryRecords(sql, { ...log, append: standing }, letters, "child")
}).pipe(Effect.scoped)

setInterval(() => undefined, 1_000)
await Effect.runPromise(main)
