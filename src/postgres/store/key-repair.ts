// Builds in which only the rows of some keys are replayed: a copy of the live build, which waits where it was copied, and a build that replays the log
// up to there. Then the copy gets the rows of the keys, and follows the live build.
import * as Effect from "effect/Effect"
import type { Projection } from "../../model/projection.ts"
import { query, type Session, type SqlError } from "../client/client.ts"
import { arrayOf, quote } from "../client/columns.ts"
import { ownColumns } from "./copy-build.ts"
import { relationsOf, schemaOf } from "./ddl.ts"

/** What a repair consists of, by the numbers of builds. */
export interface KeyRepair {
  readonly projection: string
  /** The copy of the live build. */
  readonly version: number
  /** The live build that was copied. */
  readonly base: number
  /** The build that replays. */
  readonly scratch: number
  /** SHA-256 of the keys, in hex. */
  readonly keysHash: string
}

/** Notes what two builds are for that were just created, and that both end where the copy is. The other one begins where the live build began. */
export const noteRepair = (
  tx: Session,
  { base, keysHash, projection, scratch, version }: KeyRepair
): Effect.Effect<void, SqlError> =>
  query("note the repair of keys", () =>
    tx`with noted as (
        insert into millrace.build_scope (projection, version, keys_hash, base, scratch) values (${projection}, ${version}, ${keysHash}, ${base}, ${scratch})
      ), ends as (
        insert into millrace.rebuild_until (projection, version, topic, partition, position, until_ms)
        select g.projection, v.number, g.topic, g.partition, g.next_position, floor(extract(epoch from clock_timestamp()) * 1000)
        from millrace.progress g, (values (${version}::int4), (${scratch}::int4)) as v (number) where g.projection = ${projection} and g.version = ${version}
      )
      update millrace.progress n set first_position = o.first_position, next_position = o.first_position from millrace.progress o
      where n.projection = ${projection} and n.version = ${scratch} and o.projection = ${projection} and o.version = ${version}
        and (o.topic, o.partition) = (n.topic, n.partition) and o.first_position > n.first_position`.then(
      () => undefined
    )
  )

/** A table or window, and the column of its key that has the key of the event which writes a row. */
export interface OwnedModel {
  readonly name: string
  readonly column: string
}
/** How many rows of a table the repair removed and inserted. */
export interface RepairedTable {
  readonly name: string
  readonly removed: number
  readonly inserted: number
}

/**
 * Replaces the rows of the keys in the copy by those that were replayed, with late events and dead letters, and lets the copy follow the live build.
 * Both builds must be where they end.
 */
export const replaceKeys = Effect.fnUntraced(function* (
  tx: Session,
  copy: Projection.Any,
  scratch: number,
  models: ReadonlyArray<OwnedModel>,
  keys: ReadonlyArray<string>
): Effect.fn.Return<ReadonlyArray<RepairedTable>, SqlError> {
  const { name, version } = copy
  const list = arrayOf(keys)
  const of = { keys: list, name, scratch, version }
  const tables: Array<RepairedTable> = []
  for (const { columns, name: table } of relationsOf(copy).filter(({ shared }) => !shared)) {
    const column = models.find((model) => model.name === table)?.column
    if (column === undefined) continue
    const names = columns.map((one) => quote(one.name)).join(", ")
    const [to, from] = [version, scratch].map((number) => `${schemaOf(name, number)}.${quote(table)}`)
    const isTheirs = `${quote(column)}::text = any ($1::text[])`
    const counts = yield* query(`replace rows of ${table}`, async () => {
      const removed = await tx.unsafe(`delete from ${to} where ${isTheirs}`, [list])
      const inserted = await tx.unsafe(`insert into ${to} (${names}) select ${names} from ${from} where ${isTheirs}`, [
        list
      ])
      return { name: table, removed: removed.count, inserted: inserted.count }
    })
    tables.push(counts)
    yield* replaceOwn(tx, "late_events", `t.window_name = '${table}' and t.key->>'${column}' = any ($3::text[])`, of)
  }
  yield* replaceOwn(
    tx,
    "dead_letters",
    `t.key = any ($3::text[]) and exists (select from millrace.progress g where (g.projection, g.version, g.topic) = (t.projection, t.version, t.topic))`,
    of
  )
  yield* query("let the copy follow the live build", () =>
    tx.unsafe(
      `with released as (delete from millrace.rebuild_until where projection = $1 and version = $2::int4)
      update millrace.build_scope set scratch = null where projection = $1 and version = $2::int4`,
      [name, version]
    )
  )
  return tables
})

/** Replaces a part of the rows that a build has in one of Millrace's own tables, `t`, by those of another build. The keys are parameter 3. */
const replaceOwn = Effect.fnUntraced(function* (
  tx: Session,
  table: "late_events" | "dead_letters",
  isTheirs: string,
  {
    keys,
    name,
    scratch,
    version
  }: { readonly keys: string; readonly name: string; readonly scratch: number; readonly version: number }
) {
  const columns = yield* ownColumns(tx, table)
  yield* query(`replace rows of ${table}`, async () => {
    await tx.unsafe(
      `delete from millrace.${table} t where t.projection = $1 and t.version = $2::int4 and ${isTheirs}`,
      [name, version, keys]
    )
    await tx.unsafe(
      `insert into millrace.${table} (version, ${columns}) select $2::int4, ${columns} from millrace.${table} t
      where t.projection = $1 and t.version = $4::int4 and ${isTheirs}`,
      [name, version, keys, scratch]
    )
  })
})
