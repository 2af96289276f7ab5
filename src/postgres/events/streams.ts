// Lists the streams of an aggregate on PostgreSQL: by their ids, or those that were appended to last.
import * as Effect from "effect/Effect"
import { type EventStore, listBounds, type ListedStream, type ListOptions } from "../../aggregate/event-store.ts"
import { partitionOf } from "../../model/partitioner.ts"
import type { Sql } from "../client/client.ts"
import { arrayOf } from "../client/columns.ts"
import type { Meta } from "../log/batch-codec.ts"
import { run } from "./errors.ts"
import type { AggregateTopic, AggregateTopics } from "./topics.ts"

// an id that begins with the prefix is not behind the prefix and the last character of Unicode
const byId = `
  select stream as id, version, closed from millrace.event_stream
  where topic_id = $1::int4 and version > 0 and stream > $2::text and stream >= $3::text and stream < $3::text || chr(1114111)
  order by stream limit $4::int4`
const byTime = `
  select s.stream as id, s.version, s.closed from (
    select b.entity, max(b.appended_at) as at from generate_series(0, $2::int4 - 1) p
    cross join lateral (
      select entity, appended_at from millrace.log_batch
      where topic_id = $1::int4 and partition = p and entity is not null order by base_position desc limit ${listBounds.recent}
    ) b
    group by 1
  ) r join millrace.event_stream s on s.topic_id = $1::int4 and s.stream = r.entity
  where s.version > 0 and starts_with(s.stream, $3::text)
  order by r.at desc, 1 limit $4::int4`
const details = `
  select last.at, first.meta from unnest($2::text[], $3::int4[]) with ordinality as o (id, partition, n)
  cross join lateral (
    select (extract(epoch from appended_at) * 1000)::float8 as at from millrace.log_batch
    where topic_id = $1::int4 and partition = o.partition and entity = o.id and entity is not null order by first_version desc limit 1
  ) last
  cross join lateral (
    select meta from millrace.log_batch
    where topic_id = $1::int4 and partition = o.partition and entity = o.id and entity is not null order by first_version limit 1
  ) first
  order by o.n`

interface StreamRow {
  readonly id: string
  readonly version: number
  readonly closed: ListedStream["closed"] | null
}
interface DetailRow {
  readonly at: number
  readonly meta: string
}

/** `list` of the event store. */
export const makeList = (sql: Sql, topics: AggregateTopics): EventStore["Service"]["list"] => {
  const rowsOf = (topic: AggregateTopic, { after = "", order, prefix = "" }: ListOptions, limit: number) => {
    const [text, second] = order === "id" ? [byId, after] : [byTime, topic.partitions]
    return run("list", topic.name, () =>
      sql.unsafe<Array<StreamRow>>(text, [topic.topicId, second, prefix, limit], { prepare: true })
    )
  }
  const listed = (topic: AggregateTopic, rows: ReadonlyArray<StreamRow>) => {
    const partitions = rows.map(({ id }) => partitionOf(id, topic.partitions))
    const parameters = [topic.topicId, arrayOf(rows.map(({ id }) => id)), arrayOf(partitions.map(String))]
    return run("list", topic.name, () => sql.unsafe<Array<DetailRow>>(details, parameters, { prepare: true })).pipe(
      Effect.map((found) =>
        rows.flatMap(({ closed, id, version }, i): ReadonlyArray<ListedStream> => {
          const detail = found[i]
          if (detail === undefined) return []
          const [first] = JSON.parse(detail.meta) as ReadonlyArray<Meta>
          const stream = { id, version, appendedAt: Math.round(detail.at), tenant: first?.[3] ?? undefined }
          return [closed === null || closed === undefined ? stream : { ...stream, closed }]
        })
      )
    )
  }
  return Effect.fnUntraced(function* (aggregate, options) {
    const { limit, order, tenant } = options
    const topic = yield* topics.find("list", aggregate)
    const isOwn = (stream: ListedStream) => tenant === undefined || stream.tenant === tenant
    if (order === "recent") {
      const rows = yield* rowsOf(topic, options, tenant === undefined ? limit : listBounds.examined)
      return { streams: (yield* listed(topic, rows)).filter(isOwn).slice(0, limit), next: undefined }
    }
    const most = tenant === undefined ? limit : Math.max(limit, listBounds.examined)
    const rows = yield* rowsOf(topic, options, most + 1)
    const own = (yield* listed(topic, rows.slice(0, most))).filter(isOwn)
    const streams = own.slice(0, limit)
    if (own.length > limit) return { streams, next: streams.at(-1)!.id }
    return { streams, next: rows.length > most ? rows[most - 1]!.id : undefined }
  })
}
