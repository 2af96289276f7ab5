// The catalog: an application's topics, those of its aggregates included, the projections that write and read them, and the topics of each event type. Pure.
import type { Aggregate } from "../../model/aggregate.ts"
import { aggregatesOf, derivedFrom, publishedBy, type Application } from "../../model/application.ts"
import { maxAheadOf } from "../../model/event-times.ts"
import type { Projection } from "../../model/projection.ts"
import type { Topic } from "../../model/topic.ts"
import { Versions } from "./versions.ts"

/** A topic, and what the application does with it. */
export interface CatalogTopic {
  readonly topic: Topic.Any
  /** The aggregate whose events the topic has, which commands append. */
  readonly aggregate?: Aggregate.Any
  /** The projections that write the topic, or its aggregate; if there are any, the topic is derived and clients may not write it. */
  readonly writtenBy: ReadonlyArray<string>
  /** The names of the topics that projections derive it from, also through others. */
  readonly derivedFrom: ReadonlySet<string>
  /** The projections that process its records, or look values of it up. */
  readonly readBy: ReadonlyArray<string>
  /** How far in the future an event may be dated. Milliseconds. */
  readonly maxAheadMs: number
  /** The versions of each event type; empty if all values have one shape. */
  readonly versions: ReadonlyMap<string, Versions>
}
/** All topics by name, and the topics that declare an event type. */
export interface Catalog {
  readonly topics: ReadonlyMap<string, CatalogTopic>
  readonly byType: ReadonlyMap<string, ReadonlyArray<CatalogTopic>>
}

interface Draft {
  readonly topic: Topic.Any
  readonly aggregate?: Aggregate.Any
  readonly writtenBy: Array<string>
  readonly readBy: Array<string>
}

const drafts = (application: Application.Any): Map<string, Draft> => {
  const found = new Map<string, Draft>()
  const at = (topic: Topic.Any): Draft => {
    const draft = found.get(topic.name) ?? { topic, writtenBy: [], readBy: [] }
    found.set(topic.name, draft)
    return draft
  }
  // what a topic has an aggregate has as well
  for (const aggregate of aggregatesOf(application))
    found.set(aggregate.name, {
      topic: aggregate as unknown as Topic.Any,
      aggregate,
      writtenBy: [aggregate.name],
      readBy: []
    })
  for (const { projection } of application.projections) {
    for (const source of projection.sources) {
      at(source as unknown as Topic.Any).readBy.push(projection.name)
    }
    for (const { topic } of Object.values(projection.enrich)) {
      const { readBy } = at(topic)
      if (!readBy.includes(projection.name)) readBy.push(projection.name)
    }
    for (const topic of publishedBy(projection as Projection.Any)) at(topic).writtenBy.push(projection.name)
  }
  return found
}

/** The catalog of an application: its sources, aggregates, lookup topics and derived topics. `maxAheadMs` applies to topics that no projection reads. */
export const catalogOf = (application: Application.Any, maxAheadMs: number): Catalog => {
  const projections = application.projections.map(({ projection }) => projection as Projection.Any)
  const topics = new Map<string, CatalogTopic>()
  const byType = new Map<string, Array<CatalogTopic>>()
  for (const [name, draft] of drafts(application)) {
    const types = [...(draft.topic.eventTypes ?? new Map())]
    const entry: CatalogTopic = {
      ...draft,
      derivedFrom: derivedFrom(application, name),
      maxAheadMs: maxAheadOf(projections, name) ?? maxAheadMs,
      versions: new Map(types.map(([type, eventType]) => [type, new Versions(eventType)]))
    }
    topics.set(name, entry)
    if (entry.writtenBy.length > 0) continue
    for (const [type] of types) byType.set(type, [...(byType.get(type) ?? []), entry])
  }
  return { topics, byType }
}
