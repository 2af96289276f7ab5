// The store on PostgreSQL: prepares a projection's tables, claims its partitions, and commits its batches.
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type { Projection } from "../../model/projection.ts"
import { fromRow, keyProblem } from "../../model/columns.ts"
import { unsupportedReason } from "../../model/unsupported.ts"
import {
  Fenced,
  Mismatch,
  Store,
  StoreError,
  Unstorable,
  type Changes,
  type Claim,
  type DeadLetter,
  type ProjectionPartition
} from "../../runner/store.ts"
import { transaction, type Session, type Sql } from "../client/client.ts"
import { arrayOf, columnArray, fromParameter, parameterType, quote } from "../client/columns.ts"
import { Committer } from "./committer.ts"
import { CommitBuilder } from "./commit.ts"
import { messagesOf, seenChunkOf } from "./commit-parts.ts"
import { storable } from "./commit-records.ts"
import { openLetters, parkedKeys, recordOfLetter } from "./dead-letters.ts"
import { definitionOf, relationsOf, tablesDdl, viewsDdl } from "./ddl.ts"
import { query, type SqlError } from "../client/errors.ts"

/** What the store tells of its commits, for those who wait for them in the same process. */
export interface Options {
  /** Messages went to the outbox. */
  readonly published?: () => void
}

// any number that others are unlikely to take
const ddlLock = 7_216_513_001

const storeError = (error: SqlError): StoreError =>
  new StoreError({
    operation: error.operation,
    retryable: error.retryable || error.inDoubt,
    reason: error.reason,
    cause: error
  })
const run = <A>(operation: string, statement: () => PromiseLike<A>): Effect.Effect<A, StoreError> =>
  Effect.mapError(query(operation, statement), storeError)

/** The data is at fault, not the server: a wrong value, or (class 54) one too large, as text that no index entry has room for. */
const unstorable = ({ code, reason }: SqlError): Unstorable | undefined =>
  /^(2[123]|54)/.test(code) ? new Unstorable({ code, reason }) : undefined

type Committers = WeakMap<Projection.Any, Committer>
const committerOf = (committers: Committers, sql: Sql, projection: Projection.Any): Committer => {
  let committer = committers.get(projection)
  if (committer === undefined)
    committers.set(projection, (committer = new Committer(sql, new CommitBuilder(projection))))
  return committer
}

/** The store over a pool of connections. Nothing of it outlives the pool. */
export const make = (sql: Sql, options: Options = {}): Store["Service"] => {
  const committers: Committers = new WeakMap()
  return Store.of({
    prepare: (projections, partitionsOf, startOf = () => 0) => prepare(sql, projections, { partitionsOf, startOf }),
    claim: (projection, topic, partition, generation, identity) =>
      claim(sql, { projection: projection.name, version: projection.version, topic, partition }, generation, identity),
    commit: (projection, held, changes) =>
      commit(sql, committerOf(committers, sql, projection), held, changes, options),
    readRows: (projection, target, keys) => rows(sql, projection, target.name, keys),
    seenIds: (place, ranges) =>
      run(
        "load handled ids",
        () =>
          sql<Array<{ ids: Uint8Array }>>`select ids from millrace.seen s where ${here(sql, place)} and exists (
          select from unnest(${arrayOf(ranges.map(({ from }) => from))}::float8[], ${arrayOf(ranges.map(({ to }) => to))}::float8[]) as r(low, high)
          where s.max_time >= r.low and s.min_time <= r.high)`
      ).pipe(Effect.map((found) => found.map(({ ids }) => ids))),
    deadLetters: (place, position, { behind, ordered }) =>
      run("read dead letters", () => openLetters(sql, place, position, ordered, behind)).pipe(
        Effect.map((found) => found.map((row) => recordOfLetter(row, place.partition)))
      ),
    parkedKeys: (place, keys) =>
      run("look for parked keys", () => parkedKeys(sql, place, keys.map(storable) as Array<string>)).pipe(
        Effect.map((found) => {
          const parked = new Set(found.map(({ key }) => key))
          return keys.filter((key) => parked.has(storable(key)!))
        })
      ),
    park: (place, letter) => run("park a dead letter", () => park(sql, place, letter)).pipe(Effect.asVoid),
    halt: (place, reason) =>
      run(
        "note why a partition stands still",
        () => sql`update millrace.progress set halted = ${reason} where ${here(sql, place)}`
      ).pipe(Effect.asVoid)
  })
}
const here = (sql: Sql, { partition, projection, topic, version }: ProjectionPartition) =>
  sql`projection = ${projection} and version = ${version} and topic = ${topic} and partition = ${partition}`

