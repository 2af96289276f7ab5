// The topics of the log on PostgreSQL: declaring them, and their numbers, remembered. It touches no record.
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import { type Bounds, LogError, type TopicSpec, UnknownTopic } from "../log.ts"
import { attempt } from "./log-errors.ts"

/** A topic as the log knows it. */
export interface Known {
  readonly topicId: number
  readonly name: string
  readonly partitions: number
}

const policy = (compacted: boolean) => (compacted ? "compacted" : "kept by age")

const invalid = ({ name, partitions, retentionMs }: TopicSpec): string | undefined => {
  if (name === "") return "a topic needs a name"
  if (!(Number.isInteger(partitions) && partitions >= 1))
    return `partitions is ${partitions}, it must be a whole number from 1`
  if (retentionMs !== undefined && !(retentionMs > 0)) return `retention is ${retentionMs} ms, it must be more than 0`
  return undefined
}

const declareOne = async (sql: postgres.Sql, spec: TopicSpec): Promise<string | undefined> => {
  const { compacted, name, partitions } = spec
  const retention = spec.retentionMs === undefined ? null : Math.round(spec.retentionMs)
  const made = await sql`
    with topic as (
      insert into millrace.log_topic as t (name, partitions, compacted, retention_ms)
      values (${name}, ${partitions}::int, ${compacted}::boolean, ${retention}::bigint)
      on conflict (name) do update set retention_ms = excluded.retention_ms
      where t.partitions = excluded.partitions and t.compacted = excluded.compacted
      returning topic_id
    ), heads as (
      insert into millrace.log_head (topic_id, partition, next_position)
      select topic_id, partition, 0 from topic, generate_series(0, ${partitions}::int - 1) as partition
      order by partition on conflict do nothing
    )
    select topic_id from topic`
  if (made.length > 0) return undefined
  const [there] = await sql`select partitions, compacted from millrace.log_topic where name = ${name}`
  if (there === undefined) return "it was deleted while it was declared; try again"
  if (there["compacted"] !== compacted) {
    return `it is ${policy(there["compacted"] as boolean)} and was declared ${policy(compacted)}: give the new topic another name`
  }
  return (
    `it has ${there["partitions"]} partitions and was declared with ${partitions}, which would break the order of its keys: ` +
    `declare ${there["partitions"]}, or give the new topic another name and copy the events`
  )
}

/** The topics of a log; `bounds` and `find` fail with `UnknownTopic` for one that was not declared. */
export const make = (sql: postgres.Sql) => {
  const known = new Map<string, Known>()

  const declare = Effect.fnUntraced(function* (specs: ReadonlyArray<TopicSpec>) {
    for (const spec of specs) {
      const reason = invalid(spec) ?? (yield* attempt("declare", spec.name, () => declareOne(sql, spec)))
      if (reason !== undefined) {
        return yield* new LogError({ operation: "declare", topic: spec.name, retryable: false, reason })
      }
    }
  })
  const find = Effect.fnUntraced(function* (operation: LogError["operation"], name: string, partition = 0) {
    let topic = known.get(name)
    if (topic === undefined) {
      const [row] = yield* attempt(
        operation,
        name,
        () => sql`select topic_id, partitions from millrace.log_topic where name = ${name}`
      )
      if (row === undefined) return yield* new UnknownTopic({ topic: name, reason: "there is no such topic" })
      topic = { topicId: Number(row["topic_id"]), name, partitions: Number(row["partitions"]) }
      known.set(name, topic)
    }
    const refused = misplaced(topic, partition)
    if (refused !== undefined) return yield* refused
    return topic
  })
  const bounds = Effect.fnUntraced(function* (name: string) {
    const { topicId } = yield* find("bounds", name)
    const rows = yield* attempt(
      "bounds",
      name,
      () => sql`
        select partition, start_position, next_position from millrace.log_head where topic_id = ${topicId} order by partition`
    )
    if (rows.length === 0) {
      known.delete(name)
      return yield* new UnknownTopic({ topic: name, reason: "it is not there any more" })
    }
    return rows.map((row): Bounds => ({
      partition: Number(row["partition"]),
      start: Number(row["start_position"]),
      end: Number(row["next_position"])
    }))
  })
  /** A topic was not what was remembered of it. */
  const forget = (name: string) => void known.delete(name)
  return { declare, find, bounds, forget }
}

/** Why a topic has no such partition; undefined where it has. */
export const misplaced = ({ name, partitions }: Known, partition: number): UnknownTopic | undefined =>
  Number.isInteger(partition) && partition >= 0 && partition < partitions
    ? undefined
    : new UnknownTopic({ topic: name, reason: `it has partitions 0 to ${partitions - 1}, not ${partition}` })
