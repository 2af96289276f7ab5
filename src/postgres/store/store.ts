// The store on PostgreSQL: prepares projections' tables, claims partitions, and commits batches.
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import type { Projection } from "../../model/projection.ts"
import {
  Fenced,
  Mismatch,
  Store,
  StoreError,
  Unstorable,
  type Changes,
  type Claim,
  type DeadLetter,
  type AnnouncedTimes,
  type FailureStreak,
  type ProjectionPartition,
  type StreamTimes
} from "../../runner/store.ts"
import type { Sql } from "../client/client.ts"
import { answered, endSession } from "../client/answer.ts"
import { arrayOf } from "../client/columns.ts"
import { prepare } from "./prepare.ts"
import type { SubjectKeys } from "../../erasure/subject-keys.ts"
import { makeSubjectKeys } from "./subject-keys.ts"
import * as Lookups from "./lookups.ts"
import { type CommittedState, Committer } from "./committer.ts"
import { CommitBuilder } from "./commit.ts"
import { messagesOf, publishedAfter, seenChunkOf } from "./commit-parts.ts"
import { instant } from "./commit-records.ts"
import { storable } from "../../text/text.ts"
import { isAt, liveDecisions, openDeadLetters, parkedKeys, recordOfDeadLetter } from "./dead-letters.ts"
import { readRowsStatement } from "./read-rows.ts"
import { blameOf, query, SqlError } from "../client/errors.ts"
import { run, storeError } from "./run.ts"

/** Callbacks of the store. */
export interface PostgresStoreOptions {
  /** Called after a commit that published messages, to wake relays of the same process. */
  readonly published?: () => void
  /** Called after a commit with commands that are due within seconds, to wake workers. A worker looks for later ones by itself. */
  readonly due?: () => void
  /** The id of this process, which claims store: a UUID. */
  readonly processId?: string
  /** How long a commit, and the check whether it was committed, wait for an answer, in milliseconds. Default: `answerMs`. */
  readonly answerMs?: number
  /** The keys of personal fields. Default: those of the database, if they are stored as they are. */
  readonly subjectKeys?: Pick<SubjectKeys["Service"], "forValues">
}

/** The error if a statement is refused for its values, or may pass with fewer of them. */
const unstorable = (error: SqlError): Unstorable | undefined => {
  const { code, reason } = error
  const blame = blameOf(error)
  if (blame === "data") return new Unstorable({ code, reason })
  return blame === "size" ? new Unstorable({ code, reason, mayPass: true }) : undefined
}

/** A reason as PostgreSQL can store it. */
const text = (reason: string | undefined) => (reason === undefined ? null : storable(reason))

/** The name of the operation that stores a reason, or (undefined) that there is none: if it fails, the log does not say that the partition is halted. */
const notingOf = (reason: string | undefined, what: string) =>
  reason === undefined ? "note that a partition is processed" : `note why a partition ${what}`

type Committers = WeakMap<Projection.Any, Committer>
const committerOf = (committers: Committers, sql: Sql, projection: Projection.Any, ms?: number): Committer => {
  let committer = committers.get(projection)
  if (committer === undefined)
    committers.set(projection, (committer = new Committer(sql, new CommitBuilder(projection), ms)))
  return committer
}

/**
 * For so many partitions ids are loaded at a time. A start needs those of an hour or a day for each: the first partitions go on while others wait, and
 * the answers of all together would take three times the memory of the ids.
 */
const loadsAtOnce = 2