/** The partitions of a topic, and where each begins. */
interface Sources {
  readonly partitionsOf: (topic: string) => number
  readonly startOf: (topic: string, partition: number) => number
}

const prepare = Effect.fnUntraced(function* (sql: Sql, projections: ReadonlyArray<Projection.Any>, sources: Sources) {
  yield* transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* query("wait for others who prepare", () => tx`select pg_advisory_xact_lock(${ddlLock})`)
      for (const projection of projections) yield* prepareOne(tx, projection, sources)
    })
  ).pipe(Effect.catchTag("SqlError", (error) => Effect.fail(storeError(error))))
})

const prepareOne = Effect.fnUntraced(function* (
  tx: Session,
  projection: Projection.Any,
  { partitionsOf, startOf }: Sources
) {
  const { name, version } = projection
  const refused = unsupportedReason(projection) ?? keyProblem(projection.writes)
  if (refused !== undefined) return yield* new Mismatch({ what: `projection ${name}`, reason: refused })
  const definition = definitionOf(projection)
  const known = yield* query(
    "look for earlier versions",
    () =>
      tx<Array<{ version: number; definition: string; live: boolean }>>`select version, definition,
      exists (select from millrace.progress g where g.projection = p.name and g.version = p.version and g.mode <> 'follower') as live
      from millrace.projection p where name = ${name}`
  )
  const same = known.find((other) => other.version === version)
  if (same !== undefined && same.definition !== definition) {
    const reason = `its tables are defined otherwise than when version ${version} was first run; give it the next version`
    return yield* new Mismatch({ what: `projection ${name}`, reason })
  }
  if (same === undefined) {
    yield* assertFree(tx, projection)
    for (const statement of tablesDdl(projection))
      yield* query(`make the tables of ${name}`, () => tx.unsafe(statement))
    yield* query(
      "note the projection",
      () => tx`insert into millrace.projection (name, version, definition) values (${name}, ${version}, ${definition})`
    )
  }
  const first = !known.some(({ live, version: other }) => live && other !== version)
  // a version beside a live one follows the log and publishes nothing, until it is promoted
  const mode = first ? "live" : "follower"
  if (first && same === undefined) {
    for (const statement of viewsDdl(projection)) yield* query(`make the views of ${name}`, () => tx.unsafe(statement))
  }
  for (const { name: topic } of projection.sources) {
    const starts = Array.from({ length: partitionsOf(topic) }, (_, partition) => startOf(topic, partition))
    yield* query(
      "make progress rows",
      () =>
        tx`insert into millrace.progress (projection, version, topic, partition, mode, first_position, next_position)
        select ${name}, ${version}, ${topic}, p - 1, ${mode}, start, start
        from unnest(${arrayOf(starts)}::bigint[]) with ordinality as s (start, p) on conflict do nothing`
    )
  }
})

