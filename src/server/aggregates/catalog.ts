// The aggregates of an application by name, and what a request names that they do not have. Pure.
import type { Aggregate } from "../../model/aggregate.ts"
import { Erasures } from "../../model/erasures.ts"
import { aggregatesOf, type Application } from "../../model/application.ts"
import { adviceFor } from "../../text/similar-names.ts"
import { shown } from "../../text/text.ts"
import { Problem } from "../http/problem.ts"

/** All aggregates by name. */
export type Aggregates = ReadonlyMap<string, Aggregate.Any>

/** The aggregates of an application by name. */
export const aggregatesByName = (application: Application.Any): Aggregates =>
  new Map(
    aggregatesOf(application)
      .filter(({ name }) => name !== Erasures.name)
      .map((aggregate) => [aggregate.name, aggregate])
  )

/** The aggregate with a name. Throws a `Problem` 404 if the application has none. */
export const knownAggregate = (aggregates: Aggregates, name: string): Aggregate.Any => {
  const found = aggregates.get(name)
  if (found !== undefined) return found
  throw new Problem(
    404,
    "unknown_aggregate",
    `the application has no aggregate ${shown(name)}`,
    adviceFor(name, [...aggregates.keys()]) ?? "list aggregates in Application.make"
  )
}
/** Throws a `Problem` 404 if the aggregate has no command with this name. */
export const assertCommand = ({ commands, name: aggregate }: Aggregate.Any, name: string): void => {
  if (Object.hasOwn(commands, name)) return
  throw new Problem(
    404,
    "unknown_command",
    `the aggregate ${aggregate} has no command ${shown(name)}`,
    adviceFor(name, Object.keys(commands)) ?? "declare commands in Aggregate.make"
  )
}
