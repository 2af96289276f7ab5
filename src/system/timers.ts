// Runs the worker of timers in a process with the role of projections, and counts what becomes of the commands.
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { EventStore } from "../aggregate/event-store.ts"
import { runTimers, type TimerOutcome } from "../aggregate/timer-worker.ts"
import { type DueCommand, Timers } from "../aggregate/timers.ts"
import { type Application, aggregatesOf } from "../model/application.ts"
import type { Sql } from "../postgres/client/client.ts"
import * as PostgresTimers from "../postgres/events/timers.ts"
import { again } from "../relay/supervised.ts"
import type { Presence } from "./presence.ts"

const commands = Metric.counter("millrace_commands_total", {
  description: "Commands of policies and timers that this process has worked on, by what became of them",
  incremental: true
})
const counted = (outcome: TimerOutcome, number: number) =>
  Metric.update(Metric.withAttributes(commands, { outcome }), number)
const nameOf = ({ projection, timer }: DueCommand) =>
  timer === undefined ? `a command that ${projection} sent` : `timer ${timer} of ${projection}`
const settled = (command: DueCommand, outcome: TimerOutcome, reason = "") =>
  Effect.gen(function* () {
    yield* counted(outcome, 1)
    if (outcome === "failed") yield* Effect.logWarning(`${nameOf(command)} failed and is tried again: ${reason}`)
    if (outcome === "rejected")
      yield* Effect.logDebug(`${nameOf(command)} was rejected by ${command.aggregate} ${command.stream}: ${reason}`)
  })

/** What of a system the worker needs. */
export interface TimerParts {
  readonly application: Application.Any
  readonly database: { readonly sql: Sql }
  readonly eventStore: EventStore["Service"]
  readonly presence: Presence
}
/** Executes commands that are due until interrupted. What ends it is reported, and it starts again. */
export const executeTimers = ({
  application,
  database: { sql },
  eventStore,
  presence
}: TimerParts): Effect.Effect<never> => {
  const what = "the execution of timers"
  const run = runTimers({ aggregates: aggregatesOf(application), settled }).pipe(
    Effect.provideService(EventStore, eventStore),
    Effect.provideService(Timers, PostgresTimers.make(sql))
  )
  const ended = (reason: string, againMs: number) => presence.failures.report(what, reason, againMs)
  const outcomes = ["executed", "rejected", "failed", "gone"] as const
  const begin = Effect.forEach(outcomes, (outcome) => counted(outcome, 0), { discard: true })
  return Effect.andThen(begin, again(what, run, { ended }))
}
