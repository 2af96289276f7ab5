// Where versions of lookup values are kept, and the journal of which of them batches saw. A part of the store port; in memory for tests.
import * as Effect from "effect/Effect"
import type { Position } from "../log/log.ts"
import type { StoreError } from "./store-error.ts"

/** What one record of a lookup topic put under a key, or that it deleted the key. */
export interface LookupVersion {
  readonly position: Position
  readonly key: string
  /** The record's JSON text; null if it deleted the key. */
  readonly value: string | null
  /** When the log stored it, epoch milliseconds; undefined if the log does not know. */
  readonly appendedAt: number | undefined
  /** The record's event time, epoch milliseconds. */
  readonly validFrom: number
}
/** The versions of a lookup topic that count: those of the topic's generation that are below the position of their partition. */
export interface LookupPin {
  /** Rises when the topic is recreated, whose positions begin again. */
  readonly generation: number
  readonly positions: ReadonlyArray<Position>
}
/** Asks for the newest version of a key among those that count. */
export interface LookupRequest {
  readonly key: string
  readonly pin: LookupPin
  /** Versions that the log stored after this time do not count, epoch milliseconds; undefined: all do. */
  readonly appendedBy: number | undefined
  /** The version that is newest by event time, and not after this; undefined: the newest by position. */
  readonly validAt: number | undefined
}
/** The version that a request found. */
export interface FoundVersion {
  readonly partition: number
  readonly position: Position
  readonly value: string | null
}
/** How far the versions of a lookup topic are stored. */
export interface StoredVersions {
  readonly generation: number
  /** The next position to store, by partition. */
  readonly next: ReadonlyArray<Position>
  /** Whether a record lies in another partition than that of its key. */
  readonly isScattered: boolean
  /** The latest append time of a stored deletion; undefined if there is none. */
  readonly deletedAt: number | undefined
}
/** The versions of a batch of a lookup topic. */
export interface VersionBatch {
  readonly generation: number
  readonly partition: number
  /** The batch has all versions from here on, up to `next`. */
  readonly from: Position
  readonly next: Position
  readonly isScattered: boolean
  readonly versions: ReadonlyArray<LookupVersion>
}
/** A partition of a projection's source, and the number of the journal that is asked. */
export interface JournalOf {
  readonly projection: string
  readonly topic: string
  readonly partition: number
  readonly journal: number
}
/** From `from` on, the events of a partition saw a lookup topic like this. */
export interface JournalEntry {
  /** The name of the lookup topic. */
  readonly lookup: string
  readonly from: Position
  readonly generation: number
  /** The partition of the lookup topic that `positions` is about; undefined: it has all. */
  readonly only: number | undefined
  /** Whether values count that the log stored after the event. */
  readonly newest: boolean
  readonly positions: ReadonlyArray<Position>
  /** Whether it is the first one of its claim: entries of later positions are of another history, and are deleted. */
  readonly isFirst: boolean
}

/** Keeps the versions of lookup values, and reads the journal. Commits write the journal: see `Changes.lookups`. */
export interface LookupStore {
  /**
   * How far the versions of a topic with so many partitions are stored. `identity` tells a recreated topic, which begins a new generation; so
   * does `isShrunk`, for a topic that has fewer records than were read of it.
   */
  readonly open: (
    topic: string,
    partitions: number,
    identity: string | undefined,
    isShrunk: boolean
  ) => Effect.Effect<StoredVersions, StoreError>
  /** Stores versions. Several processes may store the same. False if they would leave a gap, or are of an earlier generation: open it again. */
  readonly keep: (topic: string, batch: VersionBatch) => Effect.Effect<boolean, StoreError>
  /** The versions that were asked for, in the order of the requests; undefined for a key without one. */
  readonly find: (
    topic: string,
    requests: ReadonlyArray<LookupRequest>,
    isScattered: boolean
  ) => Effect.Effect<ReadonlyArray<FoundVersion | undefined>, StoreError>
  /**
   * The entries of the journal that are about events at positions from `from` to `to`: the last one not after `from`, and all up to `to`.
   * Undefined if the store keeps no journal: a build that follows then sees what a live one sees.
   */
  readonly journal: (
    at: JournalOf,
    lookup: string,
    from: Position,
    to: Position
  ) => Effect.Effect<ReadonlyArray<JournalEntry> | undefined, StoreError>
}

