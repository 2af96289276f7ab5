// Prints the alerts of an application as they arrive, for people who watch `millrace dev`.
import * as Effect from "effect/Effect"
import { topicsOf } from "../model/application.ts"
import type { LogRecord } from "../log/log.ts"
import { isTimeMark } from "../log/time-mark.ts"
import type { System } from "../system/system.ts"
import { terminalLine } from "./terminal-text.ts"

/** Prints a line for each new record of the topics `alerts` and `alerts.v1`, `.v2` …, until interrupted. */
export const watchAlerts = Effect.fnUntraced(function* (
  system: System,
  print: (line: string) => Effect.Effect<unknown>
) {
  const topics = topicsOf(system.application).filter(
    ({ topic, writtenBy }) => writtenBy.length > 0 && /^alerts(\.v\d+)?$/.test(topic.name)
  )
  const partitions = []
  for (const { topic } of topics) {
    // a topic that goes to Pulsar alone may not exist in the log
    const bounds = Effect.catchTag(system.log.bounds(topic.name), "UnknownTopic", () => Effect.succeed([]))
    for (const { end, partition } of yield* bounds) partitions.push({ topic: topic.name, partition, end })
  }
  const follow = Effect.fnUntraced(function* (topic: string, partition: number, end: number) {
    const reader = yield* system.log.open(topic, partition, end)
    while (true) {
      const { records } = yield* reader.take
      // a topic that another projection reads has time marks
      for (const record of records) if (!isTimeMark(record)) yield* print(lineOf(record))
    }
  })
  yield* Effect.forEach(partitions, ({ end, partition, topic }) => Effect.scoped(follow(topic, partition, end)), {
    concurrency: "unbounded",
    discard: true
  })
})

const lineOf = ({ eventTime, key, tenant, value }: LogRecord): string => {
  const fields = JSON.parse(value ?? "{}") as Record<string, unknown>
  const shown = Object.entries(fields).filter(([name]) => !["alert_id", "entity_id", "occurred_at"].includes(name))
  const rest = shown.map(([name, of]) => `${name} ${typeof of === "number" ? Math.round(of * 100) / 100 : String(of)}`)
  return terminalLine(
    `${new Date(eventTime).toISOString().slice(0, 16).replace("T", " ")}  ALERT  ${(key ?? "").padEnd(8)} ${(tenant ?? "").padEnd(4)} ${rest.join("  ")}`
  )
}
