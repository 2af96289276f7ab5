// A commit statement while it is built: its parameters, its parts in order, and its fence.
import type { Changes, Claim } from "../../runner/store.ts"
import { arrayOf } from "../client/columns.ts"

/** A value of a parameter. Arrays are sent in their text form. */
export type Parameter = string | number | null | Uint8Array
/** A statement's text and its parameters. The text depends only on which parts a batch has, so that few statements are prepared. */
export interface CommitStatement {
  readonly text: string
  readonly parameters: ReadonlyArray<Parameter>
}

/** The changes that one partition commits, and its claim. */
export interface PartitionCommit {
  readonly claim: Claim
  readonly changes: Changes
}
/** A change, and the index of the commit that it belongs to. */
export interface FromCommit<A> {
  readonly part: number
  readonly of: A
}

/** How many messages a batch publishes, which is how far the stream's sequence number moves; of a muted batch, how many it leaves out. */
export const messagesOf = (changes: Changes): number =>
  [...changes.segments, ...(changes.marks ?? [])].reduce((sum, { messages }) => sum + messages, 0) +
  Object.values(changes.muted ?? {}).reduce((sum, messages) => sum + messages, 0) +
  changes.windows.reduce((sum, { deltas, window }) => sum + (window.topic === undefined ? 0 : deltas.length), 0)

/** How many of them are time marks. */
const marksOf = ({ marks = [] }: Changes): number => marks.reduce((sum, { messages }) => sum + messages, 0)

/** The chunk that a batch's ids are added to. Small batches fill a chunk together, so that a trickle of events does not take a row each. */
export const seenChunkOf = (claim: Claim, changes: Changes): { readonly chunk: number; readonly fill: number } => {
  const count = changes.seen?.count ?? 0
  if (count === 0) return { chunk: claim.seenChunk, fill: claim.seenFill }
  return claim.seenFill + count > chunkIds
    ? { chunk: claim.seenChunk + 1, fill: count }
    : { chunk: claim.seenChunk, fill: claim.seenFill + count }
}
const chunkIds = 256

/** The least power of two that is not below a number. */
const powerOfTwo = (least: number): number => 2 ** Math.ceil(Math.log2(Math.max(1, least)))

const textOf = (value: Parameter): string | number | null =>
  value instanceof Uint8Array
    ? `\\x${Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("hex")}`
    : value

/** Common table expressions, each of which refers to the one before, so that they run in order. */
export class StatementParts {
  private readonly texts: Array<string> = []
  private readonly parameters: Array<Parameter> = []
  private count = 0
  private last: string | undefined
  /** Whether the statement has several commits. */
  readonly several: boolean

  constructor(commits: number, fenceTexts: (parameter: (value: Parameter) => string) => ReadonlyArray<string>) {
    this.several = commits > 1
    this.texts.push(...fenceTexts((value) => this.parameter(value)))
  }
  parameter(value: Parameter): string {
    return `$${this.parameters.push(value)}`
  }
  /**
   * A few rows of parameters, by column name and type, to select from, the first of which is joined with `fence.part`. In a statement of one commit they
   * are written out, with rows of nulls, which join nothing, up to the next power of two: each number of rows is a statement to prepare. In a statement
   * of several commits they are sent as arrays, as `manyRows` are.
   */
  rows(
    columns: ReadonlyArray<readonly [name: string, type: string]>,
    rows: ReadonlyArray<ReadonlyArray<Parameter>>,
    alias: string
  ): string {
    if (this.several) return this.manyRows(columns, rows, alias)
    const names = columns.map(([name]) => name).join(", ")
    const padded = Array.from({ length: powerOfTwo(rows.length) }, (_, i) => rows[i] ?? columns.map(() => null))
    const values = padded.map(
      (row) => `(${row.map((value, i) => `${this.parameter(value)}::${columns[i]![1]}`).join(", ")})`
    )
    return `(values ${values.join(", ")}) as ${alias}(${names})`
  }
  /**
   * Rows of parameters, sent as one array for each column: the text, and with it the prepared statement, does not depend on their number, and a
   * statement may have 65,534 parameters only.
   */
  manyRows(
    columns: ReadonlyArray<readonly [name: string, type: string]>,
    rows: ReadonlyArray<ReadonlyArray<Parameter>>,
    alias: string
  ): string {
    const names = columns.map(([name]) => name).join(", ")
    const arrays = columns.map(
      ([, type], i) => `${this.parameter(arrayOf(rows.map((row) => textOf(row[i]!))))}::${type}[]`
    )
    return `unnest(${arrays.join(", ")}) as ${alias}(${names})`
  }
  /** Adds a part with a name of its own, which refers to whichever parts it must follow. */
  add(text: string): void {
    this.texts.push(text)
  }
  /** Adds a part that only selects. Returns its name. */
  input(text: string): string {
    const name = `i${++this.count}`
    this.texts.push(`${name} as materialized (${text})`)
    return name
  }
  /** Adds a part that writes; `after` makes it run after the part before. Returns its name. */
  write(text: (after: string) => string): string {
    const name = `w${++this.count}`
    this.texts.push(`${name} as (${text(this.after())})`)
    this.last = name
    return name
  }
  // a scalar subquery is evaluated once; as a relation it would be evaluated for each row that it is joined to
  private after(): string {
    const { last } = this
    return last === undefined ? "" : `, (select where (select count(*) from ${last}) >= 0) as after_${last}`
  }
  /** `answer` is the select that ends the statement; its argument is a condition that evaluates the last part, empty if there is none. */
  statement(answer?: (ran: string) => string): CommitStatement {
    const { last } = this
    // evaluating the last part evaluates those before it
    const select =
      answer === undefined
        ? `select fence.part, fence.mode, fence.outbox_seq from fence${this.after()}`
        : answer(last === undefined ? "" : `(select count(*) from ${last}) >= 0`)
    return { text: `with ${this.texts.join(",\n")}\n${select}`, parameters: this.parameters }
  }
}

