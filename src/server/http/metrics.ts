// The metrics of the server, in Effect's metric registry, and the Prometheus text of everything in the registry.
import type * as Context from "effect/Context"
import * as Metric from "effect/Metric"

// upper bounds in seconds: from an append in memory to a database in trouble
const seconds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

const accepted = Metric.counter("millrace_gateway_events_accepted_total", {
  description: "Events that the log has taken, by topic",
  incremental: true
})
const rejected = Metric.counter("millrace_gateway_events_rejected_total", {
  description: "Events that were not taken, by the code of the reason",
  incremental: true
})
const refused = Metric.counter("millrace_http_requests_refused_total", {
  description: "Requests that were refused as a whole, by code",
  incremental: true
})
const appends = Metric.histogram("millrace_gateway_append_seconds", {
  description: "Time from handing records to the log until it has them, by topic",
  boundaries: seconds
})
const streams = Metric.gauge("millrace_streams_open", { description: "Event streams that are open" })
const ended = Metric.counter("millrace_streams_ended_total", {
  description: "Event streams that the server ended, by the reason",
  incremental: true
})

/** The counters of the server. Names and labels of metrics are stable. */
export interface Metrics {
  readonly accepted: (topic: string, events: number) => void
  readonly rejected: (code: string, events: number) => void
  readonly refused: (code: string) => void
  readonly appended: (topic: string, millis: number) => void
  readonly streams: (open: number) => void
  readonly streamEnded: (reason: string) => void
  /** Everything in the registry, in Prometheus' text format. */
  readonly text: () => Promise<string>
}

/** Creates metrics that write to the registry of the context, outside of any fiber. */
export const metricsOf = (context: Context.Context<never>): Metrics => {
  const labelled = <Input, State>(metric: Metric.Metric<Input, State>, label: string) => {
    const known = new Map<string, Metric.Metric<Input, State>>()
    return (value: string, input: Input): void => {
      let one = known.get(value)
      if (one === undefined) known.set(value, (one = Metric.withAttributes(metric, { [label]: value })))
      one.updateUnsafe(input, context)
    }
  }
  const appended = labelled(appends, "topic")
  const refusedBy = labelled(refused, "code")
  const endedBy = labelled(ended, "reason")
  return {
    accepted: labelled(accepted, "topic"),
    rejected: labelled(rejected, "code"),
    refused: (code) => refusedBy(code, 1),
    appended: (topic, millis) => appended(topic, millis / 1000),
    streams: (open) => streams.updateUnsafe(open, context),
    streamEnded: (reason) => endedBy(reason, 1),
    // imported on first use, because it imports Effect's HTTP modules
    text: async () => (await import("effect/observability/PrometheusMetrics")).formatUnsafe(context)
  }
}