/** The store over a pool of connections. */
export const make = (sql: Sql, options: PostgresStoreOptions = {}): Store["Service"] => {
  const committers: Committers = new WeakMap()
  const loadingIds = Semaphore.makeUnsafe(loadsAtOnce)
  return Store.of({
    prepare: (projections, partitionsOf, startOf = () => 0) =>
      prepare(sql, projections, { partitionsOf, startOf }).pipe(
        Effect.catchTag("SqlError", (error) => Effect.fail(storeError(error)))
      ),
    claim: (projection, topic, partition, generation, identity) =>
      claim(
        sql,
        { projection: projection.name, version: projection.version, topic, partition },
        { generation, identity, processId: options.processId }
      ),
    commit: (projection, held, changes) =>
      commit(sql, committerOf(committers, sql, projection, options.answerMs), held, changes, options),
    bound: (held) => bound(sql, held),
    readRows: (projection, target, keys) => rows(sql, projection, target.name, keys),
    seenIds: (at, ranges) =>
      run(
        "load seen ids",
        () =>
          sql<Array<{ ids: Uint8Array }>>`select ids from millrace.seen s where ${isAt(sql, at)} and exists (
          select from unnest(${arrayOf(ranges.map(({ from }) => from))}::float8[], ${arrayOf(ranges.map(({ to }) => to))}::float8[]) as r(low, high)
          where s.max_time >= r.low and s.min_time <= r.high)`
      ).pipe(
        loadingIds.withPermits(1),
        Effect.map((found) => found.map(({ ids }) => ids))
      ),
    deadLetters: (at, position, { behind, ordered }) =>
      run("read dead letters", () => openDeadLetters(sql, at, position, ordered, behind)).pipe(
        Effect.map((found) =>
          found.map((row) => ({
            record: recordOfDeadLetter(row, at.partition),
            streamTime: row.stream_time ?? undefined
          }))
        )
      ),
    parkedKeys: (at, keys) =>
      run("look for parked keys", () => parkedKeys(sql, at, keys.map(storable))).pipe(
        Effect.map((found) => {
          const parked = new Set(found.map(({ key }) => key))
          return keys.filter((key) => parked.has(storable(key)))
        })
      ),
    liveDecisions: (at, first, last) =>
      run("read decisions about dead letters", () => liveDecisions(sql, at, first, last)),
    park: (at, deadLetter) =>
      query("park a dead letter", () => park(sql, at, deadLetter)).pipe(
        Effect.mapError((error) => unstorable(error) ?? storeError(error)),
        Effect.asVoid
      ),
    halt: (at, reason) =>
      run(
        notingOf(reason, "is halted"),
        () => sql`update millrace.progress set halted = ${text(reason)}, waiting = null, waiting_since = null
          where ${isAt(sql, at)} and (halted is distinct from ${text(reason)} or waiting is not null)`
      ).pipe(Effect.asVoid),
    isGone: (build) => isGone(sql, build),
    waiting: (at, reason) =>
      run(
        notingOf(reason, "waits"),
        () => sql`update millrace.progress set waiting = ${text(reason)},
            waiting_since = case when ${reason !== undefined} then coalesce(waiting_since, clock_timestamp()) end
          where ${isAt(sql, at)} and waiting is distinct from ${text(reason)}`
      ).pipe(Effect.asVoid),
    lookups: Lookups.make(sql, options.answerMs),
    subjectKeys: options.subjectKeys ?? makeSubjectKeys(sql)
  })
}

const isGone = (sql: Sql, { projection, version }: Pick<ProjectionPartition, "projection" | "version">) =>
  run(
    "look whether a build was retired",
    () =>
      sql`select from millrace.projection where name = ${projection} and version = ${version} and retired_at is not null`
  ).pipe(Effect.map((found) => found.length > 0))

interface ProgressRow {
  readonly incarnation: string
  readonly epoch: number
  readonly generation: number
  readonly commit_no: number
  readonly next_position: number
  readonly fingerprint: string | null
  readonly topic_identity: string | null
  readonly stream_time: number | null
  readonly stream_times: StreamTimes | null
  readonly announced: AnnouncedTimes | null
  readonly outbox_seq: number
  readonly published: Readonly<Record<string, number>> | null
  readonly mode: Claim["mode"]
  readonly seen_chunk: number
  readonly seen_fill: number
  readonly failing: string | null
  readonly has_succeeded: boolean
}
/** What a claim reads beside its own row of `millrace.progress`. */
interface BesideProgress {
  readonly newest_seen: number | null
  readonly database: string
  readonly projections: ReadonlyArray<string>
  readonly lookups: Claim["lookups"]
  readonly lookup_journal: number
}

/** What a claim stores: the assignment's generation, the topic's identity, and which process claims. */
interface ClaimRequest {
  readonly generation: number
  readonly identity: string | undefined
  readonly processId: string | undefined
}

