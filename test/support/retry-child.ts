// A child process that retries or discards every dead letter of projections and waits to be killed, just before or just after it appends. Used
// by tests.
//
// node retry-child.ts URL before|after [discard]
import * as Effect from "effect/Effect"
import { appendRetryRecords, discardProjections } from "../../src/system/dead-letters/projections.ts"
import { connect, query } from "../../src/postgres/client/client.ts"
import { retryable } from "../../src/postgres/store/dead-letters.ts"
import * as PostgresLog from "../../src/postgres/log/log.ts"

const [url = "", when = "before", decision = "retry"] = process.argv.slice(2)
const waitToBeKilled = Effect.andThen(
  Effect.sync(() => process.stdout.write("standing\n")),
  Effect.never
)
const main = Effect.gen(function* () {
  const sql = yield* connect(url, { max: 2 })
  const { log } = yield* PostgresLog.make(sql)
  const deadLetters = yield* query("read", () => retryable(sql, { statuses: ["parked", "retrying"], limit: 100 }))
  const waiting: typeof log.append = (topic, records) =>
    when === "before" ? waitToBeKilled : Effect.andThen(log.append(topic, records), waitToBeKilled)
  const stopping = { ...log, append: waiting }
  yield* decision === "discard"
    ? discardProjections({ sql, openLog: Effect.succeed(stopping) }, deadLetters, "child")
    : Effect.asVoid(appendRetryRecords(sql, stopping, deadLetters, "child"))
}).pipe(Effect.scoped)

setInterval(() => undefined, 1_000)
await Effect.runPromise(main)
