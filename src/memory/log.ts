// The log in memory: an adapter of the log port for tests and trials. Its records are lost when the process ends.
import { randomUUID } from "node:crypto"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Cleaned, LogCleaner } from "../log/cleaner.ts"
import { type GroupLocks, sharePartitions } from "../log/group.ts"
import { checkRecords, specConflict, maxBytesOf, specProblem, partitionProblem, unknownTopic } from "../log/rules.ts"
import {
  type Assignment,
  type Batch,
  Log,
  LogError,
  type Position,
  type Reader,
  type ReadError,
  type ReadOptions,
  type TopicSpec,
  type UnknownTopic
} from "../log/log.ts"
import { Partition } from "./partition.ts"

interface Topic {
  readonly identity: string
  spec: TopicSpec
  readonly partitions: ReadonlyArray<Partition>
}
/** A group: its members with their latches, and the member that holds each partition. */
interface Group {
  readonly members: Map<number, Latch.Latch>
  readonly taken: Map<number, number>
}

const locksOf = (group: Group, partitions: number, next: () => number): GroupLocks<never> => {
  const member = next()
  const latch = Latch.makeUnsafe(false)
  const nudge = () => {
    for (const other of group.members.values()) other.openUnsafe()
  }
  return {
    member,
    partitions,
    look: Effect.sync(() => {
      if (!group.members.has(member)) {
        group.members.set(member, latch)
        nudge()
      }
      latch.closeUnsafe()
      return { members: [...group.members.keys()], taken: new Set(group.taken.keys()) }
    }),
    take: (partition) =>
      Effect.sync(() => {
        if (group.taken.has(partition)) return undefined
        group.taken.set(partition, member)
        return next()
      }),
    free: (partition) =>
      Effect.sync(() => {
        group.taken.delete(partition)
        nudge()
      }),
    leave: Effect.sync(() => {
      group.members.delete(member)
      nudge()
    }),
    changed: latch.await
  }
}

const read = (
  partition: Partition,
  position: Position,
  options: ReadOptions | undefined
): Effect.Effect<Batch, ReadError> =>
  Effect.suspend(() => {
    const batch = partition.read(position, maxBytesOf(options))
    return "records" in batch ? Effect.succeed(batch) : Effect.fail(batch)
  })

const open = Effect.fnUntraced(function* (
  partition: Partition,
  from: Position,
  options: ReadOptions | undefined
): Effect.fn.Return<Reader, ReadError, Scope.Scope> {
  yield* read(partition, from, options)
  const latch = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const made = Latch.makeUnsafe(false)
      partition.latches.add(made)
      return made
    }),
    (made) => Effect.sync(() => partition.latches.delete(made))
  )
  let position = from
  const take = Effect.gen(function* () {
    while (true) {
      latch.closeUnsafe()
      const batch = yield* read(partition, position, options)
      if (batch.next > position) {
        position = batch.next
        return batch
      }
      yield* latch.await
    }
  })
  return { take }
})

const makeTopics = () => {
  const topics = new Map<string, Topic>()
  const find = (name: string, partition = 0): Effect.Effect<Topic, UnknownTopic> =>
    Effect.suspend(() => {
      const topic = topics.get(name)
      if (topic === undefined) return Effect.fail(unknownTopic(name))
      const refused = partitionProblem(name, topic.spec.partitions, partition)
      return refused === undefined ? Effect.succeed(topic) : Effect.fail(refused)
    })
  const declare = Effect.fnUntraced(function* (specs: ReadonlyArray<TopicSpec>) {
    for (const spec of specs) {
      const { name } = spec
      const there = topics.get(name)
      const reason = specProblem(spec) ?? (there && specConflict(there.spec, spec))
      if (reason !== undefined)
        return yield* new LogError({ operation: "declare", topic: name, retryable: false, reason })
      if (there !== undefined) there.spec = spec
      else
        topics.set(name, {
          spec,
          identity: randomUUID(),
          partitions: Array.from({ length: spec.partitions }, (_, i) => new Partition(name, i))
        })
    }
  })
  return { topics, find, declare }
}

const clean = (topics: ReadonlyMap<string, Topic>): LogCleaner["Service"]["clean"] =>
  Effect.fnUntraced(function* ({ deletionsMs = 86_400_000, dirtyShare = 0.5, topics: only } = {}) {
    const now = yield* Clock.currentTimeMillis
    const cleaned = { compacted: 0, expired: 0 }
    for (const { partitions, spec } of topics.values()) {
      if (only !== undefined && !only.includes(spec.name)) continue
      for (const partition of partitions) {
        if (spec.retentionMs !== undefined) cleaned.expired += partition.expire(now - spec.retentionMs)
        if (spec.compacted) cleaned.compacted += partition.compact(now, dirtyShare, deletionsMs)
      }
    }
    return cleaned satisfies Cleaned
  })

/** Creates an empty log and its cleaner. Append times come from Effect's `Clock`. */
export const make = (): { readonly log: Log["Service"]; readonly cleaner: LogCleaner["Service"] } => {
  const { declare, find, topics } = makeTopics()
  const groups = new Map<string, Group>()
  let numbers = 0
  const next = () => ++numbers

  const log = Log.of({
    declare,
    append: Effect.fnUntraced(function* (name, records) {
      const { partitions } = yield* find(name)
      const fine = checkRecords(name, partitions.length, records)
      if (!Array.isArray(fine)) return yield* fine as LogError | UnknownTopic
      const now = yield* Clock.currentTimeMillis
      const places = fine.map((record) => {
        const partition = partitions[record.partition]!
        return { partition: record.partition, position: partition.append(record, now) }
      })
      for (const partition of new Set(fine.map((record) => record.partition))) partitions[partition]!.wake()
      return places
    }),
    identity: (name) => Effect.map(find(name), (topic) => topic.identity),
    ends: (name) => Effect.map(find(name), ({ partitions }) => partitions.map((partition) => partition.bounds().end)),
    bounds: (name) => Effect.map(find(name), ({ partitions }) => partitions.map((partition) => partition.bounds())),
    read: (name, partition, position, options) =>
      Effect.flatMap(find(name, partition), ({ partitions }) => read(partitions[partition]!, position, options)),
    open: (name, partition, position, options) =>
      Effect.flatMap(find(name, partition), ({ partitions }) => open(partitions[partition]!, position, options)),
    assign: Effect.fnUntraced(function* (name, group, use, options) {
      const { partitions } = yield* find(name)
      const key = JSON.stringify([name, group])
      const there = groups.get(key) ?? { members: new Map(), taken: new Map() }
      groups.set(key, there)
      return yield* sharePartitions(locksOf(there, partitions.length, next), (partition, generation) => {
        const assignment: Assignment = {
          topic: name,
          partition,
          generation,
          open: (from, own = options) => open(partitions[partition]!, from, own)
        }
        return use(assignment)
      })
    })
  })
  return { log, cleaner: LogCleaner.of({ clean: clean(topics) }) }
}

/** An empty log in memory and its cleaner, as a layer. */
export const layer: Layer.Layer<Log | LogCleaner> = Layer.syncContext(() => {
  const { cleaner, log } = make()
  return Context.make(Log, log).pipe(Context.add(LogCleaner, cleaner))
})
