// A writer process: executes the commands that the harness sends it over the channel of `fork`, and sends back the answers.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { Aggregate } from "../../../src/aggregate/aggregate.ts"
import { EventStore, type EventStore as Store, type NewEvent } from "../../../src/aggregate/event-store.ts"
import { connect } from "../../../src/postgres/client/client.ts"
import * as PostgresEvents from "../../../src/postgres/events/events.ts"
import application, { Ledger } from "./application.config.ts"
import type { Numbered, Reply, Request } from "./messages.ts"

const rawEvent = (ledger_id: string, amount: number): NewEvent => ({
  type: "ledger.added",
  // the numbers that no decision has
  value: JSON.stringify({ type: "ledger.added", ledger_id, amount, total: 0, count: 0 }),
  eventId: undefined,
  eventTime: undefined,
  tenant: undefined,
  traceparent: undefined,
  schemaVersion: undefined,
  headers: {}
})
const execute = (store: Store["Service"], { amounts, expected, id, kind, stream }: Request) => {
  if (kind === "raw") {
    const events = amounts.map((amount) => rawEvent(stream, amount))
    return Effect.map(
      store.append({ aggregate: Ledger.name, stream, expected, events, digest: JSON.stringify(amounts) }, id),
      ({ firstVersion, partition, position, repeated, version }): Reply => {
        const count = version - firstVersion + 1
        return { kind: "executed", version, count, position: `${partition}:${position + count - 1}`, repeated }
      }
    )
  }
  const command = kind === "add" ? { type: kind, amounts } : { type: kind, amount: amounts[0]! }
  return Effect.map(
    Aggregate.execute(Ledger, stream, command, { commandId: id, expected }),
    ({ events, position, repeated, version }): Reply => ({
      kind: "executed",
      version,
      count: events.length,
      position: position === undefined ? "" : `${position.partition}:${position.position}`,
      repeated
    })
  )
}
const replyOf = (store: Store["Service"], request: Request) =>
  Effect.matchCause(execute(store, request).pipe(Effect.provideService(EventStore, store)), {
    onSuccess: (reply): Reply => reply,
    onFailure: (cause): Reply => {
      const error = cause.reasons.find((one) => one._tag === "Fail")?.error
      if (error === undefined) return { kind: "failed", reason: String(cause) }
      if (error._tag === "VersionConflict") return { kind: "conflict", actual: error.actual }
      if (error._tag === "Overdrawn") return { kind: "rejected", tag: error._tag }
      const again = error._tag === "StreamBusy" || (error._tag === "EventStoreError" && error.retryable)
      return { kind: again ? "again" : "failed", reason: `${error._tag}: ${error.message}` }
    }
  })

process.on("disconnect", () => process.kill(process.pid, "SIGKILL"))
await Effect.runPromise(
  Effect.scoped(
    Effect.gen(function* () {
      const url = process.env["MILLRACE_DATABASE_URL"]!
      // the server may be recovering
      const sql = yield* Effect.retry(
        connect(url, { max: 6, applicationName: "writer" }),
        Schedule.spaced("100 millis")
      )
      const { store } = PostgresEvents.make(sql, { application })
      process.on("message", ({ n, of }: Numbered<Request>) => {
        void Effect.runPromise(replyOf(store, of)).then((reply) => process.send?.({ n, of: reply }))
      })
      process.send?.("ready")
      return yield* Effect.never
    })
  )
)
