// Lists the topics of a system's log: those that the application declares, with who reads and writes them, and those that only the log has.
import * as Effect from "effect/Effect"
import type { PartitionBounds } from "../log/log.ts"
import { aggregatesOf, type Application, topicsOf } from "../model/application.ts"
import type { Projection } from "../model/projection.ts"
import { query } from "../postgres/client/client.ts"
import type { LogOnPostgres, OpenedLog } from "./open-log.ts"

/** What a topic has: events that others append, values of a lookup, messages of projections, or the events of an aggregate. */
export type TopicKind = "events" | "lookup" | "derived" | "aggregate" | "undeclared"

/** A topic, its partitions, and who uses it. */
export interface ListedTopic {
  readonly topic: string
  readonly kind: TopicKind
  readonly compacted: boolean
  /** The first and the next position of each partition; undefined if the log does not have the topic. */
  readonly bounds: ReadonlyArray<PartitionBounds> | undefined
  /** The projections that publish it, or `commands` for the topic of an aggregate. Empty for a topic that clients send to. */
  readonly writtenBy: ReadonlyArray<string>
  /** The projections that process its records, or look values of it up. */
  readonly readBy: ReadonlyArray<string>
}

/** The names of the topics that a log on PostgreSQL has. Empty for a log on Kafka, where other programs' topics are. */
export const logTopicNames = (opened: OpenedLog | Pick<LogOnPostgres, "on" | "sql">) =>
  opened.on === "Kafka"
    ? Effect.succeed([])
    : query(
        "read the topics",
        () => opened.sql<Array<{ readonly name: string }>>`select name from millrace.log_topic order by name`
      ).pipe(Effect.map((rows) => rows.map(({ name }) => name)))

const readersOf = (application: Application.Any, topic: string): ReadonlyArray<string> =>
  application.projections
    .map(({ projection }) => projection as Projection.Any)
    .filter(
      ({ enrich, sources }) =>
        sources.some(({ name }) => name === topic) ||
        Object.values(enrich).some((lookup) => lookup.topic.name === topic)
    )
    .map(({ name }) => name)

/** The topics that an application declares, without their bounds. */
export const declaredTopics = (application: Application.Any): ReadonlyArray<Omit<ListedTopic, "bounds">> => {
  const looked = new Set(
    application.projections.flatMap(({ projection }) =>
      Object.values((projection as Projection.Any).enrich).map(({ topic }) => topic.name)
    )
  )
  const topics = topicsOf(application).map(({ topic: { compacted = false, name }, writtenBy }) => ({
    topic: name,
    kind: writtenBy.length > 0 ? ("derived" as const) : looked.has(name) ? ("lookup" as const) : ("events" as const),
    compacted,
    writtenBy,
    readBy: readersOf(application, name)
  }))
  const aggregates = aggregatesOf(application).map(({ name }) => ({
    topic: name,
    kind: "aggregate" as const,
    compacted: false,
    writtenBy: ["commands"],
    readBy: readersOf(application, name)
  }))
  return [...topics, ...aggregates]
}

/** Lists the declared topics, and those that a log on PostgreSQL has beside them. */
export const listTopics = Effect.fnUntraced(function* (application: Application.Any, opened: OpenedLog) {
  const declared = declaredTopics(application)
  const names = new Set(declared.map(({ topic }) => topic))
  const others = (yield* logTopicNames(opened))
    .filter((name) => !names.has(name))
    .map((topic) => ({ topic, kind: "undeclared" as const, compacted: false, writtenBy: [], readBy: [] }))
  return yield* Effect.forEach(
    [...declared, ...others],
    (one) =>
      opened.log.bounds(one.topic).pipe(
        Effect.catchTag("UnknownTopic", () => Effect.undefined),
        Effect.map((bounds): ListedTopic => Object.assign(one, { bounds }))
      ),
    { concurrency: 8 }
  )
})
