// The event store on PostgreSQL: assembles the port from its parts. Its tables are created by a migration.
import { randomUUID } from "node:crypto"
import * as Effect from "effect/Effect"
import {
  appendAllProblem,
  appendProblem,
  commandIdProblem,
  streamProblem,
  tagsOf,
  type TimeLimits
} from "../../aggregate/event-rules.ts"
import { EventStore } from "../../aggregate/event-store.ts"
import { EventStoreError, VersionConflict } from "../../aggregate/errors.ts"
import type { Application } from "../../model/application.ts"
import { maxAheadOf } from "../../model/event-times.ts"
import type { Projection } from "../../model/projection.ts"
import { partitionOf } from "../../model/partitioner.ts"
import type { Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import type { TagRow } from "./append-sql.ts"
import { Appender } from "./appender.ts"
import { run } from "./errors.ts"
import { InlineWriter } from "./inline.ts"
import { packAppend, uuidOf } from "./pack.ts"
import { makeReads } from "./reads.ts"
import { makeList } from "./streams.ts"
import * as Topics from "./topics.ts"

/** What the event store works with besides a pool. */
export interface EventStoreOptions {
  /** Called with each partition's new end after a commit. */
  readonly appended?: (topicId: number, partition: number, end: number) => void
  /** Called after a commit that relays publish. */
  readonly published?: () => void
  /** Has the code of the inline projections that appends write for. Without it appends are refused where a topic has some. */
  readonly application?: Pick<Application.Any, "projections">
  /** Whether no append expects all of its commands to pass, so that the statement for those that do not is used for all. Default false; for tests. */
  readonly judgesAll?: boolean
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
  projections: ReadonlyArray<Projection.Any>
): Pick<Service, "append" | "appendAll"> => {
  const limits = (): TimeLimits => ({ now: Date.now(), maxAheadOf: (name) => maxAheadOf(projections, name) })
  const append: EventStore["Service"]["append"] = Effect.fnUntraced(function* (one, commandId) {
    const problem = commandIdProblem(commandId) ?? appendProblem(one, limits())
    if (problem !== undefined) return yield* problem
    const topic = yield* topics.find("append", one.aggregate)
    const partition = partitionOf(one.stream, topic.partitions)
    return yield* appender.append(one, commandId, packAppend(one, { topic, partition, commandId, index: 0 }))
  })
  const appendAll: EventStore["Service"]["appendAll"] = Effect.fnUntraced(function* (appends, commandId, boundary) {
    const problem = commandIdProblem(commandId) ?? appendAllProblem(appends, limits())
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
      rows.push(packAppend(one, { topic, partition, commandId, index }))
      index += one.events.length
      for (const tag of tagsOf(one.events)) {
        const key = JSON.stringify([topic.topicId, tag])
        const { added = 0, expected } = tags.get(key) ?? {}
        tags.set(key, { topicId: topic.topicId, tag, expected, added: added + 1 })
      }
    }
    return yield* appender.appendAll(appends, commandId, { rows, tags: [...tags.values()] }, topics.nameOf)
  })
  return { append, appendAll }
}

const makeRemember = (sql: Sql, topics: Topics.AggregateTopics, load: Service["load"]): Service["remember"] =>
  Effect.fnUntraced(function* (aggregate, stream, commandId, digest, { rejection, version }, expected = "any") {
    const problem = streamProblem(aggregate, stream) ?? commandIdProblem(commandId)
    if (problem !== undefined) return yield* problem
    const { partitions, topicId } = yield* topics.find("remember", aggregate)
    const partition = partitionOf(stream, partitions)
    const answer = JSON.stringify(rejection === undefined ? {} : { rejection })
    const mustBe = expected === "noStream" ? 0 : typeof expected === "number" ? expected : null
    const parameters = [topicId, partition, stream, uuidOf(commandId), uuidOf(digest), version, answer, mustBe]
    const [outcome] = yield* run("remember", aggregate, () =>
      sql.unsafe<Array<{ readonly stored: boolean; readonly actual: number | null }>>(
        "select stored, actual from millrace.store_answer($1::int4, $2::int4, $3::text, $4::uuid, $5::uuid, $6::int8, $7::text, $8::int8)",
        parameters,
        { prepare: true }
      )
    )
    const { actual, stored } = outcome!
    if (actual !== null) return yield* new VersionConflict({ aggregate, stream, expected, actual })
    const { answered } = yield* load(aggregate, stream, { commandId, digest, limit: 1 })
    if (answered !== undefined) return { ...answered, repeated: !stored }
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
          select ${topicId}::int4, ${stream}::text, ${shape}::text, ${version}::int8, ${state}::text, ${arrayOf([...subjects])}::text[]
          -- a state that was folded before an erasure is not stored after it: the keys stay locked until the commit
          where not exists (
            select from (select subject, number, key from millrace.subject_key where subject = any(${arrayOf([...subjects])}::text[])
              order by subject, number for share) k
            group by subject having (array_agg(key is null order by number desc))[1])
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
  {
    appended = () => undefined,
    application = { projections: [] },
    judgesAll = false,
    published = () => undefined
  }: EventStoreOptions = {}
): PostgresEventStore => {
  const topics = Topics.make(sql)
  const appender = new Appender(sql, {
    appended,
    published,
    judgesAll,
    inline: new InlineWriter(sql, application),
    // a new one in each process: after a restore from backup a sequence number may mean another event
    incarnation: randomUUID()
  })
  const reads = makeReads(sql, topics)
  const store = EventStore.of({
    ...reads,
    ...makeAppends(
      topics,
      appender,
      application.projections.map(({ projection }) => projection as Projection.Any)
    ),
    ...makeOthers(sql, topics),
    declare: topics.declare,
    list: makeList(sql, topics),
    remember: makeRemember(sql, topics, reads.load)
  })
  return { store, statements: () => appender.statements }
}

/**
 * Has relays to `targets` publish the events of aggregates from now on, to a topic of each aggregate's name. Events that were appended
 * before are not published. Does nothing for aggregates that are published already.
 */
export const publish = (
  sql: Sql,
  aggregates: ReadonlyArray<string>,
  targets: ReadonlyArray<string>
): Effect.Effect<void, EventStoreError> =>
  Effect.asVoid(
    run(
      "declare",
      "",
      () => sql`
        with head as materialized (
          select h.topic_id, h.partition, t.name from millrace.log_head h join millrace.log_topic t using (topic_id)
          where t.aggregate and t.name = any (${arrayOf(aggregates)}::text[]) and not h.published order by 1, 2 for update of h
        ), published as (
          update millrace.log_head h set published = true from head where (h.topic_id, h.partition) = (head.topic_id, head.partition)
          returning head.name, h.partition, h.next_position
        )
        insert into millrace.relay_position (target, projection, source, partition, seq)
        select t.target, p.name, p.name, p.partition, p.next_position
        from published p cross join unnest(${arrayOf(targets)}::text[]) as t(target) where p.next_position > 0
        order by 1, 2, 3, 4 on conflict do nothing`
    )
  )