/** Whether a batch is muted, as a boolean's text. A live partition refuses it, or its messages would be lost. */
const mutedText = ({ muted }: Changes) => (muted === undefined ? "f" : "t")
/** The streak of failures as it is stored: JSON, whose escapes make any text storable. */
const failingText = ({ failing }: Changes) => (failing === undefined ? null : JSON.stringify(failing))
/** What handlers have published after a commit, see `Claim.published`; undefined if the commit does not change it, or it is not known. */
export const publishedAfter = ({ changes, claim }: PartitionCommit): Readonly<Record<string, number>> | undefined => {
  const { muted, segments } = changes
  const counts =
    muted === undefined ? segments.map(({ messages, topic }) => [topic, messages] as const) : Object.entries(muted)
  if (claim.published === undefined || counts.length === 0) return undefined
  const published = { ...claim.published }
  for (const [topic, messages] of counts) published[topic] = (published[topic] ?? 0) + messages
  return published
}
/** Columns that a commit writes only if they change: most projections neither read nor feed another one. */
const jsonColumns: ReadonlyArray<{
  readonly name: string
  readonly of: (commit: PartitionCommit) => object | undefined
}> = [
  { name: "stream_times", of: ({ changes }) => changes.streamTimes },
  { name: "announced", of: ({ changes }) => changes.announced },
  { name: "published", of: publishedAfter }
]
const textOrNone = (value: object | undefined) => (value === undefined ? undefined : JSON.stringify(value))

/**
 * Whether a partition may be moved to a position: a frozen one only when the time of its freeze is over, and a follower up to where the live build
 * is, or `own_bound` if that does not read the topic. The position of the live build may be read before it moves on, never after, so a follower does
 * not pass it.
 */
const mayMove = (row: string, position: string) => `(${row}.mode <> 'frozen' or ${row}.frozen_until < clock_timestamp())
    and (${row}.mode <> 'follower' or ${position} <= coalesce((select l.next_position from millrace.live v join millrace.progress l
      on (l.projection, l.version, l.topic, l.partition) = (v.projection, v.version, ${row}.topic, ${row}.partition)
      where v.projection = ${row}.projection), millrace.own_bound(${row}.projection, ${row}.version, ${row}.topic, ${row}.partition)))`
/** How a commit changes the columns of the mode: it counts messages, which a follower does not publish, and ends a freeze. */
const modeColumns = (
  row: string,
  messages: string
) => `outbox_seq = ${row}.outbox_seq + case when ${row}.mode <> 'follower' then ${messages} else 0 end,
    muted = ${row}.muted + case when ${row}.mode = 'follower' then ${messages} else 0 end,
    mode = case when ${row}.mode = 'frozen' then 'live' else ${row}.mode end, frozen_until = null, frozen_by = null,`

