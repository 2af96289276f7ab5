// Chains: projections of one application that read what others publish, and the streams that feed each such topic. Pure.
import { deadLetterTopics } from "./dead-letter-topic.ts"
import type { Writable } from "./handler.ts"
import type { Projection } from "./projection.ts"
import type { Topic } from "./topic.ts"

/** A projection that publishes to a topic, and one of its sources: each partition of the source is a stream of messages. */
export interface Feed {
  readonly projection: string
  readonly source: string
  /**
   * Whether its streams count only from the first time that they announce, because they were not there from the start, or are not any more: the first
   * build or the live one of the projection does not read the source.
   */
  readonly joins?: true
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

/** What a build of a projection reads, and what it publishes to without dead letters: names of topics. */
export interface BuildTopics {
  readonly projection: string
  readonly reads: ReadonlyArray<string>
  readonly writes: ReadonlyArray<string>
}
/** The builds of a projection as a database has them. */
export interface KnownBuilds {
  readonly first: BuildTopics
  readonly live: BuildTopics
  /** All of them that may have published. */
  readonly all: ReadonlyArray<BuildTopics>
}

const sourcesOf = ({ sources }: Projection.Any): ReadonlyArray<string> => sources.map(({ name }) => name)
/** The topics that the handler and the windows of a projection publish to. */
export const writtenTopics = ({ writes }: Projection.Any): ReadonlyArray<Topic.Any> =>
  (writes as ReadonlyArray<Writable>).flatMap((target) =>
    target.kind === "topic" ? [target] : target.kind === "window" && target.topic !== undefined ? [target.topic] : []
  )
const declaredTopics = (projection: Projection.Any): BuildTopics => ({
  projection: projection.name,
  reads: sourcesOf(projection),
  writes: writtenTopics(projection).map(({ name }) => name)
})

/** The topic, and everything that is derived from it. */
const downstream = (builds: ReadonlyArray<BuildTopics>, topic: string): ReadonlySet<string> => {
  const found = new Set([topic])
  // a set yields what is added while it is iterated
  for (const name of found)
    for (const { reads, writes } of builds) if (reads.includes(name)) for (const written of writes) found.add(written)
  return found
}

/** The topics that a topic is derived from, through one projection or several. Without the topic itself. */
export const topicsBehind = (
  builds: ReadonlyArray<Pick<BuildTopics, "reads" | "writes">>,
  topic: string
): ReadonlySet<string> => {
  const found = new Set([topic])
  // a set yields what is added while it is iterated
  for (const name of found)
    for (const { reads, writes } of builds) if (writes.includes(name)) for (const read of reads) found.add(read)
  found.delete(topic)
  return found
}

/** The feeds of a topic by one projection. */
const feedsBy = ({ all, first, live }: KnownBuilds, topic: string): ReadonlyArray<Feed> => {
  const writers = [live, ...all].filter(({ writes }) => writes.includes(topic))
  const isConstant = (source: string) =>
    first.writes.includes(topic)
      ? [first, live].every(({ reads, writes }) => reads.includes(source) && writes.includes(topic))
      : live.reads.includes(source) && live.writes.includes(topic)
  const { projection } = live
  return [...new Set(writers.flatMap(({ reads }) => reads))].map((source): Feed =>
    isConstant(source) ? { projection, source } : { projection, source, joins: true }
  )
}

/**
 * The chains of an application's projections. What a database has of a projection (`known`) decides which build publishes; without it, of several
 * versions the lowest one does, and the others follow. A source that is itself derived from the topic is no feed, for its stream would wait for itself.
 */
export const chainsOf = (
  versions: ReadonlyArray<Projection.Any>,
  known: ReadonlyMap<string, KnownBuilds> = new Map()
): Chains => {
  const projections = [...Map.groupBy(versions, ({ name }) => name)].map(([name, same]): KnownBuilds => {
    const lowest = declaredTopics(same.reduce((one, other) => (other.version < one.version ? other : one)))
    return known.get(name) ?? { first: lowest, live: lowest, all: [] }
  })
  const live = projections.map((one) => one.live)
  const published = new Set(
    versions.flatMap((one) => [...writtenTopics(one), ...deadLetterTopics(one)].map(({ name }) => name))
  )
  for (const { writes } of live) for (const topic of writes) published.add(topic)
  const feeds = new Map<string, ReadonlyArray<Feed>>()
  for (const topic of new Set([...versions.flatMap(sourcesOf), ...live.flatMap(({ reads }) => reads)])) {
    const derived = downstream(live, topic)
    const of = projections.flatMap((one) => feedsBy(one, topic)).filter(({ source }) => !derived.has(source))
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
