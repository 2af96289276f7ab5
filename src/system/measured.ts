// Counts what a process's projections and relays do, as metrics, and notes what they try again.
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import {
  haltedStreamSubject,
  type OngoingFailures,
  projectionSubject,
  relaySubject,
  waitingStreamSubject
} from "../monitor/ongoing-failures.ts"
import type { RelayError, RelayTarget, StreamHalt } from "../relay/target.ts"
import { Store } from "../runner/store.ts"

const counter = (name: string, description: string) => Metric.counter(name, { description, incremental: true })
const duplicates = counter(
  "millrace_projection_duplicates_total",
  "Events that were ignored because they were duplicates"
)
const late = counter("millrace_projection_late_events_total", "Contributions of events that came too late for a window")
const deadLetters = counter(
  "millrace_projection_dead_letters_total",
  "Events that failed and became dead letters, by status"
)
const commits = counter("millrace_projection_commits_total", "Batches that were committed")
const commitFailures = counter(
  "millrace_projection_failures_total",
  "Commits and claims of partitions that failed, whether they are tried again or not"
)
const messages = counter("millrace_relay_messages_total", "Messages that this process published, by relay target")
const relayFailures = counter(
  "millrace_relay_failures_total",
  "Attempts of a relay to open its target, to connect and to publish that failed and are tried again, by target"
)

const add = (metric: Metric.Counter<number>, attributes: Readonly<Record<string, string>>, number: number) =>
  number === 0 ? Effect.void : Metric.update(Metric.withAttributes(metric, attributes), number)

/** Counters of projections begin at 0 when their process starts, so that rates are known from the first failure on. */
export const beginProjectionCounters = (projections: ReadonlyArray<string>) =>
  Effect.forEach(
    projections.flatMap((projection) => [
      ...[duplicates, late, commits, commitFailures].map((metric) => Metric.withAttributes(metric, { projection })),
      ...["parked", "skipped"].map((status) => Metric.withAttributes(deadLetters, { projection, status }))
    ]),
    (metric) => Metric.update(metric, 0),
    { discard: true }
  )
/** The same for relays. */
export const beginRelayCounters = (targets: ReadonlyArray<string>) =>
  Effect.forEach(
    targets.flatMap((target) => [messages, relayFailures].map((metric) => Metric.withAttributes(metric, { target }))),
    (metric) => Metric.update(metric, 0),
    { discard: true }
  )

/** The store, which counts what is committed. A commit ends the failure of its partition. */
export const measuredStore = (store: Store["Service"], failures: OngoingFailures): Store["Service"] =>
  Store.of({
    ...store,
    claim: (projection, ...rest) =>
      Effect.tapError(store.claim(projection, ...rest), () =>
        add(commitFailures, { projection: `${projection.name}_v${projection.version}` }, 1)
      ),
    commit: (projection, claim, changes) => {
      const attributes = { projection: `${projection.name}_v${projection.version}` }
      return store.commit(projection, claim, changes).pipe(
        Effect.tap(() =>
          Effect.gen(function* () {
            failures.clear(projectionSubject(claim))
            yield* add(commits, attributes, 1)
            yield* add(duplicates, attributes, changes.duplicates)
            yield* add(late, attributes, changes.late.length)
            for (const status of ["parked", "skipped"] as const) {
              const number = changes.deadLetters.filter((one) => one.status === status).length
              yield* add(deadLetters, { ...attributes, status }, number)
            }
          })
        ),
        Effect.tapError(() => add(commitFailures, attributes, 1))
      )
    }
  })

/** Counts the failures and defects of an effect of a relay, not its interruption. */
const counted = <A, E, R>(effect: Effect.Effect<A, E, R>, target: string): Effect.Effect<A, E, R> =>
  Effect.tapCause(effect, (cause) => (Cause.hasInterruptsOnly(cause) ? Effect.void : add(relayFailures, { target }, 1)))

/** Opens a relay target, which counts what is published, and counts and notes what fails, opening included. */
export const measuredRelay = <R>(
  name: string,
  open: Effect.Effect<RelayTarget, RelayError, R>,
  failures: OngoingFailures
): Effect.Effect<RelayTarget, RelayError, R> => Effect.map(counted(open, name), (target) => measured(target, failures))

const measured = (target: RelayTarget, failures: OngoingFailures): RelayTarget => {
  const { name } = target
  const note = (subject: string, [first]: ReadonlyArray<StreamHalt>, state: string) =>
    first === undefined
      ? failures.clear(subject)
      : failures.report(subject, `${first.projection} ${first.source}/${first.partition} ${state}: ${first.reason}`)
  const publish = target.publish.pipe(
    Effect.tap((round) => {
      failures.clear(relaySubject(name))
      note(haltedStreamSubject(name), round.halted, "is halted")
      note(waitingStreamSubject(name), round.waiting ?? [], "waits")
      const failed = add(relayFailures, { target: name }, round.failures ?? 0)
      return Effect.andThen(failed, add(messages, { target: name }, round.messages))
    }),
    Effect.tapError((error) => Effect.sync(() => failures.report(relaySubject(name), error.reason)))
  )
  return { ...target, publish: counted(publish, name) }
}
