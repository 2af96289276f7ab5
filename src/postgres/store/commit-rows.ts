// The parts of a commit statement that write read models: rows of tables, deltas of windows, and the messages of windows.
import { metaText } from "../../runner/segments.ts"
import type { Column } from "../../model/columns.ts"
import type { Row } from "../../model/recorder.ts"
import type { TableChange, WindowChange, WindowDelta } from "../../runner/store.ts"
import { columnArray, fromParameter, keyOrder, parameterType, quote, toJson, arrayOf } from "../client/columns.ts"
import { type FromCommit, outboxColumns, type StatementParts } from "./commit-parts.ts"
import type { StoredRelation } from "./ddl.ts"

/**
 * Adds rows as `select c1, c2 … from unnest($1::t1[], …)`, in the order of the key, each with its part. `more` has further columns, as
 * texts with one line for each row. Their names begin with an underscore, which no name of a user's column does.
 */
const rowsInput = (
  parts: StatementParts,
  relation: StoredRelation,
  columns: ReadonlyArray<Column>,
  rows: ReadonlyArray<FromCommit<Row>>,
  more: ReadonlyArray<[string, string]> = []
) => {
  const values = rows.map(({ of }) => of)
  const arrays = [
    ...columns.map((column) => `${parts.parameter(columnArray(column, values))}::${parameterType(column)}`),
    ...more.map(([, lines]) => `string_to_array(${parts.parameter(lines)}::text, E'\\n')`),
    ...(parts.several ? [`${parts.parameter(arrayOf(rows.map(({ part }) => part)))}::int4[]`] : [])
  ]
  const also = [...more.map(([name]) => name), ...(parts.several ? ["_part"] : [])]
  const names = [...columns.map(({ name }) => quote(name)), ...also]
  const selected = [
    ...columns.map((column) => `${fromParameter(column, "u")} as ${quote(column.name)}`),
    ...also.map((name) => `u.${name}`)
  ]
  return parts.input(
    `select ${selected.join(", ")} from unnest(${arrays.join(", ")}) as u(${names.join(", ")}) order by ${keyOrder(relation, "u")}`
  )
}
/** The fence that a table's rows are written by. A follower writes no shared tables: the live build has written what it would. */
const fenceOf = ({ shared }: StoredRelation) =>
  shared ? "(select * from fence where mode <> 'follower') fence" : "fence"
/** Rows whose part's fence holds, in the order of the key. */
const fenced = (parts: StatementParts, relation: StoredRelation, rows: string) =>
  parts.several
    ? (after: string) =>
        `${fenceOf(relation)} join ${rows} r on r._part = fence.part${after} order by ${keyOrder(relation, "r")}`
    : (after: string) => `${fenceOf(relation)}, ${rows} r${after}`
const keyColumns = (relation: StoredRelation) => relation.columns.filter(({ name }) => relation.key.includes(name))
const valueColumns = (relation: StoredRelation) => relation.columns.filter(({ name }) => !relation.key.includes(name))
const list = (columns: ReadonlyArray<{ readonly name: string }>, prefix = "") =>
  columns.map(({ name }) => prefix + quote(name)).join(", ")
const keyList = (relation: StoredRelation, prefix = "") => relation.key.map((name) => prefix + quote(name)).join(", ")

