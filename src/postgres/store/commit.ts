// The commit statement: fence, rows, windows, late and dead events, ids and outbox of one batch, in one statement without BEGIN.
//
// Every part selects from `fence` and reads no other table but those it writes, for all parts share a snapshot that was taken before
// the fence waited. Rows are locked in the order of their keys, tables in the order of their names, each part after the one before,
// so two commits that write the same rows wait for one another and never deadlock.
//
// Small commits of several partitions may share a statement: each row belongs to a `part`, and is written where the part's fence holds.
import { keyText } from "../../model/fields.ts"
import type { Projection } from "../../model/projection.ts"
import type { TableChange, WindowChange } from "../../runner/store.ts"
import { type Commit, fence, fences, type Of, Parts, type Statement } from "./commit-parts.ts"
import { deadPart, latePart, retriedPart, seenPart, segmentPart } from "./commit-records.ts"
import { tableParts, windowParts } from "./commit-rows.ts"
import { relationsOf, type Placed } from "./ddl.ts"

/** Builds the commit statements of one projection. */
export class CommitBuilder {
  private readonly relations: ReadonlyMap<string, Placed>

  constructor(projection: Projection.Any) {
    this.relations = new Map(relationsOf(projection).map((relation) => [relation.name, relation]))
  }

  /**
   * One statement for the commits of one or several partitions; it returns the `part` (the commit's index), `mode` and `outbox_seq` of
   * each that holds, and no row for one that is fenced. Several must not write the same row: see `shareable`.
   */
  build(commits: ReadonlyArray<Commit>): Statement {
    const parts = new Parts(commits.length, commits.length === 1 ? fence(commits[0]!) : fences(commits))
    const behind = commits.map(() => 0)
    for (const [name, changes] of byRelation(commits)) {
      const relation = this.relations.get(name)!
      const tables = changes.filter((change) => "table" in change.of)
      if (tables.length > 0) tableParts(parts, relation, tables as ReadonlyArray<Of<TableChange>>)
      else windowParts(parts, relation, changes as ReadonlyArray<Of<WindowChange>>, behind)
    }
    segmentPart(parts, commits, behind)
    latePart(parts, commits)
    deadPart(parts, commits)
    retriedPart(parts, commits)
    seenPart(parts, commits)
    return parts.statement()
  }

  /** The keys of the rows that a commit writes, where it is small and simple enough to share a statement; else undefined. */
  shareable({ changes }: Commit): ReadonlyArray<string> | undefined {
    const { deadLetters, late, retried = [], segments, tables, windows } = changes
    const rows = [
      ...tables.map(({ table, upserts }) => [table.name, upserts] as const),
      ...windows.map(({ deltas, window }) => [window.name, deltas.map(({ row }) => row)] as const)
    ]
    const count = rows.reduce((sum, [, of]) => sum + of.length, deadLetters.length + late.length + retried.length)
    if (count > sharedRows || segments.some(({ vals }) => vals.length > sharedCharacters)) return undefined
    if (tables.some(({ deletes, updates }) => deletes.length + updates.length > 0)) return undefined
    return rows.flatMap(([name, of]) => of.map((row) => `${name} ${keyText(this.relations.get(name)!.key, row)}`))
  }
}
/** Beyond these a commit has enough to do to go alone. */
const sharedRows = 200
const sharedCharacters = 64_000

/** The changes of all commits by the name of what they change, in the order of names. */
const byRelation = (commits: ReadonlyArray<Commit>) => {
  const found = commits.flatMap(({ changes }, part) =>
    [...changes.tables, ...changes.windows].map((of) => ({ part, of }))
  )
  return [...Map.groupBy(found, ({ of }) => nameOf(of))].toSorted(([a], [b]) => (a < b ? -1 : 1))
}
const nameOf = (change: TableChange | WindowChange) => ("table" in change ? change.table.name : change.window.name)
