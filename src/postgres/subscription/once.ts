// Effectively once on PostgreSQL: a row for each handled message, written in the transaction of its handler and merged into ranges later.
//
// The database is the consumer's own and need not be Millrace's, so the tables are in a schema of their own and not created by a migration.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type MessageIdentity, type Once, OnceError } from "../../subscription/once.ts"
import { session, transaction, type Session, type Sql } from "../client/client.ts"
import { query, type SqlError } from "../client/errors.ts"

export type { Session } from "../client/client.ts"

/** Options of effectively once on PostgreSQL. */
export interface OnceOptions {
  /** The largest number of concurrent transactions, each on a connection of its own. Default 16. */
  readonly max?: number
  /**
   * How long marks are kept at least, in milliseconds: longer than any message may take to be delivered again, by a redelivery or by a relay
   * that publishes its last messages twice. Default 30 days.
   */
  readonly keepMs?: number
  /** How often marks are merged into ranges, in milliseconds. Default 1,000. */
  readonly mergeMs?: number
}

// One topic does not get all sequence numbers of a stream, so ranges do not always merge; a row holds those of 8,192 numbers.
const ddl = `
create schema if not exists millrace_once;
-- Marks of handled messages, each written in its handler's transaction, until they are merged into ranges.
create table if not exists millrace_once.handled (
  topic text not null,
  subscription text not null,
  stream text not null,
  incarnation text not null,
  seq bigint not null,
  handled_at timestamptz not null default now(),
  primary key (topic, subscription, stream, incarnation, seq)
);
-- The same marks as ranges. A bucket is 8,192 sequence numbers.
create table if not exists millrace_once.handled_range (
  topic text not null,
  subscription text not null,
  stream text not null,
  incarnation text not null,
  bucket bigint not null,
  seqs int8multirange not null,
  newest timestamptz not null,
  primary key (topic, subscription, stream, incarnation, bucket)
);
-- Marks a message. Returns false if it was marked before. The insert waits for a transaction that handles the same message or merges its
-- mark; the ranges are read after it, and so include what was merged until then.
create or replace function millrace_once.mark(of_topic text, of_subscription text, of_stream text, of_incarnation text, of_seq bigint)
returns boolean language plpgsql as $$
begin
  insert into millrace_once.handled (topic, subscription, stream, incarnation, seq)
  values (of_topic, of_subscription, of_stream, of_incarnation, of_seq) on conflict do nothing;
  return found and not exists (
    select from millrace_once.handled_range r
    where (r.topic, r.subscription, r.stream, r.incarnation, r.bucket)
      = (of_topic, of_subscription, of_stream, of_incarnation, of_seq >> 13)
      and r.seqs @> of_seq
  );
end
$$;`
// an arbitrary number that other programs are unlikely to use
const ddlLock = 7_216_513_002
const mergedAtOnce = 10_000

const failed = (error: SqlError) =>
  new OnceError({
    operation: error.operation,
    // if the commit is in doubt, the mark shows on the next call whether it succeeded
    retryable: error.retryable || error.inDoubt,
    reason: error.reason,
    cause: error.cause ?? error
  })
const onceQuery = <A>(operation: string, run: () => PromiseLike<A>) => Effect.mapError(query(operation, run), failed)

const prepare = (sql: Sql) =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* query("wait for other processes that prepare", () => tx`select pg_advisory_xact_lock(${ddlLock})`)
      const signature = "millrace_once.mark(text,text,text,text,bigint)"
      const [made] = yield* query("look for marks", () => tx`select to_regprocedure(${signature})::text as at`)
      if (made?.["at"] === null) yield* query("create the tables for marks", () => tx.unsafe(ddl))
    })
  ).pipe(Effect.mapError(failed))

/** A session, while no or one transaction uses it. */
interface HeldSession {
  readonly tx: Session
  readonly scope: Scope.Closeable
  /** Whether the connection was lost, or a transaction was left unfinished. */
  lost: boolean
}
/** A pool of sessions, opened on demand and kept until they are lost. */
const sessions = Effect.fnUntraced(function* (sql: Sql, max: number) {
  const idle: Array<HeldSession> = []
  const permits = Semaphore.makeUnsafe(max)
  const close = ({ scope }: HeldSession) => Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => Effect.forEach(idle.splice(0), close, { concurrency: "unbounded", discard: true }))
  const take = Effect.suspend(() => {
    const held = idle.pop()
    if (held !== undefined) return Effect.succeed(held)
    return Effect.flatMap(Scope.make(), (scope) =>
      Scope.provide(session(sql), scope).pipe(
        Effect.map((tx): HeldSession => ({ tx, scope, lost: false })),
        Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
      )
    )
  })
  /** Runs `use` with a session that no other transaction uses. */
  return <A, E, R>(use: (held: HeldSession) => Effect.Effect<A, E, R>): Effect.Effect<A, E | OnceError, R> =>
    permits.withPermit(
      Effect.acquireUseRelease(Effect.mapError(take, failed), use, (held) =>
        Effect.suspend(() => (held.lost ? close(held) : Effect.sync(() => idle.push(held))))
      )
    )
})

const connectionLost = (cause: unknown) =>
  new OnceError({
    operation: "handle a message",
    retryable: true,
    reason: "the connection was lost, and with it the handler's uncommitted changes",
    cause
  })
