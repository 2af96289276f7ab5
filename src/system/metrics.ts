// The metrics of the whole system, which every process reports: how far behind everything is, from one reading of the status for all scrapes.
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"
import { countByProjection, countByTarget, type DeadLetterCount } from "../postgres/store/status.ts"
import type { Sql, SqlError } from "../postgres/client/client.ts"
import type { Reading } from "./shared-reading.ts"
import type { Status } from "./status.ts"

const gauge = (name: string, description: string) => Metric.gauge(name, { description })
const gauges = {
  up: gauge(
    "millrace_status_up",
    "1 if the last reading of the system's status succeeded; else the metrics of the system are those of the last that did"
  ),
  age: gauge("millrace_status_age_seconds", "Age of the reading that the metrics of the system come from"),
  healthy: gauge("millrace_healthy", "1 if the system is healthy, as millrace status judges"),
  processes: gauge("millrace_processes", "Processes that run, by role"),
  lag: gauge("millrace_projection_lag", "Records of the partition that are not processed"),
  oldest: gauge(
    "millrace_projection_oldest_seconds",
    "Age of the oldest record of the partition that is not processed; 0 if there is none"
  ),
  halted: gauge("millrace_projection_halted", "1 if the partition is halted until a person acts"),
  waiting: gauge("millrace_projection_waiting", "1 if the partition failed and is tried again"),
  deadLetters: gauge(
    "millrace_projection_dead_letters",
    "Dead letters of the projection that are neither retried nor discarded, by status"
  ),
  relayLag: gauge("millrace_relay_lag", "Messages for the target that it does not have"),
  relayOldest: gauge(
    "millrace_relay_oldest_seconds",
    "Age of the oldest message for the target that it does not have; 0 if there is none"
  ),
  relayHalted: gauge("millrace_relay_halted_streams", "Streams of the relay that are halted until a person acts"),
  projectionDelay: gauge(
    "millrace_projection_delay_seconds",
    "How long the newest record that the live build has processed waited, from its append to the commit of its rows"
  ),
  relayDelay: gauge(
    "millrace_relay_delay_seconds",
    "How long the newest messages that the target has waited, from the commit of the rows until the target had them"
  ),
  relayParked: gauge(
    "millrace_relay_parked",
    "Messages that the target refused and that are neither retried nor discarded, by status"
  ),
  timers: gauge("millrace_timers", "Timers and commands that wait, by state: waiting for their time, due, or failing"),
  undelivered: gauge("millrace_subscription_undelivered", "Messages that the subscription has not delivered yet"),
  unacknowledged: gauge(
    "millrace_subscription_unacknowledged",
    "Messages that the subscription has delivered and that are not acknowledged"
  ),
  consumed: gauge("millrace_subscription_consumed", "1 if a consumer is connected to the subscription")
}

/** What the metrics of the system are computed from. */
export interface SystemFacts {
  readonly status: Status
  readonly deadLetters: ReadonlyArray<DeadLetterCount>
  readonly parked: ReadonlyArray<DeadLetterCount>
}
/** Reads what the metrics need beside the status. */
export const withCounts = <E>(sql: Sql, status: Effect.Effect<Status, E>): Effect.Effect<SystemFacts, E | SqlError> =>
  Effect.gen(function* () {
    return { status: yield* status, deadLetters: yield* countByProjection(sql), parked: yield* countByTarget(sql) }
  })

type Labels = Readonly<Record<string, string>>
const seconds = (ms: number | null) => (ms ?? 0) / 1000
const flag = (is: boolean) => (is ? 1 : 0)

/** Sets the gauges of what was read. Ages have grown since then by `ageMs`. */
const setAll = (
  set: (metric: Metric.Gauge<number>, value: number, labels?: Labels) => void,
  { deadLetters, parked, status }: SystemFacts,
  ageMs: number
) => {
  set(gauges.healthy, flag(status.healthy))
  const running = status.processes.filter((one) => one.running)
  for (const role of ["gateway", "projections", "relay", "api"])
    set(gauges.processes, running.filter(({ roles }) => roles.includes(role)).length, { role })
  for (const { halted, lag, name, oldest_ms, partition, topic, version, waiting } of status.projections) {
    const labels = { projection: `${name}_v${version}`, topic, partition: String(partition) }
    set(gauges.lag, lag, labels)
    set(gauges.oldest, seconds(oldest_ms === null ? null : oldest_ms + ageMs), labels)
    set(gauges.halted, flag(halted !== null), labels)
    set(gauges.waiting, flag(waiting !== null), labels)
  }
  for (const { count, of, status: state } of deadLetters)
    set(gauges.deadLetters, count, { projection: of, status: state })
  for (const { halted_streams, lag, oldest_ms, target } of status.relays) {
    set(gauges.relayLag, lag, { target })
    set(gauges.relayOldest, seconds(oldest_ms === null ? null : oldest_ms + ageMs), { target })
    set(gauges.relayHalted, halted_streams, { target })
  }
  for (const { projection, projection_ms, topic } of status.delays.projections)
    set(gauges.projectionDelay, seconds(projection_ms), { projection, topic })
  for (const { relay_ms, target } of status.delays.relays) set(gauges.relayDelay, seconds(relay_ms), { target })
  for (const { count, of, status: state } of parked) set(gauges.relayParked, count, { target: of, status: state })
  const { due, failing, waiting } = status.timers
  for (const [state, number] of Object.entries({ waiting, due, failing })) set(gauges.timers, number, { state })
  for (const { consumed, subscription, topic, unacknowledged, undelivered } of status.subscriptions) {
    const labels = { topic, subscription }
    set(gauges.undelivered, undelivered, labels)
    set(gauges.unacknowledged, unacknowledged, labels)
    set(gauges.consumed, flag(consumed), labels)
  }
}

/** A reading as Prometheus text. A registry for each text leaves out what is no longer there, such as a partition or a subscription. */
export const systemMetricsText = ({ ageMs, failure, value }: Reading<SystemFacts>): Effect.Effect<string> =>
  Effect.promise(async () => {
    const context = Context.make(Metric.MetricRegistry, new Map())
    const set = (metric: Metric.Gauge<number>, number: number, labels: Labels = {}) =>
      Metric.withAttributes(metric, labels).updateUnsafe(number, context)
    set(gauges.up, flag(failure === undefined))
    if (value !== undefined) {
      set(gauges.age, ageMs / 1000)
      setAll(set, value, ageMs)
    }
    // imported on first use, because it imports Effect's HTTP modules
    return (await import("effect/observability/PrometheusMetrics")).formatUnsafe(context)
  })
