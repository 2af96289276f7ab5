// Mutants: the event store without one of its protections, each as a patch of the source, which the harness must find.
import type { Patch } from "../harness/patched-copy.ts"
import { type Finding, type Hunt, isCaught } from "../harness/command.ts"
import { execute } from "./execute.ts"

/** A mutant, and what it must be found by: at least one of these. */
export interface Mutant {
  readonly name: string
  readonly patches: ReadonlyArray<Patch>
  readonly found: ReadonlyArray<Finding>
  /** Found where appends write no inline rows: those make one refusal refuse all of a statement, which hides it. */
  readonly isPlain?: true
}
const statement = "src/postgres/events/append-sql.ts"
const appender = "src/postgres/events/appender.ts"
const sql = (find: string, replace: string): ReadonlyArray<Patch> => [{ file: statement, find, replace }]

/**
 * In the order in which the protocol of aggregates names them. Four of it are not here, because random runs do not find them: the appender looks
 * up refused commands that were answered before, sends commands again whose expected version the stream has, and sends statements again that
 * met a deadlock; and what commands follow matters rarely.
 */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "a refused command is not looked up",
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
    patches: sql("const isAppended = `s.added > 0 and s.version > 0`", "const isAppended = `s.added > 0`"),
    found: ["wrong", "order", "doubled", "lost", "hang"]
  },
  {
    name: "refused commands count into positions",
    isPlain: true,
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
    name: "inline rows are written for commands that follow what is not there",
    patches: sql("exists (select from behind) or exists (select from astray)\n", "exists (select from behind)\n"),
    found: ["wrong"]
  }
]

/** Runs the harness against a mutant, without crashes of the server. */
export const hunt: Hunt<Mutant> = async ({ found, isPlain, patches }, seed, say) => {
  const phases = [
    { streams: 1, ms: 4_000 },
    { streams: 20, ms: 6_000 },
    { streams: 1_000, ms: 4_000 }
  ]
  const report = await execute({
    seed,
    on: "embedded",
    phases,
    isInline: isPlain !== true,
    crashes: 0,
    mutant: patches,
    patienceMs: 60_000,
    say
  })
  return { caught: isCaught(found, report), report }
}