/** Refuses to put a view where something else is: a table of the user's, or another projection's read model. */
const assertFree = Effect.fnUntraced(function* (tx: Session, projection: Projection.Any) {
  for (const { at, name } of relationsOf(projection)) {
    const [found] = yield* query(
      "look for the view",
      () =>
        tx<Array<{ kind: string; of: string | null }>>`select c.relkind::text as kind, pg_get_viewdef(c.oid) as of
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'public' and c.relname = ${name}`
    )
    if (found === undefined) continue
    // a view over any version of this projection, and not of one whose name only begins alike
    const schema = at.slice(0, at.indexOf(".")).replace(/_v\d+$/, String.raw`_v\d+`)
    const ours = found.kind === "v" && new RegExp(String.raw`\s${schema}\.`).test(found.of ?? "")
    if (!ours) {
      const reason = `public.${name} is there already and belongs to someone else; give the read model another name`
      return yield* new Mismatch({ what: `projection ${projection.name}`, reason })
    }
  }
})

interface ProgressRow {
  readonly incarnation: string
  readonly epoch: number
  readonly generation: number
  readonly commit_no: number
  readonly next_position: number
  readonly fingerprint: string | null
  readonly topic_identity: string | null
  readonly stream_time: number | null
  readonly outbox_seq: number
  readonly mode: Claim["mode"]
  readonly seen_chunk: number
  readonly seen_fill: number
}

const claim = Effect.fnUntraced(function* (
  sql: Sql,
  place: ProjectionPartition,
  generation: number,
  identity: string | undefined
) {
  const what = `${place.projection} ${place.topic}/${place.partition}`
  // a stopped client can hold the row's lock for ever, and no timeout of the server's frees it: wait shortly, then end its backend
  const take = run(
    "claim a partition",
    () =>
      sql<Array<ProgressRow>>`with patience as materialized (select set_config('lock_timeout', '2s', true) as set)
      update millrace.progress p set epoch = epoch + 1, generation = ${generation}, incarnation = gen_random_uuid(), halted = null,
        topic_identity = coalesce(topic_identity, ${identity ?? null}::text)
      from patience where patience.set is not null and ${here(sql, place)} and generation <= ${generation}
      returning incarnation, epoch, generation, commit_no, next_position, fingerprint, topic_identity, stream_time, outbox_seq, mode,
        seen_chunk, seen_fill`
  )
  const [row] = yield* take.pipe(
    Effect.tapError((error) =>
      (error.cause as SqlError | undefined)?.code === "55P03" ? Effect.ignore(endBlocker(sql, place)) : Effect.void
    ),
    Effect.retry({ times: 3, while: ({ retryable }) => retryable })
  )
  if (row === undefined) {
    const [held] = yield* run(
      "look who claimed",
      () => sql`select generation from millrace.progress where ${here(sql, place)}`
    )
    if (held !== undefined) return yield* new Fenced(place)
    return yield* new Mismatch({ what, reason: "it has no progress row; run 'millrace migrate'" })
  }
  return {
    ...place,
    incarnation: row.incarnation,
    commitNo: row.commit_no,
    epoch: row.epoch,
    position: row.next_position,
    fingerprint: row.fingerprint ?? undefined,
    identity: row.topic_identity ?? undefined,
    streamTime: row.stream_time ?? undefined,
    outboxSeq: row.outbox_seq,
    mode: row.mode,
    seenChunk: row.seen_chunk,
    seenFill: row.seen_fill
  } satisfies Claim
})
const endBlocker = (sql: Sql, place: ProjectionPartition) =>
  query(
    "end the session that holds the partition",
    () =>
      sql`select pg_terminate_backend(l.pid) from millrace.progress p join pg_locks l on l.locktype = 'transactionid'
      and l.granted and l.transactionid = p.xmax where ${here(sql, place)} and l.pid <> pg_backend_pid()`
  )

const resend = Schedule.min([Schedule.exponential("20 millis"), Schedule.spaced("500 millis")]).pipe(
  Schedule.upTo({ times: 20 })
)
/** What an attempt came to: committed, sent and not there (it may go again), or someone else's partition. */
type Outcome = "committed" | "absent"

