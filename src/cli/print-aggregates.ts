// Prints the events of an application's aggregates as they are appended, for people who watch `millrace dev`.
import { sealedField } from "../erasure/sealed.ts"
import * as Effect from "effect/Effect"
import { aggregateHeaders } from "../log/envelope.ts"
import type { LogRecord } from "../log/log.ts"
import type { Aggregate } from "../model/aggregate.ts"
import { aggregatesOf } from "../model/application.ts"
import { Erasures } from "../model/erasures.ts"
import type { System } from "../system/system.ts"
import { ownCommand } from "./own-command.ts"
import { terminalLine } from "./terminal-text.ts"

/**
 * Prints a line for each new event of the application's aggregates until interrupted. How to send a command is printed after the first event of an
 * aggregate, and after the first of each type that a policy has caused.
 */
export const watchAggregates = Effect.fnUntraced(function* (
  system: System,
  flag: string,
  print: (line: string) => Effect.Effect<unknown>
) {
  const follow = Effect.fnUntraced(function* (aggregate: Aggregate.Any, partition: number, end: number) {
    const reader = yield* system.log.open(aggregate.name, partition, end)
    while (true) {
      const { records } = yield* reader.take
      for (const record of records) {
        yield* print(lineOf(aggregate, record))
        // no person answers what Millrace itself appends
        if (aggregate.name === Erasures.name) continue
        const isAutomatic = policies.has(record.headers[aggregateHeaders.actor] ?? "")
        const kind = `${aggregate.name} ${isAutomatic ? typeOf(record) : ""}`
        if (shown.has(kind) || (!isAutomatic && shown.has(aggregate.name))) continue
        shown.add(kind).add(aggregate.name)
        const example = exampleOf(aggregate, record.key ?? "", flag)
        if (example !== undefined) yield* print(example)
      }
    }
  })
  const shown = new Set<string>()
  const policies = new Set(system.application.projections.map(({ projection }) => projection.name))
  const partitions = []
  for (const aggregate of aggregatesOf(system.application))
    for (const { end, partition } of yield* system.log.bounds(aggregate.name))
      partitions.push({ aggregate, partition, end })
  yield* Effect.forEach(
    partitions,
    ({ aggregate, end, partition }) => Effect.scoped(follow(aggregate, partition, end)),
    { concurrency: "unbounded", discard: true }
  )
})

/** The command line that sends a command: `acknowledge` if there is one, or the last that is declared. */
const exampleOf = ({ commands, id, name }: Aggregate.Any, stream: string, flag: string): string | undefined => {
  const command = Object.hasOwn(commands, "acknowledge") ? "acknowledge" : Object.keys(commands).at(-1)
  if (command === undefined) return undefined
  const fields = Object.keys(commands[command]!).filter((field) => field !== id)
  const given = fields.map((field) => `${field}=${field === "at" ? Date.now() : field === "by" ? "you" : "…"}`)
  return terminalLine(
    `  answer it: ${ownCommand} aggregate send${flag} ${name} ${stream} ${command} ${given.join(" ")}`
  )
}
const fieldText = (value: unknown): string => {
  if (typeof value === "number") return String(Math.round(value * 100) / 100)
  return typeof value === "string" ? value : JSON.stringify(value)
}
const typeOf = ({ value }: LogRecord): string => String((JSON.parse(value ?? "{}") as { readonly type?: unknown }).type)
const lineOf = ({ id, name }: Aggregate.Any, { eventTime, key, value }: LogRecord): string => {
  const { [sealedField]: sealed, type, ...fields } = JSON.parse(value ?? "{}") as Record<string, unknown>
  const rest = Object.entries(fields)
    .filter(([field]) => field !== id && field !== "at")
    .map(([field, of]) => `${field} ${fieldText(of)}`)
  if (sealed !== undefined) rest.push("personal fields sealed")
  return terminalLine(
    `${new Date(eventTime).toISOString().slice(0, 16).replace("T", " ")}  ${String(type).toUpperCase().replace(".", " ").padEnd(18)} ${name} ${key ?? ""}  ${rest.join("  ")}`
  )
}