const claim = Effect.fnUntraced(function* (
  sql: Sql,
  at: ProjectionPartition,
  { generation, identity, processId }: ClaimRequest
) {
  const what = `${at.projection} ${at.topic}/${at.partition}`
  // a suspended client can hold the row's lock forever, and no timeout of the server releases it: wait 2 s, then end its backend
  const take = run(
    "claim a partition",
    () =>
      sql<Array<ProgressRow>>`with patience as materialized (select set_config('lock_timeout', '2s', true) as set)
      update millrace.progress p set epoch = epoch + 1, generation = ${generation}, incarnation = gen_random_uuid(),
        topic_identity = coalesce(topic_identity, ${identity ?? null}::text), claimed_by = ${processId ?? null}::uuid,
        halted = case when claimed_by is not distinct from ${processId ?? null}::uuid then halted end
      from patience where patience.set is not null and ${isAt(sql, at)} and generation <= ${generation}
        and (mode <> 'frozen' or frozen_until is not null) and not inline
      returning incarnation, epoch, generation, commit_no, next_position, fingerprint, topic_identity, stream_time, stream_times,
        announced, outbox_seq, published, mode, seen_chunk, seen_fill, failing, events > 0 as has_succeeded`
  )
  const [row] = yield* take.pipe(
    Effect.tapError((error) => (codeOf(error) === "55P03" ? Effect.ignore(endBlocker(sql, at)) : Effect.void)),
    Effect.retry({ times: 3, while: ({ retryable }) => retryable })
  )
  if (row === undefined) {
    const [held] = yield* run(
      "look for another claim",
      () => sql<Array<{ readonly inline: boolean }>>`select inline from millrace.progress where ${isAt(sql, at)}`
    )
    if (held !== undefined) return yield* new Fenced(held.inline ? { ...at, isInline: true } : at)
    return yield* new Mismatch({ what, reason: "it has no row in millrace.progress; run 'millrace migrate'" })
  }
  const [beside] = yield* run("read what a claim found", () => claimedBeside(sql, at)).pipe(
    Effect.retry({ times: 3, while: ({ retryable }) => retryable })
  )
  if (beside === undefined)
    return yield* new Mismatch({ what, reason: "its build has no row in millrace.projection; run 'millrace migrate'" })
  // once it is live, what it sees is what all builds see
  if (beside.lookups === "today" && row.mode !== "follower")
    yield* run(
      "note what a build sees of lookups",
      () =>
        sql`update millrace.projection set lookups = 'asSeen' where name = ${at.projection} and version = ${at.version}`
    )
  return {
    ...at,
    incarnation: row.incarnation,
    commitNo: row.commit_no,
    epoch: row.epoch,
    position: row.next_position,
    fingerprint: row.fingerprint ?? undefined,
    identity: row.topic_identity ?? undefined,
    streamTime: row.stream_time ?? undefined,
    streamTimes: row.stream_times ?? undefined,
    announced: row.announced ?? undefined,
    outboxSeq: row.outbox_seq,
    published: row.published ?? undefined,
    mode: row.mode,
    seenChunk: row.seen_chunk,
    seenFill: row.seen_fill,
    newestSeen: beside.newest_seen ?? undefined,
    failing: row.failing === null ? undefined : (JSON.parse(row.failing) as FailureStreak),
    hasSucceeded: row.has_succeeded,
    lookups: beside.lookups,
    journal: beside.lookup_journal,
    owner: { id: beside.database, projections: beside.projections }
  } satisfies Claim
})
/**
 * What a claim reads of other tables, in a statement of its own: that of the claim may have waited for a commit in flight, and would read these
 * tables as they were before that commit.
 */
const claimedBeside = (sql: Sql, at: ProjectionPartition) =>
  sql<Array<BesideProgress>>`select b.lookups, b.lookup_journal,
      (select max(s.max_time) from millrace.seen s where ${isAt(sql, at)}) as newest_seen,
      (select id from millrace.system) as database,
      (select array_agg(distinct name) from millrace.projection) as projections
    from millrace.projection b where b.name = ${at.projection} and b.version = ${at.version}`

const endBlocker = (sql: Sql, at: ProjectionPartition) =>
  query(
    "end the session that holds the partition",
    () =>
      sql`select pg_terminate_backend(l.pid) from millrace.progress p join pg_locks l on l.locktype = 'transactionid'
      and l.granted and l.transactionid = p.xmax where ${isAt(sql, at)} and l.pid <> pg_backend_pid()`
  )

