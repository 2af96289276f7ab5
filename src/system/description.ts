// Describes what an application declares, for a screen or a program: topics, aggregates, projections with what each reads and writes, and relays. Pure.
import { aggregatesOf, type Application, topicsOf } from "../model/application.ts"
import { writtenTopics } from "../model/chains.ts"
import { deadLetterTopics } from "../model/dead-letter-topic.ts"
import { Erasures } from "../model/erasures.ts"
import type { Writable } from "../model/handler.ts"
import type { Projection, Run } from "../model/projection.ts"
import * as PostgresRelay from "../postgres/relay/to-log.ts"
import { skippedTopics } from "./open-relays.ts"
import { declaredTopics, type TopicKind } from "./topic-list.ts"

/** A topic as it is declared. Names of fields are those that the HTTP API has. */
export interface DescribedTopic {
  readonly name: string
  readonly kind: TopicKind
  /** The types of its events; empty if its values have one shape. */
  readonly types: ReadonlyArray<string>
  /** Whether projections put events there that failed. */
  readonly dead_letters: boolean
  /** The relay targets that its messages go to; empty for a topic that no projection or aggregate publishes. */
  readonly relays: ReadonlyArray<string>
}
/** An aggregate as it is declared. */
export interface DescribedAggregate {
  readonly name: string
  readonly commands: ReadonlyArray<string>
  readonly events: ReadonlyArray<string>
}
/** A projection as it is declared. Lists have names. */
export interface DescribedProjection {
  readonly name: string
  readonly version: number
  /** `live`: folded when it is read. */
  readonly lifecycle: Run<unknown, unknown>["lifecycle"]
  /** The topics and aggregates that it processes. */
  readonly reads: ReadonlyArray<string>
  /** The topics that it looks values up in. */
  readonly looks_up: ReadonlyArray<string>
  readonly tables: ReadonlyArray<string>
  readonly windows: ReadonlyArray<string>
  /** The topics that it publishes to, those of its windows included; dead-letter topics are in `fails_to`. */
  readonly publishes: ReadonlyArray<string>
  readonly fails_to: ReadonlyArray<string>
  /** The aggregates that it sends commands to: then it is a policy. */
  readonly sends_to: ReadonlyArray<string>
}
/** What an application declares. */
export interface ApplicationDescription {
  readonly name: string
  readonly topics: ReadonlyArray<DescribedTopic>
  readonly aggregates: ReadonlyArray<DescribedAggregate>
  readonly projections: ReadonlyArray<DescribedProjection>
  readonly views: ReadonlyArray<string>
  /** The names of the relay targets. */
  readonly relays: ReadonlyArray<string>
}

const named = (things: ReadonlyArray<{ readonly name: string }>) => [...new Set(things.map(({ name }) => name))]
const projectionOf = (projection: Projection.Any, lifecycle: DescribedProjection["lifecycle"]): DescribedProjection => {
  const { enrich, name, sends, sources, version, writes } = projection
  const models = (kind: Writable["kind"]) =>
    named((writes as ReadonlyArray<Writable>).filter((one) => one.kind === kind))
  return {
    name,
    version,
    lifecycle,
    reads: named(sources),
    looks_up: named(Object.values(enrich).map(({ topic }) => topic)),
    tables: models("table"),
    windows: models("window"),
    publishes: named(writtenTopics(projection)),
    fails_to: named(deadLetterTopics(projection)),
    sends_to: named(sends)
  }
}

/** Describes an application whose derived topics go to these relay targets. */
export const describeApplication = (
  application: Application.Any,
  targets: ReadonlyArray<string>
): ApplicationDescription => {
  const types = new Map(topicsOf(application).map(({ topic }) => [topic.name, topic.types]))
  const aggregates = aggregatesOf(application).filter(({ name }) => name !== Erasures.name)
  const skipped = new Map(targets.map((target) => [target, skippedTopics(application, target)]))
  const projections = [
    ...application.projections.map(({ lifecycle, projection }) =>
      projectionOf(projection as Projection.Any, lifecycle)
    ),
    ...application.live.map((projection) => projectionOf(projection, "live"))
  ]
  const failed = new Set(projections.flatMap(({ fails_to }) => fails_to))
  return {
    name: application.name,
    topics: declaredTopics(application)
      .filter(({ topic }) => topic !== Erasures.name)
      .map(({ kind, topic: name, writtenBy }) => ({
        name,
        kind,
        types: types.get(name) ?? [],
        dead_letters: failed.has(name),
        // a log on PostgreSQL has the events of aggregates without a relay
        relays: targets.filter(
          (target) =>
            writtenBy.length > 0 &&
            !(kind === "aggregate" && target === PostgresRelay.embedded) &&
            !skipped.get(target)!.includes(name)
        )
      })),
    aggregates: aggregates.map(({ commands, name, types: events }) => ({
      name,
      commands: Object.keys(commands),
      events
    })),
    projections,
    views: named(application.views),
    relays: targets
  }
}
