// Mutants: the event store without one of its protections, each as a patch of the source, which the harness must find.
import type { Patch } from "../harness/patched-copy.ts"
import { type Finding, type Hunt, isCaught } from "../harness/command.ts"
import { execute } from "./execute.ts"
import type { ConcernName } from "./run.ts"

/** A mutant, and what it must be found by: at least one of these. */
export interface Mutant {
  readonly name: string
  readonly patches: ReadonlyArray<Patch>
  readonly found: ReadonlyArray<Finding>
  /** Found where appends write no inline rows: those make one refusal refuse all of a statement, which hides it. */
  readonly isPlain?: true
  /** Found where each command is judged: the statement that expects all commands to pass hides it. */
  readonly isJudged?: true
  /** Found where nothing else happens, so that two processes most often do the same at once, and commands are sent twice more often. */
  readonly isCalm?: true
  /** The concern that finds it; ledgers unless given. */
  readonly of?: ConcernName
}
const statement = "src/postgres/events/append-sql.ts"
const appender = "src/postgres/events/appender.ts"
const sql = (find: string, replace: string): ReadonlyArray<Patch> => [{ file: statement, find, replace }]

/**
 * In the order in which the protocol of aggregates names them, then those of the statement that expects all commands to pass, and of the concerns
 * beside ledgers. Three of the protocol are not here, because random runs do not find them: the appender sends commands again whose expected
 * version the stream has, and sends statements again that met a deadlock; and what commands follow matters rarely, for which there are directed
 * tests.
 */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "a refused command is not looked up",
    isPlain: true,
    isJudged: true,
    isCalm: true,
    patches: [
      {
        file: appender,
        find: "      const found = await this.answersOf(refused.map(([{ row }]) => row))\n",
        replace: "      const found = new Map<number, LookedUp>()\n"
      }
    ],
    found: ["wrong"]
  },
  {
    name: "commands that were answered before are appended again",
    patches: [
      {
        file: statement,
        find: "where (l.topic_id, l.partition, l.command_id, l.entity) = (r.topic_id, r.partition, r.command_id, r.stream) and l.entity is not null\n      limit 1) b",
        replace:
          "where false and (l.topic_id, l.partition, l.command_id, l.entity) = (r.topic_id, r.partition, r.command_id, r.stream) and l.entity is not null\n      limit 1) b"
      },
      {
        file: "migrations/0028_events.sql",
        find: "create unique index log_batch_command",
        replace: "create index log_batch_command"
      }
    ],
    found: ["doubled", "wrong"]
  },
  {
    name: "a command id is not unique in its stream",
    isPlain: true,
    isJudged: true,
    patches: [
      {
        file: "migrations/0028_events.sql",
        find: "create unique index log_batch_command",
        replace: "create index log_batch_command"
      }
    ],
    found: ["doubled", "wrong"]
  },
  {
    name: "the expectation is not checked under the lock",
    patches: sql("(excluded.asked in (-1, s.version) or", "(excluded.asked >= -1 or"),
    found: ["wrong"]
  },
  {
    name: "a row that is inserted at version 0 passes",
    isPlain: true,
    isJudged: true,
    patches: sql("const isAppended = `s.added > 0 and s.version > 0`", "const isAppended = `s.added > 0`"),
    found: ["wrong", "order", "doubled", "lost", "hang"]
  },
  {
    name: "refused commands count into positions",
    isPlain: true,
    isJudged: true,
    patches: sql(
      "from head h join fresh f using (topic_id, stream) where h.ok and (select",
      "from head h join fresh f using (topic_id, stream) where (select"
    ),
    found: ["wrong", "order", "lost", "doubled", "hang"]
  },
  {
    name: "segments are made of what was asked for",
    patches: sql(
      "join req r using (i) cross join lateral (\n      select string_agg(piece",
      "join req r on r.partition = o.partition and r.topic_id = o.topic_id cross join lateral (\n      select string_agg(piece"
    ),
    found: ["doubled", "order", "lost", "wrong"]
  },
  {
    name: "inline rows are written for repeated commands",
    patches: sql(
      "or exists (select from astray)\n      or exists (select from done))`",
      "or exists (select from astray))`"
    ),
    found: ["wrong"]
  },
  {
    name: "a refused command does not refuse a statement that expects all to pass",
    isPlain: true,
    patches: sql(
      "case when not h.ok then ${isOnly ? refuseOnly : judge} = 0 when h.remembered > 0",
      "case when h.remembered > 0"
    ),
    found: ["wrong", "order", "lost", "doubled", "hang"]
  },
  {
    name: "an append without segments passes where relays publish",
    patches: sql("` when p.published then ${judge}`", '""'),
    found: ["lost", "wrong"]
  },
  {
    name: "tags are checked by the snapshot",
    of: "boundaries",
    isCalm: true,
    patches: sql(
      "version = case when coalesce(excluded.asked, t.version) = t.version then",
      "version = case when excluded.asked is null or excluded.asked = (select e.version from millrace.event_tag e where (e.topic_id, e.tag) = (t.topic_id, t.tag)) then"
    ),
    found: ["wrong"]
  },
  {
    name: "tags of the condition alone are not checked",
    of: "boundaries",
    isCalm: true,
    patches: sql(
      "    where exists (select from fresh) and (select count(*) from head) >= 0 order by topic_id, tag",
      "    where added > 0 and exists (select from fresh) and (select count(*) from head) >= 0 order by topic_id, tag"
    ),
    found: ["wrong"]
  },
  {
    name: "a timer's command has another id each time, and its append leaves the timer",
    of: "timers",
    patches: [
      {
        file: "src/aggregate/timer-worker.ts",
        find: "{ commandId: id, timer: id, context }",
        replace: "{ commandId: crypto.randomUUID(), context }"
      },
      {
        file: "src/aggregate/timer-worker.ts",
        find: 'if (outcome !== "gone") yield* timers.remove(due.id)',
        replace: 'if (outcome !== "gone") yield* Effect.andThen(Effect.sleep(1_000), timers.remove(due.id))'
      }
    ],
    found: ["doubled"]
  },
  {
    name: "a claim of a timer never ends",
    of: "timers",
    patches: [
      {
        file: "src/postgres/events/timers.ts",
        find: "next_try = now() + interval '${leaseMs} ms'",
        replace: "next_try = now() + interval '1 day'"
      }
    ],
    found: ["hang"]
  },
  {
    // with the notification alone, a late append is too rare
    name: "an append does not ask for its keys, and processes are not notified of erasures",
    of: "erasure",
    patches: [
      ...sql(
        "where (a.subject, a.number) = (q.subject, q.number)) having count(*) > 0",
        "where (a.subject, a.number) = (q.subject, q.number)) having count(*) < 0"
      ),
      {
        file: "src/postgres/store/subject-keys.ts",
        find: "told as (select pg_notify(${erasureChannel}, ${subject}))",
        replace: "told as (select ${erasureChannel}::text, ${subject}::text)"
      }
    ],
    found: ["wrong"]
  },
  {
    name: "an erasure leaves snapshots",
    of: "erasure",
    patches: [
      {
        file: "src/system/erasure.ts",
        find: "where subjects && array[${subject}::text]`",
        replace: "where false and subjects && array[${subject}::text]`"
      },
      {
        file: "src/postgres/store/subject-keys.ts",
        find: "delete from millrace.event_snapshot where subjects",
        replace: "delete from millrace.event_snapshot where false and subjects"
      }
    ],
    found: ["wrong"]
  }
]

/** Runs the harness against a mutant, without crashes of the server. */
export const hunt: Hunt<Mutant> = async ({ found, isCalm, isJudged, isPlain, of, patches }, seed, say) => {
  const ledgers = [
    { streams: 1, ms: 4_000 },
    { streams: 20, ms: 6_000 },
    { streams: 1_000, ms: 4_000 }
  ]
  const report = await execute({
    seed,
    on: "embedded",
    phases: of === undefined ? ledgers : [{ of, streams: of === "boundaries" ? 3 : 6, ms: 8_000 }],
    isDisturbed: isCalm !== true,
    ...(isCalm === true ? { repeats: 0.7 } : {}),
    isInline: isPlain !== true,
    judgesAll: isJudged === true,
    crashes: 0,
    mutant: patches,
    patienceMs: of === undefined ? 60_000 : 40_000,
    say
  })
  return { caught: isCaught(found, report), report }
}
