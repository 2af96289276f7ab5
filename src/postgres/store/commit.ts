// Builds the statement that commits a batch: fence, rows, windows, late events, dead letters, ids and outbox, without a transaction block.
//
// Every part selects from `fence` and reads only the tables that it writes, because all parts share a snapshot that was taken before
// the fence waited for its lock. Rows are locked in the order of their keys, tables in the order of their names, and parts run one after
// another, so that two commits that write the same rows wait for each other and never deadlock.
//
// Small commits of several partitions may share a statement: each row belongs to a `part`, and is written if the part's fence holds.
import { keyText } from "../../model/fields.ts"
import type { Projection } from "../../model/projection.ts"
import type { TableChange, WindowChange } from "../../runner/store.ts"
import {
  type PartitionCommit,
  fence,
  fences,
  type FromCommit,
  StatementParts,
  type CommitStatement
} from "./commit-parts.ts"
import { deadPart, discardedPart, latePart, retriedPart, seenPart, segmentPart } from "./commit-records.ts"
import { slotsOf, timerParts } from "./commit-timers.ts"
import { journalPart } from "./lookups.ts"
import { tableParts, windowParts } from "./commit-rows.ts"
import { relationsOf, type StoredRelation } from "./ddl.ts"

/** Builds the commit statements of one projection. */
export class CommitBuilder {
  private readonly relations: ReadonlyMap<string, StoredRelation>

  constructor(projection: Projection.Any) {
    this.relations = new Map(relationsOf(projection).map((relation) => [relation.name, relation]))
  }

  /**
   * The statement for the commits of one or several partitions. For each commit whose fence holds it returns the `part` (the commit's index),
   * `mode` and `outbox_seq`; for one that is fenced it returns no row. Two commits must not write the same row: see `shareable`.
   */
  build(commits: ReadonlyArray<PartitionCommit>): CommitStatement {
    const parts = new StatementParts(commits.length, commits.length === 1 ? fence(commits[0]!) : fences(commits))
    // before all rows: an append that fires a timer locks it before its rows, too
    timerParts(parts, commits)
    // the stream has messages of handlers, then those of windows, then time marks
    const behind = commits.map(({ changes: { marks = [] } }) => marks.length)
    for (const [name, changes] of byRelation(commits)) {
      const relation = this.relations.get(name)!
      const tables = changes.filter((change) => "table" in change.of)
      if (tables.length > 0) tableParts(parts, relation, tables as ReadonlyArray<FromCommit<TableChange>>)
      else windowParts(parts, relation, changes as ReadonlyArray<FromCommit<WindowChange>>, behind)
    }
    segmentPart(parts, commits, behind, ({ segments }) => segments)
    segmentPart(
      parts,
      commits,
      commits.map(() => 0),
      ({ marks = [] }) => marks
    )
    latePart(parts, commits)
    deadPart(parts, commits)
    retriedPart(parts, commits)
    discardedPart(parts, commits)
    seenPart(parts, commits)
    journalPart(parts, commits)
    return parts.statement()
  }

  /** The keys of the rows that a commit writes, if it is small and simple enough to share a statement; else undefined. */
  shareable({ changes, claim }: PartitionCommit): ReadonlyArray<string> | undefined {
    const { commands = { cancelled: [], pending: [] } } = changes
    const { deadLetters, discarded = [], late, retried = [], segments, tables, windows } = changes
    const rows = [
      ...tables.map(({ table, upserts }) => [table.name, upserts] as const),
      ...windows.map(({ deltas, window }) => [window.name, deltas.map(({ row }) => row)] as const)
    ]
    const others =
      commands.pending.length +
      commands.cancelled.length +
      deadLetters.length +
      discarded.length +
      late.length +
      retried.length
    const count = rows.reduce((sum, [, of]) => sum + of.length, others)
    if (count > sharedRows || segments.some(({ vals }) => vals.length > sharedCharacters)) return undefined
    if (tables.some(({ deletes, updates }) => deletes.length + updates.length > 0)) return undefined
    return [
      ...rows.flatMap(([name, of]) => of.map((row) => `${name} ${keyText(this.relations.get(name)!.key, row)}`)),
      ...slotsOf(claim, commands)
    ]
  }
}
/** A commit with more rows or characters gets a statement of its own. */
const sharedRows = 200
const sharedCharacters = 64_000

/** The changes of all commits by the name of the read model, sorted by name. */
const byRelation = (commits: ReadonlyArray<PartitionCommit>) => {
  const found = commits.flatMap(({ changes }, part) =>
    [...changes.tables, ...changes.windows].map((of) => ({ part, of }))
  )
  return [...Map.groupBy(found, ({ of }) => nameOf(of))].toSorted(([a], [b]) => (a < b ? -1 : 1))
}
const nameOf = (change: TableChange | WindowChange) => ("table" in change ? change.table.name : change.window.name)
