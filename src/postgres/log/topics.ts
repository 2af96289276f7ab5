// The topics of the log on PostgreSQL: declares them, finds their numbers and keeps these in memory.
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import { specConflict, specProblem, partitionProblem, unknownTopic } from "../../log/rules.ts"
import { type PartitionBounds, LogError, type TopicSpec, UnknownTopic } from "../../log/log.ts"
import { logQuery } from "./errors.ts"

/** A topic that was found. */
export interface KnownTopic {
  readonly topicId: number
  readonly name: string
  readonly partitions: number
  readonly isAggregate: boolean
}

const declareOne = async (sql: postgres.Sql, spec: TopicSpec): Promise<string | undefined> => {
  const { compacted, isAggregate = false, name, partitions } = spec
  const retention = spec.retentionMs === undefined ? null : Math.round(spec.retentionMs)
  const made = await sql`
    with topic as (
      insert into millrace.log_topic as t (name, partitions, compacted, retention_ms, aggregate)
      values (${name}, ${partitions}::int, ${compacted}::boolean, ${retention}::bigint, ${isAggregate}::boolean)
      on conflict (name) do update set retention_ms = excluded.retention_ms
      where t.partitions = excluded.partitions and t.compacted = excluded.compacted and t.aggregate = excluded.aggregate
      returning topic_id
    ), heads as (
      insert into millrace.log_head (topic_id, partition, next_position)
      select topic_id, partition, 0 from topic, generate_series(0, ${partitions}::int - 1) as partition
      order by partition on conflict do nothing
    )
    select topic_id from topic`
  if (made.length > 0) return undefined
  const [there] = await sql`select partitions, compacted, aggregate from millrace.log_topic where name = ${name}`
  if (there === undefined) return "the topic was deleted while it was declared; try again"
  const existing = { compacted: there["compacted"] === true, isAggregate: there["aggregate"] === true }
  return specConflict({ partitions: Number(there["partitions"]), ...existing }, spec)
}

/** The topics of a log. `bounds` and `find` fail with `UnknownTopic` for a topic that was not declared. */
export const make = (sql: postgres.Sql) => {
  const topics = new Map<string, KnownTopic>()
  const asking = new Map<string, { readonly answer: Promise<KnownTopic | undefined>; waiting: number }>()

  const declare = Effect.fnUntraced(function* (specs: ReadonlyArray<TopicSpec>) {
    for (const spec of specs) {
      const reason = specProblem(spec) ?? (yield* logQuery("declare", spec.name, () => declareOne(sql, spec)))
      if (reason !== undefined) {
        return yield* new LogError({ operation: "declare", topic: spec.name, retryable: false, reason })
      }
    }
  })
  const ask = async (name: string) => {
    const [row] = await sql`select topic_id, partitions, aggregate from millrace.log_topic where name = ${name}`
    if (row === undefined) return undefined
    const numbers = { topicId: Number(row["topic_id"]), partitions: Number(row["partitions"]) }
    const topic = { ...numbers, name, isAggregate: row["aggregate"] === true }
    topics.set(name, topic)
    return topic
  }
  /** Shares one query among all callers that ask for the same topic. A later caller joins them until the last of them has its answer. */
  const asked = (operation: LogError["operation"], name: string) =>
    Effect.suspend(() => {
      const question = asking.get(name) ?? { answer: ask(name), waiting: 0 }
      asking.set(name, question)
      question.waiting += 1
      const gone = Effect.sync(() => {
        question.waiting -= 1
        if (question.waiting === 0) asking.delete(name)
      })
      return Effect.ensuring(
        logQuery(operation, name, () => question.answer),
        gone
      )
    })
  /**
   * A topic in memory. Callers keep their order: while some wait for the query, none may overtake them with the topic that it found, so it is
   * undefined then.
   */
  const known = (name: string) => (asking.has(name) ? undefined : topics.get(name))
  const find = Effect.fnUntraced(function* (operation: LogError["operation"], name: string, partition = 0) {
    const topic = known(name) ?? (yield* asked(operation, name))
    if (topic === undefined) return yield* unknownTopic(name)
    const refused = partitionProblem(name, topic.partitions, partition)
    if (refused !== undefined) return yield* refused
    return topic
  })
  const bounds = Effect.fnUntraced(function* (name: string) {
    const { topicId } = yield* find("bounds", name)
    const rows = yield* logQuery(
      "bounds",
      name,
      () => sql`
        select partition, start_position, next_position from millrace.log_head where topic_id = ${topicId} order by partition`
    )
    if (rows.length === 0) {
      topics.delete(name)
      return yield* new UnknownTopic({ topic: name, reason: "the topic was deleted" })
    }
    return rows.map((row): PartitionBounds => ({
      partition: Number(row["partition"]),
      start: Number(row["start_position"]),
      end: Number(row["next_position"])
    }))
  })
  const identity = Effect.fnUntraced(function* (name: string) {
    const topic = yield* logQuery("bounds", name, () => ask(name))
    return topic === undefined ? yield* unknownTopic(name) : String(topic.topicId)
  })
  /** Removes a topic from memory: an append found that it had changed. */
  const forget = (name: string) => void topics.delete(name)
  return { declare, find, known, bounds, identity, forget }
}
