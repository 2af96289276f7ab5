// A writer process: executes the commands that the harness sends it over the channel of `fork`, and sends back the answers.
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { Aggregate } from "../../../src/aggregate/aggregate.ts"
import { EventStore, type EventStore as Store, type NewEvent } from "../../../src/aggregate/event-store.ts"
import { StreamBusy, SubjectErased, VersionConflict } from "../../../src/index.ts"
import { connect, type Sql } from "../../../src/postgres/client/client.ts"
import * as PostgresLog from "../../../src/postgres/log/log.ts"
import { eraseSubject } from "../../../src/system/erasure.ts"
import { openEvents } from "../../../src/system/open-event-store.ts"
import application, { Ledger } from "./application.config.ts"
import { Job } from "./bells.ts"
import { decide } from "./desk.ts"
import type { Numbered, Reply, Request, SideRequest } from "./messages.ts"
import { Person } from "./people.ts"

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
  return Effect.map(Aggregate.execute(Ledger, stream, command, { commandId: id, expected }), executed)
}
type Side<K> = Extract<SideRequest, { readonly kind: K }>
/** What a command on a stream of its own answered. */
const executed = ({ events, position, repeated, version }: Executed): Reply => ({
  kind: "executed",
  version,
  count: events.length,
  position: position === undefined ? "" : `${position.partition}:${position.position}`,
  repeated
})
interface Executed {
  readonly events: ReadonlyArray<unknown>
  readonly position: { readonly partition: number; readonly position: number } | undefined
  readonly repeated: boolean
  readonly version: number
}
interface Opened extends Pick<Effect.Success<ReturnType<typeof openEvents>>, "eventStore" | "subjectKeys"> {
  readonly sql: Sql
}
const place = ({ afterMs, id, job }: Side<"place">) =>
  Aggregate.execute(Job, job, { type: "place", after_ms: afterMs }, { commandId: id })
const cancel = ({ id, job }: Side<"cancel">) => Aggregate.execute(Job, job, { type: "cancel" }, { commandId: id })
const write = ({ id, person, text }: Side<"write">) =>
  Aggregate.execute(Person, person, { type: "write", text }, { commandId: id })
/** Answers a request. Fails with what it fails with. */
const answer = (
  { sql, ...opened }: Opened,
  request: Request | SideRequest
): Effect.Effect<Reply, unknown, EventStore> => {
  switch (request.kind) {
    case "decide":
      return decide(request)
    case "place":
      return Effect.map(place(request), executed)
    case "cancel":
      return Effect.map(cancel(request), executed)
    case "write":
      return Effect.map(write(request), executed)
    case "erase":
      return Effect.as(eraseSubject({ application, sql, ...opened }, request.person, "asked"), { kind: "erased" })
    case "read":
      return Effect.map(Aggregate.load(Person, request.person), ({ state: { texts } }) => ({ kind: "state", texts }))
    default:
      return execute(opened.eventStore, request)
  }
}
const errorOf = (cause: Cause.Cause<unknown>) => cause.reasons.find((one) => one._tag === "Fail")?.error
const replyOf = (opened: Opened, request: Request | SideRequest): Effect.Effect<Reply> =>
  Effect.matchCause(answer(opened, request).pipe(Effect.provideService(EventStore, opened.eventStore)), {
    onSuccess: (reply): Reply => reply,
    onFailure: (cause): Reply => {
      const error = errorOf(cause)
      if (error instanceof VersionConflict) return { kind: "conflict", actual: error.actual }
      // one that is answered again was read from the database, and is no instance of its class
      const tag = (error as { readonly _tag?: string } | undefined)?._tag
      if (tag === "Overdrawn" || tag === "Refused") return { kind: "rejected", tag }
      if (error instanceof SubjectErased) return { kind: "erased" }
      const { inDoubt, retryable } = (error ?? {}) as { readonly inDoubt?: boolean; readonly retryable?: boolean }
      const again = error instanceof StreamBusy || retryable === true || inDoubt === true
      return { kind: again ? "again" : "failed", reason: String(error ?? cause) }
    }
  })

process.on("disconnect", () => process.kill(process.pid, "SIGKILL"))
await Effect.runPromise(
  Effect.scoped(
    Effect.gen(function* () {
      const url = process.env["MILLRACE_DATABASE_URL"]!
      // the server may be recovering
      const again = Schedule.spaced("100 millis")
      const sql = yield* Effect.retry(connect(url, { max: 6, applicationName: "writer" }), again)
      // wakes the readers of worker processes
      const { appended } = yield* Effect.retry(PostgresLog.make(sql), again)
      const judgesAll = process.env["FAULT_JUDGES"] === "yes"
      const opened = { ...(yield* openEvents(sql, { application, appended, judgesAll })), sql }
      process.on("message", ({ n, of }: Numbered<Request | SideRequest>) => {
        void Effect.runPromise(replyOf(opened, of)).then((reply) => process.send?.({ n, of: reply }))
      })
      process.send?.("ready")
      return yield* Effect.never
    })
  )
)
