// A process of the harness that relays to Pulsar.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { connect } from "../../../src/postgres/client/client.ts"
import * as PostgresOutbox from "../../../src/postgres/relay/outbox.ts"
import type { PulsarOptions } from "../../../src/pulsar/client/options.ts"
import * as PulsarRelay from "../../../src/pulsar/relay/relay.ts"
import * as Relay from "../../../src/relay/relay.ts"

/** What the harness passes as JSON in MILLRACE_FAULT. */
export interface RelayGiven {
  readonly url: string
  readonly options: PulsarOptions
  readonly relay: PulsarRelay.PulsarRelayOptions
}
const { options, relay, url } = JSON.parse(process.env["MILLRACE_FAULT"]!) as RelayGiven
const again = {
  while: ({ retryable }: { readonly retryable: boolean }) => retryable,
  schedule: Schedule.spaced("200 millis")
}
const running = new AbortController()
process.once("SIGTERM", () => running.abort())
const main = Effect.gen(function* () {
  const sql = yield* Effect.retry(connect(url, { max: 4 }), again)
  // a supervisor would start it again
  const target = yield* Effect.retry(PulsarRelay.make(options, PostgresOutbox.make(sql), relay), again)
  process.stdout.write("point: up\n")
  yield* Relay.run(target, { pollMs: 50 })
})
const exit = await Effect.runPromiseExit(Effect.scoped(main), { signal: running.signal })
if (!running.signal.aborted) process.stderr.write(`${JSON.stringify(exit)}\n`)
process.exit(running.signal.aborted ? 0 : 1)