/** Upserts, updates and deletes of one table. */
export const tableParts = (
  parts: StatementParts,
  relation: StoredRelation,
  changes: ReadonlyArray<FromCommit<TableChange>>
) => {
  const values = valueColumns(relation)
  const upserts = changes.flatMap(({ of, part }) => of.upserts.map((row) => ({ part, of: row })))
  // only a statement of one commit has updates and deletes
  const updates = changes.flatMap(({ of, part }) => of.updates.map((row) => ({ part, of: row })))
  const deletes = changes.flatMap(({ of, part }) => of.deletes.map((row) => ({ part, of: row })))
  const others = [...updates, ...deletes]
  if (upserts.length > 0) {
    const kinds = [...upserts.map(() => "t"), ...others.map(() => "f")].join("\n")
    const more: ReadonlyArray<[string, string]> = others.length === 0 ? [] : [["_upserted", kinds]]
    const rows = rowsInput(parts, relation, relation.columns, [...upserts, ...others], more)
    const set = values.map(({ name }) => `${quote(name)} = excluded.${quote(name)}`).join(", ")
    const from = others.length === 0 ? fenced(parts, relation, rows) : upsertsAmongLocks(parts, relation, rows)
    parts.write(
      // the alias, because a table may be called excluded
      (after) => `insert into ${relation.qualifiedName} as t (${list(relation.columns)})
      select ${list(relation.columns, "r.")} from ${from(after)}
      on conflict (${keyList(relation)}) do ${values.length === 0 ? "nothing" : `update set ${set}`} returning 1`
    )
  } else if (updates.length > 0 && deletes.length > 0) {
    locked(parts, relation, rowsInput(parts, relation, keyColumns(relation), others))
  }
  if (updates.length > 0 && values.length > 0) {
    const masks = values.map(
      ({ name }, i) => [`_m${i}`, updates.map(({ of }) => (name in of ? "t" : "f")).join("\n")] as [string, string]
    )
    const rows = rowsInput(parts, relation, relation.columns, updates, masks)
    const set = values.map(
      ({ name }, i) => `${quote(name)} = case when r._m${i} = 't' then r.${quote(name)} else t.${quote(name)} end`
    )
    parts.write(
      (after) => `update ${relation.qualifiedName} t set ${set.join(", ")}
      from (select r.* from ${fenceOf(relation)}, ${rows} r join ${locked(parts, relation, rows)} l using (${keyList(relation)})${after}) r
      where ${matches(relation, "r")} returning 1`
    )
  }
  if (deletes.length > 0) {
    const rows = rowsInput(parts, relation, keyColumns(relation), deletes)
    parts.write(
      (after) => `delete from ${relation.qualifiedName} t
      using (select r.* from ${fenceOf(relation)}, ${rows} r join ${locked(parts, relation, rows)} l using (${keyList(relation)})${after}) r
      where ${matches(relation, "r")} returning 1`
    )
  }
}
/**
 * Rows to upsert, and between them, in the order of the key, locks on the rows that later parts update or delete. Each row is locked or
 * inserted before the next one is read. Locking one kind of rows after the other could deadlock with another batch.
 */
const upsertsAmongLocks = (parts: StatementParts, relation: StoredRelation, rows: string) => {
  // nothing is locked before the fence holds and earlier parts have run; `offset` keeps the planner from merging this into what follows
  const gate = parts.write((after) => `select fence.mode from ${fenceOf(relation)}${after} offset 0`)
  return () => `${gate} g, ${rows} r, lateral (select count(*) as n from (
        select from ${relation.qualifiedName} t where g.mode is not null and r._upserted = 'f' and ${matches(relation, "r")} for update) x) l
      where case when l.n >= 0 then r._upserted = 't' end`
}
/** Locks the existing rows in the order of their keys, before any of them is changed. */
const locked = (parts: StatementParts, relation: StoredRelation, rows: string) =>
  parts.write(
    (
      after
    ) => `select ${keyList(relation, "t.")} from ${fenceOf(relation)}, ${relation.qualifiedName} t join ${rows} r on ${matches(relation, "r")}${after}
    order by ${keyOrder(relation, "t")} for update of t`
  )
const matches = (relation: StoredRelation, alias: string) =>
  relation.key.map((name) => `t.${quote(name)} = ${alias}.${quote(name)}`).join(" and ")

const merged = ({ delta, name }: Column) => {
  const column = quote(name)
  switch (delta) {
    case "count":
      // a total that JavaScript cannot read overflows bigint here
      return `${column} = (t.${column} + excluded.${column}) * case when abs(t.${column} + excluded.${column}) < ${2 ** 53} then 1 else 2048 end`
    case "sum":
      return `${column} = t.${column} + excluded.${column}`
    case "min":
      return `${column} = least(t.${column}, excluded.${column})`
    case "max":
      return `${column} = greatest(t.${column}, excluded.${column})`
    default:
      return `${column} = excluded.${column}`
  }
}
const messageColumns = [
  ["part", "int4"],
  ["behind", "int8"],
  ["messages", "int4"],
  ["target_partition", "int4"]
] as const
/**
 * Adds deltas to the rows of a window, and publishes the new rows that the upsert returns, so that no read races with it. `behind` has, for
 * each commit, how many of its messages follow these in its stream, and is increased by these.
 */