const commit = (tx: Session) =>
  Effect.gen(function* () {
    const { command } = yield* query("commit", () => tx.unsafe("commit"))
    if (command !== "ROLLBACK") return
    // PostgreSQL answers a commit so if a statement failed and its error was caught
    return yield* Effect.die(
      new Error("the transaction was rolled back, because one of the handler's statements failed")
    )
  }).pipe(
    Effect.catchTag("SqlError", (error) =>
      // what the server refuses at the commit, such as a deferred constraint, is the handler's failure
      error.inDoubt || error.retryable ? Effect.fail(failed(error)) : Effect.die(error)
    )
  )

/** Runs a handler in a transaction that marks its message. */
const handleMarked = <E, R>(
  held: HeldSession,
  message: MessageIdentity,
  use: (tx: Session) => Effect.Effect<unknown, E, R>
) =>
  Effect.uninterruptibleMask(
    Effect.fnUntraced(function* (restore) {
      const { tx } = held
      const { incarnation, seq, stream, subscription, topic } = message
      const rollBack = Effect.isSuccess(query("roll back", () => tx.unsafe("rollback")))
      const body = Effect.gen(function* () {
        const [row] = yield* onceQuery(
          "mark a message",
          () => tx`select millrace_once.mark(${topic}, ${subscription}, ${stream}, ${incarnation}, ${seq}) as marked`
        )
        if (row?.["marked"] !== true) return "before" as const
        yield* use(tx)
        return "handled" as const
      })
      // the session counts as lost until its transaction has ended properly
      held.lost = true
      yield* onceQuery("begin", () => tx.unsafe("begin isolation level read committed"))
      const exit = yield* Effect.exit(restore(body))
      if (Exit.isFailure(exit)) {
        held.lost = !(yield* rollBack)
        // if the connection was lost, the handler is not at fault, whatever it failed with
        return yield* held.lost ? connectionLost(exit.cause) : exit
      }
      if (exit.value === "handled") yield* commit(tx)
      else if (!(yield* rollBack)) return exit.value
      held.lost = false
      return exit.value
    })
  )

const merge = (sql: Sql, { subscription, topic }: Pick<MessageIdentity, "topic" | "subscription">) => sql<
  Array<{ readonly merged: number }>
>`
  with chosen as (
    select ctid from millrace_once.handled
    where topic = ${topic} and subscription = ${subscription}
    order by stream, incarnation, seq
    limit ${mergedAtOnce}
    for update skip locked
  ), gone as (
    delete from millrace_once.handled h using chosen c where h.ctid = c.ctid
    returning h.stream, h.incarnation, h.seq, h.handled_at
  ), grown as (
    select stream, incarnation, seq >> 13 as bucket, range_agg(int8range(seq, seq, '[]')) as seqs, max(handled_at) as newest
    from gone group by 1, 2, 3
  ), kept as (
    insert into millrace_once.handled_range as r (topic, subscription, stream, incarnation, bucket, seqs, newest)
    select ${topic}, ${subscription}, stream, incarnation, bucket, seqs, newest from grown order by stream, incarnation, bucket
    on conflict (topic, subscription, stream, incarnation, bucket)
    do update set seqs = r.seqs + excluded.seqs, newest = greatest(r.newest, excluded.newest)
  )
  select count(*)::integer as merged from gone`

/** Merges marks of active subscriptions, and deletes old ones, until the scope closes. */
const mergeMarks = Effect.fnUntraced(function* (
  sql: Sql,
  active: Map<string, MessageIdentity>,
  keepMs: number,
  mergeMs: number
) {
  const round = Effect.gen(function* () {
    for (const [key, identity] of active) {
      active.delete(key)
      let merged = mergedAtOnce
      while (merged === mergedAtOnce) merged = (yield* query("merge marks", () => merge(sql, identity)))[0]!.merged
      const { subscription, topic } = identity
      yield* query(
        "delete old marks",
        () => sql`delete from millrace_once.handled_range
          where topic = ${topic} and subscription = ${subscription} and newest < now() - ${keepMs}::float8 * interval '1 millisecond'`
      )
    }
  })
  // after a failure, marks are merged when the next message was handled
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(mergeMs), Effect.ignore(round))))
})

/** Effectively once on the consumer's database. Creates the tables for marks if they do not exist. The pool `sql` must stay open as long. */
export const make = Effect.fnUntraced(function* (
  sql: Sql,
  { keepMs = 30 * 86_400_000, max = 16, mergeMs = 1_000 }: OnceOptions = {}
): Effect.fn.Return<Once<Session>, OnceError, Scope.Scope> {
  yield* prepare(sql)
  const withSession = yield* sessions(sql, max)
  const active = new Map<string, MessageIdentity>()
  yield* mergeMarks(sql, active, keepMs, mergeMs)

  const handle: Once<Session>["handle"] = (message, use) =>
    Effect.tap(
      withSession((held) => handleMarked(held, message, use)),
      (outcome) =>
        Effect.sync(() => {
          if (outcome === "handled") active.set(JSON.stringify([message.topic, message.subscription]), message)
        })
    )
  return {
    handle,
    forget: ({ name, topic }) =>
      onceQuery("delete marks", async () => {
        await sql`delete from millrace_once.handled_range where topic = ${topic} and subscription = ${name}`
        await sql`delete from millrace_once.handled where topic = ${topic} and subscription = ${name}`
      })
  }
})
