// The application's topics as the gateway sees them: which may be written, who reads them, where an event type belongs. It holds no records.
import { publishedBy, type Application } from "../../model/application.ts"
import type { Projection } from "../../model/projection.ts"
import type { Topic } from "../../model/topic.ts"
import { Versions } from "./versions.ts"

/** A topic and what the application does with it. */
export interface Entry {
  readonly topic: Topic.Any
  /** The projections that write it: then it is derived, and nobody else may. */
  readonly writtenBy: ReadonlyArray<string>
  /** The projections that read it as their source. */
  readonly readBy: ReadonlyArray<string>
  /** How far ahead of now an event may be dated. Milliseconds. */
  readonly maxAheadMs: number
  /** By event type; empty where values have one shape. */
  readonly versions: ReadonlyMap<string, Versions>
}
/** Every topic by name, and the topics that take events of a type without being named. */
export interface Catalog {
  readonly topics: ReadonlyMap<string, Entry>
  readonly byType: ReadonlyMap<string, ReadonlyArray<Entry>>
}

interface Draft {
  readonly topic: Topic.Any
  readonly writtenBy: Array<string>
  readonly readBy: Array<string>
  maxAheadMs: number | undefined
}

const drafts = (application: Application.Any): Map<string, Draft> => {
  const found = new Map<string, Draft>()
  const at = (topic: Topic.Any): Draft => {
    const draft = found.get(topic.name) ?? { topic, writtenBy: [], readBy: [], maxAheadMs: undefined }
    found.set(topic.name, draft)
    return draft
  }
  for (const { projection } of application.projections) {
    for (const source of projection.sources) {
      if (source.kind !== "topic") continue
      const draft = at(source as unknown as Topic.Any)
      draft.readBy.push(projection.name)
      draft.maxAheadMs = Math.min(draft.maxAheadMs ?? Infinity, projection.maxAheadMs)
    }
    for (const { topic } of Object.values(projection.enrich)) at(topic)
    for (const topic of publishedBy(projection as Projection.Any)) at(topic).writtenBy.push(projection.name)
  }
  return found
}

/** Reads an application's topics: sources, lookups and what is published. `maxAheadMs` is for topics that no projection reads. */
export const catalogOf = (application: Application.Any, maxAheadMs: number): Catalog => {
  const topics = new Map<string, Entry>()
  const byType = new Map<string, Array<Entry>>()
  for (const [name, draft] of drafts(application)) {
    const types = [...(draft.topic.eventTypes ?? new Map())]
    const entry: Entry = {
      ...draft,
      maxAheadMs: draft.maxAheadMs ?? maxAheadMs,
      versions: new Map(types.map(([type, eventType]) => [type, new Versions(eventType)]))
    }
    topics.set(name, entry)
    if (entry.writtenBy.length > 0) continue
    for (const [type] of types) byType.set(type, [...(byType.get(type) ?? []), entry])
  }
  return { topics, byType }
}