export const windowParts = (
  parts: StatementParts,
  relation: StoredRelation,
  changes: ReadonlyArray<FromCommit<WindowChange>>,
  behind: Array<number>
) => {
  // in a statement of several commits, one that is muted publishes nothing because its fence does not hold where another one's is live
  const topic = changes.find(({ of }) => of.isMuted !== true)?.of.window.topic
  const deltas = changes.flatMap(({ of, part }) => of.deltas.map((delta) => ({ part, of: delta })))
  // JSON has no raw line feeds, so lines can stand for an array, and nothing has to be escaped
  const meta =
    topic &&
    deltas
      .map(({ of }) => metaText(of.key, of.eventTime, undefined, of.tenant, of.traceparent, 1, of.sentTime))
      .join("\n")
  const rows = rowsInput(
    parts,
    relation,
    relation.columns,
    deltas.map(({ of, part }) => ({ part, of: of.row })),
    meta === undefined ? [] : [["_meta", meta]]
  )
  const from = fenced(parts, relation, rows)
  const written = parts.write(
    (after) => `insert into ${relation.qualifiedName} as t (${list(relation.columns)})
    select ${list(relation.columns, "r.")} from ${from(after)}
    on conflict (${keyList(relation)}) do update set ${valueColumns(relation).map(merged).join(", ")}
    returning ${topic === undefined ? "1" : list(relation.columns, "t.")}`
  )
  if (topic === undefined) return
  const fields =
    topic.fields === undefined ? relation.columns : relation.columns.filter(({ name }) => topic.fields!.includes(name))
  const messages = changes.map(({ of, part }) => {
    const [{ partition }] = of.deltas as readonly [WindowDelta]
    const one = of.deltas.every((delta) => delta.partition === partition) ? partition : null
    behind[part]! += of.deltas.length
    return [part, behind[part]! - of.deltas.length, of.deltas.length, one]
  })
  const line = `(select row_to_json(_row)::text from (select ${fields.map((field) => toJson(field, "x")).join(", ")}) _row)`
  const texts = parts.several
    ? textsByPart(parts, relation, rows, written, line)
    : textsOfAll(relation, rows, written, line)
  parts.write(
    (after) => `insert into millrace.outbox (${outboxColumns})
    select f.projection, f.topic, f.partition, f.outbox_seq - m.behind - m.messages + 1, m.messages, f.incarnation,
      ${parts.parameter(topic.name)}::text, m.target_partition, ${texts}
    from fence f join ${parts.rows(messageColumns, messages, "m")} on m.part = f.part${after}
    where f.mode = 'live' returning 1`
  )
}

const packedMeta = (order: string) => `'[' || string_agg(x._meta, ',' order by ${order}) || ']'`
/** The texts of one segment with all rows. */
const textsOfAll = (relation: StoredRelation, rows: string, written: string, line: string) => {
  const order = keyOrder(relation, "x")
  return `(select ${packedMeta(order)} from ${rows} x),
      (select string_agg(${line}, E'\\n' order by ${order}) from ${written} x)`
}
/**
 * The texts of a segment for each part. The upsert does not return a row's part, and a join would compare all rows with each other, because
 * the planner cannot estimate their number. Rows are written in the order of their keys, so the n-th row has the n-th part.
 */
const textsByPart = (parts: StatementParts, relation: StoredRelation, rows: string, written: string, line: string) => {
  const order = keyOrder(relation, "x")
  const metas = parts.input(`select x._part as part, ${packedMeta(order)} as text from ${rows} x group by x._part`)
  const numbered = `select x.*, (select array_agg(x._part order by ${order}) from ${fenceOf(relation)} join ${rows} x on x._part = fence.part)
      [row_number() over (order by ${order})] as _part from ${written} x`
  const vals = parts.input(
    `select x._part as part, string_agg(${line}, E'\\n' order by ${order}) as text from (${numbered}) x group by x._part`
  )
  return `(select t.text from ${metas} t where t.part = f.part), (select t.text from ${vals} t where t.part = f.part)`
}
