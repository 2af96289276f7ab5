// A relay to Pulsar as a process of its own, for tests that kill and stop it. Prints a line once it runs.
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { connect } from "../../src/postgres/client.ts"
import * as PostgresOutbox from "../../src/postgres/outbox.ts"
import type { Options } from "../../src/pulsar/options.ts"
import * as PulsarRelay from "../../src/pulsar/relay.ts"
import * as Relay from "../../src/relay.ts"

/** What the parent says, as JSON in the first argument. */
export interface Given {
  readonly url: string
  readonly options: Options
  readonly prefix: string
}
const { options, prefix, url } = JSON.parse(process.argv[2]!) as Given
const main = Effect.gen(function* () {
  const sql = yield* connect(url, { max: 4 })
  const target = yield* PulsarRelay.make(options, PostgresOutbox.make(sql), { prefix })
  process.stdout.write("running\n")
  yield* Relay.run(target, { pollMs: 50 })
})
await Effect.runPromise(Effect.scoped(main).pipe(Effect.provide(Logger.layer([]))))
