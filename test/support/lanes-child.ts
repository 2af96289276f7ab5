// A child process that claims lanes of relays, for tests that suspend it.
//
// node lanes-child.ts URL TARGET...: prints a line after each claim with the lanes that it has, such as `kafka 0,1`.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { connect } from "../../src/postgres/client/client.ts"
import * as PostgresOutbox from "../../src/postgres/relay/outbox.ts"

const [url = "", ...targets] = process.argv.slice(2)

const main = Effect.gen(function* () {
  const outbox = PostgresOutbox.make(yield* connect(url))
  yield* Effect.forEach(
    targets,
    Effect.fnUntraced(function* (target) {
      const lanes = yield* outbox.lanes(target, 2, (lane) => `test/${lane}`)
      while (true) {
        // a session that was ended reconnects
        const { held } = yield* Effect.retry(lanes.claim(2), Schedule.spaced("50 millis"))
        process.stdout.write(`${target} ${held.join()}\n`)
        yield* Effect.sleep(200)
      }
    }),
    { concurrency: "unbounded" }
  )
}).pipe(Effect.scoped)

await Effect.runPromise(main)