const codeOf = ({ cause }: StoreError) => (cause instanceof SqlError ? cause.code : "")

const resend = Schedule.min([Schedule.exponential("20 millis"), Schedule.spaced("500 millis")]).pipe(
  Schedule.upTo({ times: 20 })
)
/** The outcome of sending a commit: it was committed, or is absent and can be sent again. */
type CommitOutcome = CommittedState | "absent"
/** The commit is absent. It may be sent again at once. */
class NotCommitted extends Data.TaggedError("NotCommitted") {}

const commit = Effect.fnUntraced(function* (
  sql: Sql,
  committer: Committer,
  held: Claim,
  changes: Changes,
  options: PostgresStoreOptions
) {
  const one = { claim: held, changes }
  let sent = false
  let hasAnswer = true
  let reason = "the batch was not committed"
  const attempt = query("commit a batch", () => {
    // a commit that failed together with others is sent alone the next time
    const committed = sent ? committer.alone(one) : committer.send(one)
    sent = true
    return committed
  }).pipe(
    Effect.flatMap((committed) =>
      committed ? Effect.succeed<CommitOutcome>(committed) : resolve(sql, held, options.answerMs)
    ),
    Effect.catchTag("SqlError", (error): Effect.Effect<CommitOutcome, StoreError | Unstorable | Fenced> => {
      const refused = unstorable(error)
      if (refused !== undefined) return Effect.fail(refused)
      reason = error.reason
      // not sent again without checking: the reply may be lost although the commit succeeded
      hasAnswer = error.code !== "NO_ANSWER"
      const check = resolve(sql, held, options.answerMs)
      // the server may still execute it, and wait for a lock
      if (!hasAnswer) return Effect.andThen(endSession(sql, error), check)
      // a full disk and the like are not over within seconds
      return error.retryable || error.inDoubt ? check : Effect.fail(storeError(error))
    })
  )
  const { mode, outboxSeq } = yield* attempt.pipe(
    Effect.flatMap((outcome) => (outcome === "absent" ? Effect.fail(new NotCommitted()) : Effect.succeed(outcome))),
    Effect.retry({ schedule: resend, while: (error) => hasAnswer && error._tag === "NotCommitted" }),
    Effect.catchTag("NotCommitted", () =>
      Effect.fail(new StoreError({ operation: "commit a batch", retryable: true, reason }))
    )
  )
  // those of the statement: the partition may have been promoted, or thawed, since the claim
  if (mode === "live" && messagesOf(changes) > 0) options.published?.()
  const soon = Date.now() + soonMs
  if (
    mode === "live" &&
    changes.commands?.pending.some(({ timer }) => (timer?.at ?? Date.now() + (timer?.afterMs ?? 0)) < soon)
  )
    options.due?.()
  const { chunk, fill } = seenChunkOf(held, changes)
  return {
    ...held,
    commitNo: held.commitNo + 1,
    position: changes.position,
    fingerprint: changes.fingerprint,
    streamTime: changes.streamTime,
    streamTimes: changes.streamTimes ?? held.streamTimes,
    announced: changes.announced ?? held.announced,
    published: publishedAfter(one) ?? held.published,
    mode,
    outboxSeq,
    seenChunk: chunk,
    seenFill: fill,
    failing: changes.failing,
    hasSucceeded: held.hasSucceeded || changes.events > 0
  } satisfies Claim
})
/** Finds out whether a commit succeeded. Locks the row, because a plain read would find nothing while the statement still runs. */
const resolve = Effect.fnUntraced(function* (
  sql: Sql,
  held: Claim,
  answerMs: number | undefined
): Effect.fn.Return<CommitOutcome, StoreError | Fenced> {
  const [row] = yield* run(
    "check whether a batch was committed",
    () =>
      sql<
        Array<ProgressRow>
      >`select incarnation, commit_no, mode, outbox_seq from millrace.progress where ${isAt(sql, held)} for update`,
    answerMs
  ).pipe(Effect.retry({ schedule: resend, while: (error) => error.retryable && codeOf(error) !== "NO_ANSWER" }))
  // a promotion gives the build that it replaces another incarnation
  const isReplaced = held.mode !== "follower" && row?.mode === "follower"
  if (row?.incarnation !== held.incarnation) return yield* new Fenced(isReplaced ? { ...held, isReplaced } : held)
  if (row.commit_no === held.commitNo + 1) return { mode: row.mode, outboxSeq: row.outbox_seq }
  if (row.commit_no !== held.commitNo) return yield* new Fenced(held)
  // it was promoted since: a muted batch would be refused for ever
  if (held.mode === "follower" && row.mode !== "follower") return yield* new Fenced({ ...held, isPromoted: true })
  if (row.mode === "frozen") yield* untilThawed(sql, held)
  return "absent"
})

