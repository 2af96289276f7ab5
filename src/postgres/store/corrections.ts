// Corrections of what windows published: notes the rows that the last promotion changed, and puts a message for each into the outbox, once.
import * as Effect from "effect/Effect"
import { metaText } from "../../runner/segments.ts"
import { query, type Session, type Sql, type SqlError, transaction } from "../client/client.ts"
import { arrayOf, quote, toJson } from "../client/columns.ts"
import { type ComparedRelations, differencesSql } from "./compare.ts"
import type { StoredRelation } from "./ddl.ts"

/** The last promotion of a projection. */
export interface LastPromotion {
  readonly token: string
  /** The builds that it replaced, and put in their place. */
  readonly old: number
  readonly new: number
  /** The number of promotions of the projection, this one included. */
  readonly count: number
  readonly corrections: NotedCorrections | null
}
/** What was found to correct. */
export interface NotedCorrections {
  /** What the messages have in the header `millrace-revision`. */
  readonly revision: number
  /** Rows that get a message. */
  readonly rows: number
  /** Rows that the old build had and the new one does not have: no message says so. */
  readonly gone: number
}
/** A window whose rows are compared in the columns that it publishes: `live` is the old build, `candidate` the new one. */
export interface CorrectedModel {
  readonly name: string
  readonly relations: ComparedRelations
}

/** The last promotion of a projection; undefined if there is none. */
export const readLastPromotion = (sql: Sql, projection: string): Effect.Effect<LastPromotion | undefined, SqlError> =>
  query("read the last promotion", async () => {
    const [row] = await sql.unsafe<Array<LastPromotion>>(
      `select token, old, new, corrections, (count(*) over ())::int4 as count from millrace.promotion where projection = $1 order by at desc limit 1`,
      [projection]
    )
    return row
  })

/** Notes which rows a promotion changed, unless that was done before, and forgets what is left of earlier promotions. */
export const noteCorrections = Effect.fnUntraced(function* (
  sql: Sql,
  projection: string,
  { count, token }: LastPromotion,
  models: ReadonlyArray<CorrectedModel>
): Effect.fn.Return<NotedCorrections, SqlError> {
  return yield* transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      const [before] = yield* query("look for corrections", () =>
        tx.unsafe<Array<{ readonly corrections: NotedCorrections | null }>>(
          "select corrections from millrace.promotion where token = $1::uuid for update",
          [token]
        )
      )
      if (before!.corrections !== null) return before!.corrections
      yield* query("forget earlier corrections", () =>
        tx.unsafe(
          `delete from millrace.correction c using millrace.promotion p where p.token = c.token and p.projection = $1`,
          [projection]
        )
      )
      let [rows, gone] = [0, 0]
      for (const { name, relations } of models) {
        const [found] = yield* query("note rows that changed", () =>
          tx.unsafe<Array<{ readonly rows: number; readonly gone: number }>>(
            `with d as materialized (${differencesSql(relations, false)}), noted as (
              insert into millrace.correction (token, model, key) select $1::uuid, $2, key from d where kind in ('changed', 'extra') returning 1
            )
            select (select count(*) from noted) as rows, (select count(*) from d where kind = 'missing') as gone`,
            [token, name]
          )
        )
        rows += found!.rows
        gone += found!.gone
      }
      const corrections: NotedCorrections = { revision: count + 1, rows, gone }
      yield* query("note what is corrected", () =>
        tx.unsafe("update millrace.promotion set corrections = $2::text::jsonb where token = $1::uuid", [
          token,
          JSON.stringify(corrections)
        ])
      )
      return corrections
    })
  )
})

/** Whether rows wait for their message. */
export const hasWaiting = (sql: Sql, token: string): Effect.Effect<boolean, SqlError> =>
  query("look for corrections", async () => {
    const rows = await sql.unsafe("select from millrace.correction where token = $1::uuid limit 1", [token])
    return rows.length > 0
  })
/** How many partitions of a topic a build has. */
export const countPartitions = (
  sql: Sql,
  projection: string,
  build: number,
  topic: string
): Effect.Effect<number, SqlError> =>
  query("count partitions", async () => {
    const [row] = await sql.unsafe<Array<{ readonly partitions: number }>>(
      "select count(*) as partitions from millrace.progress where projection = $1 and version = $2::int4 and topic = $3",
      [projection, build, topic]
    )
    return row!.partitions
  })

/** Rows of one window that wait for their message. Keys are texts, in the order of the key's columns. */
export interface WaitingCorrections {
  readonly model: string
  readonly keys: ReadonlyArray<ReadonlyArray<string>>
}
/** Some rows that wait for their message, all of one window; undefined if none does. */
export const readWaiting = (
  sql: Sql,
  token: string,
  limit: number
): Effect.Effect<WaitingCorrections | undefined, SqlError> =>
  query("read corrections", async () => {
    const rows = await sql.unsafe<Array<{ readonly model: string; readonly key: ReadonlyArray<string> }>>(
      `select model, to_jsonb(key) as key from millrace.correction where token = $1::uuid
        and model = (select min(model) from millrace.correction where token = $1::uuid) order by key limit ${limit}`,
      [token]
    )
    return rows.length === 0 ? undefined : { model: rows[0]!.model, keys: rows.map(({ key }) => key) }
  })

const keyColumns = ({ columns, key }: StoredRelation) =>
  key.map((name) => columns.find((column) => column.name === name)!)