interface MemoryVersion extends LookupVersion {
  readonly generation: number
  readonly partition: number
}
interface MemoryTopic {
  generation: number
  identity: string | undefined
  next: Array<Position>
  isScattered: boolean
  deletedAt: number | undefined
  readonly versions: Map<string, Array<MemoryVersion>>
}

/** Whether a version counts for a request. */
const counts = (version: MemoryVersion, { appendedBy, pin, validAt }: LookupRequest): boolean =>
  version.generation === pin.generation &&
  version.position < (pin.positions[version.partition] ?? 0) &&
  (version.appendedAt === undefined || appendedBy === undefined || version.appendedAt <= appendedBy) &&
  (validAt === undefined || version.validFrom <= validAt)

/** Whether `a` is newer than `b`, of which both count. */
const isNewer = (a: MemoryVersion, b: MemoryVersion, byValidFrom: boolean): boolean => {
  if (byValidFrom && a.validFrom !== b.validFrom) return a.validFrom > b.validFrom
  if (a.partition === b.partition) return a.position > b.position
  const [x = -Infinity, y = -Infinity] = [a.appendedAt, b.appendedAt]
  return x === y ? a.partition > b.partition : x > y
}

/** A store of versions in memory. It keeps no journal: one build alone handles each event there. */
export const memoryLookupStore = (): LookupStore => {
  const topics = new Map<string, MemoryTopic>()
  const topicOf = (name: string): MemoryTopic => {
    let topic = topics.get(name)
    if (topic === undefined) {
      topic = {
        generation: 1,
        identity: undefined,
        next: [],
        isScattered: false,
        deletedAt: undefined,
        versions: new Map()
      }
      topics.set(name, topic)
    }
    return topic
  }
  return {
    open: (name, partitions, identity, isShrunk) =>
      Effect.sync(() => {
        const topic = topicOf(name)
        const isOther = topic.identity !== undefined && identity !== undefined && topic.identity !== identity
        topic.identity = identity ?? topic.identity
        if (isShrunk || isOther)
          Object.assign(topic, { generation: topic.generation + 1, next: [], isScattered: false })
        const next = Array.from({ length: partitions }, (_, partition) => topic.next[partition] ?? 0)
        return { generation: topic.generation, next, isScattered: topic.isScattered, deletedAt: topic.deletedAt }
      }),
    keep: (name, { from, generation, isScattered, next, partition, versions }) =>
      Effect.sync(() => {
        const topic = topicOf(name)
        const stored = topic.next[partition] ?? 0
        if (generation !== topic.generation || stored < from) return false
        for (const version of versions) {
          if (version.position < stored) continue
          const { appendedAt = -Infinity, key, value } = version
          const of = topic.versions.get(key) ?? []
          of.push({ ...version, generation, partition })
          topic.versions.set(key, of)
          if (value === null) topic.deletedAt = Math.max(topic.deletedAt ?? -Infinity, appendedAt)
        }
        topic.next[partition] = Math.max(stored, next)
        topic.isScattered ||= isScattered
        return true
      }),
    find: (name, requests) =>
      Effect.sync(() =>
        requests.map((request) => {
          let found: MemoryVersion | undefined
          for (const version of topicOf(name).versions.get(request.key) ?? [])
            if (
              counts(version, request) &&
              (found === undefined || isNewer(version, found, request.validAt !== undefined))
            )
              found = version
          return found
        })
      ),
    journal: () => Effect.undefined
  }
}
