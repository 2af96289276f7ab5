// Chains: projections of one application that read what others publish, and the streams that feed each such topic. Pure.
import { deadLetterTopics } from "./dead-letter-topic.ts"
import type { Writable } from "./handler.ts"
import type { Projection } from "./projection.ts"
import type { Topic } from "./topic.ts"

/** A projection that publishes to a topic, and one of its sources: each partition of the source is a stream of messages. */
export interface Feed {
  readonly projection: string
  readonly source: string
}
/** The derived topics of an application. */
export interface Chains {
  /** The feeds of each topic that a projection publishes to and another one reads, without those that the topic itself feeds. */
  readonly feeds: ReadonlyMap<string, ReadonlyArray<Feed>>
  /** All topics that projections publish to, dead-letter topics included. */
  readonly published: ReadonlySet<string>
}
/** The chains of an application that has none. */
export const noChains: Chains = { feeds: new Map(), published: new Set() }

const isTopic = (source: { readonly kind: string }): boolean => source.kind === "topic"
const sourcesOf = ({ sources }: Projection.Any): ReadonlyArray<string> =>
  sources.filter(isTopic).map(({ name }) => name)
/** The topics that the handler and the windows of a projection publish to. */
export const writtenTopics = ({ writes }: Projection.Any): ReadonlyArray<Topic.Any> =>
  (writes as ReadonlyArray<Writable>).flatMap((target) =>
    target.kind === "topic" ? [target] : target.kind === "window" && target.topic !== undefined ? [target.topic] : []
  )
const writes = (projection: Projection.Any, topic: string) =>
  writtenTopics(projection).some(({ name }) => name === topic)

/** The topic, and everything that is derived from it. */
const downstream = (projections: ReadonlyArray<Projection.Any>, topic: string): ReadonlySet<string> => {
  const found = new Set([topic])
  // a set yields what is added while it is iterated
  for (const name of found) {
    for (const projection of projections) {
      if (sourcesOf(projection).includes(name)) for (const written of writtenTopics(projection)) found.add(written.name)
    }
  }
  return found
}

/**
 * The chains of an application's projections. Of several versions of a projection the lowest counts: it publishes, and the others follow.
 * A source that is itself derived from the topic is no feed, for its stream would wait for itself.
 */
export const chainsOf = (versions: ReadonlyArray<Projection.Any>): Chains => {
  const projections = [...Map.groupBy(versions, ({ name }) => name).values()].map((same) =>
    same.reduce((lowest, other) => (other.version < lowest.version ? other : lowest))
  )
  const published = new Set(
    versions.flatMap((one) => [...writtenTopics(one), ...deadLetterTopics(one)].map(({ name }) => name))
  )
  const feeds = new Map<string, ReadonlyArray<Feed>>()
  for (const topic of new Set(versions.flatMap(sourcesOf))) {
    if (!projections.some((projection) => writes(projection, topic))) continue
    const derived = downstream(projections, topic)
    const of = projections
      .filter((projection) => writes(projection, topic))
      .flatMap((projection) => sourcesOf(projection).map((source) => ({ projection: projection.name, source })))
      .filter(({ source }) => !derived.has(source))
    if (of.length > 0) feeds.set(topic, of)
  }
  return { feeds, published }
}

/** How many projections follow one another in the longest chain: 0 if no projection reads what another one publishes. */
export const longestChain = ({ feeds }: Chains): number => {
  const depthOf = (topic: string): number =>
    1 + Math.max(0, ...(feeds.get(topic) ?? []).map(({ source }) => (feeds.has(source) ? depthOf(source) : 0)))
  return Math.max(0, ...[...feeds.keys()].map(depthOf))
}
