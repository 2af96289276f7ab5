// Compares two relations row by row, inside the database and in bounded memory: rows that one lacks, and rows that differ.
import * as Effect from "effect/Effect"
import { query, type Session, type SqlError } from "../client/client.ts"
import { arrayOf, quote } from "../client/columns.ts"

/** A column that both relations have with the same type. */
export interface ComparedColumn {
  readonly name: string
  /** The type as PostgreSQL names it, such as `double precision`. */
  readonly type: string
  /** The oid of the type; of the elements if it is an array. */
  readonly oid: number
  /** What separates the elements; undefined if the type is no array. */
  readonly delimiter: string | undefined
}
/** Two relations with the same key. `live` and `candidate` are queries that return the columns, and the row's `ctid` as `_ctid`. */
export interface ComparedRelations {
  readonly live: string
  readonly candidate: string
  readonly key: ReadonlyArray<ComparedColumn>
  /** The columns beside the key. */
  readonly columns: ReadonlyArray<ComparedColumn>
}
/**
 * How a row differs: `missing` in the candidate, `extra` in the candidate, `changed`, or `rounding`: only columns of floating-point numbers
 * differ, and each by a billionth at most.
 */
export const differenceKinds = ["missing", "extra", "changed", "rounding"] as const
/** See `differenceKinds`. */
export type DifferenceKind = (typeof differenceKinds)[number]
/** A value as PostgreSQL's text, with its column. */
export interface ComparedValue {
  readonly column: ComparedColumn
  readonly text: string | null
}
/** A row that differs. */
export interface DifferenceSample {
  readonly kind: DifferenceKind
  readonly key: ReadonlyArray<ComparedValue>
  /** Of a row that both have, the columns that differ; of another one, all. Undefined if the live build does not have the row. */
  readonly live: ReadonlyArray<ComparedValue> | undefined
  /** The same of the candidate. */
  readonly candidate: ReadonlyArray<ComparedValue> | undefined
}
/** How many rows differ, by kind, and some of them. */
export interface Differences extends Readonly<Record<DifferenceKind, number>> {
  readonly rows: { readonly live: number; readonly candidate: number }
  readonly samples: ReadonlyArray<DifferenceSample>
}
/** How to compare. */
export interface CompareOptions {
  /** How many rows of each kind are returned as samples. */
  readonly samples: number
  /** Whether numbers that differ by rounding count as changed. */
  readonly exact: boolean
}

const floats = new Set(["real", "double precision"])
const listOf = (columns: ReadonlyArray<ComparedColumn>, alias: string) =>
  columns.map(({ name }) => `${alias}.${quote(name)}`).join(", ")
/** Whether the columns have the same bytes: `=` would take -0 for 0 and 1.0 for 1, and JSON has no `=`. True if there are no columns. */
const sameBytes = (columns: ReadonlyArray<ComparedColumn>) =>
  columns.length === 0 ? "true" : `record_image_eq(row(${listOf(columns, "a")}), row(${listOf(columns, "b")}))`
/** Whether a column of floats is the same but for rounding. Differences of numbers of one sign do not overflow, and products of these do not underflow. */
const nearlyEqual = ({ name }: ComparedColumn) => {
  const [a, b] = [`a.${quote(name)}::float8`, `b.${quote(name)}::float8`]
  const isSpecial = (value: string) => `${value} in ('NaN', 'Infinity', '-Infinity')`
  return `case when ${a} is null or ${b} is null then ${a} is null and ${b} is null when ${a} = ${b} then true
    when ${isSpecial(a)} or ${isSpecial(b)} or sign(${a}) <> sign(${b}) then false
    else abs(${a} - ${b}) <= 1e-9 * greatest(abs(${a}), abs(${b}), 1e-290) end`
}

