// A statement with the commits of several partitions fails: only the commit at fault fails, whatever the error is, and by its kind.
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { query, type Sql } from "../../../../src/postgres/client/client.ts"
import * as PostgresStore from "../../../../src/postgres/store/store.ts"
import { application, batchOf, counted, counting, events, failureOf } from "../../../fault/commits.ts"
import { watched } from "../../../fault/mutants.ts"
import { engine } from "../../../support/engine.ts"
import { server } from "../../../support/postgres.ts"

const scope = Scope.makeUnsafe()
let root = ""
beforeAll(async () => {
  root = await Effect.runPromise(Scope.provide(server, scope))
})
afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

const one = counting()
/** Refuses rows whose key begins with `bad`, with the error that the SQL raises. */
const refusing = (sql: Sql, raise: string) =>
  query("create a trigger", () =>
    sql.unsafe(`create or replace function refuse() returns trigger language plpgsql as $$
      begin if new.key like 'bad%' then ${raise}; end if; return new; end $$;
      create or replace trigger refuse before insert or update on counting_v1.notes for each row execute function refuse()`)
  )
/** Commits four partitions at once, of which the third is refused, and returns how each failed. */
const together = Effect.fnUntraced(function* (sql: Sql) {
  const shared: Array<string> = []
  const store = PostgresStore.make(
    watched(sql, {
      statement: (text) => {
        if (text.includes("held as materialized")) shared.push(text)
        return text
      }
    })
  )
  const claims = yield* Effect.forEach([0, 1, 2, 3], (partition) => store.claim(one, events.name, partition, 1))
  const exits = yield* Effect.forEach(
    claims,
    (claim) =>
      Effect.exit(store.commit(one, claim, batchOf(claim, [claim.partition === 2 ? "bad" : `a${claim.partition}`]))),
    { concurrency: "unbounded" }
  )
  assert.isNotEmpty(shared, "no statement had several commits")
  assert.deepStrictEqual(Object.keys(yield* counted(sql)), ["a0", "a1", "a3"])
  return exits.map(failureOf)
})
const raising = (code: string) => `raise exception 'refused' using errcode = '${code}'`

describe("an error of a statement that several partitions share is that of the commit at fault alone", () => {
  const outcomes: Readonly<Record<string, ReadonlyArray<readonly [what: string, raise: string]>>> = {
    Unstorable: [
      ["a trigger's own exception", "raise exception 'no'"],
      ["a limit (54000)", raising("54000")],
      ["a recursion that is too deep (54001)", raising("54001")],
      ["a check option (44000)", raising("44000")],
      ["an assertion (P0004)", "assert false, 'no'"],
      ["a case without a branch (20000)", "case new.key when 'x' then null; end case"],
      ["a division by zero (22012)", "perform 1 / (length(new.key) - 3)"],
      ["a SQLSTATE that PostgreSQL does not know", raising("MY001")],
      ["an exclusion constraint (23P01)", raising("23P01")],
      ["a procedure in another language (38000)", raising("38000")],
      ["a cancelled statement (57014)", raising("57014")],
      ["no memory (53200)", raising("53200")],
      ["an internal error (XX000)", raising("XX000")]
    ],
    StoreError: [
      ["a full disk (53100)", raising("53100")],
      ["a missing privilege (42501)", raising("42501")],
      ["a missing table (42P01)", "perform 1 from missing"],
      ["a missing function (42883)", "perform missing(new.key)"],
      ["a feature that is not supported (0A000)", raising("0A000")],
      ["a read-only transaction (25006)", raising("25006")],
      ["a damaged index (XX002)", raising("XX002")],
      ["a system error (58030)", raising("58030")]
    ]
  }
  it.live(
    "and the others are committed",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { sql } = yield* engine(root, application)
          for (const [tag, all] of Object.entries(outcomes)) {
            for (const [what, raise] of all) {
              yield* refusing(sql, raise)
              yield* query("empty", () =>
                sql.unsafe(`truncate counting_v1.notes, counting_v1.sums, millrace.outbox, millrace.dead_letters, millrace.late_events;
                  update millrace.progress set next_position = 0, outbox_seq = 0`)
              )
              assert.deepStrictEqual(yield* together(sql), ["none", "none", tag, "none"], what)
            }
          }
        })
      ),
    60_000
  )
  const texts = "(select string_agg(md5(i::text), '') from generate_series(1, 1000) i)"
  const deferred = (raise: string) => `create function refuse_later() returns trigger language plpgsql as $$
      begin if new.key = 'bad' then ${raise}; end if; return new; end $$;
      create constraint trigger later after insert or update on counting_v1.notes deferrable initially deferred
        for each row execute function refuse_later()`
  for (const [what, change] of [
    ["a check constraint of the user", "alter table counting_v1.notes add check (key <> 'bad')"],
    [
      "a foreign key of the user",
      `create table keys (key text primary key); insert into keys values ('a0'), ('a1'), ('a3');
      alter table counting_v1.notes add foreign key (key) references keys`
    ],
    [
      "a text that is too long for an index of the user",
      `create function long(key text) returns text immutable language sql as $$
        select case when key = 'bad' then ${texts} else key end $$;
      create index on counting_v1.notes (long(key))`
    ],
    [
      "a domain of the user",
      `create domain good as text check (value <> 'bad');
      create function cast_key() returns trigger language plpgsql as $$ begin perform new.key::good; return new; end $$;
      create trigger cast_key after insert on counting_v1.sums for each row execute function cast_key()`
    ],
    [
      "a deferred foreign key of the user",
      `create table keys (key text primary key); insert into keys values ('a0'), ('a1'), ('a3');
      alter table counting_v1.notes add foreign key (key) references keys deferrable initially deferred`
    ],
    ["a deferred trigger of the user", deferred("raise exception 'no'")]
  ] as const) {
    it.live(`so is ${what}`, () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { sql } = yield* engine(root, application)
          yield* query("change", () => sql.unsafe(change))
          assert.deepStrictEqual(yield* together(sql), ["none", "none", "Unstorable", "none"])
        })
      )
    )
  }
  it.live("a deferred trigger that needs a person halts its commit alone", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { sql } = yield* engine(root, application)
        yield* query("change", () => sql.unsafe(deferred("perform 1 from missing")))
        assert.deepStrictEqual(yield* together(sql), ["none", "none", "StoreError", "none"])
        yield* query("drop", () => sql.unsafe("drop trigger later on counting_v1.notes"))
      })
    )
  )
})
