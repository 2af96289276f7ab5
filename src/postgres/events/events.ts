// The event store on PostgreSQL: assembles the port from its parts. Its tables are created by a migration.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import {
  appendAllProblem,
  appendProblem,
  commandIdProblem,
  streamProblem,
  tagsOf
} from "../../aggregate/event-rules.ts"
import { EventStore } from "../../aggregate/event-store.ts"
import { EventStoreError } from "../../aggregate/errors.ts"
import { partitionOf } from "../../model/partitioner.ts"
import type { Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import type { TagRow } from "./append-sql.ts"
import { Appender } from "./appender.ts"
import { run } from "./errors.ts"
import { packAppend, uuidOf } from "./pack.ts"
import { makeReads } from "./reads.ts"
import * as Topics from "./topics.ts"

/** What the event store works with besides a pool. */
export interface EventStoreOptions {
  /** Called with each partition's new end after a commit. */
  readonly appended?: (topicId: number, partition: number, end: number) => void
  /** Called after a commit for the relays, which then publish its events to a topic of the aggregate's name. Undefined: none does. */
  readonly published?: (() => void) | undefined
}
/** The event store, and what tests read of it. */
export interface PostgresEventStore {
  readonly store: EventStore["Service"]
  /** How many statements its appends took so far. */
  readonly statements: () => number
}

type Service = EventStore["Service"]

const makeAppends = (
  topics: Topics.AggregateTopics,
  appender: Appender,
  isPublished: boolean
): Pick<Service, "append" | "appendAll"> => {
  const append: EventStore["Service"]["append"] = Effect.fnUntraced(function* (one, commandId) {
    const problem = commandIdProblem(commandId) ?? appendProblem(one)
    if (problem !== undefined) return yield* problem
    const topic = yield* topics.find("append", one.aggregate)
    const partition = partitionOf(one.stream, topic.partitions)
    return yield* appender.append(
      one,
      commandId,
      packAppend(one, { topic, partition, commandId, index: 0, isPublished })
    )
  })
  const appendAll: EventStore["Service"]["appendAll"] = Effect.fnUntraced(function* (appends, commandId, boundary) {
    const problem = commandIdProblem(commandId) ?? appendAllProblem(appends)
    if (problem !== undefined) return yield* problem
    if (appends.length === 0) return []
    const tags = new Map<string, TagRow>()
    for (const { aggregate, tag, version } of boundary?.tags ?? []) {
      const { topicId } = yield* topics.find("append", aggregate)
      tags.set(JSON.stringify([topicId, tag]), { topicId, tag, expected: version, added: 0 })
    }
    const rows = []
    let index = 0
    for (const one of appends) {
      const topic = yield* topics.find("append", one.aggregate)
      const partition = partitionOf(one.stream, topic.partitions)
      rows.push(packAppend(one, { topic, partition, commandId, index, isPublished }))
      index += one.events.length
      for (const tag of tagsOf(one.events)) {
        const key = JSON.stringify([topic.topicId, tag])
        const { added = 0, expected } = tags.get(key) ?? {}
        tags.set(key, { topicId: topic.topicId, tag, expected, added: added + 1 })
      }
    }
    return yield* appender.appendAll(
      appends,
      commandId,
      { rows, isAtomic: true, tags: [...tags.values()] },
      topics.nameOf
    )
  })
  return { append, appendAll }
}

const makeRemember = (sql: Sql, topics: Topics.AggregateTopics, load: Service["load"]): Service["remember"] =>
  Effect.fnUntraced(function* (aggregate, stream, commandId, digest, { rejection, version }) {
    const problem = streamProblem(aggregate, stream) ?? commandIdProblem(commandId)
    if (problem !== undefined) return yield* problem
    const { partitions, topicId } = yield* topics.find("remember", aggregate)
    const partition = partitionOf(stream, partitions)
    const answer = JSON.stringify(rejection === undefined ? {} : { rejection })
    const parameters = [topicId, partition, stream, uuidOf(commandId), uuidOf(digest), version, answer]
    yield* run("remember", aggregate, () =>
      sql.unsafe(
        "select millrace.remember_answer($1::int4, $2::int4, $3::text, $4::uuid, $5::uuid, $6::int8, $7::text)",
        parameters,
        {
          prepare: true
        }
      )
    )
    const { answered } = yield* load(aggregate, stream, { commandId, digest, limit: 1 })
    if (answered !== undefined) return answered
    const reason = "the answer is gone: another program deletes rows of millrace.command"
    return yield* new EventStoreError({ operation: "remember", aggregate, retryable: true, reason })
  })

const makeOthers = (sql: Sql, topics: Topics.AggregateTopics): Pick<Service, "saveSnapshot" | "archive"> => {
  const keyed = Effect.fnUntraced(function* (
    operation: EventStoreError["operation"],
    aggregate: string,
    stream: string
  ) {
    const problem = streamProblem(aggregate, stream)
    if (problem !== undefined) return yield* problem
    return (yield* topics.find(operation, aggregate)).topicId
  })
  return {
    saveSnapshot: Effect.fnUntraced(function* (aggregate, stream, { shape, state, subjects, version }) {
      const topicId = yield* keyed("snapshot", aggregate, stream)
      yield* run(
        "snapshot",
        aggregate,
        () => sql`
          insert into millrace.event_snapshot as s (topic_id, stream, shape, version, state, subjects)
          values (${topicId}, ${stream}, ${shape}, ${version}, ${state}, ${arrayOf([...subjects])}::text[])
          on conflict (topic_id, stream, shape) do update
            set version = excluded.version, state = excluded.state, subjects = excluded.subjects, taken_at = excluded.taken_at
            where excluded.version > s.version`
      )
    }),
    archive: Effect.fnUntraced(function* (aggregate, stream) {
      const topicId = yield* keyed("archive", aggregate, stream)
      yield* run(
        "archive",
        aggregate,
        () => sql`
          insert into millrace.event_stream as s (topic_id, stream, version, asked, added, closed)
          values (${topicId}, ${stream}, 0, -1, 0, 'archived')
          on conflict (topic_id, stream) do update set closed = coalesce(s.closed, excluded.closed)`
      )
    })
  }
}

/** The event store on a database that has its tables. The pool `sql` must stay open as long. */
export const make = (
  sql: Sql,
  { appended = () => undefined, published }: EventStoreOptions = {}
): PostgresEventStore => {
  const topics = Topics.make(sql)
  const appender = new Appender(sql, {
    appended,
    published: published ?? (() => undefined),
    // a new one in each process: after a restore from backup a sequence number may mean another event
    incarnation: published === undefined ? undefined : randomUUID()
  })
  const reads = makeReads(sql, topics)
  const store = EventStore.of({
    ...reads,
    ...makeAppends(topics, appender, published !== undefined),
    ...makeOthers(sql, topics),
    declare: topics.declare,
    remember: makeRemember(sql, topics, reads.load)
  })
  return { store, statements: () => appender.statements }
}