const commit = Effect.fnUntraced(function* (
  sql: Sql,
  committer: Committer,
  held: Claim,
  changes: Changes,
  options: Options
) {
  const one = { claim: held, changes }
  let sent = false
  const attempt = query("commit a batch", () => {
    // what was not committed in company goes alone the next time
    const committed = sent ? committer.alone(one) : committer.send(one)
    sent = true
    return committed
  }).pipe(
    Effect.flatMap((committed) => (committed ? Effect.succeed<Outcome>("committed") : resolve(sql, held))),
    Effect.catchTag("SqlError", (error): Effect.Effect<Outcome, StoreError | Unstorable | Fenced> => {
      const refused = unstorable(error)
      if (refused !== undefined) return Effect.fail(refused)
      // never sent again unasked: the reply may be lost and the commit done
      return error.retryable || error.inDoubt ? resolve(sql, held) : Effect.fail(storeError(error))
    })
  )
  yield* attempt.pipe(
    Effect.flatMap((outcome) =>
      outcome === "committed"
        ? Effect.void
        : Effect.fail(new StoreError({ operation: "commit a batch", retryable: true, reason: "it was not committed" }))
    ),
    Effect.retry({ schedule: resend, while: (error) => error._tag === "StoreError" && error.retryable })
  )
  const messages = messagesOf(changes)
  if (messages > 0 && held.mode === "live") options.published?.()
  const { chunk, fill } = seenChunkOf(held, changes)
  return {
    ...held,
    commitNo: held.commitNo + 1,
    position: changes.position,
    fingerprint: changes.fingerprint,
    streamTime: changes.streamTime,
    outboxSeq: held.outboxSeq + (held.mode === "live" ? messages : 0),
    seenChunk: chunk,
    seenFill: fill
  } satisfies Claim
})
/** What became of a commit. It locks the row, for a plain read would say "not committed" while the statement still runs. */
const resolve = Effect.fnUntraced(function* (sql: Sql, held: Claim): Effect.fn.Return<Outcome, StoreError | Fenced> {
  const [row] = yield* run(
    "ask what became of a commit",
    () =>
      sql<
        Array<ProgressRow>
      >`select incarnation, commit_no, mode from millrace.progress where ${here(sql, held)} for update`
  ).pipe(Effect.retry({ schedule: resend, while: ({ retryable }) => retryable }))
  if (row?.incarnation !== held.incarnation) return yield* new Fenced(held)
  if (row.commit_no === held.commitNo + 1) return "committed"
  if (row.commit_no === held.commitNo) return "absent"
  return yield* new Fenced(held)
})

const rows = (sql: Sql, projection: Projection.Any, name: string, keys: ReadonlyArray<Record<string, unknown>>) => {
  const relation = relationsOf(projection).find((other) => other.name === name)!
  const columns = relation.key.map((key) => relation.columns.find((column) => column.name === key)!)
  const arrays = columns.map((column, i) => `$${i + 1}::${parameterType(column)}`)
  const names = columns.map((column) => quote(column.name)).join(", ")
  const on = columns.map((column) => `t.${quote(column.name)} = ${fromParameter(column, "u")}`).join(" and ")
  const text = `select t.* from unnest(${arrays.join(", ")}) as u(${names}) join ${relation.at} t on ${on}`
  return query(`read rows of ${name}`, () =>
    sql.unsafe<Array<Record<string, unknown>>>(
      text,
      columns.map((column) => columnArray(column, keys)),
      { prepare: true }
    )
  ).pipe(
    Effect.mapError((error) => unstorable(error) ?? storeError(error)),
    Effect.map((found) => found.map((row) => fromRow(relation, row)))
  )
}

const park = (sql: Sql, place: ProjectionPartition, letter: DeadLetter) =>
  sql`insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message, attempts, value, headers, event_time, trace_id)
    values (${place.projection}, ${place.version}, ${place.topic}, ${place.partition}, ${letter.position}, ${letter.status},
      ${letter.key}, ${letter.error}, ${letter.message}, ${letter.attempts}, ${letter.value}, ${sql.json({ ...letter.headers })},
      ${letter.eventTime === undefined ? null : new Date(letter.eventTime).toISOString()}, ${letter.traceId ?? null})
    on conflict do nothing`