type StatementTexts = (parameter: (value: Parameter) => string) => ReadonlyArray<string>
/** The fence of one partition's commit. */
export const fence =
  (commit: PartitionCommit): StatementTexts =>
  (parameter) => {
    const { changes, claim } = commit
    const { chunk, fill } = seenChunkOf(claim, changes)
    const position = `${parameter(changes.position)}::int8`
    const messages = `${parameter(messagesOf(changes))}::int8`
    const marks = marksOf(changes)
    const times = jsonColumns
      .filter(({ of }) => of(commit) !== undefined)
      .map(({ name, of }) => `${name} = ${parameter(JSON.stringify(of(commit)))}::text::jsonb, `)
    return [
      `fence as (update millrace.progress set commit_no = commit_no + 1, next_position = ${position},
    fingerprint = ${parameter(changes.fingerprint ?? null)}::text, stream_time = ${parameter(changes.streamTime ?? null)}::int8,
    ${modeColumns("progress", messages)}
    events = events + ${parameter(changes.events)}::int8, duplicates = duplicates + ${parameter(changes.duplicates)}::int8,
    seen_chunk = ${parameter(chunk)}::int8, seen_fill = ${parameter(fill)}::int4,
    failing = ${parameter(failingText(changes))}::text, ${times.join("")}${marks === 0 ? "" : `marks = marks + ${parameter(marks)}::int8,`}
    moved_at = case when next_position < ${position} then clock_timestamp() else moved_at end,
    committed_at = clock_timestamp(), halted = null, waiting = null, waiting_since = null
  where projection = ${parameter(claim.projection)}::text and version = ${parameter(claim.version)}::int4
    and topic = ${parameter(claim.topic)}::text and partition = ${parameter(claim.partition)}::int4
    and incarnation = ${parameter(claim.incarnation)}::uuid and commit_no = ${parameter(claim.commitNo)}::int8
    and (mode = 'follower' or not ${parameter(mutedText(changes))}::text::bool) and ${mayMove("progress", position)}
  returning 0 as part, projection, version, topic, partition, incarnation, mode, outbox_seq)`
    ]
  }
/** The fences of several partitions, which are all locked in the order of partitions before any is moved. */
export const fences =
  (commits: ReadonlyArray<PartitionCommit>): StatementTexts =>
  (parameter) => {
    const column = (of: (commit: PartitionCommit) => string | number | undefined) => parameter(arrayOf(commits.map(of)))
    const chunk = (commit: PartitionCommit) => seenChunkOf(commit.claim, commit.changes)
    const times = jsonColumns.filter(({ of }) => commits.some((commit) => of(commit) !== undefined))
    return [
      `claims as materialized (select * from unnest(${column(({ claim }) => claim.projection)}::text[], ${column(({ claim }) => claim.version)}::int4[],
        ${column(({ claim }) => claim.topic)}::text[], ${column(({ claim }) => claim.partition)}::int4[],
        ${column(({ claim }) => claim.incarnation)}::uuid[], ${column(({ claim }) => claim.commitNo)}::int8[],
        ${column(({ changes }) => changes.position)}::int8[], ${column(({ changes }) => changes.fingerprint)}::text[],
        ${column(({ changes }) => changes.streamTime)}::int8[], ${column(({ changes }) => messagesOf(changes))}::int8[],
        ${column(({ changes }) => changes.events)}::int8[], ${column(({ changes }) => changes.duplicates)}::int8[],
        ${column((commit) => chunk(commit).chunk)}::int8[], ${column((commit) => chunk(commit).fill)}::int4[],
        ${column(({ changes }) => failingText(changes) ?? undefined)}::text[],
        ${column(({ changes }) => mutedText(changes))}::bool[],
        ${column(({ changes }) => marksOf(changes))}::int8[], ${column((commit) => commits.indexOf(commit))}::int4[]${times.map(({ of }) => `, ${column((commit) => textOrNone(of(commit)))}::text[]`).join("")})
        as c(projection, version, topic, partition, incarnation, commit_no, position, fingerprint, stream_time, messages, events, duplicates,
          seen_chunk, seen_fill, failing, muted, marks, part${times.map(({ name }) => `, ${name}`).join("")}))`,
      `held as materialized (select c.part from millrace.progress p join claims c using (projection, version, topic, partition)
        where p.incarnation = c.incarnation and p.commit_no = c.commit_no
          and (p.mode = 'follower' or not c.muted) and ${mayMove("p", "c.position")}
        order by topic, partition for update of p)`,
      `fence as (update millrace.progress p set commit_no = p.commit_no + 1, next_position = c.position, fingerprint = c.fingerprint,
        stream_time = c.stream_time, ${modeColumns("p", "c.messages")}
        events = p.events + c.events, duplicates = p.duplicates + c.duplicates, seen_chunk = c.seen_chunk, seen_fill = c.seen_fill,
        failing = c.failing, ${times.map(({ name }) => `${name} = coalesce(c.${name}::jsonb, p.${name}), `).join("")}
        marks = p.marks + c.marks, moved_at = case when p.next_position < c.position then clock_timestamp() else p.moved_at end,
        committed_at = clock_timestamp(), halted = null, waiting = null, waiting_since = null
      from claims c join held using (part)
      where p.projection = c.projection and p.version = c.version and p.topic = c.topic and p.partition = c.partition
        and p.incarnation = c.incarnation and p.commit_no = c.commit_no
      returning c.part, p.projection, p.version, p.topic, p.partition, p.incarnation, p.mode, p.outbox_seq)`
    ]
  }

/** The columns that a segment is written with. */
export const outboxColumns =
  "projection, source, partition, first_seq, messages, incarnation, target, target_partition, meta, vals"
