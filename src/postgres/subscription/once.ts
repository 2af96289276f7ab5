// Effectively once on PostgreSQL: a row for each message that was handled, in the transaction of its handler, merged to ranges later.
//
// The database is the consumer's own and need not be Millrace's, so the tables are made here, in a schema apart, and not by a migration.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { type MessageIdentity, type Once, OnceError } from "../../subscription/once.ts"
import { session, transaction, type Session, type Sql } from "../client/client.ts"
import { query, type SqlError } from "../client/errors.ts"

export type { Session } from "../client/client.ts"

/** How marks are kept. */
export interface Options {
  /** Transactions at once, each on a connection of its own. Default 16. */
  readonly max?: number
  /**
   * Marks older than this are forgotten: longer than a message may take to come again, be it by a redelivery or from a relay that sends
   * its last ones twice. Milliseconds; default 30 days.
   */
  readonly keepMs?: number
  /** How often marks are merged to ranges. Milliseconds; default 1,000. */
  readonly mergeMs?: number
}

// Sequences of a stream that one topic gets have gaps, so ranges do not always merge: a row holds those of 8,192 at most.
const ddl = `
create schema if not exists millrace_once;
-- Messages that were handled, each in its handler's transaction, until they are merged to ranges.
create table if not exists millrace_once.handled (
  topic text not null,
  subscription text not null,
  stream text not null,
  incarnation text not null,
  seq bigint not null,
  handled_at timestamptz not null default now(),
  primary key (topic, subscription, stream, incarnation, seq)
);
-- The same by ranges; a bucket is 8,192 sequences.
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
-- Whether the message had no mark, and has one now. The insertion waits for whoever handles the same message, or merges its mark, at
-- this moment; the look at the ranges comes after it, and so sees what was merged until then.
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
// any number that others are unlikely to take
const ddlLock = 7_216_513_002
const mergedAtOnce = 10_000

const failed = (error: SqlError) =>
  new OnceError({
    operation: error.operation,
    // whether it was committed, the mark tells who asks again
    retryable: error.retryable || error.inDoubt,
    reason: error.reason,
    cause: error.cause ?? error
  })
const attempt = <A>(operation: string, run: () => PromiseLike<A>) => Effect.mapError(query(operation, run), failed)

const prepare = (sql: Sql) =>
  transaction(
    sql,
    Effect.fnUntraced(function* (tx) {
      yield* query("wait for others who prepare", () => tx`select pg_advisory_xact_lock(${ddlLock})`)
      const signature = "millrace_once.mark(text,text,text,text,bigint)"
      const [made] = yield* query("look for marks", () => tx`select to_regprocedure(${signature})::text as at`)
      if (made?.["at"] === null) yield* query("make the tables for marks", () => tx.unsafe(ddl))
    })
  ).pipe(Effect.mapError(failed))

interface Held {
  readonly tx: Session
  readonly scope: Scope.Closeable
  /** It answers no more, or somebody was interrupted in the middle of something. */
  lost: boolean
}
/** Sessions that are opened when one is needed and kept while they last. */
const sessions = Effect.fnUntraced(function* (sql: Sql, max: number) {
  const idle: Array<Held> = []
  const permits = Semaphore.makeUnsafe(max)
  const close = ({ scope }: Held) => Scope.close(scope, Exit.void)
  yield* Effect.addFinalizer(() => Effect.forEach(idle.splice(0), close, { concurrency: "unbounded", discard: true }))
  const take = Effect.suspend(() => {
    const held = idle.pop()
    if (held !== undefined) return Effect.succeed(held)
    return Effect.flatMap(Scope.make(), (scope) =>
      Scope.provide(session(sql), scope).pipe(
        Effect.map((tx): Held => ({ tx, scope, lost: false })),
        Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, exit)))
      )
    )
  })
  /** Runs `use` with a session that nobody else has. */
  return <A, E, R>(use: (held: Held) => Effect.Effect<A, E, R>): Effect.Effect<A, E | OnceError, R> =>
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
    reason: "the connection was lost, and what the handler did with it",
    cause
  })
const commit = (tx: Session) =>
  Effect.gen(function* () {
    const { command } = yield* query("commit", () => tx.unsafe("commit"))
    if (command !== "ROLLBACK") return
    // so answers PostgreSQL where a statement had failed and its error was caught
    return yield* Effect.die(new Error("a statement of the handler had failed, so its transaction was rolled back"))
  }).pipe(
    Effect.catchTag("SqlError", (error) =>
      // what the server refuses at the end, a deferred constraint for one, is the handler's failure
      error.inDoubt || error.retryable ? Effect.fail(failed(error)) : Effect.die(error)
    )
  )

/** A transaction of one message. */
const handling = <E, R>(held: Held, message: MessageIdentity, use: (tx: Session) => Effect.Effect<unknown, E, R>) =>
  Effect.uninterruptibleMask(
    Effect.fnUntraced(function* (restore) {
      const { tx } = held
      const { incarnation, seq, stream, subscription, topic } = message
      const rollBack = Effect.isSuccess(query("roll back", () => tx.unsafe("rollback")))
      const body = Effect.gen(function* () {
        const [row] = yield* attempt(
          "mark a message",
          () => tx`select millrace_once.mark(${topic}, ${subscription}, ${stream}, ${incarnation}, ${seq}) as marked`
        )
        if (row?.["marked"] !== true) return "before" as const
        yield* use(tx)
        return "handled" as const
      })
      // a session is lost until its transaction has ended as it should
      held.lost = true
      yield* attempt("begin", () => tx.unsafe("begin isolation level read committed"))
      const exit = yield* Effect.exit(restore(body))
      if (Exit.isFailure(exit)) {
        held.lost = !(yield* rollBack)
        // where the connection was lost the handler is not at fault, whatever it failed with
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

/** Merges marks of the subscriptions that were active, and forgets old ones, for as long as the scope is open. */
const tidy = Effect.fnUntraced(function* (
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
        "forget old marks",
        () => sql`delete from millrace_once.handled_range
          where topic = ${topic} and subscription = ${subscription} and newest < now() - ${keepMs}::float8 * interval '1 millisecond'`
      )
    }
  })
  // what is not merged now is merged after the next message
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(mergeMs), Effect.ignore(round))))
})

/** On a database of the consumer's; makes the tables for marks where they are missing. `sql` is a pool that stays open as long. */
export const make = Effect.fnUntraced(function* (
  sql: Sql,
  { keepMs = 30 * 86_400_000, max = 16, mergeMs = 1_000 }: Options = {}
): Effect.fn.Return<Once<Session>, OnceError, Scope.Scope> {
  yield* prepare(sql)
  const withSession = yield* sessions(sql, max)
  const active = new Map<string, MessageIdentity>()
  yield* tidy(sql, active, keepMs, mergeMs)

  const handle: Once<Session>["handle"] = (message, use) =>
    Effect.tap(
      withSession((held) => handling(held, message, use)),
      (outcome) =>
        Effect.sync(() => {
          if (outcome === "handled") active.set(JSON.stringify([message.topic, message.subscription]), message)
        })
    )
  return {
    handle,
    forget: ({ name, topic }) =>
      attempt("forget marks", async () => {
        await sql`delete from millrace_once.handled_range where topic = ${topic} and subscription = ${name}`
        await sql`delete from millrace_once.handled where topic = ${topic} and subscription = ${name}`
      })
  }
})