/** The query that returns a row for each difference: its `kind`, the rows' `ctid`s as `live` and `candidate`, and the candidate's `key` as texts. */
export const differencesSql = ({ candidate, columns, key, live }: ComparedRelations, exact: boolean): string => {
  const all = [...key, ...columns]
  const rounded = exact ? [] : all.filter(({ type }) => floats.has(type))
  const others = all.filter((column) => !rounded.includes(column))
  const isRounding =
    rounded.length === 0
      ? "false"
      : [sameBytes(others), ...rounded.map(nearlyEqual)].map((one) => `(${one})`).join(" and ")
  return `select case when b._ctid is null then 'missing' when a._ctid is null then 'extra' when ${isRounding} then 'rounding' else 'changed' end as kind,
      a._ctid::text as live, b._ctid::text as candidate, array[${key.map(({ name }) => `b.${quote(name)}::text`).join(", ")}] as key
    from (${live}) a full join (${candidate}) b on ${key.map(({ name }) => `a.${quote(name)} = b.${quote(name)}`).join(" and ")}
    where a._ctid is null or b._ctid is null or not ${sameBytes(all)}`
}

interface FoundDifference {
  readonly kind: DifferenceKind
  readonly live: string | null
  readonly candidate: string | null
}
const rowsPerFetch = 2_000

/**
 * Compares two relations in the transaction of a session, which must see both at one moment. Only the kinds and places of rows that differ leave
 * the database, some thousand at a time, and the values of the samples.
 */
export const compare = Effect.fnUntraced(function* (
  tx: Session,
  relations: ComparedRelations,
  { exact, samples }: CompareOptions
): Effect.fn.Return<Differences, SqlError> {
  const found = { missing: 0, extra: 0, changed: 0, rounding: 0 }
  const kept: Array<FoundDifference> = []
  const text = `select kind, live, candidate from (${differencesSql(relations, exact)}) d`
  const pending = tx.unsafe<Array<FoundDifference>>(text)
  const running = pending.cursor(rowsPerFetch, (rows) => {
    for (const row of rows as ReadonlyArray<FoundDifference>) if (++found[row.kind] <= samples) kept.push(row)
  })
  yield* query("compare rows", () => running as unknown as Promise<unknown>).pipe(
    Effect.onInterrupt(() => Effect.promise(async () => Promise.resolve(pending.cancel()).catch(() => undefined)))
  )
  const [rows] = yield* query("count rows", () =>
    tx.unsafe<Array<{ readonly live: number; readonly candidate: number }>>(
      `select (select count(*) from (${relations.live}) a) as live, (select count(*) from (${relations.candidate}) b) as candidate`
    )
  )
  return { ...found, rows: rows!, samples: yield* readSamples(tx, relations, kept) }
})

/** The values of rows that differ, in the order of kinds. */
const readSamples = Effect.fnUntraced(function* (
  tx: Session,
  { candidate, columns, key, live }: ComparedRelations,
  kept: ReadonlyArray<FoundDifference>
) {
  const all = [...key, ...columns]
  const read = Effect.fnUntraced(function* (from: string, ids: ReadonlyArray<string | null>) {
    const wanted = ids.filter((id) => id !== null)
    if (wanted.length === 0) return new Map<string, ReadonlyArray<string | null>>()
    const rows = yield* query("read rows that differ", () =>
      tx
        .unsafe(
          `select t._ctid::text, ${all.map(({ name }) => `t.${quote(name)}::text`).join(", ")} from (${from}) t where t._ctid = any ($1::tid[])`,
          [arrayOf(wanted)]
        )
        .values()
    )
    return new Map(
      (rows as unknown as ReadonlyArray<ReadonlyArray<string | null>>).map(([id, ...values]) => [id!, values] as const)
    )
  })
  const [before, after] = [
    yield* read(
      live,
      kept.map((one) => one.live)
    ),
    yield* read(
      candidate,
      kept.map((one) => one.candidate)
    )
  ]
  const sampled = kept.map((one): DifferenceSample => {
    const [a, b] = [before.get(one.live ?? ""), after.get(one.candidate ?? "")]
    const shown = all.flatMap((column, i) =>
      a === undefined || b === undefined ? (i < key.length ? [] : [i]) : a[i] === b[i] ? [] : [i]
    )
    const valuesOf = (row: ReadonlyArray<string | null> | undefined) =>
      row && shown.map((i) => ({ column: all[i]!, text: row[i]! }))
    const keyRow = (a ?? b)!
    return {
      kind: one.kind,
      key: key.map((column, i) => ({ column, text: keyRow[i]! })),
      live: valuesOf(a),
      candidate: valuesOf(b)
    }
  })
  return differenceKinds.flatMap((kind) => sampled.filter((one) => one.kind === kind))
})