/** A worker of timers looks for commands at least this often, in milliseconds, with room for clocks that differ. */
const soonMs = 15_000
/** How often a commit looks whether its partition is still frozen, and for how long, in milliseconds. */
const frozen = { pollMs: 50, mostMs: 60_000 }
/** Waits while a partition is frozen for a promotion: its commits are refused. It may have been promoted then. */
const untilThawed = Effect.fnUntraced(function* (
  sql: Sql,
  at: ProjectionPartition
): Effect.fn.Return<void, StoreError> {
  for (let waited = 0; waited < frozen.mostMs; waited += frozen.pollMs) {
    const [row] = yield* run(
      "look whether a partition is frozen",
      () => sql<Array<{ readonly isFrozen: boolean }>>`
        select mode = 'frozen' and coalesce(frozen_until > clock_timestamp(), true) as "isFrozen"
        from millrace.progress where ${isAt(sql, at)}`
    )
    if (row?.isFrozen !== true) return
    yield* Effect.sleep(frozen.pollMs)
  }
  const reason = `the partition has been frozen by promotions for ${frozen.mostMs / 1_000} s`
  return yield* new StoreError({ operation: "commit a batch", retryable: true, reason })
})

/** How far the partition of a follower may go: see `Store.bound`. */
const bound = Effect.fnUntraced(function* (sql: Sql, held: Claim) {
  const [row] = yield* run(
    "look how far the live build is",
    () => sql<
      Array<{
        readonly incarnation: string | null
        readonly mode: Claim["mode"]
        readonly position: number | null
        readonly stop: number | null
      }>
    >`select incarnation, mode, coalesce((
        select l.next_position from millrace.live v join millrace.progress l
          on (l.projection, l.version, l.topic, l.partition) = (v.projection, v.version, g.topic, g.partition)
        where v.projection = g.projection), millrace.own_bound(g.projection, g.version, g.topic, g.partition)) as position,
        millrace.until_bound(g.projection, g.version, g.topic, g.partition) as stop
      from millrace.progress g where ${isAt(sql, held)}`
  )
  if (row?.incarnation !== held.incarnation) return yield* new Fenced(held)
  if (row.mode !== "follower") return yield* new Fenced({ ...held, isPromoted: true })
  if (row.position !== null) return Math.min(row.position, row.stop ?? Infinity)
  const what = `${held.projection}_v${held.version} ${held.topic}/${held.partition}`
  return yield* new Mismatch({ what, reason: "the projection has no live build that this one could follow" })
})

const rows = (sql: Sql, projection: Projection.Any, name: string, keys: ReadonlyArray<Record<string, unknown>>) => {
  const { parameters, text } = readRowsStatement(projection, name, keys)
  return query(`read rows of ${name}`, () =>
    answered(sql.unsafe<Array<Record<string, unknown>>>(text, parameters, { prepare: true }))
  ).pipe(Effect.mapError((error) => unstorable(error) ?? storeError(error)))
}

const park = (sql: Sql, at: ProjectionPartition, deadLetter: DeadLetter) =>
  sql`insert into millrace.dead_letters (projection, version, topic, partition, position, status, key, error, message, attempts, value, headers, event_time, trace_id)
    values (${at.projection}, ${at.version}, ${at.topic}, ${at.partition}, ${deadLetter.position}, ${deadLetter.status},
      ${deadLetter.key}, ${deadLetter.error}, ${deadLetter.message}, ${deadLetter.attempts}, ${deadLetter.value}, ${sql.json({ ...deadLetter.headers })},
      to_timestamp(${instant(deadLetter.eventTime)}::float8 / 1000.0), ${deadLetter.traceId ?? null})
    on conflict do nothing`