/** The keys as a relation `k`, numbered by `ord`, joined to the rows `t`; `first` is the number of the first parameter. */
const keyedRows = (relation: StoredRelation, first: number) => {
  const columns = keyColumns(relation)
  const arrays = columns.map((_, i) => `$${first + i}::text[]`)
  const names = columns.map((_, i) => `k${i}`)
  const on = columns.map(({ name, type }, i) => `t.${quote(name)} = k.k${i}::${type}`)
  return {
    keys: `unnest(${arrays.join(", ")}) with ordinality as k(${names.join(", ")}, ord)`,
    join: `join ${relation.qualifiedName} t on ${on.join(" and ")}`
  }
}
const keyParameters = (relation: StoredRelation, keys: ReadonlyArray<ReadonlyArray<string>>) =>
  relation.key.map((_, i) => arrayOf(keys.map((key) => key[i]!)))

/** The key columns of rows, as handlers see them; undefined for a row that does not exist any more. */
export const readKeys = (
  sql: Sql,
  relation: StoredRelation,
  keys: ReadonlyArray<ReadonlyArray<string>>
): Effect.Effect<ReadonlyArray<Readonly<Record<string, unknown>> | undefined>, SqlError> =>
  query("read the keys of corrected rows", async () => {
    const { join, keys: from } = keyedRows(relation, 1)
    const list = relation.key.map((name) => `t.${quote(name)}`).join(", ")
    const rows = await sql.unsafe<Array<Record<string, unknown>>>(
      `select k.ord as _ord, ${list} from ${from} ${join}`,
      keyParameters(relation, keys)
    )
    const byNumber = new Map(rows.map(({ _ord, ...row }) => [Number(_ord), row] as const))
    return keys.map((_, i) => byNumber.get(i + 1))
  })

/** The stream that publishes a row: that of the partition which writes it. */
export interface CorrectionStream {
  readonly projection: string
  readonly build: number
  readonly topic: string
  readonly partition: number
}
/** Rows of one window and one stream, whose messages are published together. */
export interface CorrectionBatch {
  readonly stream: CorrectionStream
  readonly relation: StoredRelation
  /** The topic that the window publishes, and the columns of its messages. */
  readonly target: string
  readonly fields: ReadonlyArray<string>
  readonly rows: ReadonlyArray<{
    readonly key: ReadonlyArray<string>
    readonly messageKey: string
    readonly tenant: string | undefined
  }>
  readonly headers: Readonly<Record<string, string>>
}
/**
 * Publishes the rows as they are now, behind everything that their partition has published, and removes them from what waits, in one transaction.
 * The partition commits nothing meanwhile, so a later message of a row has a later value. `undefined` if the partition cannot publish now,
 * because it is frozen or not live.
 */
export const publishBatch = (
  sql: Sql,
  token: string,
  { fields, headers, relation, rows, stream, target }: CorrectionBatch
): Effect.Effect<number | undefined, SqlError> =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx: Session) {
      const at = [stream.projection, stream.build, stream.topic, stream.partition]
      const [fence] = yield* query("lock the partition", () =>
        tx.unsafe<Array<{ readonly time: number }>>(
          `select coalesce(stream_time, (extract(epoch from clock_timestamp()) * 1000)::int8) as time from millrace.progress
          where projection = $1 and version = $2::int4 and topic = $3 and partition = $4::int4 and mode = 'live' for update`,
          at
        )
      )
      if (fence === undefined) return undefined
      const metas = rows.map(({ messageKey, tenant }) => {
        const meta = metaText(messageKey, fence.time, undefined, tenant, undefined)
        return `${meta.slice(0, -1)},null,${JSON.stringify(headers)}]`
      })
      const published = fields.map((name) => relation.columns.find((column) => column.name === name)!)
      const { join, keys } = keyedRows(relation, 8)
      const line = `(select row_to_json(_row)::text from (select ${published.map((field) => toJson(field, "t")).join(", ")}) _row)`
      // a statement of its own sees what was committed until the partition was locked
      const [sent] = yield* query("publish corrections", () =>
        tx.unsafe<Array<{ readonly messages: number }>>(
          `with r as materialized (select k.ord, ($7::text[])[k.ord] as meta, ${line} as line from ${keys} ${join}),
          n as (select count(*) as messages, '[' || string_agg(meta, ',' order by ord) || ']' as meta, string_agg(line, E'\\n' order by ord) as vals from r),
          done as (delete from millrace.correction c using ${keys} where c.token = $5::uuid and c.model = $6
            and c.key = array[${relation.key.map((_, i) => `k.k${i}`).join(", ")}]),
          f as (update millrace.progress g set outbox_seq = g.outbox_seq + n.messages, incarnation = coalesce(g.incarnation, gen_random_uuid())
            from n where g.projection = $1 and g.version = $2::int4 and g.topic = $3 and g.partition = $4::int4 returning g.*),
          sent as (insert into millrace.outbox (projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals)
            select f.projection, f.topic, f.partition, f.outbox_seq - n.messages + 1, n.messages, f.incarnation, $${8 + relation.key.length}, null, n.meta, n.vals
            from f, n where n.messages > 0)
          select messages from n`,
          [
            ...at,
            token,
            relation.name,
            arrayOf(metas),
            ...keyParameters(
              relation,
              rows.map(({ key }) => key)
            ),
            target
          ]
        )
      )
      return sent!.messages
    })
  )
