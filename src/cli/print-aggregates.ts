// Prints the events of an application's aggregates as they are appended, for people who watch `millrace dev`.
import { sealedField } from "../erasure/sealed.ts"
import * as Effect from "effect/Effect"
import type { LogRecord } from "../log/log.ts"
import type { Aggregate } from "../model/aggregate.ts"
import { aggregatesOf, type Application } from "../model/application.ts"
import { Erasures } from "../model/erasures.ts"
import { givenFor } from "../model/fields.ts"
import { functionText } from "../model/function-text.ts"
import type { System } from "../system/system.ts"
import { ownCommand } from "./own-command.ts"
import { terminalLine } from "./terminal-text.ts"

/**
 * Prints a line for each new event of the application's aggregates until interrupted. How to send a command is printed after the first event of an
 * aggregate.
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
        if (shown.has(aggregate.name) || Object.keys(aggregate.commands).length === 0) continue
        shown.add(aggregate.name)
        yield* print(exampleOf(system.application, aggregate, record.key ?? "", flag))
      }
    }
  })
  const shown = new Set<string>()
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

/**
 * The commands of an aggregate that a person sends: those that no policy of the application names in its code as one to send. All of them if
 * that leaves none.
 */
export const commandsForPeople = (
  { projections }: Pick<Application.Any, "projections">,
  { commands, name }: Pick<Aggregate.Any, "commands" | "name">
): ReadonlyArray<string> => {
  const all = Object.keys(commands)
  const policies = projections.filter(({ projection }) => projection.sends.some((sent) => sent.name === name))
  const texts = policies.flatMap(({ projection }) => {
    const handle = givenFor(projection.handle)
    return (typeof handle === "function" ? [handle] : Object.values(handle as object)).map(functionText)
  })
  const others = all.filter((command) => !texts.some((text) => text.includes(`type:"${command}"`)))
  return others.length === 0 ? all : others
}
/** The command line that sends a command, and the commands that people send. */
const exampleOf = (application: Application.Any, aggregate: Aggregate.Any, stream: string, flag: string): string =>
  terminalLine(
    `  send a command: ${ownCommand} aggregate send${flag} ${aggregate.name} ${stream} COMMAND; its commands are ${commandsForPeople(application, aggregate).join(", ")}`
  )
const fieldText = (value: unknown): string => {
  if (typeof value === "number") return String(Math.round(value * 100) / 100)
  return typeof value === "string" ? value : JSON.stringify(value)
}
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
